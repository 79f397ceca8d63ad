"""FDPGTrainer: its loss on known answers by plain logits, Z and baseline over steps, accumulation, checkpoints."""

import math

import pytest
import tiny
import torch
from groups import equal_weights, records
from objectives import PROMPTS, answered, dynamic, first, flat, gradient
from torch.testing import assert_close

from align.configs import ConfigError, GRPOConfig
from align.configs.own_losses import FDPGConfig
from align.errors import RunError
from align.losses.matching import pseudo_reward
from align.trainers.online.matching import FDPGTrainer

FDPG = (FDPGTrainer, FDPGConfig)


def lame(completion_ids, prompts, **_):
    """Nothing for some answers to one prompt and all to another."""
    told = [p[0]["content"] for p in prompts]
    return [None if lacks(t, ids) else ids[0] / 261 for t, ids in zip(told, completion_ids, strict=True)]


def lacks(prompt, ids):
    return prompt == "up" or (prompt == "say hi" and ids[0] % 2 == 0)


def trainer_of(tmp_path, **kw):
    return answered(FDPG, tmp_path, **{"rewards": [lame], "beta": 0.2, "learning_rate": 0.1} | kw)


def sums(trainer, *, reference=False):
    """log π of each completion of the last batch, by plain logits of it alone."""
    batch = {
        n: torch.cat([part[n] for part in trainer._buffered_inputs])
        for n in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")
    }
    found = []
    for prompt, shown, answer, said in zip(*batch.values(), strict=True):
        before, after = prompt[shown.bool()], answer[said.bool()]
        ids = torch.cat([before, after])[None]
        if reference:
            with trainer.model.disable_adapter():
                logits = trainer.model(input_ids=ids).logits
        else:
            logits = trainer.model(input_ids=ids).logits
        logps = logits[0, len(before) - 1 : -1].log_softmax(-1)
        found.append(logps[torch.arange(len(after)), after].sum())
    return (
        torch.stack(found),
        [tuple(p[m.bool()].tolist()) for p, m in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)],
        batch,
    )


@pytest.mark.parametrize("name", ["jensen_shannon", "forward_kl"])
def test_the_gradient_is_that_of_the_pseudo_rewards(tmp_path, name):
    trainer, ours = gradient(trainer_of(tmp_path, learning_rate=0.0, max_steps=1, divergence=name, prompts=PROMPTS[:4]))
    policy, prompts, batch = sums(trainer)
    with torch.no_grad():
        ref = sums(trainer, reference=True)[0]
    values = torch.tensor([ids[0].item() / 261 for ids in batch["completion_ids"]], dtype=torch.float64)
    texts = {
        tuple(trainer._tokenizer.apply_chat_template(p, add_generation_prompt=True)["input_ids"]): p[0]["content"]
        for p in trainer._logs["prompt"]
    }
    left_out = torch.tensor(
        [lacks(texts[p], ids) for p, ids in zip(prompts, batch["completion_ids"].tolist(), strict=True)]
    )
    score, held = ref.double() + values / 0.2, policy.detach().double()
    total = 0.0
    for prompt in set(prompts):
        rows = [i for i, p in enumerate(prompts) if p == prompt and not left_out[i]]
        if rows:
            log_z = torch.logsumexp((score - held)[rows], 0) - math.log(len(rows))
            reward = pseudo_reward(held[rows] - score[rows] + log_z, name=name)
            total = total - (reward * policy[rows]).mean()
    assert int(left_out.sum()) == 6
    scored = 3
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    wanted = flat(torch.autograd.grad(total / scored, parameters), parameters)
    assert float(wanted.norm()) > 1e-3
    assert_close(ours, wanted.float(), rtol=1e-3, atol=1e-5)
    shares = [
        (held - ref)[[i for i, p in enumerate(prompts) if p == prompt and not left_out[i]]].mean()
        for prompt in set(prompts)
    ]
    assert tiny.losses(trainer, "kl") == pytest.approx([float(torch.stack(shares).nansum()) / 3], rel=1e-3)


def test_z_gathers_over_steps_and_the_baseline_is_of_batches_before(tmp_path):
    trainer = trainer_of(
        tmp_path, rewards=[first], baseline_window=20, max_steps=2, beta=0.05, per_device_eval_batch_size=8
    )
    told = []
    match = trainer._matched
    trainer._matched = lambda *args: told.append(match(*args)) or told[-1]
    trainer.train()
    assert told[0]["baseline"].tolist() == [0.0] * 16
    rewards = [pseudo_reward(t["sampled_logps"] - t["target_logps"], name="jensen_shannon") for t in told]
    assert told[1]["baseline"][0].item() == pytest.approx(rewards[0].mean().item(), abs=1e-5)
    assert abs(rewards[0].mean().item()) > 1e-3
    assert_close(trainer.seen.window.float(), torch.cat(rewards)[-20:], rtol=1e-4, atol=1e-5)
    assert sorted(count for _, count in trainer.seen.normalisers.sums.values()) == [4] * 8
    before, window = dict(trainer.seen.normalisers.sums), trainer.seen.window
    trainer.eval_dataset = trainer.train_dataset.select(range(4))
    trainer.evaluate()
    assert trainer.seen.normalisers.sums == before
    assert torch.equal(trainer.seen.window, window)


def test_accumulation_changes_nothing(tmp_path):
    whole = trainer_of(tmp_path / "a")
    parts = trainer_of(tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=4)
    for each in (whole, parts):
        each.train()
    for name, weight in tiny.weights(parts).items():
        assert_close(weight, tiny.weights(whole)[name], rtol=1e-3, atol=1e-5)
    assert tiny.losses(parts) == pytest.approx(tiny.losses(whole), rel=1e-3)
    assert max(float(w.abs().max()) for n, w in tiny.weights(whole).items() if "lora_B" in n) > 1e-3


def test_a_resumed_run_repeats_everything_to_the_bit(tmp_path):
    saved = {
        "save_strategy": "steps",
        "save_steps": 1,
        "max_steps": 4,
        "steps_per_generation": 2,
        "per_device_train_batch_size": 8,
    }
    run, again = trainer_of(tmp_path / "c", **saved), trainer_of(tmp_path / "d", **saved)
    run.train()
    again.train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-1"))
    assert records(again) == records(run)
    assert equal_weights(again, run)
    assert again.seen.normalisers.sums == run.seen.normalisers.sums
    (tmp_path / "c" / "checkpoint-1" / "matching_0.pt").unlink()
    with pytest.raises(RunError, match="checkpoint-1"):
        again.train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-1"))


def test_samples_of_an_earlier_policy_are_weighed_again(tmp_path):
    trainer = trainer_of(tmp_path, rewards=[first])
    trainer.current_gradient_accumulation_steps = 1
    one = {name: torch.zeros(1) for name in ("target_logps", "baseline")} | {"share": torch.ones(1)}
    inputs = one | {"sampled_logps": torch.tensor([-3.0]), "completion_mask": torch.tensor([[1, 1, 0]])}
    logps = torch.tensor([[-1.0, -1.5, float("nan")]], requires_grad=True)
    trainer.own_loss(logps, inputs).backward()
    slope = -math.exp(0.5) * float(pseudo_reward(torch.tensor([-2.5]), name="jensen_shannon"))
    assert_close(logps.grad, torch.tensor([[slope, slope, 0.0]]))


def test_what_cannot_be_meant_is_refused(tmp_path):
    for fields, told in (
        ({"beta": 0.0}, "beta: must be positive"),
        ({"divergence": "alpha"}, "divergence: must be one of forward_kl"),
        ({"baseline_window": -1}, "baseline_window: must not be negative"),
        ({"top_p": 0.9}, "top_p: not honoured here"),
        ({"epsilon": 0.3}, "epsilon: not honoured here"),
    ):
        with pytest.raises(ConfigError, match=told):
            FDPGConfig("unused", use_cpu=True, bf16=False, **fields)
    with pytest.raises(TypeError, match="args must be align.FDPGConfig"):
        dynamic(FDPGTrainer, GRPOConfig, tmp_path)

"""T-SPMO: its gradient on known answers, by plain logits; accumulation, checkpoints, and what it refuses."""

import pytest
import tiny
import torch
from groups import equal_weights, records
from objectives import answered, flat, gradient
from torch.testing import assert_close

from align.configs import ConfigError
from align.configs.own_losses import TSPMOConfig
from align.trainers.online.prefixes import TSPMOTrainer
from align.weighting.prefixes import prefix_credit

TSPMO = (TSPMOTrainer, TSPMOConfig)
ANSWERS = ([70, 71, 72, 75], [70, 71, 73], [70, 74, 72, 72], [75, 76])


def value(completion_ids, prompts, **_):
    """By the tokens; nothing for one answer to one prompt."""
    return [
        None if len(ids) == 3 and "up" in p[0]["content"] else (sum(ids) + len(p[0]["content"])) % 7 / 7
        for ids, p in zip(completion_ids, prompts, strict=True)
    ]


def trainer_of(tmp_path, **kw):
    trainer = answered(TSPMO, tmp_path, rewards=[value], **{"learning_rate": 20.0} | kw)

    def answers(ids, *_, **__):
        first = trainer.accelerator.process_index * len(ids)
        return [ANSWERS[(first + place) % 4] for place, _ in enumerate(ids)], None

    trainer._generate_single_turn = answers
    return trainer


def objective(trainer):
    """The mean over prompts of Σ π(v|p) · credit, by plain logits of each answer alone."""
    batch = {
        name: torch.cat([part[name] for part in trainer._buffered_inputs])
        for name in ("prompt_ids", "prompt_mask", "completion_ids")
    }
    total, seen = 0.0, {}
    for prompt, mask, answer in zip(*batch.values(), strict=True):
        seen.setdefault(tuple(prompt[mask.bool()].tolist()), []).append(answer.tolist())
    texts = {len(p[0]["content"]): p for p in trainer._logs["prompt"]}
    for prompt in seen:
        asked = next(
            t
            for t in texts.values()
            if tuple(trainer._tokenizer.apply_chat_template(t, add_generation_prompt=True)["input_ids"]) == prompt
        )
        credit, _ = prefix_credit(ANSWERS, [float("nan") if r is None else r for r in value(ANSWERS, [asked] * 4)])
        for answer, of in zip(ANSWERS, credit, strict=True):
            ids = torch.tensor([[*prompt, *answer]])
            logp = trainer.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            total = total + (logp[torch.arange(len(answer)), torch.tensor(answer)].exp() * torch.tensor(of)).sum()
    return total / len(seen)


def test_the_gradient_is_that_of_the_objective(tmp_path):
    trainer, ours = gradient(trainer_of(tmp_path, learning_rate=0.0, max_steps=1))
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    wanted = flat(torch.autograd.grad(-objective(trainer), parameters), parameters)
    assert float(wanted.norm()) > 1e-5
    assert_close(ours, wanted, rtol=1e-4, atol=1e-8)
    (record,) = [r for r in trainer.state.log_history if "loss" in r]
    assert record["loss"] == pytest.approx(-float(objective(trainer)), rel=1e-4)
    assert record["prefixes/pairs"] in (6.0, 5.5)  # four at least, one answer left out
    assert 0 < record["prefixes/tokens"] < 1


def test_accumulation_changes_nothing(tmp_path):
    whole = trainer_of(tmp_path / "a")
    parts = trainer_of(tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=4)
    for each in (whole, parts):
        each.train()
    for name, weight in tiny.weights(parts).items():
        assert_close(weight, tiny.weights(whole)[name], rtol=1e-4, atol=1e-6)
    assert tiny.losses(parts) == pytest.approx(tiny.losses(whole), rel=1e-3)
    assert max(float(w.abs().max()) for n, w in tiny.weights(whole).items() if "lora_B" in n) > 1e-3


def test_steps_on_one_batch_have_gradients_of_its_size_and_resume_to_the_bit(tmp_path):
    _, whole = gradient(trainer_of(tmp_path / "a", learning_rate=0.0, max_steps=1))
    parts = {"per_device_train_batch_size": 8, "steps_per_generation": 2, "gradient_accumulation_steps": 1}
    _, mean = gradient(trainer_of(tmp_path / "b", max_steps=2, learning_rate=0.0, **parts))
    assert_close(mean, whole, rtol=1e-4, atol=1e-8)
    saved = {"save_strategy": "steps", "save_steps": 1, **parts}
    run, again = trainer_of(tmp_path / "c", **saved), trainer_of(tmp_path / "d", **saved)
    run.train()
    again.train(resume_from_checkpoint=str(tmp_path / "c" / "checkpoint-1"))
    assert records(again) == records(run)
    assert equal_weights(again, run)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_far_from_likely_and_padding_give_finite_gradients(tmp_path, dtype):
    trainer = trainer_of(tmp_path)
    logps = torch.tensor([[-1e4, 0.0, float("nan")], [-0.5, -1e4, float("inf")]], dtype=dtype, requires_grad=True)
    inputs = {
        "completion_mask": torch.tensor([[1, 1, 0], [1, 1, 0]]),
        "credit": torch.tensor([[1.0, 2.0, 0.0], [-1.0, 3.0, 0.0]]),
    }
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.own_loss(logps, inputs)
    loss.backward()
    assert float(loss) == pytest.approx(-2.0 + 0.6065307, rel=1e-3)
    assert_close(logps.grad.float(), torch.tensor([[0.0, -2.0, 0.0], [0.6065307, 0.0, 0.0]]), rtol=1e-2, atol=0.0)


def test_an_evaluation_has_its_own_groups(tmp_path):
    trainer = trainer_of(tmp_path, num_generations_eval=2, per_device_eval_batch_size=4)
    trainer.eval_dataset = trainer.train_dataset.select(range(2))
    assert trainer.evaluate()["eval_prefixes/pairs"] == 2.0


def test_what_cannot_be_meant_is_refused():
    for fields, told in (({"beta": 0.1}, "beta: no reference"), ({"loss_type": "grpo"}, "loss_type: not honoured here"),
                         ({"mask_truncated_completions": True}, "mask_truncated_completions: a completion that is cut")):  # fmt: skip
        with pytest.raises(ConfigError, match=told):
            TSPMOConfig("unused", use_cpu=True, bf16=False, **fields)

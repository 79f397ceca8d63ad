"""HPT: prompts that no completion solves learn their demonstration, and the others what GRPO gives them."""

import pytest
import tiny
import torch
from groups import equal_weights, records
from objectives import PROMPTS, TEXTS, answered, dynamic, flat, gradient, solved
from torch.testing import assert_close

from align.configs.hpt import HPTConfig
from align.configs.online import DynamicGRPOConfig
from align.models.tiny import tiny_tokenizer
from align.trainers.online.hpt import HPTTrainer, unsolved_prompts
from align.trainers.online.multi_objective import DynamicGRPOTrainer

HPT, GRPO = (HPTTrainer, HPTConfig), (DynamicGRPOTrainer, DynamicGRPOConfig)
LIKE_HPT = {"weighting": "fixed", "estimator_options": {"scale": "none"}}


def vague(prompts, **_):
    return [0.3 if place % 2 else 0.1 for place, _ in enumerate(prompts)]


def trainer_of(kind, tmp_path, *, demonstrations=TEXTS, **kw):
    columns = {"demonstration": demonstrations} if kind is HPT else None
    return answered(kind, tmp_path, columns=columns, **{"loss_type": "dr_grpo"} | kw)


def mean_nll(trainer, texts):
    """The mean over tokens of -log π of demonstrations, by plain logits; `texts` by prompt."""
    tokenizer, logps = tiny_tokenizer(), []
    for prompt, text in texts:
        before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
        ids = tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": text}])["input_ids"]
        logits = trainer.model(input_ids=torch.tensor([ids])).logits[0, len(before) - 1 : -1]
        logps.append(logits.log_softmax(-1)[torch.arange(len(ids) - len(before)), torch.tensor(ids[len(before) :])])
    return -torch.cat(logps).mean()


def test_prompts_are_unsolved_up_to_the_gate_and_unknown_ones_are_left():
    missing = torch.nan
    right = torch.tensor(
        [0, 0, 0, 0, 1, 0, 0, 0.9, 1, 1, 0, 0, missing, missing, missing, missing, missing, 0, 0, 0]
    )  # of five prompts
    assert right.numel() == 20
    assert unsolved_prompts(right, 4, 0).tolist() == [True, False, False, False, True]
    assert unsolved_prompts(right, 4, 1).tolist() == [True, True, False, False, True]
    assert int((~unsolved_prompts(right[:16], 4, 0)).sum()) == 3


@pytest.mark.parametrize("loss_type", ["dr_grpo", "dapo", "grpo"])
def test_the_gradient_is_grpos_and_that_of_the_demonstrations_likelihood(tmp_path, loss_type):
    """Of prompts that are solved in part: GRPO's own, to rounding. A demonstration is learnt from beyond the longest completion."""
    settings = {"loss_type": loss_type, "learning_rate": 0.0, "max_steps": 1}
    with_it, ours = gradient(trainer_of(HPT, tmp_path / "a", demonstration_weight=0.3, **settings))
    _, theirs = gradient(trainer_of(GRPO, tmp_path / "b", **LIKE_HPT, **settings))
    asked = list(with_it._logs["prompt"])
    unsolved = {tuple(p[0].items()) for p in asked if "a" in p[0]["content"]}
    assert 0 < len(unsolved) < 4
    shown = [(p, t) for p, t in zip(PROMPTS, TEXTS, strict=True) if tuple(p[0].items()) in unsolved]
    parameters = [p for p in with_it.model.parameters() if p.requires_grad]
    own = flat(torch.autograd.grad(mean_nll(with_it, shown), parameters), parameters)
    assert float(own.norm()) > 1e-3
    assert float(theirs.norm()) > 1e-3
    assert_close(ours, theirs + 0.3 * own, rtol=1e-4, atol=1e-6)
    assert int(with_it._buffered_inputs[0]["shown"].sum()) == len(unsolved)  # one of a group
    (record,) = [r for r in with_it.state.log_history if "loss" in r]
    assert record["demonstrations"] == pytest.approx(len(unsolved) / 4)
    assert record["loss/demonstrations"] == pytest.approx(float(mean_nll(with_it, shown)), rel=1e-4)


def test_where_all_is_solved_it_is_grpo(tmp_path):
    def fine(completion_ids, **_):
        return [1.0 + sum(ids) % 3 for ids in completion_ids]

    ours, theirs = (
        trainer_of(HPT, tmp_path / "a", rewards=[fine]),
        trainer_of(GRPO, tmp_path / "b", rewards=[fine], **LIKE_HPT),
    )
    for each in (ours, theirs):
        each.train()
    for name, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(ours)[name], weight, rtol=1e-5, atol=1e-7)
    assert max(float(w.abs().max()) for n, w in tiny.weights(ours).items() if "lora_B" in n) > 1e-4


def test_completions_of_unsolved_prompts_are_in_no_term(tmp_path):
    """Neither their rewards, where these differ below 1, nor their KL move anything."""
    settings = {"rewards": [vague], "beta": 0.5, "max_steps": 1}
    _, both = gradient(trainer_of(HPT, tmp_path / "a", **settings))
    trainer, alone = gradient(
        trainer_of(HPT, tmp_path / "b", **settings | {"rewards": [lambda prompts, **_: [0.0] * len(prompts)]})
    )
    assert_close(both, alone)
    assert tiny.losses(trainer, "demonstrations") == [1.0]
    assert tiny.losses(trainer, "kl") == [0.0]


@pytest.mark.parametrize("shared_prefix", ["off", "on"])
def test_accumulation_changes_nothing(tmp_path, shared_prefix):
    whole = trainer_of(HPT, tmp_path / "a", gate=1, shared_prefix=shared_prefix)
    parts = trainer_of(HPT, tmp_path / "b", gate=1, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    for each in (whole, parts):
        each.train()
    for name, weight in tiny.weights(parts).items():
        assert_close(weight, tiny.weights(whole)[name], rtol=1e-4, atol=1e-6)
    for name in ("loss", "loss/demonstrations", "demonstrations"):
        assert tiny.losses(parts, name) == pytest.approx(tiny.losses(whole, name), rel=1e-4)
    assert max(float(w.abs().max()) for n, w in tiny.weights(whole).items() if "lora_B" in n) > 1e-3


def test_steps_on_one_batch_of_completions_have_gradients_of_its_size(tmp_path):
    """Two steps with a rate of 0: their mean is what one step on all would be."""
    _, whole = gradient(trainer_of(HPT, tmp_path / "a", learning_rate=0.0, max_steps=1))
    parts = {"per_device_train_batch_size": 8, "steps_per_generation": 2, "gradient_accumulation_steps": 1}
    _, mean = gradient(trainer_of(HPT, tmp_path / "b", max_steps=2, learning_rate=0.0, **parts))
    assert_close(mean, whole, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_repeats_everything_to_the_bit(tmp_path):
    """Also where a checkpoint lies between steps on the same completions."""
    settings = {
        "save_strategy": "steps", "save_steps": 1, "max_steps": 3, "per_device_train_batch_size": 8,
        "steps_per_generation": 2, "gradient_accumulation_steps": 1,
    }  # fmt: skip
    whole = trainer_of(HPT, tmp_path, **settings)
    whole.train()
    again = trainer_of(HPT, tmp_path / "again", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert records(again) == records(whole)
    assert equal_weights(again, whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_demonstration_that_is_far_from_likely_gives_a_finite_loss(tmp_path, monkeypatch, dtype):
    trainer = trainer_of(HPT, tmp_path)
    logps = torch.full((2, 3), -1e4, dtype=dtype, requires_grad=True)
    monkeypatch.setattr("align.trainers.online.hpt.completion_logps", lambda *_: logps)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    inputs = {f"shown_{n}_{what}": mask for n in ("prompt", "answer") for what in ("ids", "mask")}
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._likelihood_loss(
        None, inputs | {"shown": torch.tensor([True, True]), "shown_tokens": torch.tensor(4)}
    )
    loss.backward()
    assert float(loss) == pytest.approx(1e4, rel=0.01)
    assert_close(logps.grad.float(), -0.25 * mask.float())


def test_data_without_demonstrations_are_refused(tmp_path):
    with pytest.raises(ValueError, match="HPTTrainer: train_dataset: no column 'demonstration'; there are prompt"):
        dynamic(*HPT, tmp_path, rewards=[solved])
    with pytest.raises(ValueError, match="row 3: 'demonstration' must be a text, got ''"):
        trainer_of(HPT, tmp_path, demonstrations=[*TEXTS[:2], "", *TEXTS[3:]])


def test_settings_that_cannot_be_meant_are_refused():
    quiet = {"output_dir": "unused", "use_cpu": True, "bf16": False, "num_generations": 4}
    for fields, told in (({"gate": 4}, "gate: must be from 0 and below num_generations=4"), ({"gate": -1}, "gate"),
                         ({"demonstration_weight": 0.0}, "demonstration_weight: must be positive")):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            HPTConfig(**quiet | fields)

"""Supervised runs as a whole: resumed, skipped, from a trained adapter, with other ways to compute, and on real rows."""

import json

import pytest
import smollm2
import supervised_worker as small
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from torch.testing import assert_close

from align.losses.token_objectives import OBJECTIVES
from align.models.loading import load_model, load_tokenizer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.shipped import recipes_dir
from align.trainers.completions.scoring import score
from align.trainers.completions.supervised import SupervisedTrainer

TIMES = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")


def records(made):
    return [{k: v for k, v in r.items() if k not in TIMES} for r in made.state.log_history]


@pytest.mark.parametrize("sampling", ["random", "group_by_length"])
def test_resumes_to_the_same_bits(tmp_path, sampling):
    """Shuffled data, accumulation, LoRA dropout, and a logging window that the checkpoint cuts in two."""
    shared = {
        "objective": small.OBJECTIVES["mixed"], "gradient_accumulation_steps": 2, "max_steps": 9, "save_steps": 5,
        "save_strategy": "steps", "logging_steps": 3, "lora": {"lora_dropout": 0.1}, "train_sampling_strategy": sampling,
    }  # fmt: skip
    whole, again = small.trainer(tmp_path / "run", **shared), small.trainer(tmp_path / "run", **shared)
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-5"))
    assert records(again) == records(whole)
    for name, weight in tiny.weights(whole).items():
        assert (tiny.weights(again)[name] == weight).all(), name


class Broken(SupervisedTrainer):
    """Whose second micro-batch is not finite."""

    calls = 0

    def objectives(self, *args):
        losses, seen = super().objectives(*args)
        self.calls += 1
        return {k: v * (float("nan") if self.calls == 2 else 1.0) for k, v in losses.items()}, seen


def test_a_step_that_is_not_finite_is_skipped_and_its_batch_kept(tmp_path):
    made = small.trainer(tmp_path, cls=Broken, objective={"poft": 1.0}, max_steps=3)
    made.train()
    assert made.guard.skipped == 1
    assert made.state.log_history[1]["skipped_steps"] == 1
    assert "loss" not in made.state.log_history[1]
    incident = json.loads((tmp_path / "skipped" / "step-2" / "0-incident.json").read_text())
    assert incident["losses"] == ["nan"]
    assert all(weight.isfinite().all() for weight in tiny.weights(made).values())


def reference_logps(made, indices=range(4)):
    batch = made._prepare_inputs(made.data_collator([made.train_dataset[i] for i in indices]))
    return made._reference({k: batch[k] for k in ("input_ids", "labels", "attention_mask")}, None).token_logps


def test_a_trained_adapter_is_its_own_reference_and_stays_it(tmp_path):
    first = small.trainer(tmp_path / "first", max_steps=8)
    first.train()
    first.model.save_pretrained(str(tmp_path / "adapter"))
    model = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(tmp_path / "adapter"), is_trainable=True)
    made = small.trainer(tmp_path / "second", objective={"nll": 1.0, "fsft": 1.0, "ref_kl": 0.1}, model=model)
    before, base = reference_logps(made), reference_logps(small.trainer(tmp_path / "third", objective={"fsft": 1.0}))
    assert (before - base).abs().max() > 1e-3
    made.train()
    assert made.state.log_history[0]["log_ratio"] == pytest.approx(0.0, abs=1e-5)
    assert made.state.log_history[0]["ref_kl"] == 0.0
    assert made.state.log_history[-2]["log_ratio"] != 0.0
    assert (reference_logps(made) == before).all()
    assert not any(p.requires_grad for n, p in made.model.named_parameters() if ".ref." in n)
    assert all(p.requires_grad for n, p in made.model.named_parameters() if "lora_" in n and ".default." in n)


def test_the_reference_has_no_dropout_and_the_policy_keeps_its_own(tmp_path):
    lora = LoraConfig(**tiny.LORA | {"lora_dropout": 0.5, "init_lora_weights": False})
    made = small.trainer(tmp_path, objective={"fsft": 1.0}, model=get_peft_model(tiny_model(tiny_tokenizer()), lora))
    made.model.train()
    assert (reference_logps(made) == reference_logps(made)).all()
    assert made.model.training
    batch = made._prepare_inputs(made.data_collator([made.train_dataset[0]]))
    fed = {k: batch[k] for k in ("input_ids", "labels", "attention_mask")}
    assert (score(made.model, fed).token_logps != score(made.model, fed).token_logps).any()


@pytest.mark.parametrize("name", ["mixed", "nll"])
def test_checkpointed_activations_give_the_same_weights(tmp_path, name):
    runs = [
        small.trainer(tmp_path / str(on), objective=small.OBJECTIVES[name], gradient_checkpointing=on)
        for on in (False, True)
    ]
    for made in runs:
        made.train()
    ours, theirs = map(tiny.weights, runs)
    for key, weight in theirs.items():
        assert_close(ours[key], weight, atol=1e-6, rtol=1e-5)


def test_all_weights_can_be_trained_where_no_reference_is_needed(tmp_path):
    made = small.trainer(tmp_path, objective={"dft": 1.0, "poft": 1.0}, model=tiny_model(tiny_tokenizer()))
    before = made.model.lm_head.weight.detach().clone()
    made.train()
    assert (made.model.lm_head.weight != before).any()


def test_lengths_are_grouped_by_tokens(tmp_path):
    """In one group of ten, here: the Trainer groups fifty optimizer steps."""
    made = small.trainer(tmp_path, train_sampling_strategy="group_by_length", per_device_train_batch_size=10)
    order = list(made._get_train_sampler())
    lengths = [len(made.train_dataset[i]["input_ids"]) for i in order]
    assert sorted(order) == list(range(10))
    assert lengths == sorted(lengths, reverse=True)


def test_each_named_evaluation_has_its_own_keys(tmp_path):
    made = small.trainer(tmp_path, eval_data={"a": small.rows(5), "b": small.rows(3)}, objective={"poft": 1.0})
    found = made.evaluate()
    assert {"eval_a_loss", "eval_a_poft/weight", "eval_b_loss", "eval_b_nll"} <= set(found)
    assert found["eval_a_loss"] == pytest.approx(found["eval_a_loss/poft"])
    assert "eval_a_padding" not in found


def test_the_shipped_rows_train_with_every_objective(tmp_path):
    path = recipes_dir() / "data" / "tiny-completions.jsonl"
    data = Dataset.from_list([json.loads(line) for line in path.read_text().splitlines()])
    made = small.trainer(tmp_path, objective=dict.fromkeys(OBJECTIVES, 1.0), data=data)
    made.train()
    assert made.state.global_step == 4


@pytest.mark.slow
@pytest.mark.realdata
@pytest.mark.usefixtures("all_threads")
@smollm2.needed
@pytest.mark.parametrize(
    ("objective", "steps"),
    [
        ({"nll": 1.0}, 8),
        ({"dft": 1.0}, 8),
        ({"dft": 1.0, "ref_kl": 0.05}, 8),
    ],
)
def test_a_real_model_learns_worked_solutions(shared_data, tmp_path, objective, steps):
    """Correct solutions of grade-school problems: their NLL falls; the first KL is 0 and all are small."""
    rows = Dataset.from_json(str(shared_data / "gsm8k_solution_pairs" / "train.jsonl.gz"))
    rows = rows.filter(lambda r: len(r["prompt"][0]["content"]) + len(r["chosen"][0]["content"]) < 300)
    data = rows.select(range(8)).map(
        lambda r: {"prompt": r["prompt"], "completion": r["chosen"]}, remove_columns=rows.column_names
    )
    config = smollm2.CONFIG
    made = SupervisedTrainer(
        model=load_model(config),
        args=small.arguments(
            small.SupervisedConfig, tmp_path, objective=objective, max_steps=steps, learning_rate=1e-4, max_length=256,
            lr_scheduler_type="constant",
        ),
        train_dataset=data,
        eval_dataset=data.select(range(4)),
        processing_class=load_tokenizer(config),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    before = made.evaluate()
    made.train()
    after = made.evaluate()
    print({k: (before[k], after[k]) for k in before if k.startswith(("eval_loss", "eval_nll", "eval_ref"))})  # noqa: T201
    assert after["eval_nll"] < before["eval_nll"]
    if "ref_kl" in objective:
        kl = tiny.losses(made, "ref_kl")
        assert kl[0] == pytest.approx(0.0, abs=1e-6)
        assert 0 < kl[-1] < 1
    assert torch.isfinite(torch.tensor(tiny.losses(made))).all()

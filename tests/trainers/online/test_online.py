"""GRPO and RLOO with shared prompts take the path of TRL's within rounding."""

import contextlib

import pytest
import tiny
import torch
from datasets import Dataset
from groups import Counting, equal_weights, group_trainer, trained, vowels
from objectives import PROMPTS, ToldMeans, first, low, run
from peft import LoraConfig
from torch.testing import assert_close
from trl import GRPOConfig as TRLGRPOConfig
from trl import GRPOTrainer as TRLGRPOTrainer
from trl import RLOOConfig as TRLRLOOConfig
from trl import RLOOTrainer as TRLRLOOTrainer
from trl.trainer.utils import RepeatSampler

from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.configs.online import DynamicGRPOConfig
from align.errors import DataError, RunError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring import shared_prefix
from align.trainers.online import shared_prompts
from align.trainers.online.multi_objective import DynamicGRPOTrainer
from align.trainers.online.resumed import OrderByEpoch

CASES = {"grpo": (GRPOTrainer, GRPOConfig, TRLGRPOTrainer, TRLGRPOConfig), "rloo": (RLOOTrainer, RLOOConfig, TRLRLOOTrainer, TRLRLOOConfig)}  # fmt: skip


@pytest.fixture
def trls_draws(monkeypatch):
    """The same tokens as TRL's, which other random numbers draw."""
    monkeypatch.setattr(shared_prompts, "two_uniforms", contextlib.nullcontext)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("trls_draws")
def test_shared_prompts_take_trls_path(tmp_path, monkeypatch, name):
    ours, config, theirs, their_config = CASES[name]
    computed = []
    plan = shared_prefix.make_plan
    monkeypatch.setattr(
        shared_prefix, "make_plan", lambda ids, *a, **kw: computed.append((made := plan(ids, *a, **kw), ids)) or made
    )
    one = trained(ours, config, tmp_path / "a", shared_prefix="on")
    other = trained(theirs, their_config, tmp_path / "b")
    assert tiny.losses(one) == pytest.approx(tiny.losses(other), abs=1e-4)
    assert tiny.losses(one, "reward") == tiny.losses(other, "reward")  # the same completions were sampled
    moved = False
    for key, weight in tiny.weights(other).items():
        assert_close(tiny.weights(one)[key], weight, rtol=1e-2, atol=2e-3)
        moved |= "lora_B" in key and bool(weight.abs().max() > 0)
    assert moved
    assert len(computed) > 6  # training, old and reference passes
    assert all(len(made.groups) <= 2 for made, _ in computed)  # two prompts, each once
    assert all(made.input_ids.numel() < ids.numel() for made, ids in computed)


@pytest.mark.usefixtures("trls_draws")
def test_an_entropy_bonus_keeps_its_gradient(tmp_path):
    one = trained(GRPOTrainer, GRPOConfig, tmp_path / "a", entropy_coef=1e4, max_steps=2, shared_prefix="on")
    other = trained(TRLGRPOTrainer, TRLGRPOConfig, tmp_path / "b", entropy_coef=1e4, max_steps=2)
    none = trained(TRLGRPOTrainer, TRLGRPOConfig, tmp_path / "c", max_steps=2)
    key = next(k for k in tiny.weights(one) if "lora_B" in k)
    assert_close(tiny.weights(one)[key], tiny.weights(other)[key], rtol=1e-2, atol=2e-3)
    assert (tiny.weights(none)[key] - tiny.weights(other)[key]).abs().max() > 4e-3


def test_a_model_that_cannot_share_falls_back(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("align.trainers.shared.prefix_sharing.unsupported", lambda *a, **kw: "it has a sliding window")
    one = trained(GRPOTrainer, GRPOConfig, tmp_path / "a", max_steps=1)
    assert [r.message for r in caplog.records if "shared_prefix" in r.message] == [
        "shared_prefix: every prompt is computed once per answer, because it has a sliding window"
    ]
    assert torch.isfinite(torch.tensor(tiny.losses(one))).all()
    with pytest.raises(ValueError, match="'on', but it has a sliding window"):
        trained(GRPOTrainer, GRPOConfig, tmp_path / "b", max_steps=1, shared_prefix="on")


def test_every_epoch_has_the_order_that_trls_sampler_gives_it():
    sampler = RepeatSampler(range(9), mini_repeat_count=2, batch_size=3, shuffle=True, seed=4)
    by_epoch = OrderByEpoch.of(sampler)
    orders = []
    for epoch in range(3):
        orders.append(list(sampler))
        by_epoch.set_epoch(epoch)
        by_epoch.set_epoch(epoch)  # the Trainer calls it more than once
        assert list(by_epoch) == orders[-1]
    assert orders[0] != orders[1] != orders[2]


ASKED = [{"role": "user", "content": "say hi"}]


@pytest.mark.parametrize("name", CASES)
def test_a_column_system_is_read_and_what_is_not_rendered_is_refused(tmp_path, name):
    cls, config, *_ = CASES[name]
    args = config(
        str(tmp_path), num_generations=2, per_device_train_batch_size=2, use_cpu=True, bf16=False, report_to="none"
    )
    given = {
        "model": tiny_model(tiny_tokenizer()),
        "reward_funcs": vowels,
        "args": args,
        "processing_class": tiny_tokenizer(),
        "peft_config": LoraConfig(**tiny.LORA),
    }
    made = cls(
        **given,
        train_dataset=Dataset.from_list([{"prompt": "say hi", "system": "Be brief.", "answer": "hi"}]),
        eval_dataset={"x": Dataset.from_list([{"prompt": ASKED, "system_prompt": "Be long."}])},
    )
    asked = {"system": made.train_dataset[0]["prompt"], "other": made.eval_dataset["x"][0]["prompt"]}
    assert asked == {
        "system": [{"role": "system", "content": "Be brief."}, *ASKED],
        "other": [{"role": "system", "content": "Be long."}, *ASKED],
    }
    assert made.train_dataset[0]["answer"] == "hi"  # of the rewards
    for column, value in {"tools": [{"type": "function"}], "chat_template_kwargs": {"enable_thinking": False}}.items():
        rows = Dataset.from_list([{"prompt": ASKED, column: value}])
        with pytest.raises(DataError, match=f"{cls.__name__}: eval data: {column}: prompts are rendered without"):
            cls(**given, train_dataset=made.train_dataset, eval_dataset=rows)


def test_each_evaluation_set_has_its_own_metrics(tmp_path):
    rule, sets = ToldMeans([0.5, 0.5]), {"a": PROMPTS[:2], "b": PROMPTS[2:4]}
    trainer = run(
        DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, rewards=[first, low], rule=rule, eval_strategy="steps", eval_steps=2, max_steps=3,
        eval_data={name: Dataset.from_dict({"prompt": some}) for name, some in sets.items()},
        per_device_eval_batch_size=8, load_best_model_at_end=True, metric_for_best_model="a_reward", save_steps=2, save_strategy="steps",
    )  # fmt: skip
    records = [record for record in trainer.state.log_history if any(key.endswith("_runtime") for key in record)]
    for record, name in zip(records[:2], sets, strict=True):
        evaluated = {key for key in record if key.startswith("eval_")}
        assert all(key.startswith(f"eval_{name}_") for key in evaluated), evaluated
        assert {f"eval_{name}_reward", f"eval_{name}_rewards/first/mean"} <= evaluated
    last = [records[1][f"eval_b_rewards/{name}/mean"] for name in ("first", "low")]
    assert rule.told[2].evaluation.tolist() == pytest.approx(last)
    assert trainer.state.best_metric == pytest.approx(records[0]["eval_a_reward"])
    measured = trainer.evaluate(Dataset.from_dict({"prompt": PROMPTS[:2]}), metric_key_prefix="test")
    assert "test_rewards/first/mean" in measured
    assert not [key for key in measured if key.startswith("eval_")]


@pytest.mark.parametrize("name", CASES)
def test_a_reward_that_remembers_goes_on_in_a_resumed_run_and_does_not_learn_from_evaluations(tmp_path, name):
    ours, config, *_ = CASES[name]
    settings = {
        "save_strategy": "steps", "save_steps": 1, "max_steps": 4, "num_iterations": 1, "eval_strategy": "steps", "eval_steps": 1,
        "reward_funcs": Counting, "eval_dataset": Dataset.from_dict({"prompt": PROMPTS[:2]}),
    }  # fmt: skip
    whole = trained(ours, config, tmp_path, **settings)
    assert whole.reward_funcs[0].count == 4 * 8
    assert set(whole.reward_funcs[0].modes) == {True, False}
    again = group_trainer(ours, config, tmp_path / "again", **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.reward_funcs[0].count == 4 * 8
    assert equal_weights(again, whole)
    trained(ours, config, tmp_path / "others", **settings | {"reward_funcs": vowels, "max_steps": 1})
    with pytest.raises(RunError, match="so what counting remembers is not known"):
        group_trainer(ours, config, tmp_path / "again", **settings).train(str(tmp_path / "others" / "checkpoint-1"))


def test_rewards_that_nobody_could_tell_apart_are_refused(tmp_path):
    with pytest.raises(ValueError, match="'vowels' twice"):
        group_trainer(GRPOTrainer, GRPOConfig, tmp_path, reward_funcs=[vowels, vowels])


def test_infinite_rewards_are_refused(tmp_path):
    def endless(completions, **_):
        return [float("inf")] * len(completions)

    with pytest.raises(ValueError, match="rewards must be finite, or None; endless gave infinity"):
        trained(GRPOTrainer, GRPOConfig, tmp_path, reward_funcs=endless)

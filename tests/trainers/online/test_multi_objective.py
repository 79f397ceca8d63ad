"""Trainers with several objectives: what they share with TRL's, what rules are told, and what a resumed run repeats."""

import pytest
import tiny
import torch
from datasets import Dataset
from groups import Counting
from objectives import PROMPTS, ToldMeans, dynamic, first, low, run, sometimes, vowels
from tiny import sparing
from torch.testing import assert_close
from trl import GRPOConfig as TRLGRPOConfig
from trl import GRPOTrainer as TRLGRPOTrainer
from trl import RLOOConfig as TRLRLOOConfig
from trl import RLOOTrainer as TRLRLOOTrainer

from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig, ReinforceConfig
from align.errors import RunError
from align.models.tiny import tiny_tokenizer
from align.trainers.online.multi_objective import DynamicGRPOTrainer, DynamicRLOOTrainer, ReinforceTrainer

GRPO, RLOO = (DynamicGRPOTrainer, DynamicGRPOConfig), (DynamicRLOOTrainer, DynamicRLOOConfig)
REINFORCE = (ReinforceTrainer, ReinforceConfig)
FIXED = {"weighting": "fixed", "reward_weights": [0.2, 0.5, 0.3]}
UNTIMED = ("runtime", "per_second", "step_time", "flos", "train_loss")


def logged(trainer):
    records = [r for r in trainer.state.log_history if "loss" in r]
    return [{k: v for k, v in r.items() if not any(part in k for part in UNTIMED)} for r in records]


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_fixed_weights_without_scale_are_trls_grpo(tmp_path, beta):
    ours = run(*GRPO, tmp_path / "a", estimator_options={"scale": "none"}, beta=beta, **FIXED)
    weights = FIXED["reward_weights"]
    theirs = dynamic_of_trl(
        TRLGRPOTrainer, TRLGRPOConfig, tmp_path, scale_rewards="none", reward_weights=weights, beta=beta
    )
    same_path(ours, theirs)


@pytest.mark.parametrize("way", ["after_weighting", "gdpo"])
def test_rewards_standardised_as_trl_does_are_trls_grpo_too(tmp_path, way):
    """Weighted and summed first, or each standardised first (GDPO); to every other completion no reward applies."""

    def rarely(completion_ids, **_):
        return [len(ids) / 8 if row % 4 == 0 else None for row, ids in enumerate(completion_ids)]

    def doubled(completion_ids, **_):
        return [None if value is None else 2 * value for value in sometimes(completion_ids)]

    rewards = {"rewards": [sometimes, rarely, doubled]}
    ours = run(*GRPO, tmp_path / "a", estimator_options={"scale": "group", "standardise": way}, **rewards, **FIXED)
    theirs = {} if way == "after_weighting" else {"multi_objective_aggregation": "normalize_then_sum"}
    rewards |= {"reward_weights": FIXED["reward_weights"], **theirs}
    same_path(ours, dynamic_of_trl(TRLGRPOTrainer, TRLGRPOConfig, tmp_path, **rewards))


def test_a_rule_that_combines_by_itself_cannot_be_standardised_afterwards(tmp_path):
    class OwnWay(ToldMeans):
        def combine(self, advantages, weights):
            return advantages.amin(1)

    options = {"standardise": "after_weighting"}
    with pytest.raises(ValueError, match="estimator_options: OwnWay combines advantages in its own way"):
        dynamic(*GRPO, tmp_path, estimator_options=options, rule=OwnWay([1.0] * 3))
    for way in ("after_weighting", "gdpo"):
        options = {"scale": "none", "standardise": way}
        with pytest.raises(ValueError, match=f"standardise: {way!r} scales, got scale 'none'"):
            DynamicGRPOConfig("unused", use_cpu=True, bf16=False, estimator_options=options)


@pytest.mark.parametrize("beta", [0.0, 0.2])
def test_fixed_weights_with_leave_one_out_are_trls_rloo_with_its_kl_penalty(tmp_path, beta):
    ours = run(*RLOO, tmp_path / "a", beta=beta, **FIXED)
    theirs = dynamic_of_trl(TRLRLOOTrainer, TRLRLOOConfig, tmp_path, reward_weights=FIXED["reward_weights"], beta=beta)
    same_path(ours, theirs)
    if beta:
        assert abs(tiny.losses(ours, "kl")[-1]) > 1e-5


def dynamic_of_trl(cls, config, tmp_path, **kw):
    def without_ours(shared_prefix, **settings):
        return config(**settings)

    return run(cls, without_ours, tmp_path / "b", **kw)


def same_path(ours, theirs):
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=2e-6)
    assert tiny.losses(ours, "reward") == tiny.losses(theirs, "reward")
    assert_close(list(ours._logs["advantages"]), list(theirs._logs["advantages"]), rtol=1e-4, atol=1e-5)
    for name, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(ours)[name], weight, rtol=1e-3, atol=1e-4)


class Doubling(ToldMeans):
    """Scale 3 on the advantages of every batch."""

    def update(self, stats):
        return super().update(stats)._replace(scale=3.0)


def test_scale_multiplies_advantages_that_were_standardised(tmp_path):
    one = run(*GRPO, tmp_path / "a", rule=ToldMeans([1 / 3] * 3), max_steps=1)
    three = run(*GRPO, tmp_path / "b", rule=Doubling([1 / 3] * 3), max_steps=1)
    assert_close([3 * a for a in one._logs["advantages"]], list(three._logs["advantages"]))
    assert max(one._logs["advantages"]) > 0.1
    (batch,) = three._buffered_inputs
    assert sorted(batch["advantages"].tolist()) == pytest.approx(sorted(three._logs["advantages"]))
    assert logged(three)[0]["weighting/scale"] == 3.0


class Literal(ToldMeans):
    """The paper's code: a factor on rewards."""

    def update(self, stats):
        return super().update(stats)._replace(reward_factor=3.0)


def test_a_factor_on_rewards_is_lost_under_std_and_said_so(tmp_path, caplog):
    plain, literal = (run(*GRPO, tmp_path, rule=cls([1 / 3] * 3), max_steps=1) for cls in (ToldMeans, Literal))
    assert_close(list(plain._logs["advantages"]), list(literal._logs["advantages"]), rtol=0.02, atol=1e-3)
    assert ["divides that out again" in r.message for r in caplog.records].count(True) == 1
    caplog.clear()
    kept = [
        run(*GRPO, tmp_path, rule=cls([1 / 3] * 3), max_steps=1, estimator_options={"scale": "none"})
        for cls in (ToldMeans, Literal)
    ]
    assert_close([3 * a for a in kept[0]._logs["advantages"]], list(kept[1]._logs["advantages"]))
    assert not any("divides that out" in r.message for r in caplog.records)


class Minimum(ToldMeans):
    def combine(self, advantages, weights):
        return advantages.min(dim=1).values


def test_a_rule_may_combine_in_its_own_way(tmp_path):
    trainer = dynamic(*GRPO, tmp_path, rule=Minimum([1 / 3] * 3), max_steps=1)
    seen = []
    estimate = trainer._advantages
    trainer._advantages = lambda *args: seen.append(estimate(*args)) or seen[0]
    trainer.train()
    assert_close(list(trainer._logs["advantages"]), seen[0].min(dim=1).values.tolist())


def test_rules_are_told_means_without_missing_rewards_and_the_step(tmp_path):
    rule = ToldMeans([0.5, 0.5])
    trainer = run(*GRPO, tmp_path, rewards=[first, sometimes], rule=rule)
    assert [stats.step for stats in rule.told] == [0, 1, 2]
    assert rule.told[0].means.dtype == torch.float64
    for record, stats in zip(logged(trainer), rule.told, strict=True):
        assert record["objectives/sometimes"] == pytest.approx(record["rewards/sometimes/mean"])
        assert record["objectives/sometimes"] == pytest.approx(stats.means[1].item())
        assert record["objectives/first"] != record["objectives/sometimes"]
        assert record["weights/first"] == pytest.approx(trainer.rule.given[0].item() * (1.1 + 0.1 * stats.step))
        assert record["weighting/count"] == stats.step + 1
    assert all(torch.isfinite(w).all() for w in tiny.weights(trainer).values())


async def later(completion_ids, **_):
    return [float(len(ids)) if ids[0] % 3 else None for ids in completion_ids]


def never(completions, **_):
    return [None] * len(completions)


@pytest.mark.parametrize("weighting", ["upgrad", "gradient_influence", "max_min"])
def test_rewards_may_be_async_and_may_not_apply(tmp_path, weighting):
    trainer = run(*GRPO, tmp_path, rewards=[first, later, never], weighting=weighting)
    assert any(r["grad_norm"] > 0 for r in logged(trainer))
    assert all(torch.isfinite(w).all() for w in tiny.weights(trainer).values())


def test_one_completion_of_each_prompt_trains(tmp_path):
    settings = {"num_generations": 1, "max_steps": 3, "learning_rate": 0.01}
    trainer = run(*REINFORCE, tmp_path, rewards=[first, low], weighting="upgrad", **settings)
    assert all(r["grad_norm"] > 1e-4 for r in logged(trainer))
    assert trainer.num_generations == trainer.num_generations_eval == 1
    advantages = torch.tensor(trainer._logs["advantages"])
    assert advantages.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert advantages.abs().max() > 0.5


def test_prompts_are_remembered_from_epoch_to_epoch_by_what_they_say(tmp_path):
    settings = {
        "estimator": "single_stream",
        "weighting": "fixed",
        "num_generations": 1,
        "num_train_epochs": 2,
        "max_steps": -1,
    }
    prompts = [PROMPTS[0], *PROMPTS[:7]]  # one of them twice
    trainer = run(*REINFORCE, tmp_path, rewards=[first, low], prompts=prompts, **settings)
    assert len(trainer.estimator.table) == 7
    counts = sorted(round(c[:, 0].sum().item(), 6) for c in trainer.estimator.table.values())
    two, four = 0.81 + 0.9 + 1, 0.9**4 + 0.9**3 + 0.81 + 0.9 + 1
    assert counts == pytest.approx([two] * 6 + [four])
    record = logged(trainer)[0]
    assert not any("digit" in name for name in record)
    assert "objectives/first" in record
    assert trainer.reward_weights.tolist() == [0.5, 0.5, 0.0, 0.0]


def parity(completion_ids, **_):
    return [float(ids[0] % 2) for ids in completion_ids]


parity.aux = "stratum"


def test_an_auxiliary_column_is_no_objective(tmp_path):
    rule = ToldMeans([0.5, 0.5])
    trainer = run(*GRPO, tmp_path, rewards=[parity, first, low], rule=rule, estimator="stratified", max_steps=1)
    assert trainer.columns.objectives == ["first", "low"]
    record = logged(trainer)[0]
    assert rule.told[0].means.tolist() == pytest.approx([record["rewards/first/mean"], record["rewards/low/mean"]])
    assert "rewards/parity/mean" not in record
    assert trainer.args.reward_weights is None


def test_rules_are_told_of_evaluations_and_rewards_that_it_is_one(tmp_path):
    rule, counting = ToldMeans([0.5, 0.5]), Counting()
    trainer = run(
        *GRPO, tmp_path, rewards=[first, counting], rule=rule, eval_data=Dataset.from_dict({"prompt": PROMPTS[:4]}),
        eval_strategy="steps", eval_steps=2, max_steps=3, per_device_eval_batch_size=8,
    )  # fmt: skip
    evaluated, _ = [r for r in trainer.state.log_history if "eval_rewards/first/mean" in r]
    assert [stats.evaluation is None for stats in rule.told] == [True, True, False]
    expected = [evaluated["eval_rewards/first/mean"], evaluated["eval_rewards/counting/mean"]]
    assert rule.told[2].evaluation.tolist() == pytest.approx(expected)
    assert counting.modes[:3] == [True, True, False]
    assert counting.modes.count(True) == 3
    assert counting.count == 24


RUNNING = {"estimator": "batch", "estimator_options": {"baseline": "running"}}
TABLE = {"estimator": "single_stream", "num_generations": 1, "rewards": [first, low]}
INFLUENCE = {"weighting": "gradient_influence", "weighting_options": {"step": 50.0}}
RESUMED = {
    "gradient rule": (GRPO, {"num_iterations": 2, **INFLUENCE}),
    "rloo with kl": (RLOO, {"weighting": "upgrad", "beta": 0.1, "gradient_every": 2}),
    "running baseline": (GRPO, {"weighting": "dirichlet", **RUNNING}),
    "table": (REINFORCE, {"weighting": "upgrad", **TABLE}),
    "tokens": (GRPO, {"token_share": 0.5, "token_prefix": 1, "weighting_timing": "lagged", **INFLUENCE}),
}


@pytest.mark.parametrize("name", sparing(RESUMED, "running baseline", "table"))
def test_a_resumed_run_repeats_weights_and_losses_to_the_bit(tmp_path, name):
    kind, more = RESUMED[name]
    settings = {
        "rewards": [first, Counting(), vowels], "max_steps": 5, "save_strategy": "steps", "save_steps": 1,
        "per_device_train_batch_size": 4, "steps_per_generation": 2, "logging_steps": 2,
    } | more  # fmt: skip
    whole = run(*kind, tmp_path, **settings)
    weights = [v for r in logged(whole) for k, v in r.items() if k.startswith("weights/")]
    assert len(set(weights)) > 2
    for at in (1, 2, 4):
        if "rewards" not in more:
            settings["rewards"] = [first, Counting(), vowels]
        again = dynamic(*kind, tmp_path / "again", **settings)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
        assert logged(again) == logged(whole)
        theirs = tiny.weights(whole)
        assert all((weight == theirs[key]).all() for key, weight in tiny.weights(again).items())


def test_a_checkpoint_of_another_rule_or_of_one_objective_is_refused(tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    run(*GRPO, tmp_path, **settings, **FIXED)
    other = dynamic(*GRPO, tmp_path / "b", weighting="upgrad", **settings)
    with pytest.raises(
        RunError, match="written with rule, estimator and objectives Fixed, Group, vowels, low, first, and"
    ):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    (tmp_path / "checkpoint-1" / "weighting_0.pt").unlink()
    with pytest.raises(RunError, match="checkpoint-1"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


@pytest.mark.parametrize("one", [True, False])
def test_a_reward_model_stays_one_where_the_estimator_brings_columns(tmp_path, one):
    """TRL takes a single tokenizer for a single reward function."""
    tokenizer = tiny_tokenizer()
    settings = {"estimator": "single_stream", "weighting": "fixed", "num_generations": 1}
    classes = tokenizer if one else [tokenizer]
    trainer = dynamic(*REINFORCE, tmp_path, rewards=[first], classes=classes, **settings)
    assert trainer.reward_processing_classes == [tokenizer, None, None]

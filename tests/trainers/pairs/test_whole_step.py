"""AOT and β-DPO: five steps of TRL, a loop by hand, and what does not depend on how pairs are cut up."""

import json

import pytest
import scored
import tiny
import torch
from pairwise_worker import WHOLE_STEP
from torch.testing import assert_close
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer

from align import AOTConfig, BetaDPOConfig
from align.configs import ConfigError
from align.losses import Pair
from align.trainers.pairs.whole_step import MovingMargin
from align.trainers.shared import trl_contract


def trainer(folder, name, **kw):
    cls, config, settings = WHOLE_STEP[name]
    return tiny.trainer(cls, config, folder, **{"data": scored.pairs(8)} | settings | kw)


def trained(folder, name, **kw):
    made = trainer(folder, name, **kw)
    made.train()
    return made


@pytest.mark.parametrize(
    ("name", "shared"), [("aot", {}), ("aot_unpaired", {"label_smoothing": 0.1}), ("aot", {"label_smoothing": 0.1})]
)
def test_five_steps_equal_trl(tmp_path, monkeypatch, name, shared):
    """Batches of four, one a step."""
    monkeypatch.setattr(trl_contract, "_Head", trl_contract.CHUNKED_HEAD)
    kw = {"per_device_train_batch_size": 4, "data": tiny.pairs(8)} | shared
    mine = trained(tmp_path / "ours", name, shared_prefix="off", **kw)
    theirs = tiny.trainer(TRLDPOTrainer, TRLDPOConfig, tmp_path / "theirs", loss_type=[name], **kw)
    theirs.train()
    assert tiny.losses(mine) == pytest.approx(
        tiny.losses(theirs), rel=5e-6, abs=1e-6
    )  # 2.5e-6 after five steps on a CPU with AVX2
    assert len(set(tiny.losses(mine))) == 5
    for key, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(mine)[key], weight, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", WHOLE_STEP)
def test_four_accumulated_batches_equal_one(tmp_path, name):
    """Also in parts; and the logged values are those of one batch."""
    kw = {"max_steps": 3, "learning_rate": 0.003}
    one = trained(tmp_path / "a", name, per_device_train_batch_size=8, **kw)
    many = trained(tmp_path / "b", name, per_device_train_batch_size=2, global_batch_size=8, **kw)
    parts = trained(tmp_path / "c", name, per_device_train_batch_size=8, max_tokens_per_batch=40, **kw)
    for other in (many, parts):
        for key in ("loss", "rewards/margins", *(["beta", "kept"] if name.startswith("beta_dpo") else [])):
            assert tiny.losses(other, key) == pytest.approx(tiny.losses(one, key), rel=1e-4, abs=1e-5), key
        for key, weight in tiny.weights(one).items():
            assert (tiny.weights(other)[key] - weight).norm() < 2e-3 * weight.norm(), key


@pytest.mark.parametrize("name", WHOLE_STEP)
def test_evaluation_does_not_depend_on_its_batches_and_changes_nothing(tmp_path, name):
    made = trained(tmp_path, name, per_device_train_batch_size=4, eval_data={"b": scored.pairs(7)})
    before = getattr(made, "moving", None) and made.moving.mean
    found = []
    for size in (2, 7):
        made.args.per_device_eval_batch_size = size
        made.held["per_device_eval_batch_size"] = size
        found.append(made.evaluate()["eval_b_loss"])
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] != pytest.approx(0.6931, abs=1e-3)
    assert (getattr(made, "moving", None) and made.moving.mean) == before


def test_the_mean_gap_moves_beta(tmp_path):
    """D̄ is margins over β₀; M keeps nine tenths of itself."""
    made = trained(tmp_path, "beta_dpo", per_device_train_batch_size=4)
    moving, betas = 0.0, []
    for margin in tiny.losses(made, "rewards/margins"):
        moving = 0.9 * moving + 0.1 * margin / 0.3
        betas.append(max(1e-3, 0.3 * (1 + 0.9 * (margin / 0.3 - moving))))
    assert tiny.losses(made, "beta") == pytest.approx(betas, rel=1e-4)
    assert len({round(beta, 3) for beta in betas}) > 3
    assert made.moving.mean == pytest.approx(moving, rel=1e-4)


def test_every_step_draws_anew_and_a_repeated_one_the_same(tmp_path):
    made = trainer(tmp_path, "beta_dpo_filtered", per_device_train_batch_size=8)
    zeros, drawn = Pair(torch.zeros(8), torch.zeros(8)), []
    for made.state.global_step in (0, 1, 2, 3, 0):
        drawn.append(tuple(made.of_step(zeros, zeros)["weight"].tolist()))
    assert len(set(drawn)) > 2
    assert drawn[0] == drawn[4]


def test_mean_and_deviation_move_alike():
    moving = MovingMargin(0.75)
    moving.add(4.0, 8.0)
    moving.add(0.0, 4.0)
    assert (moving.mean, moving.deviation) == (0.75, 2.5)
    moving.forget_step()
    assert (moving.mean, moving.deviation) == (1.0, 2.0)


def test_the_loss_of_a_filtered_step_is_the_mean_over_the_pairs_kept(tmp_path, monkeypatch):
    """Rewards are those of all pairs; an evaluation keeps all."""
    made, seen = trainer(tmp_path, "beta_dpo_filtered", per_device_train_batch_size=8, max_steps=3), []
    loss = made.preference_loss

    def look(*args, **columns):
        seen.append((loss(*args, **columns), columns))
        return seen[-1][0]

    monkeypatch.setattr(made, "preference_loss", look)
    made.train()
    kept = [columns["weight"] > 0 for _, columns in seen]
    assert [int(each.sum()) for each in kept] == [5, 5, 5]
    assert len({tuple(each.tolist()) for each in kept}) > 1
    moving = 0.0
    for step, ((result, columns), some) in enumerate(zip(seen, kept, strict=True)):
        gaps = (result.rewards.chosen - result.rewards.rejected).detach() / 0.3
        moving = 0.9 * moving + 0.1 * gaps.mean().item()
        beta = columns["beta"][0]
        assert beta.item() == pytest.approx(max(1e-3, 0.3 * (1 + 0.9 * (gaps[some].mean().item() - moving))), rel=1e-4)
        losses = -torch.nn.functional.logsigmoid(beta * gaps[some])
        assert tiny.losses(made)[step] == pytest.approx(losses.mean().item(), rel=1e-4)
    assert tiny.losses(made, "kept") == [5 / 8] * 3
    assert made.evaluate(scored.pairs(4))["eval_kept"] == 1.0


@pytest.mark.parametrize("name", ["aot_unpaired", "beta_dpo_filtered"])
def test_a_run_that_resumes_ends_at_the_same_bits(tmp_path, name):
    kw = {"per_device_train_batch_size": 4, "save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trained(tmp_path / "whole", name, **kw)
    again = trainer(tmp_path / "again", name, **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for key, weight in tiny.weights(whole).items():
        assert_close(tiny.weights(again)[key], weight, rtol=0, atol=0)
    kept = json.loads((tmp_path / "whole" / "checkpoint-4" / "trainer_state.json").read_text())["stateful_callbacks"]
    if name == "beta_dpo_filtered":
        said = {"mean": whole.moving.mean, "deviation": whole.moving.deviation}
        assert kept["MovingMargin"]["attributes"] == said == {key: getattr(again.moving, key) for key in said}
        assert all(said.values())


def test_a_step_that_is_skipped_does_not_move_beta(tmp_path, monkeypatch):
    made = trainer(tmp_path, "beta_dpo", per_device_train_batch_size=4, max_steps=3)
    look, calls = made.of_step, []

    def broken(policy, ref):
        calls.append(policy)
        return look(policy._replace(chosen=policy.chosen * (float("nan") if len(calls) == 2 else 1.0)), ref)

    monkeypatch.setattr(made, "of_step", broken)
    made.train()
    assert made.guard.skipped == 1
    assert made.moving.mean == made.moving.mean


def test_a_stored_reference_gives_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    online = trained(tmp_path / "a", "aot", per_device_train_batch_size=4)
    stored = trained(tmp_path / "b", "aot", per_device_train_batch_size=4, precompute_ref_log_probs=True)
    assert tiny.losses(stored) == pytest.approx(tiny.losses(online), rel=1e-5)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (AOTConfig, {"matching": "sorted"}, "matching: must be 'paired' or 'unpaired', got 'sorted'"),
        (AOTConfig, {"label_smoothing": 0.5}, r"label_smoothing: must be in \[0, 0.5\), got 0.5"),
        (
            AOTConfig,
            {"per_device_train_batch_size": 1},
            "per_device_train_batch_size: a step of one pair matches it to",
        ),
        (AOTConfig, {"ld_alpha": 0.5}, "ld_alpha: not honoured here"),
        (BetaDPOConfig, {"margin_weight": -1.0}, "margin_weight: must be finite and not negative, got -1.0"),
        (BetaDPOConfig, {"margin_decay": 1.0}, r"margin_decay: must be in \[0, 1\), got 1.0"),
        (BetaDPOConfig, {"filter_ratio": 1.0}, r"filter_ratio: must be in \[0, 1\), got 1.0"),
        (BetaDPOConfig, {"label_smoothing": 0.1}, "label_smoothing: not honoured here"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, config, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.arguments(config, tmp_path, **settings)

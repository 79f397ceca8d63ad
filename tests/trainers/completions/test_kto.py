"""KTO on labelled answers: five steps of TRL, and what does not depend on how rows are cut up."""

import pytest
import tiny
from datasets import Dataset
from kto_worker import rows, trainer
from torch.testing import assert_close
from trl import KTOConfig as TRLKTOConfig
from trl import KTOTrainer as TRLKTOTrainer

from align import KTOConfig
from align.configs import ConfigError


def trained(folder, **kw):
    made = trainer(folder, **kw)
    made.train()
    return made


@pytest.mark.parametrize(
    "shared",
    [
        {},
        {"precompute_ref_log_probs": True},
        {"desirable_weight": 1.5, "undesirable_weight": 0.5},
        {"loss_type": "apo_zero_unpaired", "train_sampling_strategy": "sequential"},
    ],
)
def test_five_steps_equal_trl(tmp_path, shared):
    """Batches of four, one a step; the last step begins the data anew."""
    mine = trained(tmp_path / "ours", per_device_train_batch_size=4, **shared)
    theirs = tiny.trainer(
        TRLKTOTrainer, TRLKTOConfig, tmp_path / "theirs", data=rows(), per_device_train_batch_size=4, **shared
    )
    theirs.train()
    assert tiny.losses(mine) == pytest.approx(tiny.losses(theirs), rel=2e-6, abs=1e-6)
    assert len(set(tiny.losses(mine))) == 5
    for key in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
        assert tiny.losses(mine, key) == pytest.approx(tiny.losses(theirs, key), rel=1e-4, abs=1e-5)
    if "loss_type" not in shared:
        z = [0.3 * value for value in tiny.losses(theirs, "kl")]  # TRL logs it without β
        assert tiny.losses(mine, "kto/baseline") == pytest.approx(z, abs=1e-5)
        assert max(z) > 0
    for name, weight in tiny.weights(theirs).items():  # Adam makes a whole step of a gradient that is rounding
        assert (tiny.weights(mine)[name] - weight).norm() < 1e-4 * weight.norm(), name


def test_four_accumulated_batches_equal_one(tmp_path):
    desirable = rows(20).filter(lambda row: row["label"]).select(range(8))  # of which the rewards rise, and z with them
    kw = {"max_steps": 4, "learning_rate": 0.003, "data": desirable}
    one = trained(tmp_path / "a", per_device_train_batch_size=8, **kw)
    many = trained(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **kw)
    for key in ("loss", "kto/baseline", "rewards/margins"):
        assert tiny.losses(many, key) == pytest.approx(tiny.losses(one, key), rel=1e-4, abs=1e-6), key
    assert max(tiny.losses(one, "kto/baseline")) > 0
    for key, weight in tiny.weights(one).items():
        assert (tiny.weights(many)[key] - weight).norm() < 2e-3 * weight.norm(), key


def test_a_smaller_last_batch_weighs_by_its_rows(tmp_path):
    """Six rows in batches of four: a step of 4 + 2 is the step of 6."""
    kw = {"max_steps": 1, "data": rows(6)}
    one = trained(tmp_path / "a", per_device_train_batch_size=6, **kw)
    two = trained(tmp_path / "b", per_device_train_batch_size=4, gradient_accumulation_steps=2, **kw)
    assert tiny.losses(two) == pytest.approx(tiny.losses(one), rel=1e-5)
    for key, weight in tiny.weights(one).items():
        assert_close(tiny.weights(two)[key], weight, rtol=1e-4, atol=1e-5)


def test_evaluation_does_not_depend_on_its_batches(tmp_path):
    made = trained(tmp_path, per_device_train_batch_size=4, eval_data={"b": rows(7)})
    found = []
    for size in (2, 7):
        made.args.per_device_eval_batch_size = size
        made.held["per_device_eval_batch_size"] = size
        found.append(made.evaluate())
    for key in ("eval_b_loss", "eval_b_kto/baseline", "eval_b_rewards/margins"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-5, abs=1e-7), key


def test_a_run_that_resumes_ends_at_the_same_bits(tmp_path):
    kw = {
        "per_device_train_batch_size": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 4,
        "shuffle_rows": True,
    }
    whole = trained(tmp_path / "whole", **kw)
    again = trainer(tmp_path / "again", **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, weight in tiny.weights(whole).items():
        assert_close(tiny.weights(again)[name], weight, rtol=0, atol=0)
    assert tiny.losses(again)[-1] == tiny.losses(whole)[-1]


def test_pairs_are_two_rows_each_and_are_mixed(tmp_path):
    """TRL's order of pairs is all chosen, then all rejected; here each half has both labels."""
    made = trainer(tmp_path, data=tiny.pairs(8), per_device_train_batch_size=4, shuffle_rows=True)
    labels = made.train_dataset["label"]
    assert sorted(labels) == [False] * 8 + [True] * 8
    assert 0 < sum(labels[:8]) < 8
    plain = trainer(tmp_path, data=tiny.pairs(8), per_device_train_batch_size=4)
    assert plain.train_dataset["label"] == [True, False] * 8


def test_no_row_is_matched_with_its_own_answer(tmp_path):
    """Nine rows in steps of four: the last step has one row, which gets its neighbour's."""
    data = trainer(tmp_path, data=rows(9), per_device_train_batch_size=4).train_dataset
    assert all(row["KL_completion_ids"] != row["completion_ids"] for row in data)
    assert data[8]["KL_completion_ids"] == data[7]["completion_ids"]


def test_weights_from_the_data(tmp_path):
    """Six desirable rows and two others weigh 1 and 3."""
    some = [row for row in rows(20) if row["label"]][:6] + [row for row in rows(20) if not row["label"]][:2]
    made = trainer(tmp_path, data=Dataset.from_list(some), class_weights="data", per_device_train_batch_size=4)
    assert (made.desirable_weight, made.undesirable_weight) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta: must be positive and finite, got 0.0"),
        ({"desirable_weight": -1.0}, "desirable_weight: must be positive and finite, got -1.0"),
        ({"loss_type": "bco"}, "loss_type: must be one of kto, apo_zero_unpaired, got 'bco'"),
        ({"class_weights": "data", "desirable_weight": 2.0}, "class_weights: 'data' chooses both weights"),
        ({"class_weights": "mine"}, "class_weights: must be 'given' or 'data', got 'mine'"),
        ({"per_device_train_batch_size": 1}, "per_device_train_batch_size: must be at least 2"),
        ({"train_sampling_strategy": "random"}, "train_sampling_strategy: must be 'sequential', got 'random'"),
        ({"sync_ref_model": True}, "sync_ref_model: not with an adapter"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.arguments(KTOConfig, tmp_path, **settings)


def test_a_label_is_true_or_false(tmp_path):
    wrong = rows(4).remove_columns("label").add_column("label", [1.0, 0.0, 0.5, 1.0])
    with pytest.raises(ValueError, match=r"train data: row 3: label must be true or false, got 0\.5"):
        trainer(tmp_path, data=wrong, per_device_train_batch_size=4)

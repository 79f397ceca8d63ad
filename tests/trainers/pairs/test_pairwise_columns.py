"""Data columns reach the loss, whatever is done to the batch on the way, and nothing else sees them."""

import pytest
import scored
import tiny
import torch
from safetensors.torch import load_file

from align import DPOConfig, DPOTrainer
from align.configs.pairwise import PairwiseConfig
from align.scoring.batching import pick_pairs
from align.trainers import PreferenceTrainer
from align.trainers.pairs.pairwise import PairwiseTrainer
from align.trainers.shared.columns import WithColumns

COPG = {"objective": {"copg": 1.0}}
GAPS = [a - b for a, b in zip(scored.COLUMNS["chosen_reward"], scored.COLUMNS["rejected_reward"], strict=True)]


def made(tmp_path, data=None, **kw):
    data = scored.pairs() if data is None else data
    return tiny.trainer(PairwiseTrainer, PairwiseConfig, tmp_path, data=data, **kw)


@pytest.mark.parametrize(
    "kw",
    [
        {},
        {"max_tokens_per_batch": 40},
        {"precompute_ref_log_probs": True},
        {"shared_prefix": "on"},
        {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 10},
        {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 10},
    ],
)
def test_the_first_loss_is_that_of_the_scores_alone(tmp_path, kw):
    """A fresh adapter has margin 0, so CoPG's loss is the mean squared gap of the scores, weighted."""
    settings = {"per_device_train_batch_size": 10, "max_steps": 1, "pair_weights": True, **COPG} | kw
    trainer = made(tmp_path, **settings)
    trainer.train()
    expected = sum(w * gap**2 for w, gap in zip(scored.COLUMNS["weight"], GAPS, strict=True)) / 10
    assert tiny.losses(trainer)[0] == pytest.approx(expected, rel=1e-5)
    assert tiny.losses(trainer, "loss/copg")[0] == pytest.approx(expected, rel=1e-5)
    assert tiny.losses(trainer, "pair_weight")[0] == pytest.approx(sum(scored.COLUMNS["weight"]) / 10)


def test_evaluation_sets_have_their_own(tmp_path):
    other = scored.pairs(4, chosen_reward=[2.0] * 4, rejected_reward=[0.0] * 4)
    trainer = made(tmp_path, eval_data={"a": scored.pairs(), "b": other}, per_device_eval_batch_size=3, **COPG)
    metrics = trainer.evaluate()
    assert metrics["eval_a_loss"] == pytest.approx(sum(gap**2 for gap in GAPS) / 10, rel=1e-5)
    assert metrics["eval_b_loss"] == pytest.approx(4.0, rel=1e-5)
    with pytest.raises(ValueError, match=r"column 'chosen_reward' must be a finite number in \[-inf, inf\], got None"):
        trainer.evaluate(eval_dataset=tiny.pairs(4))


def test_no_model_sees_them(tmp_path):
    trainer = made(tmp_path, shared_prefix="off", max_steps=1, pair_weights=True, **COPG)
    seen = set()
    trainer.model.register_forward_pre_hook(lambda m, args, kw: seen.update(kw), with_kwargs=True)
    trainer.train()
    assert seen == {"input_ids", "attention_mask", "labels", "use_cache", "fused_lm_head"}


@pytest.mark.parametrize(
    ("settings", "column", "reader"),
    [
        (COPG, "rejected_reward", "objective copg"),
        ({"objective": {"reverse_po": 1.0}}, "margin", "objective reverse_po"),
        ({"objective": {"soft_sigmoid": 1.0, "nll": 0.1}}, "preference", "objective soft_sigmoid"),
        ({"objective": {"dno": 1.0, "copg": 1.0}}, "chosen_reward", "objective dno and copg"),
        ({"pair_weights": True}, "weight", "pair_weights"),
    ],
)
@pytest.mark.parametrize("where", ["train_dataset", "eval_dataset", "held"])
def test_a_missing_column_is_named_with_what_needs_it(tmp_path, settings, column, reader, where):
    whole, without = scored.pairs(), scored.pairs().remove_columns(column)
    data = without if where == "train_dataset" else whole
    eval_data = {"train_dataset": None, "eval_dataset": without, "held": {"good": whole, "held": without}}[where]
    message = f"PairwiseTrainer: {where}: no column '{column}', which {reader} needs; there are prompt"
    with pytest.raises(ValueError, match=message):
        made(tmp_path, data, eval_data=eval_data, **settings)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("preference", 1.2, r"row 4: column 'preference' must be a finite number in \[0, 1\], got 1.2"),
        ("preference", -0.1, r"row 4: column 'preference' must be .* got -0.1"),
        ("preference", float("nan"), "row 4: column 'preference' must be .* got nan"),
        ("preference", None, "row 4: column 'preference' must be .* got None"),
        ("weight", -1.0, r"row 4: column 'weight' must be a finite number in \[0, inf\], got -1.0"),
        ("weight", float("inf"), "row 4: column 'weight' must be .* got inf"),
    ],
)
def test_values_of_no_meaning_are_refused_with_their_row(tmp_path, column, value, message):
    values = [*scored.COLUMNS[column][:3], value, *scored.COLUMNS[column][4:]]
    settings = {"objective": {"soft_sigmoid": 1.0}, "pair_weights": True}
    with pytest.raises(ValueError, match=message):
        made(tmp_path, scored.pairs(**{column: values}), **settings)


def test_truth_values_are_no_weights(tmp_path):
    with pytest.raises(ValueError, match=r"row 1: column 'weight' must be .* got True"):
        made(tmp_path, scored.pairs(weight=[True] * 10), pair_weights=True)


def test_streamed_rows_are_looked_at_as_they_come(tmp_path):
    stream = scored.pairs(weight=[1.0, -1.0] * 5).to_iterable_dataset()
    trainer = made(tmp_path, stream, pair_weights=True, max_steps=2)
    with pytest.raises(ValueError, match=r"a row of the data: column 'weight' must be .* got -1.0"):
        trainer.train()
    good = made(tmp_path, scored.pairs().to_iterable_dataset(), max_steps=1, pair_weights=True, **COPG)
    good.train()
    assert tiny.losses(good)[0] > 0


def test_other_trainers_batches_are_as_they_were(tmp_path):
    trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, data=scored.pairs())
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) == {"input_ids", "attention_mask", "completion_mask"}
    assert not isinstance(trainer.data_collator, WithColumns)


def test_parts_of_a_batch_keep_their_pairs(tmp_path):
    trainer = made(tmp_path, pair_weights=True)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert batch["column.weight"].tolist() == [1.0, 0.5, 2.0, 1.0]
    assert pick_pairs(batch, torch.tensor([2, 0]))["column.weight"].tolist() == [2.0, 1.0]


def test_a_skipped_step_keeps_the_columns_for_replay(tmp_path):
    trainer = made(tmp_path, max_steps=2, per_device_train_batch_size=10, **COPG)
    plain = trainer.preference_loss

    def broken(*pairs, **columns):
        result = plain(*pairs, **columns)
        return result._replace(losses=result.losses * float("nan")) if trainer.state.global_step == 0 else result

    trainer.preference_loss = broken
    trainer.train()
    kept = load_file(next(tmp_path.glob("skipped/step-1/batches-*.safetensors")))
    assert sorted(kept["0.column.chosen_reward"].tolist()) == sorted(scored.COLUMNS["chosen_reward"])
    assert trainer.guard.skipped == 1


def test_the_loss_is_the_sum_of_what_is_logged(tmp_path):
    objective = {"copg": 0.5, "nll": 0.25, "ipo_mean": 1.0}
    trainer = made(tmp_path, objective=objective, max_steps=3)
    trainer.train()
    for record in trainer.state.log_history[:-1]:
        assert record["loss"] == pytest.approx(sum(record[f"loss/{name}"] for name in objective), rel=1e-5)
    first = trainer.state.log_history[0]
    assert first["loss/ipo_mean"] == pytest.approx((1 / (2 * 0.3)) ** 2, rel=1e-4)
    assert isinstance(trainer, PreferenceTrainer)


def test_ld_dpo_takes_no_sums_of_the_reference(tmp_path):
    data = tiny.pairs(4)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        data = data.add_column(name, [-3.0] * 4)
    with pytest.raises(ValueError, match="ld_alpha needs the reference token by token, and the data have sums of it"):
        made(tmp_path, data, ld_alpha=0.5)

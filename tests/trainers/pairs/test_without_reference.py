"""Where no objective reads the reference, training neither scores nor loads it, and is otherwise the same."""

import pytest
import tiny
from torch.testing import assert_close
from trl import DPOTrainer as TRLDPOTrainer

from align import DPOConfig, DPOTrainer
from align.configs import ConfigError
from align.configs.pairwise import PRESETS, PairwiseConfig
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.pairs.pairwise import PairwiseTrainer

FREE = ("simpo", "slic", "orpo", "cpo")
NONE = {"objective": {"simpo": 1.0}}


def made(folder, **kw):
    return tiny.trainer(PairwiseTrainer, PairwiseConfig, folder, eval_data={"b": tiny.pairs(4)}, **kw)


def refuse(*args):
    raise AssertionError("the reference is scored")


def logged(trainer):
    return {key for record in trainer.state.log_history for key in record}


def test_presets_say_whether_they_read_it(tmp_path):
    smoothed = {"robust": {"label_smoothing": 0.1}}
    found = {
        name: tiny.arguments(PairwiseConfig, tmp_path, **preset.settings | smoothed.get(name, {}))
        for name, preset in PRESETS.items()
    }
    assert {name for name, config in found.items() if not config.reads_reference()} == set(FREE)
    both = tiny.arguments(PairwiseConfig, tmp_path, objective={"simpo": 1.0, "sigmoid": 1.0})
    assert both.reads_reference()


@pytest.mark.parametrize("name", FREE)
def test_it_is_not_scored_and_nothing_else_changes(tmp_path, monkeypatch, name):
    settings = PRESETS[name].settings
    with monkeypatch.context() as patched:
        patched.setattr(PairwiseConfig, "reads_reference", lambda self: True)
        before = made(tmp_path / "a", **settings, max_steps=3)
        before.train()
        expected = before.evaluate()
    monkeypatch.setattr(TRLDPOTrainer, "compute_ref_log_probs", refuse)
    after = made(tmp_path / "b", **settings, max_steps=3)
    after.train()
    found = after.evaluate()
    assert tiny.losses(after) == tiny.losses(before)
    for key, weight in tiny.weights(before).items():
        assert_close(tiny.weights(after)[key], weight, rtol=0, atol=0)
    ratios = {"log_ratio/chosen", "log_ratio/rejected"}
    assert logged(before) - logged(after) == ratios | {f"eval_b_{ratio}" for ratio in ratios}
    assert found["eval_b_loss"] == expected["eval_b_loss"]
    assert found["eval_b_rewards/margins"] == expected["eval_b_rewards/margins"]


def test_values_of_it_in_the_data_are_logged(tmp_path):
    data = tiny.pairs(4)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        data = data.add_column(name, [-3.0] * 4)
    trainer = tiny.trainer(PairwiseTrainer, PairwiseConfig, tmp_path, data=data, max_steps=1, **NONE)
    trainer.train()
    first = trainer.state.log_history[0]
    assert first["log_ratio/chosen"] == pytest.approx(first["logps/chosen"] + 3.0, abs=1e-4)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_model_that_is_trained_whole_is_loaded_once(tmp_path, by_name):
    tokenizer = tiny_tokenizer()
    path = str(tmp_path / "model")
    tiny_model(tokenizer).save_pretrained(path)
    model = tiny_model(tokenizer)
    model.config._name_or_path = path

    def trainer(**kw):
        args = tiny.arguments(PairwiseConfig, tmp_path / "run", max_steps=1, **kw)
        return PairwiseTrainer(
            model=path if by_name else model, args=args, train_dataset=tiny.pairs(4), processing_class=tokenizer
        )

    free = trainer(**NONE)
    assert free.ref_model is None
    free.train()
    assert trainer().ref_model is not None


@pytest.mark.parametrize("field", ["precompute_ref_log_probs", "sync_ref_model"])
def test_what_only_a_reference_has_use_for_is_refused(tmp_path, field):
    with pytest.raises(ConfigError, match=f"{field}: no chosen objective reads the reference; leave it out"):
        tiny.arguments(PairwiseConfig, tmp_path, **NONE, **{field: True})


@pytest.mark.parametrize("with_it", ["train_dataset", "eval_dataset"])
def test_reference_columns_in_one_set_alone_are_refused(tmp_path, with_it):
    given = tiny.pairs().map(lambda _: {"ref_chosen_logps": -40.0, "ref_rejected_logps": -41.5})
    sets = {"train_dataset": tiny.pairs(), "eval_dataset": tiny.pairs(4), with_it: given}
    with pytest.raises(
        ValueError, match="eval_dataset and train_dataset: one of them has the columns ref_chosen_logps"
    ):
        tiny.trainer(DPOTrainer, DPOConfig, tmp_path, data=sets["train_dataset"], eval_data=sets["eval_dataset"])

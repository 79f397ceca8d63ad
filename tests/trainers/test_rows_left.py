"""Sets without rows, rows that leave nothing to learn, and rows without labels: refused or told, in training sets and others."""

import logging

import pytest
import tiny
from datasets import Dataset
from groups import vowels
from peft import LoraConfig

import align
from align.errors import DataError
from align.models.tiny import tiny_model, tiny_tokenizer

TEXTS = [{"prompt": f"q{number} ", "chosen": "yes" * number + "y", "rejected": "no"} for number in range(6)]
LONG = [{"prompt": "x" * 50, "chosen": f"a{number}", "rejected": "b"} for number in range(3)]


def labelled(pairs):
    answers = [(pair["prompt"], pair[side], side == "chosen") for pair in pairs for side in ("chosen", "rejected")]
    return [{"prompt": prompt, "completion": text, "label": label} for prompt, text, label in answers]


KINDS = {
    "dpo": (align.DPOTrainer, align.DPOConfig, lambda pairs: pairs),
    "kto": (align.KTOTrainer, align.KTOConfig, labelled),
    "bco": (align.BCOTrainer, align.BCOConfig, labelled),
    "sft": (align.SupervisedTrainer, align.SupervisedConfig, labelled),
    "preferences": (align.PreferenceModelTrainer, align.PreferenceModelConfig, lambda pairs: pairs),
}
CUT = ("dpo", "kto", "bco", "sft")


def build(cls, config, folder, data, others=None, beside=(), **settings):
    args = config(str(folder), use_cpu=True, bf16=False, report_to="none", max_steps=1, per_device_train_batch_size=2,
                  gradient_checkpointing=False, **settings)  # fmt: skip
    tokenizer = tiny_tokenizer()
    return cls(tiny_model(tokenizer), *beside, args=args, train_dataset=data, eval_dataset=others, processing_class=tokenizer,
               peft_config=LoraConfig(**tiny.LORA))  # fmt: skip


def made(name, folder, pairs, others=None, **settings):
    trainer, config, rows = KINDS[name]
    data, others = Dataset.from_list(rows(pairs)), None if others is None else Dataset.from_list(rows(others))
    return build(trainer, config, folder, data, others, **settings)


@pytest.mark.parametrize("name", KINDS)
def test_a_set_without_rows_is_refused(tmp_path, name):
    trainer, config, rows = KINDS[name]
    some = Dataset.from_list(rows(TEXTS))
    for data, others, named in (
        (some.select([]), None, "train_dataset"),
        (some, some.select([]), "eval_dataset"),
        (some, {"a": some, "b": some.select([])}, "b"),
    ):
        with pytest.raises(DataError, match=f"{named}: there is no row"):
            build(trainer, config, tmp_path, data, others)


def test_prompts_without_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match="train_dataset: there is no row"):
        build(align.GRPOTrainer, align.GRPOConfig, tmp_path, Dataset.from_list([]), beside=[vowels], num_generations=2)


@pytest.mark.parametrize("name", CUT)
def test_rows_that_are_left_out_are_told(tmp_path, caplog, name):
    with caplog.at_level(logging.WARNING):
        trainer = made(name, tmp_path, TEXTS + LONG, TEXTS[:2] + LONG, max_length=30)
    each = 1 if name == "dpo" else 2
    left, told = (
        (f"max_length=30 leaves no token to learn in {3 * each} of {n * each} rows" for n in (9, 5)),
        caplog.text,
    )
    assert all(words in told for words in left)
    assert len(trainer.train_dataset) == 6 * each


@pytest.mark.parametrize("name", CUT)
def test_a_set_of_which_nothing_is_left_is_refused(tmp_path, name):
    words = "no pair is left|leaves no token to learn in 6 of 6 rows; raise it"
    with pytest.raises(DataError, match=words):
        made(name, tmp_path, LONG, max_length=30)
    with pytest.raises(DataError, match=words):
        made(name, tmp_path, TEXTS, LONG, max_length=30)


@pytest.mark.parametrize("name", ["kto", "bco"])
def test_rows_without_labels_are_refused_before_training(tmp_path, name):
    trainer, config, rows = KINDS[name]
    good = Dataset.from_list(rows(TEXTS))
    bare = good.remove_columns("label")
    for data, others, named in (
        (bare, None, "train"),
        (good, bare, "eval"),
        (good, bare.to_iterable_dataset(), "eval"),
    ):
        with pytest.raises(DataError, match=f"{named} data: no column 'label'; there are prompt, completion"):
            build(trainer, config, tmp_path, data, others)

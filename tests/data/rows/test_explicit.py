"""The same file means the same from a recipe and from Python."""

import json

import pytest
import tiny
from datasets import Dataset, IterableDataset
from peft import LoraConfig
from tiny import sparing

from align import DPOConfig, DPOTrainer, SupervisedConfig, SupervisedTrainer
from align.data import DataConfig, DataError, DataSource, load_data
from align.data.rows.explicit import explicit
from align.models.tiny import tiny_model, tiny_tokenizer

HH = "\n\nHuman: hi\n\nAssistant: I am "
USER = {"role": "user", "content": "q"}


def bot(text):
    return {"role": "assistant", "content": text}


FILES = {
    "transcripts": ("pairs", {"chosen": f"{HH}well", "rejected": f"{HH}ill"}),
    "a text prompt of conversations": ("pairs", {"prompt": "q", "chosen": [USER, bot("a")], "rejected": [USER, bot("b")]}),
    "the prompt in the answers": ("pairs", {"prompt": [USER], "chosen": [USER, bot("a")], "rejected": [USER, bot("b")]}),
    "a system column": ("pairs", {"system": "s", "prompt": "q", "chosen": "a", "rejected": "b"}),
    "ShareGPT": ("pairs", {"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}),
    "answers of text": ("pairs", {"prompt": [USER], "chosen": "a", "rejected": "b"}),
    "messages": ("completions", {"messages": [USER, bot("x"), USER, bot("a")]}),
}  # fmt: skip


@pytest.mark.parametrize("name", sparing(FILES, "ShareGPT"))
def test_trainers_learn_the_same_tokens_of_a_file_by_recipe_and_in_python(tmp_path, name):
    kind, row = FILES[name]
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    by_recipe = load_data(DataConfig(DataSource(str(path))), rows=kind).train
    made, (cls, config) = tiny_tokenizer(), {
        "pairs": (DPOTrainer, DPOConfig), "completions": (SupervisedTrainer, SupervisedConfig),
    }[kind]  # fmt: skip
    settings = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}

    def learnt(data):
        trainer = cls(
            model=tiny_model(made), args=config(**settings), train_dataset=data, processing_class=made,
            peft_config=LoraConfig(**tiny.LORA),
        )  # fmt: skip
        return {k: v for k, v in trainer.train_dataset[0].items() if k.endswith(("_ids", "mask"))}

    first, second = learnt(by_recipe), learnt(Dataset.from_list([row]))
    assert first == second
    assert first


def test_explicit_rows_are_handed_back_and_other_columns_stay():
    rows = tiny.pairs(3)
    assert explicit(rows, "pairs", where="x") is rows
    made = explicit(Dataset.from_list([FILES["transcripts"][1] | {"weights": 0.5}]), "pairs", where="x")
    assert made[0] == {
        "prompt": "\n\nHuman: hi\n\nAssistant:",
        "chosen": " I am well",
        "rejected": " I am ill",
        "weights": 0.5,
    }
    streamed = IterableDataset.from_generator(lambda: iter([FILES["a system column"][1]]))
    (row,) = explicit(streamed, "pairs", where="x")
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    with pytest.raises(DataError, match="x: row 1: chosen and rejected differ before the last answer"):
        explicit(
            Dataset.from_list([{"chosen": [USER, bot("a")], "rejected": [bot("z"), bot("b")]}]), "pairs", where="x"
        )

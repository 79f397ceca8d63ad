"""What stands beside a pair says which prompt it answers: `alignkit data fix` goes by it."""

import json

import pytest

from align.data.commands.fix import main

ROW = {"prompt": "Say hi", "chosen": "Good day", "rejected": "Yo"}
SWAPPED = {"prompt": "Say hi", "chosen": "Yo", "rejected": "Good day"}


def fixed(folder, rows):
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(folder / "rows.jsonl"), "--out", str(folder / "clean.jsonl")]) == 0
    return [json.loads(line) for line in (folder / "clean.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "beside",
    [
        ({"system": "Be polite."}, {"system": "Be casual."}),
        ({"tools": "[]"}, {"tools": '[{"type": "function"}]'}),
        ({"chat_template_kwargs": {"thinking": True}}, {"chat_template_kwargs": {"thinking": False}}),
    ],
)
def test_pairs_of_other_prompts_neither_contradict_nor_repeat_each_other(tmp_path, beside):
    rows = [
        ROW | beside[0],
        SWAPPED | beside[1],
        ROW | beside[1] | {"prompt": "Say it"},
        ROW | beside[0] | {"prompt": "Say it"},
    ]
    assert fixed(tmp_path, rows) == rows


def test_equal_ones_do(tmp_path):
    system, tools = {"system": "Be polite."}, {"tools": "[]"}
    one, other = ROW | system, ROW | tools | {"prompt": "Say it"}
    assert fixed(tmp_path, [one, one, other, other, ROW | {"prompt": "Say no"}]) == [
        one,
        other,
        ROW | {"prompt": "Say no"},
    ]


def test_a_system_message_is_mended_as_texts_are_and_must_be_one(tmp_path):
    rows = [ROW | {"system": "Be\r\npolite."}, SWAPPED | {"prompt": "Say it", "system": 5}]
    assert fixed(tmp_path, rows) == [ROW | {"system": "Be\npolite."}]

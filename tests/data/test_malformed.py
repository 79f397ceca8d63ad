"""Nothing is trained on silently: each malformed data set gets one message, with row, rule and remedy."""

from pathlib import Path

import pytest
from datasets import Dataset
from malformed import CHAT, LONG, TABLE, TEXT, bot, said, table, user, write

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.audit.duplicates import refuse_damaged
from align.data.rows.normalise import ROW

README = Path(__file__).parents[2] / "align" / "data" / "README.md"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("entry", [e for e in TABLE if e.level != "tokens"], ids=lambda entry: entry.name)
def test_one_message_with_row_rule_and_remedy(entry):
    told = said(entry)
    assert len(told) == 1, told
    level, message = told[0]
    assert level == {"file": "error"}.get(entry.level, entry.level)
    assert "data.train" in message
    assert [fragment for fragment in entry.says if fragment not in message] == [], message
    assert message.replace("\n", "").isprintable()


def test_what_only_tokens_show_is_left_to_them():
    (entry,) = (e for e in TABLE if e.level == "tokens")
    assert said(entry) == []


def test_the_row_where_kinds_change_is_that_of_the_source():
    write([TEXT | {"chosen": ""}, TEXT, CHAT], Path("pairs.jsonl"))
    with pytest.raises(DataError, match="row 3 is chat messages"):
        load_preferences(DataConfig(train=DataSource("pairs.jsonl"), unusable="drop"))


def test_every_name_is_given_once():
    names = [entry.name for entry in TABLE]
    assert len(set(names)) == len(names) >= 40


@pytest.mark.parametrize("rows", [[TEXT], [CHAT]])
def test_of_good_pairs_nothing_is_said(rows):
    assert said(TABLE[0]._replace(rows=rows)) == []


@pytest.mark.parametrize("answer", [bot, lambda text: bot(text) | {"name": None, "tool_calls": []}])
def test_a_text_prompt_with_message_answers_is_read_as_chat_and_empty_keys_are_nothing(answer):
    write([{"prompt": "q", "chosen": [answer("a")], "rejected": [answer("b")]}], Path("pairs.jsonl"))
    assert load_preferences(DataConfig(train=DataSource("pairs.jsonl"))).train.to_list() == [CHAT]


def test_the_readme_says_what_the_code_says():
    assert table() in README.read_text(encoding="utf-8"), (
        "run `python tests/helpers/malformed.py` and put its output there"
    )


def numbered(*rows):
    return Dataset.from_list([TEXT | change | {ROW: float(number)} for number, change in rows])


def test_dropping_takes_both_of_a_contradiction_and_the_training_side_of_a_leak(caplog):
    train = numbered((2, {}), (3, {"chosen": "b", "rejected": "a"}), (5, {"prompt": "r "}), (9, {"prompt": "s "}))
    held = numbered((1, {"prompt": "s "}), (4, {"prompt": "t "}))
    kept = refuse_damaged({"data.train": train, "data.eval.x": held}, unusable="drop")
    assert [row["prompt"] for row in kept["data.train"]] == ["r "]
    assert kept["data.eval.x"].to_list() == held.to_list()
    assert [message.partition(":")[0] for message in caplog.messages] == ["dropped from data.train"] * 2
    assert "(rows 2, 3)" in caplog.messages[0]
    assert "(row 1) are also in data.train (row 9)" in caplog.messages[1]
    with pytest.raises(DataError, match=r"contradictory-pairs: .*\(rows 2, 3\)(.|\n)*leakage: .*\(row 9\)"):
        refuse_damaged({"data.train": train, "data.eval.x": held})


def test_nothing_left_to_train_on_is_an_error():
    sets = {"data.train": numbered((1, {}), (2, {"chosen": "b", "rejected": "a"}))}
    with pytest.raises(DataError, match="data.train: no rows are left"):
        refuse_damaged(sets, unusable="drop")


def test_a_prompt_of_a_few_letters_may_begin_both_answers():
    entry = TABLE[0]._replace(rows=[{"prompt": "I ", "chosen": "I do", "rejected": "I don't"}])
    assert said(entry) == []
    assert len(LONG.strip()) >= 20
    assert said(TABLE[0]._replace(rows=[CHAT | {"prompt": [{"role": "system", "content": ""}, user("q")]}])) == []

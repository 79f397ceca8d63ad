"""Preference data in the layouts people have, and errors that name rows."""

import gzip
import json

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.loading import read
from align.data.rows.normalise import normalise


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def rows_of(*rows, columns=None, **kw):
    dataset, dropped = normalise(Dataset.from_list(list(rows)), columns=columns or {}, where="data", **kw)
    return dataset.to_list(), dropped


CHAT = {"prompt": [user("q")], "chosen": [bot("a")], "rejected": [bot("b")]}
TEXT = {"prompt": "q ", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (TEXT, TEXT),
        (CHAT, CHAT),
        ({k: CHAT["prompt"] + CHAT[k] for k in ("chosen", "rejected")}, CHAT),
        ({"prompt": CHAT["prompt"]} | {k: CHAT["prompt"] + CHAT[k] for k in ("chosen", "rejected")}, CHAT),
        ({"prompt": "q", "chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("b")]}, CHAT),
        ({"prompt": "q", "chosen": [bot("a")], "rejected": [bot("b")]}, CHAT),
        ({"prompt": [user("q")], "chosen": "a", "rejected": "b"}, CHAT),
        ({"messages": [user("q")], "chosen": bot("a"), "rejected": bot("b")}, CHAT),
        ({k: [user("q"), bot(a)] for k, a in (("messages", "a"), ("chosen", "a"), ("rejected", "b"))}, CHAT),
        ({"question": "q ", "response_j": "a", "response_k": "b"}, TEXT),
        ({"chosen": "two and two: four", "rejected": "two and two: five"}, {"prompt": "two and two: ", "chosen": "four", "rejected": "five"}),
        (
            {"chosen": "\n\nHuman: hi\n\nAssistant: I am", "rejected": "\n\nHuman: hi\n\nAssistant: I was"},
            {"prompt": "\n\nHuman: hi\n\nAssistant:", "chosen": " I am", "rejected": " I was"},
        ),
        (
            {"prompt": [user("q"), bot("x"), user("y")], "chosen": [bot("a")], "rejected": [bot("b")], "score": 3},
            {"prompt": [user("q"), bot("x"), user("y")], "chosen": [bot("a")], "rejected": [bot("b")]},
        ),
    ],
)  # fmt: skip
def test_layouts(row, expected):
    assert rows_of(row)[0] == [expected]


def test_column_mapping():
    row = {"instruction": "q ", "better": "a", "worse": "b"}
    assert rows_of(row, columns={"prompt": "instruction", "chosen": "better", "rejected": "worse"})[0] == [TEXT]
    with pytest.raises(DataError, match="no column 'good'; there are instruction, better, worse"):
        rows_of(row, columns={"chosen": "good"})
    with pytest.raises(DataError, match="columns.answer: unknown"):
        rows_of(row, columns={"answer": "better"})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"chosen": None}, "chosen is missing"),
        ({"rejected": []}, "rejected is neither text nor a list of messages"),
        ({"rejected": [bot(" ")]}, "rejected is empty"),
        ({"rejected": [bot("a")]}, "chosen and rejected are identical"),
        ({"rejected": [user("b")]}, "rejected ends with a user message"),
        ({"prompt": [user("q"), bot("x")]}, "the prompt ends with an assistant message"),
        ({"prompt": []}, "the prompt is empty"),
        ({"prompt": [user("other")], "chosen": [user("q"), bot("a")], "rejected": [user("q"), bot("b")]}, "not what chosen and rejected start with"),
        ({"chosen": [user("q"), bot("a")], "rejected": [user("z"), bot("b")]}, "differ before the last answer"),
        ({"chosen": [{"role": "assistant", "content": None}]}, "a message of the assistant has no text content but nothing"),
    ],
)  # fmt: skip
def test_unusable_rows_are_named(change, reason):
    with pytest.raises(DataError, match=rf"data: 1 of 3 rows cannot be used:\n  row 2: .*{reason}"):
        rows_of(CHAT, CHAT | change, CHAT)
    kept, dropped = rows_of(CHAT, CHAT | change, CHAT, unusable="drop")
    assert kept == [CHAT, CHAT]
    assert len(dropped) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TEXT | {"chosen": " "}, "chosen is empty"),
        (TEXT | {"prompt": ""}, "the prompt is empty"),
        ({"chosen": "abc", "rejected": "xyz"}, "no common beginning"),
        ({"chosen": "same words ", "rejected": "same words more"}, "an answer is empty once"),
        ({"chosen": "same", "rejected": "same"}, "identical"),
    ],
)
def test_unusable_plain_rows_are_named(row, reason):
    with pytest.raises(DataError, match=f"row 1: .*{reason}"):
        rows_of(row)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TEXT | {"prompt": 5}, "the answers are text but the prompt is not"),
        (TEXT | {"chosen": [bot("a")]}, "chosen and rejected are of different kinds"),
        (TEXT | {"chosen": {"content": "a"}}, "chosen is neither text nor a list of messages"),
        (TEXT | {"chosen": ["a"], "rejected": ["b"]}, "chosen holds something that is not a message"),
        (CHAT | {"prompt": [{"content": "q"}]}, "prompt holds something that is not a message"),
        ({k: CHAT[k] for k in ("chosen", "rejected")}, "no prompt column, and the conversations hold only an answer"),
        ({k: [bot("x"), *CHAT[k]] for k in ("chosen", "rejected")}, "the prompt ends with an assistant message"),
    ],
)
def test_rows_of_the_wrong_shape_are_named(row, reason):
    with pytest.raises(DataError, match=f"row 1: {reason}"):
        rows_of(row)


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"),
    [  # answers that begin alike must not lend their first words, or half a word, to the prompt
        (
            "\n\nHuman: hi\n\nAssistant: I am\nwell",
            "\n\nHuman: hi\n\nAssistant: I am ill",
            "\n\nHuman: hi\n\nAssistant:",
        ),
        ("say it:\nyesterday", "say it:\nyes", "say it:\n"),
        ("one two three", "one two thirds", "one two "),
    ],
)
def test_the_common_beginning_ends_at_the_last_turn_or_a_whole_word(chosen, rejected, prompt):
    assert rows_of({"chosen": chosen, "rejected": rejected})[0][0]["prompt"] == prompt


def test_only_the_first_ten_rows_are_listed():
    with pytest.raises(DataError, match=r"row 10: .*\n  ... and 2 more\n  mend them \(.*\), or set data.unusable=drop"):
        rows_of(*[TEXT | {"chosen": ""}] * 12)


def test_unknown_columns_are_named():
    with pytest.raises(DataError, match="no preference columns; expected .*got text, label"):
        rows_of({"text": "x", "label": 1})


def test_cached_reference_columns():
    extra = {"ref_chosen_logps": -1.5, "ref_rejected_logps": -2}
    keep = tuple(extra)
    assert rows_of(TEXT | extra, keep=keep)[0] == [TEXT | extra]
    assert rows_of(TEXT | extra)[0] == [TEXT]
    with pytest.raises(DataError, match="missing column ref_chosen_logps, ref_rejected_logps"):
        rows_of(TEXT, keep=keep)
    with pytest.raises(DataError, match="ref_chosen_logps is not a finite number"):
        rows_of(TEXT | {"ref_chosen_logps": float("nan"), "ref_rejected_logps": 0.0}, keep=keep)


def test_words_for_nothing_are_answers_in_a_csv_file(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(
        "prompt,chosen,rejected,score_chosen,score_rejected\nIs there any?,None,NA,2,1\nnull,nan,N/A,1.5,\n"
    )
    rows = read(DataSource(str(path))).to_list()
    assert [row["chosen"] for row in rows] == ["None", "nan"]
    assert (rows[1]["prompt"], rows[0]["rejected"], rows[1]["rejected"]) == ("null", "NA", "N/A")
    assert (rows[0]["score_chosen"], rows[1]["score_rejected"]) == (2.0, None)


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "csv", "parquet", "folder"])
def test_files_and_folders(tmp_path, kind):
    rows = [TEXT | {"chosen": f"a{i}"} for i in range(5)]
    path = tmp_path / f"pairs.{kind}"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    if kind == "csv":
        Dataset.from_list(rows).to_csv(path, index=False)
    elif kind == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    elif kind == "folder":
        path.mkdir()
        (path / "train.jsonl").write_text(lines)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    else:
        path.write_text(lines)
    loaded = load_preferences(DataConfig(train=DataSource(str(path), split="train[:3]")))
    assert loaded.train.to_list() == rows[:3]


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.jsonl", "no such file or folder"), ("data.txt", "unknown kind of file")]
)
def test_unreadable_sources(tmp_path, name, message):
    (tmp_path / "data.txt").write_text("x")
    with pytest.raises(DataError, match=f"data.train: cannot read .*{message}"):
        load_preferences(DataConfig(train=DataSource(str(tmp_path / name))))


def source(tmp_path, *rows, **settings):
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(str(tmp_path / "pairs.jsonl"), **settings)


def test_text_and_chat_rows_do_not_mix(tmp_path):
    with pytest.raises(DataError, match="plain strings and chat messages are mixed: row 2 is chat messages, the rows"):
        load_preferences(DataConfig(train=source(tmp_path, TEXT, CHAT)))


def test_dropped_rows_are_told_and_none_left_is_an_error(tmp_path, caplog):
    rows = [TEXT | {"chosen": chosen} for chosen in ("a", "", "b", "c")]
    data = load_preferences(DataConfig(train=source(tmp_path, *rows), unusable="drop"))
    assert [row["chosen"] for row in data.train] == ["a", "c"]
    told = "data.train: 2 of 4 rows cannot be used and are dropped: row 2: chosen is empty; row 3: chosen and rejected are identical"
    assert caplog.messages == [told]
    with pytest.raises(DataError, match="2 of 2 rows cannot be used"):
        load_preferences(DataConfig(train=source(tmp_path, *rows[1:3]), unusable="drop"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": "test"}, r"\(split 'test'\): Unknown split"),
        ({"name": "default"}, "name and revision belong to hub data sets"),
        ({"revision": "main"}, "name and revision belong to hub data sets"),
        ({"columns": {"chosen": "good"}}, "columns.chosen: no column 'good'; there are prompt, chosen, rejected"),
    ],
)
def test_settings_that_do_not_fit_a_file_are_refused(tmp_path, settings, message):
    with pytest.raises(DataError, match=f"data.train.*{message}"):
        load_preferences(DataConfig(train=source(tmp_path, TEXT, **settings)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "there are no rows in it"),
        ("\n\n", "there are no rows in it"),
        ("{nope\n", "line 1: not valid JSON: Expecting property name"),
    ],
)
def test_broken_files_say_what_is_wrong_and_in_which_set(tmp_path, text, reason):
    (tmp_path / "bad.jsonl").write_text(text)
    bad = DataSource(str(tmp_path / "bad.jsonl"))
    with pytest.raises(DataError, match=f"data.eval.x: cannot read .*: {reason}"):
        load_preferences(DataConfig(train=source(tmp_path, TEXT), eval={"x": bad}))


def test_cached_columns_are_asked_of_every_set(tmp_path):
    columns = {"ref_chosen_logps": -1.0, "ref_rejected_logps": -2.0}
    config = DataConfig(train=source(tmp_path, TEXT | columns))
    assert load_preferences(config, cached_reference=True).train.to_list() == [TEXT | columns]
    (tmp_path / "plain").mkdir()
    config.eval["x"] = source(tmp_path / "plain", TEXT)
    with pytest.raises(DataError, match=r"data.eval.x .*: missing column .* which ref.kind=cached needs"):
        load_preferences(config, cached_reference=True)


def test_config_ranges():
    with pytest.raises(ValueError, match=r"holdout: must be in \[0, 1\), got 1.5"):
        DataConfig(train=DataSource("x"), holdout=1.5)
    with pytest.raises(ValueError, match="the name is taken by data.holdout"):
        DataConfig(train=DataSource("x"), eval={"holdout": DataSource("y")}, holdout=0.1)


text = st.text(alphabet="ab \n", max_size=5)
message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.none() | text})
side = st.none() | text | st.lists(message, max_size=3)


@given(st.sampled_from(["text", "chat"]), st.data())
def test_any_row_is_usable_or_named(kind, data):
    value = st.none() | text if kind == "text" else st.none() | st.lists(message, max_size=3)
    row = {name: data.draw(value) for name in ("prompt", "chosen", "rejected")}
    try:
        (result,), _ = rows_of(row)
    except DataError as error:
        assert "row 1: " in str(error)
        return
    assert result["chosen"] != result["rejected"]
    assert len({type(v) for v in result.values()}) == 1
    for value in result.values():
        assert value if isinstance(value, str) else value[-1]["content"] is not None


@pytest.mark.parametrize("name", ["a/b", "../x", "", ".hidden", "a\\b", "a\nb", "x" * 65])
def test_a_name_of_a_set_leads_nowhere(name):
    with pytest.raises(ValueError, match="names of sets become parts of file names"):
        DataConfig(train=DataSource("x.jsonl"), eval={name: DataSource("x.jsonl")})
    DataConfig(train=DataSource("x.jsonl"), eval={"hh-test 2.b": DataSource("x.jsonl")})

"""A mended copy of a data set: what is changed, what is dropped, and that every change is logged."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from malformed import CHAT, LONG, TABLE, TEXT, bot, user, write

from align.cli import main as cli
from align.data import DataError, DataSource, load_preferences
from align.data.audit.duplicates import refuse_damaged
from align.data.audit.pairs import audit_pairs
from align.data.commands.fix import Lines, fix, main
from align.data.loading import DataConfig
from align.data.rows.normalise import normalise

ESC = chr(27)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def fixed(path, data, *words):
    """The lines of the copy, and the log."""
    if data is not None:
        write(data, path)
    before = path.read_bytes()
    out = path.with_name("clean.jsonl")
    assert main([str(path), "--out", str(out), *words]) == 0
    assert path.read_bytes() == before
    return lines(out), lines(out.with_suffix(".log.jsonl"))


@pytest.mark.parametrize(
    ("value", "expected", "rules"),
    [
        ("a\r\nb\rc", "a\nb\nc", ["newlines"]),
        ("a\x00b\x07", "ab", ["control-characters"]),
        (f"{ESC}[1;31mred{ESC}[0m {ESC}]0;title\x07on", "red on", ["control-characters"]),
        ("it\x92s", "it\u2019s", ["control-characters"]),
        ("a\x81b\x85c", "ab\u2026c", ["control-characters"]),
        ("\u202ea\u2066b", "ab", ["control-characters"]),
        ("a\ud800b", "a\ufffdb", ["surrogates"]),
        ("a\r\n\x00", "a\n", ["newlines", "control-characters"]),
        (f"a{ESC}{ESC}[0m[0m", "a[0m", ["control-characters"]),
        ("a\tb\nc \u200f\u00a0", "a\tb\nc \u200f\u00a0", []),
    ],
)
def test_texts(tmp_path, value, expected, rules):
    for row, column in ((TEXT | {"chosen": value}, "chosen"), (CHAT | {"chosen": [bot(value)]}, "chosen[0].content")):
        for path in tmp_path.iterdir():
            path.unlink()
        (after,), log = fixed(tmp_path / "x.jsonl", [row])
        assert after == row | {"chosen": expected if isinstance(row["chosen"], str) else [bot(expected)]}
        assert [(entry["row"], entry["rule"], entry["done"], entry["column"]) for entry in log] == [
            (1, rule, "changed", column) for rule in rules
        ]


def test_roles_sharegpt_and_single_messages(tmp_path):
    odd = {
        "prompt": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "a"},
        "rejected": [{"role": " Assistant", "content": "b"}],
        "score": 3,
    }
    (after,), log = fixed(tmp_path / "x.jsonl", [odd])
    assert after == CHAT | {"prompt": [{"role": "system", "content": "s"}, user("q")], "score": 3}
    assert [entry["rule"] for entry in log] == [
        "sharegpt",
        "sharegpt",
        "wrong-roles",
        "wrong-type",
        "sharegpt",
        "wrong-roles",
        "wrong-roles",
    ]
    assert log[2] == {
        "row": 1,
        "rule": "wrong-roles",
        "done": "changed",
        "column": "prompt[1].role",
        "from": "human",
        "to": "user",
    }


def test_the_prompt_is_taken_out_of_both_answers_as_often_as_it_is_there(tmp_path):
    rows = [
        {"prompt": LONG, "chosen": LONG + "yes", "rejected": f"\n{LONG}no"},
        {"prompt": LONG, "chosen": LONG * 2 + "well", "rejected": LONG + LONG + "no"},
        {"prompt": LONG, "chosen": LONG + "one side", "rejected": "no"},
    ]
    after, log = fixed(tmp_path / "x.jsonl", rows)
    assert [(row["chosen"], row["rejected"].strip()) for row in after] == [
        ("yes", "no"),
        ("well", "no"),
        (LONG + "one side", "no"),
    ]
    assert [entry["row"] for entry in log] == [1, 1, 2, 2, 2, 2]
    assert {entry["rule"] for entry in log} == {"prompt-in-answer"}


def test_what_is_dropped_and_why(tmp_path):
    rows = [
        TEXT, TEXT | {"chosen": "b", "rejected": "a"}, TEXT | {"prompt": "r "}, TEXT | {"prompt": "r ", "score": 1},
        TEXT | {"chosen": ""}, TEXT | {"chosen": "b\x00"}, TEXT | {"prompt": None}, {"prompt": "q"}, TEXT | {"prompt": "r\x00 "},
        CHAT | {"chosen": [bot("a") | {"mood": "x"}]},
    ]  # fmt: skip
    after, log = fixed(tmp_path / "x.jsonl", rows)
    assert after == [rows[2]]
    assert {entry["row"]: (entry["rule"], entry["why"]) for entry in log} == {
        1: ("contradictory-pairs", "another row has its answers, chosen and rejected swapped"),
        2: ("contradictory-pairs", "another row has its answers, chosen and rejected swapped"),
        4: ("duplicate-pairs", "the same pair as row 3"),
        5: ("empty-answer", "chosen is empty"),
        6: ("identical-answers", "chosen and rejected are identical"),
        7: ("missing-value", "the prompt is missing"),
        8: ("missing-value", "chosen is missing"),
        9: ("duplicate-pairs", "the same pair as row 3"),
        10: (
            "surplus-keys",
            "chosen has a message of the assistant with 'mood', which would be lost; write it into content, or take it out",
        ),
    }  # fmt: skip


def test_a_pair_that_is_contradicted_twice_is_dropped_for_that(tmp_path):
    _, log = fixed(tmp_path / "x.jsonl", [TEXT, TEXT, TEXT | {"chosen": "b", "rejected": "a"}, TEXT | {"prompt": "r "}])
    assert [(entry["row"], entry["rule"]) for entry in log] == [(n, "contradictory-pairs") for n in (1, 2, 3)]


def test_lines_that_need_nothing_stay_as_they_are_to_the_byte(tmp_path, capsys):
    good = b'{"chosen":"a", "prompt" : "q ","rejected":"caf\\u00e9", "n": 1.50}'
    other = '{"prompt": "r ", "chosen": "\u00e9", "rejected": "b", "n": null}'.encode()
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + good + b"\r\n\n" + other + b'\n{"prompt": "s ", "chos\n'))
    _, log = fixed(path, None)
    assert (tmp_path / "clean.jsonl").read_bytes() == good + b"\n" + other + b"\n"
    assert [(entry["row"], entry["rule"]) for entry in log] == [(3, "not-json")]
    assert "2 rows; 1 dropped (not-json); log: " in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["csv", "parquet", "folder"])
def test_other_sources_are_read_as_training_reads_them(tmp_path, kind):
    rows = [
        {"instruction": "q ", "chosen": "a", "rejected": "b\r\n"},
        {"instruction": "q ", "chosen": " ", "rejected": "b"},
    ]
    path = tmp_path / f"pairs.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    elif kind == "parquet":
        Dataset.from_list(rows).to_parquet(path)
    else:
        path.mkdir()
        write(rows, path / "train.jsonl")
    assert cli(["data", "fix", str(path), "--out", "c.jsonl", "--column", "prompt=instruction"]) == 0
    assert lines("c.jsonl") == [{"instruction": "q ", "chosen": "a", "rejected": "b\n"}]
    assert [entry["rule"] for entry in lines("c.log.jsonl")] == ["newlines", "empty-answer"]


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("pairs.jsonl", "is there already"),
        ("there.jsonl", "is there already"),
        ("logged.jsonl", "logged.log.jsonl: is there already"),
        ("link.jsonl", "is there already"),
        ("clean.csv", "written as .jsonl"),
    ],
)
def test_nothing_is_overwritten(tmp_path, out, message):
    write([TEXT], tmp_path / "pairs.jsonl")
    for name in ("there.jsonl", "logged.log.jsonl"):
        (tmp_path / name).write_text("precious")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    before = {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DataError, match=message):
        main(["pairs.jsonl", "--out", out])
    assert {path.name: path.is_file() and path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_is_not_written_into(tmp_path):
    (tmp_path / "set").mkdir()
    write([TEXT], tmp_path / "set" / "train.jsonl")
    with pytest.raises(DataError, match="lies in the source"):
        main(["set", "--out", "set/clean.jsonl"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([TEXT, CHAT], "1 rows are plain text and 1 are chat messages; split them"),
        ([TEXT | {"chosen": ""}], "of 1 rows none is left, first: row 1: chosen is empty"),
        ([TEXT, TEXT | {"chosen": "b", "rejected": "a"}], "of 2 rows none is left, first: row 1: another row has"),
        ([{"a": 1}], "no preference columns"),
        (b"", "no preference columns"),
        (b"\xff\xfe{", "cannot be read: it is UTF-16"),
    ],
)
def test_what_cannot_be_mended_leaves_nothing_behind(tmp_path, rows, message):
    write(rows, tmp_path / "x.jsonl")
    with pytest.raises(DataError, match=message):
        main(["x.jsonl", "--out", "clean.jsonl"])
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


OF_RECIPES = [e for e in TABLE if any("ignore" in said or "as_messages" in said for said in e.says)]
"""What a recipe settles, and no mended copy."""


@pytest.mark.parametrize(
    "entry",
    [e for e in TABLE if e.level == "error" and not e.eval and e not in OF_RECIPES],
    ids=lambda entry: entry.name,
)
def test_what_training_refuses_is_mended_or_refused(tmp_path, entry):
    write(entry.rows, tmp_path / "pairs.jsonl")
    words = [word for ours, theirs in (entry.columns or {}).items() for word in ("--column", f"{ours}={theirs}")]
    try:
        main(["pairs.jsonl", "--out", "clean.jsonl", *words])
    except DataError:
        return
    assert (tmp_path / "clean.log.jsonl").stat().st_size
    loaded = load_preferences(DataConfig(train=DataSource("clean.jsonl")))
    refuse_damaged({"data.train": loaded.train})


raw_text = st.text("ab \n\r\x00\x92", max_size=4) | st.sampled_from(
    [LONG, LONG + "a", LONG * 2 + "b", f"{ESC}[0ma", "\ud800"]
)
raw_role = st.sampled_from(["user", "assistant", "Assistant", "human", "gpt", "nobody"])
raw_message = st.builds(lambda r, c: {"role": r, "content": c}, raw_role, raw_text) | st.builds(
    lambda r, c: {"from": r, "value": c}, raw_role, raw_text
)
plain_row = st.fixed_dictionaries({name: raw_text | st.none() for name in ("prompt", "chosen", "rejected")})
chat_row = st.fixed_dictionaries(
    {name: st.lists(raw_message, max_size=2) | raw_message for name in ("prompt", "chosen", "rejected")}
)


@given(st.lists(plain_row, min_size=1, max_size=6) | st.lists(chat_row, min_size=1, max_size=6))
def test_what_is_mended_needs_no_more(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("fix")
    once, twice = folder / "once.jsonl", folder / "twice.jsonl"
    write(rows, folder / "raw.jsonl")
    try:
        main([str(folder / "raw.jsonl"), "--out", str(once)])
    except DataError as error:
        assert "none is left" in str(error)
        return
    main([str(once), "--out", str(twice)])
    assert twice.read_bytes() == once.read_bytes()
    assert (folder / "twice.log.jsonl").read_bytes() == b""
    log = lines(folder / "once.log.jsonl")
    dropped = [entry["row"] for entry in log if entry["done"] == "dropped"]
    kept = [
        (n, line) for n, line in enumerate((folder / "raw.jsonl").read_text().splitlines(), start=1) if n not in dropped
    ]
    written = once.read_text(encoding="utf-8").split("\n")[:-1]
    assert len(set(dropped)) == len(dropped)
    assert len(kept) == len(written)
    for (number, line), after in zip(kept, written, strict=True):
        assert (line == after) == (number not in {entry["row"] for entry in log})
    clean, gone = normalise(Dataset.from_list([json.loads(line) for line in written]), columns={}, where="x")
    assert gone == []
    assert [
        f
        for f in audit_pairs(clean, where="x")
        if f.level == "error" or f.rule in ("duplicate-pairs", "control-characters")
    ] == []


def test_rows_of_a_data_set_are_taken_too():
    rows = Dataset.from_list([TEXT | {"chosen": "a\r"}, TEXT | {"prompt": "r "}])
    done = list(fix(rows))
    assert [row for row, _ in done] == [TEXT | {"chosen": "a\n"}, TEXT | {"prompt": "r "}]
    assert [len(changes) for _, changes in done] == [1, 0]


def test_column_names_are_those_of_all_lines(tmp_path):
    write([{"a": 1}, {"b": 2, "a": 3}], tmp_path / "x.jsonl")
    assert Lines(tmp_path / "x.jsonl").column_names == ["a", "b"]

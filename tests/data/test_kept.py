"""Rows that are kept on disk (`data.streaming`): the same as those held in memory, read once, told of each time."""

import json
import subprocess
import sys

import pytest
from datasets import Dataset

from align.data import DataConfig, DataSource, kept, load_data, loading
from align.data.kept import data_digest
from align.runs.directory import METRICS_FILE, read_metrics
from align.train import run

USER, CALL = {"role": "user", "content": "q"}, {"name": "f", "arguments": {"x": 1}}
CHAT = [
    {"prompt": [{"role": "user", "content": f"q{i}"}], "chosen": [{"role": "assistant", "content": "a"}],
     "rejected": [{"role": "assistant", "content": f"b{i}"}]} for i in range(40)
]  # fmt: skip
TEXT = [{"prompt": f"q{i} ", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(40)]
SFT = [{"messages": [USER, {"role": "assistant", "content": f"a{i}"}]} for i in range(20)]
CALLS = [{"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [{"function": CALL}]}]}, *SFT]
LABELS = [{"prompt": f"q{i} ", "completion": f"a{i}", "label": i % 2 == 0} for i in range(20)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and slices of so few rows that sets have several."""
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("align.data.rows.normalise.SLICE", 16)
    return tmp_path / "cache" / "rows"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def unread(*_):
    raise AssertionError("the rows were read again")


@pytest.mark.parametrize(
    ("rows", "kind", "settings"),
    [
        (CHAT, "pairs", {"holdout": 8}),
        (TEXT, "pairs", {}),
        ([*TEXT, TEXT[0] | {"chosen": " "}], "pairs", {"unusable": "drop", "holdout": 8}),
        (SFT, "completions", {}),
        (CALLS, "completions", {}),
        (LABELS, "labels", {}),
        ([{"prompt": f"q{i}", "answer": str(i)} for i in range(20)], "prompts", {}),
    ],
    ids=["chat", "text", "dropped", "completions", "calls of tools", "labels", "prompts"],
)
def test_rows_are_those_in_memory_and_read_once(tmp_path, monkeypatch, caplog, rows, kind, settings):
    source = DataSource(write(tmp_path / "a.jsonl", rows))

    def load(**streaming):
        caplog.clear()
        loaded = load_data(DataConfig(source, **settings, **streaming), rows=kind)
        own = [one.getMessage() for one in caplog.records if "holds the rows for other runs" not in one.getMessage()]
        return loaded, own

    held, said = load()
    first, said_first = load(streaming=True)
    monkeypatch.setattr(loading, "load_source", unread)
    again, said_again = load(streaming=True)
    assert said_first == said_again == said
    for loaded in (first, again):
        assert loaded.train.to_list() == held.train.to_list()
        assert loaded.train.features == held.train.features
        assert {name: data.to_list() for name, data in loaded.eval.items()} == {
            name: data.to_list() for name, data in held.eval.items()
        }
        assert loaded.train.cache_files
        assert data_digest(loaded.train) == data_digest(held.train)


def test_a_digest_is_of_the_rows_and_not_of_what_they_came_from(tmp_path):
    loaded = load_data(DataConfig(DataSource(write(tmp_path / "a.jsonl", TEXT)), streaming=True))
    part = loaded.train.select(range(3))
    assert data_digest(part) == data_digest(Dataset.from_list(TEXT[:3]))
    assert data_digest(loaded.train.select(range(len(TEXT))[::-1])) != data_digest(loaded.train)


def test_several_sources_are_mixed_as_in_memory(tmp_path):
    sources = [
        DataSource(write(tmp_path / "a.jsonl", TEXT), weight=2),
        DataSource(write(tmp_path / "b.jsonl", [row | {"chosen": "z"} for row in TEXT]), weight=1, max_rows=12),
    ]
    held, first = load_data(DataConfig(sources)), load_data(DataConfig(sources, streaming=True))
    again = load_data(DataConfig(sources, streaming=True))
    assert first.train.to_list() == again.train.to_list() == held.train.to_list()
    assert first.shares == again.shares == held.shares


def test_other_bytes_or_settings_are_read(tmp_path, cache):
    path = tmp_path / "a.jsonl"
    source = DataSource(write(path, TEXT))
    load_data(DataConfig(source, streaming=True))
    write(path, [*TEXT[:-1], TEXT[-1] | {"chosen": "other"}])
    assert load_data(DataConfig(source, streaming=True)).train[-1]["chosen"] == "other"
    assert isinstance(load_data(DataConfig(source, streaming=True, as_messages=True)).train[0]["prompt"], list)
    assert len(list(cache.iterdir())) == 3


def test_other_code_reads_anew(tmp_path, cache, monkeypatch):
    source = DataSource(write(tmp_path / "a.jsonl", TEXT))
    load_data(DataConfig(source, streaming=True))
    monkeypatch.setattr(kept, "reading_code", lambda: "other")
    load_data(DataConfig(source, streaming=True))
    assert len(list(cache.iterdir())) == 2


def test_what_is_damaged_is_read_again(tmp_path, cache, caplog):
    source = DataSource(write(tmp_path / "a.jsonl", TEXT))
    load_data(DataConfig(source, streaming=True))
    (file,) = cache.glob("*/0/*.arrow")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert load_data(DataConfig(source, streaming=True)).train.to_list() == TEXT
    assert "is damaged" in caplog.text
    assert not list(cache.glob(".writing-*"))


def test_what_is_wrong_with_rows_is_said_and_nothing_kept(tmp_path, cache):
    with pytest.raises(loading.DataError, match="row 2: chosen is empty"):
        load_data(
            DataConfig(DataSource(write(tmp_path / "a.jsonl", [TEXT[0], TEXT[1] | {"chosen": ""}])), streaming=True)
        )
    with pytest.raises(loading.DataError, match="no such file"):
        load_data(DataConfig(DataSource("./nowhere.jsonl"), streaming=True))
    assert list(cache.iterdir()) == []


def test_a_disk_that_does_not_take_them_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(OSError, match="could not be written"):
        load_data(DataConfig(DataSource(write(tmp_path / "a.jsonl", TEXT)), streaming=True))


def test_training_is_the_same_to_the_bit_and_so_is_going_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tokens = {"chosen": "red green", "rejected": "one two"}
    rows = [{"prompt": f"say {i} ", **tokens, "id": i} for i in range(24)]
    common = [f"data={{train: {{path: {write(tmp_path / 'a.jsonl', rows)}}}, holdout: 4}}", "train.save_steps=3", "train.max_steps=6",
              "train.eval_strategy=epoch", "train.num_train_epochs=2"]  # fmt: skip

    def trained(name, *words, **kw):
        run("dpo/tiny", [*common, *words, f"train.output_dir={name}"], **kw)
        numbers = read_metrics(tmp_path / name / METRICS_FILE)
        env = json.loads((tmp_path / name / "env.json").read_text())
        return [(one["step"], one.get("loss"), one.get("eval_holdout_loss")) for one in numbers], env["data"]

    held = trained("held")
    first = trained("first", "data.streaming=true")
    second = trained("second", "data.streaming=true")
    assert held == first == second
    numbers, _ = trained("gone_on", "data.streaming=true", resume="second/checkpoint-3", changed=True)
    assert numbers == [one for one in first[0] if one[0] > 3]


MEASURED = """
import sys
from pathlib import Path
from align.data import DataConfig, DataSource, load_data
def own():
    return next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("RssAnon"))
before = own()
loaded = load_data(DataConfig(DataSource(sys.argv[1]), streaming=sys.argv[2] == "streaming"))
print(len(loaded.train), own() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="tells memory of its own from that of files")
def test_memory_does_not_grow_with_rows(tmp_path):
    def grown(count, how):
        path = tmp_path / f"{count}.jsonl"
        if not path.exists():
            write(
                path,
                (
                    {"prompt": f"{i} " + "a word " * 60, "chosen": "b " * 120, "rejected": "c " * 120}
                    for i in range(count)
                ),
            )
        said = subprocess.run(
            [sys.executable, "-c", MEASURED, str(path), how], capture_output=True, text=True, check=True
        )
        rows, mib = map(int, said.stdout.split())
        assert rows == count
        return mib

    assert grown(100_000, "streaming") - grown(20_000, "streaming") < 25
    assert grown(100_000, "memory") - grown(20_000, "memory") > 50

"""Several sources of training rows: shares, caps, rows that two of them have, and what a recipe may say of them."""

import json
from pathlib import Path

import pytest
from recipes_under_test import GOOD, load, problems

from align.commands.check import numbered_sets
from align.data import DataConfig, DataError, DataSource, load_data
from align.data.loading import TRAIN
from align.data.mixing import LEAST_STEP
from align.data.rows.normalise import ROW


def write(folder, name, count, **more):
    rows = [{"prompt": f"{name}{i} ", "chosen": f"{name} good", "rejected": "bad"} | more for i in range(count)]
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / f"{name}.jsonl")


@pytest.fixture
def three(tmp_path):
    return [write(tmp_path, name, count) for name, count in (("a", 60), ("b", 20), ("c", 40))]


def mix(*sources, rows="pairs", **more):
    return load_data(DataConfig(list(sources), **more), rows=rows)


def counted(data):
    return {name: sum(prompt[0] == name for prompt in data["prompt"]) for name in "abc"}


def test_without_weights_all_rows_are_there_and_spread_evenly(three):
    data = mix(*(DataSource(path) for path in three))
    assert counted(data.train) == {"a": 60, "b": 20, "c": 40}
    assert len(set(data.train["prompt"])) == 120
    for start in (0, 42, 84):  # every stretch has the shares of the whole
        assert counted(data.train.select(range(start, start + 36))) == pytest.approx({"a": 18, "b": 6, "c": 12}, abs=1)
    assert [share["share"] for share in data.shares] == [0.5, 20 / 120, 40 / 120]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 1, 2), {"a": 20, "b": 20, "c": 40}),
        ((3, 0.5, 0.5), {"a": 60, "b": 10, "c": 10}),
        ((0.1, 0.1, 0.1), {"a": 20, "b": 20, "c": 20}),
    ],
)
def test_weights_are_parts_of_the_rows_and_none_repeats(three, weights, expected):
    data = mix(*(DataSource(path, weight=weight) for path, weight in zip(three, weights, strict=True)))
    assert counted(data.train) == expected
    assert len(set(data.train["prompt"])) == len(data.train)


def test_a_cap_and_a_fraction_draw_the_same_rows_every_time_and_not_the_first(three):
    sources = (
        DataSource(three[0], max_rows=10),
        DataSource(three[1], fraction=0.25),
        DataSource(three[2], fraction=0.5, max_rows=30),
    )
    one, again = mix(*sources), mix(*sources)
    assert counted(one.train) == {"a": 10, "b": 5, "c": 20}
    assert one.train.to_list() == again.train.to_list()
    assert {f"a{i} " for i in range(10)} != {p for p in one.train["prompt"] if p[0] == "a"}
    alone = load_data(DataConfig(DataSource(three[0], max_rows=7), {"x": DataSource(three[1], fraction=0.5)}))
    assert (len(alone.train), len(alone.eval["x"]), alone.shares) == (7, 10, [])


def test_a_row_of_two_sources_counts_once_and_for_the_first(three, tmp_path, caplog):
    rows = [json.loads(line) for line in Path(three[0]).read_text().splitlines()][:15]
    (tmp_path / "d.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [*rows, rows[0] | {"prompt": "b new "}])
    )
    data = mix(DataSource(three[0]), DataSource(str(tmp_path / "d.jsonl")))
    assert counted(data.train) == {"a": 60, "b": 1, "c": 0}
    assert [share["known"] for share in data.shares] == [0, 15]
    assert "left out because an earlier source has the same row: 15 of " in caplog.text
    assert "60 of 60 rows, 98.4%" in caplog.text
    with pytest.raises(DataError, match="every row of .*a.jsonl is in an earlier source too"):
        mix(DataSource(three[0]), DataSource(three[0]))


def test_sources_are_read_each_in_its_own_way(tmp_path, three):
    other = tmp_path / "o.jsonl"
    other.write_text("".join(json.dumps({"q": f"c{i} ", "w": "x", "l": "y", "tools": None}) + "\n" for i in range(4)))
    columns = {"prompt": "q", "chosen": "w", "rejected": "l"}
    data = mix(DataSource(three[1]), DataSource(str(other), columns=columns), holdout=5)
    assert len(data.train) + len(data.eval["holdout"]) == 24
    chat = [{"prompt": [{"role": "user", "content": f"b{i}"}], "chosen": [{"role": "assistant", "content": "x"}],
             "rejected": [{"role": "assistant", "content": "y"}]} for i in range(3)]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chat))
    (tmp_path / "tools.jsonl").write_text(
        "".join(
            json.dumps(row | {"prompt": [{"role": "user", "content": "c"}], "tools": tools}) + "\n" for row in chat[:1]
        )
    )
    both = mix(DataSource(str(tmp_path / "chat.jsonl")), DataSource(str(tmp_path / "tools.jsonl")))
    assert sorted(bool(row["tools"]) for row in both.train) == [False] * 3 + [True]
    with pytest.raises(DataError, match=r"mixed: .*b.jsonl is text, .*chat.jsonl messages; data.as_messages=true"):
        mix(DataSource(three[1]), DataSource(str(tmp_path / "chat.jsonl")))
    assert len(mix(DataSource(three[1]), DataSource(str(tmp_path / "chat.jsonl")), as_messages=True).train) == 23


def test_check_shows_the_shares_and_counts_rows_through(three, tmp_path):
    text = GOOD.replace(
        "  train: {path: ./pairs.jsonl}\n",
        f"  train:\n    - {{path: {three[0]}, max_rows: 30}}\n    - {{path: {three[1]}, weight: 1.0}}\n",
    )
    (line,) = problems(tmp_path, text)
    assert (
        "data.train: a weight is relative to those of the other sources; give it to all of several, or to none" in line
    )
    recipe = load(tmp_path, text.replace(", weight: 1.0", ""))
    sets, findings = numbered_sets(recipe)
    (shares,) = [finding for finding in findings if finding.rule == "shares"]
    assert "a.jsonl: 30 of 30 rows, 60.0%" in shares.message
    numbers = [int(n) for n in sets[TRAIN][ROW]]
    assert max(numbers) == LEAST_STEP + 20
    assert len(set(numbers)) == 50
    (tmp_path / "a.jsonl").write_text('{"prompt": 3}\n')
    with pytest.raises(DataError, match=r"data\.train\[0\] \(.*a\.jsonl\)"):
        numbered_sets(recipe)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("fraction: 1.5", "fraction: must be in (0, 1], got 1.5"),
        ("max_rows: 0", "max_rows: must be at least 1"),
        ("weight: 0.0", "weight: must be positive"),
        ("pth: x", "unknown key"),
    ],
)
def test_what_a_source_cannot_say_is_refused_with_its_place(tmp_path, source, message):
    text = GOOD.replace(
        "  train: {path: ./pairs.jsonl}\n", f"  train: [{{path: a.jsonl}}, {{path: b.jsonl, {source}}}]\n"
    )
    (line, *_) = problems(tmp_path, text)
    assert "data.train.1" in line
    assert message in line

"""Rows with labels: read from labelled files and from pairs, counted and weighed, and compared with each other."""

import json

import pytest
from datasets import Dataset

from align.data import DataConfig, DataError, DataSource, load_data
from align.data.audit.labels import inspect_labels
from align.data.rows.completions import label_of
from align.data.rows.messages import RowError
from align.losses.unpaired import class_weights

LABELLED = [{"prompt": f"q{i} ", "completion": f"a{i}", "label": i % 3 == 0} for i in range(6)]
PAIRS = [{"prompt": f"q{i} ", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(3)]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path, *, whole_pairs=False, **settings):
    source = DataSource(path, **settings)
    return load_data(DataConfig(source, {"x": source}), rows="labels", whole_pairs=whole_pairs)


def test_both_labels_are_kept(tmp_path):
    rows = read(write(tmp_path / "a.jsonl", LABELLED)).train.to_list()
    assert rows == LABELLED


def test_a_text_that_answers_messages_is_the_assistants(tmp_path):
    said = [{"role": "user", "content": "q"}]
    rows = read(write(tmp_path / "a.jsonl", [row | {"prompt": said} for row in LABELLED])).train.to_list()
    assert rows == [
        row | {"prompt": said, "completion": [{"role": "assistant", "content": row["completion"]}]} for row in LABELLED
    ]


@pytest.mark.parametrize("names", [("messages", "label"), ("messages", "kto_tag"), ("conversations", "kto_tag")])
def test_conversations_may_be_labelled(tmp_path, names):
    said, answer = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
    rows = [dict(zip(names, ([said, answer], good), strict=True)) for good in (True, False)]
    made = read(write(tmp_path / "a.jsonl", rows)).train.to_list()
    assert made == [{"prompt": [said], "completion": [answer], "label": good} for good in (True, False)]


@pytest.mark.parametrize(
    ("value", "label"), [(1, True), ("True", True), (0.0, False), ("undesirable", False), (None, None), (0.5, None)]
)
def test_a_label_is_true_or_false_or_refused(value, label):
    if label is None:
        with pytest.raises(RowError, match="neither true nor false"):
            label_of(value)
    else:
        assert label_of(value) is label


@pytest.mark.parametrize(
    ("rows", "settings"),
    [
        (PAIRS, {}),
        ([{"q": r["prompt"], "good": r["chosen"], "bad": r["rejected"]} for r in PAIRS],
         {"columns": {"prompt": "q", "chosen": "good", "rejected": "bad"}}),
        ([{"instruction": r["prompt"], "completions": [{"response": r["chosen"], "overall_score": 2.0},
                                                       {"response": r["rejected"], "overall_score": 1.0}]} for r in PAIRS],
         {"layout": "ultrafeedback"}),
    ],
    ids=["plain", "mapped", "layout"],
)  # fmt: skip
def test_a_pair_gives_a_row_for_each_answer_or_stays_whole(tmp_path, rows, settings):
    path = write(tmp_path / "a.jsonl", rows)
    sides = [(c["prompt"], c[side], side == "chosen") for c in PAIRS for side in ("chosen", "rejected")]
    made = read(path, **settings)
    assert [(r["prompt"], r["completion"], r["label"]) for r in made.train] == sides
    whole = read(path, whole_pairs=True, **settings).eval["x"]
    assert [(r["chosen"], r["rejected"]) for r in whole] == [(r["chosen"], r["rejected"]) for r in PAIRS]


def test_labels_under_other_names_are_mapped_and_their_absence_is_told(tmp_path):
    rows = [{"q": r["prompt"], "answer": r["completion"], "thumbs": int(r["label"])} for r in LABELLED]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        DataError, match=r"map them with `columns: \{prompt: \.\.\., completion: answer, label: thumbs\}`"
    ):
        read(path)
    made = read(path, columns={"prompt": "q", "completion": "answer", "label": "thumbs"})
    assert made.train["label"] == [row["label"] for row in LABELLED]


def found(rows, weights=(1.0, 1.0), **evals):
    sets = {"data.train": Dataset.from_list(rows)} | {name: Dataset.from_list(rows) for name, rows in evals.items()}
    return {finding.rule: finding for finding in inspect_labels(sets, weights=weights)}


def rows_of(good, bad):
    return [{"prompt": f"q{i}", "completion": "a", "label": i < good} for i in range(good + bad)]


@pytest.mark.parametrize(
    ("good", "bad", "weights", "level", "told"),
    [
        (4, 4, (1.0, 1.0), "note", "in all the true ones count 1 times"),
        (4, 3, (1.0, 1.0), "note", "count 1.33 times"),
        (8, 2, (1.0, 1.0), "warning", "train.undesirable_weight=4"),
        (2, 8, (1.0, 1.0), "warning", "train.desirable_weight=4"),
        (2, 8, (4.0, 1.0), "note", "count 1 times"),
        (2, 8, (9.0, 1.0), "warning", "leave both weights out and set train.class_weights=data"),
        (2, 8, None, "note", "they weigh 4 and 1"),
    ],
)
def test_the_weights_of_the_labels_are_held_against_their_numbers(good, bad, weights, level, told):
    finding = found(rows_of(good, bad), weights)["label-balance"]
    assert (finding.level, told in finding.message + finding.remedy) == (level, True), finding
    assert class_weights(good, bad) == (max(good, bad) / good, max(good, bad) / bad)


def test_a_loss_without_weights_is_told_none():
    (finding,) = inspect_labels({"data.train": Dataset.from_list(rows_of(8, 2))}, weights=(1.0, 1.0), weighs=False)
    assert (finding.level, finding.message[-25:]) == ("note", "every row weighs the same")


@pytest.mark.parametrize(("weights", "level"), [(None, "error"), ((1.0, 1.0), "warning")])
def test_rows_of_one_label_have_nothing_to_tell_apart(weights, level):
    finding = found(rows_of(3, 0), weights)["one-label"]
    assert finding.level == level
    assert "add rows labelled false" in finding.remedy


def test_an_answer_with_both_labels_is_told_and_one_that_is_evaluated_too():
    rows = [*rows_of(2, 2), {"prompt": "q0", "completion": "a", "label": False}]
    both = found(rows, x=[rows_of(4, 0)[3], {"prompt": "q9", "completion": "a", "label": True}])
    assert both["both-labels"].rows == (1, 5)
    assert both["evaluated-on-training-data"].rows == (1,)
    assert "both-labels" not in found(rows_of(2, 2))

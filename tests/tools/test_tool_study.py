"""The study `scripts/studies/tool_calls.py`: its questions and demonstrations, its recipes, and its figures on tables that are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from matplotlib.figure import Figure

from align.models.tiny import tiny_tokenizer
from align.recipe.loading import load_recipe
from align.rewards.texts import stands_in
from align.tools.search import read_corpus

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import tool_calls as study
from study_parts import tool_calls_report as report


def write_corpus(folder):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": row["fact"]}) + "\n" for row in study.facts()))
    return path


def test_every_question_has_one_answer_which_its_kind_says_where_to_find(tmp_path):
    rows, corpus = study.facts(), read_corpus(str(write_corpus(tmp_path)))
    assert len({row["fact"] for row in rows}) == study.FACTS
    for row in rows:
        assert corpus.search(row["query"], 1) == [row["fact"]]
        asked = row["prompt"][0]["content"]
        assert stands_in(row["answer"], row["fact"])
        assert stands_in(row["answer"], asked) == (row["kind"] == report.STATED)
    held_out = rows[: study.HELD_OUT]
    assert sum(row["kind"] == report.STATED for row in held_out) == study.HELD_OUT / 2


def test_demonstrations_search_as_often_whatever_the_question(tmp_path):
    rows = study.facts()[:16]
    made = study.demonstrations(rows, write_corpus(tmp_path), tiny_tokenizer())
    calls = [one for one in made if one["completion"].startswith("<tool_call>")]
    assert len(calls) == 8
    after = [one for one in made if "<tool_response>" in one["prompt"]]
    assert len(after) == 8
    for call, then, row in zip(calls, after, rows[1::2], strict=True):
        assert json.loads(call["completion"][11:-12])["arguments"] == {"query": row["query"]}
        assert then["prompt"].startswith(call["prompt"])
        assert row["fact"] in then["prompt"][len(call["prompt"]) :]
        assert then["completion"] == "Ready."
    assert len(made) == 16 + 8
    by_kind = [row["kind"] for row in rows[1::2]]
    assert by_kind.count(report.STATED) == by_kind.count(report.HIDDEN)


@pytest.mark.parametrize("name", study.METHODS)
def test_both_methods_have_the_same_recipe_but_for_the_comparison(tmp_path, name):
    write_corpus(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(study.recipe_of(name, tmp_path)), encoding="utf-8")
    recipe = load_recipe(path)
    assert recipe.train.estimator == name
    assert recipe.fronts.vectors(2) == study.WEIGHTS
    assert recipe.train.per_device_train_batch_size == study.ANSWERS
    other = study.recipe_of("group", tmp_path)
    other["train"] |= study.METHODS[name]
    assert study.recipe_of(name, tmp_path) == other


@pytest.fixture(scope="module")
def told():
    """Two policies; the second of `stratified` searches just where it helps, that of `group` always."""
    kinds = np.array([report.STATED, report.HIDDEN] * 12)
    never = np.stack([kinds == report.STATED, np.zeros(24)], axis=1).astype(float)
    always = np.ones((24, 2))
    needed = np.stack([np.ones(24), kinds == report.HIDDEN], axis=1).astype(float)

    def found(*tables):
        return report.Found(["ref", "a", "b"], np.stack(tables))

    every = {
        (0, "group"): found(never, never, always), (0, "stratified"): found(never, never, needed),
        (1, "group"): found(never, never, always), (1, "stratified"): found(never, always, needed),
    }  # fmt: skip
    one = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 24}
    return report.summary(every, kinds) | {"answerer": {"without a search": one, "with the fact": one | {"value": 1.0}}}


def test_figures_by_kind_of_question(told):
    one = told["seeds"]["0"]["stratified"]["b"]
    assert one["all"]["right"]["value"] == 1
    assert [one[kind]["calls"]["value"] for kind in ("all", report.STATED, report.HIDDEN)] == [0.5, 0, 1]
    assert one[report.STATED]["searched"]["high"] > 0.05  # none of twelve is not none of all
    both = told["methods"]["stratified"]["a"]
    assert both["seeds"] == 2
    assert both["all"]["right"]["value"] == 0.75
    assert both["all"]["right"]["n"] == 24  # questions, not answers
    assert both["all"]["calls, over seeds"]["n"] == 2
    gap = told["stratified minus group"]["b"]
    assert (gap["right"]["value"], gap["calls"]["value"]) == (0, -0.5)
    assert told["stratified minus group"]["a"]["right, over seeds"]["value"] == 0.25


def test_the_picture_shows_every_method_and_what_could_be(told, monkeypatch):
    drawn = []
    monkeypatch.setattr(report, "Figure", lambda **kw: drawn.append(Figure(**kw)) or drawn[-1])
    report.picture(told)
    (axes,) = drawn[0].axes
    assert axes.get_legend_handles_labels()[1][:3] == [
        "before", "searching where it helps alone, for a share of these", "searching whatever the question, for a share of all",
    ]  # fmt: skip
    assert {"group", "stratified"} <= set(axes.get_legend_handles_labels()[1])


def test_it_reads_what_a_front_wrote(tmp_path, monkeypatch):
    rows = [{key: row[key] for key in ("prompt", "answer", "kind")} for row in study.facts()[: study.HELD_OUT]]
    (tmp_path / "held-out.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def front(words):
        run = tmp_path / "group" / "seed-0"
        for who, right in (("ref", 0.0), ("first-1", 1.0)):
            folder = run / "policies" / who
            folder.mkdir(parents=True)
            scored = [
                row | {"rewards": [{study.USEFUL: right, study.FEW: 0.5}], "tool_calls": [n % 2]}
                for n, row in enumerate(rows)
            ]
            (folder / "scores.jsonl").write_text("".join(json.dumps(row) + "\n" for row in reversed(scored)))
        told = {"members": [{"name": "first-1", "scores": "policies/first-1/scores.jsonl"}]}
        (run / "members.json").write_text(json.dumps(told))
        assert words[1:3] == ["train.seed=0", f"train.output_dir={run}"]
        return run

    monkeypatch.setattr(study, "front", front)
    monkeypatch.setattr(study, "write_front", lambda run: None)
    found = study.reached("group", 0, tmp_path)
    assert found.names == ["ref", "first-1"]
    assert found.tables.mean(axis=1).tolist() == [[0, 0.5], [1, 0.5]]
    assert found.tables[0, :4, 1].tolist() == [0, 1, 0, 1]

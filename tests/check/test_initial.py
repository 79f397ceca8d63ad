"""Scored answers to other prompts, or by other rewards, are refused before a weight is loaded."""

import json

from align.check.machine import Machine
from align.check.refusals import look
from align.data import load_data
from align.recipe.loading import load_recipe

CPU = Machine(installed=lambda name: True)
ASKED = [[{"role": "user", "content": text}] for text in ("What is 2 + 3?", "What is 7 - 4?")]


def said(folder, name, *overrides, rewards="correctness", asked=ASKED):
    rows = [{"prompt": prompt, "answer": "5"} for prompt in ASKED]
    scored = [{"prompt": p, "completions": ["5"], "rewards": [{rewards: 1.0, "conciseness": 0.5}]} for p in asked]
    for file, lines in (("rows", rows), ("scored", scored)):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [f"data.train.path={folder / 'rows.jsonl'}", "rewards=[correctness, conciseness]", "train.max_steps=1"]
    recipe = load_recipe(name, [*words, *overrides])
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    found = look(recipe, {"data.train": data.train}, CPU).findings
    return [finding.line() for finding in found if finding.rule == "initial-answers"]


def initial(folder):
    return f"train.estimator_options={{initial: '{folder / 'scored.jsonl'}'}}"


def test_scored_answers_that_are_of_another_run_are_refused(tmp_path):
    stream = "online/tiny-single-stream"
    assert said(tmp_path, stream, initial(tmp_path)) == []
    (line,) = said(tmp_path, stream, initial(tmp_path), rewards="kind")
    assert "initial: has no rewards named correctness; there are kind, conciseness" in line
    (line,) = said(tmp_path, stream, initial(tmp_path), asked=[[{"role": "user", "content": "not asked"}]])
    assert line.startswith("error: train.estimator_options: initial-answers: ")
    assert "initial: none of its prompts is in the training set" in line

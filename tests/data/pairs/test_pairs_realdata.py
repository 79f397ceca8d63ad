"""Pairs from human scores, from checked solutions, and the constraints of IFEval, on real rows."""

import gzip
import json

import pytest

from align.data import DataConfig, DataSource, load_preferences
from align.data.commands.pairs import build, main
from align.data.making.constraints import CHECKERS, Constraint
from align.data.making.selectors import best_sigma

pytestmark = pytest.mark.realdata


def rows_of(path):
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_human_scores_of_short_answers(shared_data, tmp_path, capsys):
    """`sfx_multi`: every answer has two scores; the pairs must be what the scores say, and training must read them."""
    source, out = shared_data / "sfx_multi" / "responses_train.jsonl.gz", tmp_path / "out.jsonl"
    words = [str(source), "--weights", "informativeness=1,naturalness=1", "--out", str(out), "--select", "all_pairs"]
    assert main(words) == 0
    pairs = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    rows = rows_of(source)
    scores = {
        (row["prompt"][0]["content"], answer["content"]): sum(answer["scores"].values())
        for row in rows
        for answer in row["responses"]
    }
    for pair in pairs:
        high, low = (scores[pair["prompt"][0]["content"], pair[side][0]["content"]] for side in ("chosen", "rejected"))
        assert (pair["chosen_reward"], pair["rejected_reward"]) == pytest.approx((high, low))
        assert high >= low
    told = capsys.readouterr().out
    assert f"{len(pairs)} pairs of " in told
    assert f" of {len(rows)} prompts" in told
    assert len(
        load_preferences(DataConfig(train=DataSource(str(out), ignore=["weight"]), unusable="drop")).train
    ) > 0.9 * len(pairs)
    built = build(rows, "best_sigma", weights={"informativeness": 1.0, "naturalness": 1.0})
    assert len(built.pairs) + built.without.total() == len(rows)
    some = rows[0]["responses"]
    ((chosen, rejected, _),) = best_sigma([sum(answer["scores"].values()) for answer in some])
    assert tuple(built.pairs[0][side][0]["content"] for side in ("chosen", "rejected")) == (
        some[chosen]["content"],
        some[rejected]["content"],
    )


def test_solutions_of_word_problems_are_told_apart_by_their_last_number(shared_data):
    """`gsm8k_solution_pairs`: the labels are those of the data's own check of answers."""
    rows = rows_of(shared_data / "gsm8k_solution_pairs" / "train.jsonl.gz")
    scored = [
        {"prompt": row["prompt"], "completions": [row["rejected"], row["chosen"]], "answer": row["answer"]}
        for row in rows
    ]
    built = build(scored, "verified", answer="answer")
    assert len(built.pairs) == len(rows), built.without
    right = {json.dumps(row["prompt"]): row["chosen"] for row in rows}
    assert all(pair["chosen"] == right[json.dumps(pair["prompt"])] for pair in built.pairs)


def test_the_constraints_of_ifeval_are_read(shared_data):
    rows = rows_of(shared_data / "eval_ifeval" / "train.jsonl.gz")
    asked = [pair for row in rows for pair in zip(row["instruction_id_list"], row["kwargs"], strict=True)]
    constraints = [Constraint(kind, arguments) for kind, arguments in asked if kind != "language:response_language"]
    assert {constraint.kind for constraint in constraints} == CHECKERS.keys()
    assert len(asked) - len(constraints) == 19
    assert not any(constraint.holds("x, Y") for constraint in constraints if constraint.kind == "punctuation:no_comma")

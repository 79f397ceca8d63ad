"""What a judge said, in the report: every figure under its name, in words, tables, JSON and HTML."""

import json
import math

import numpy as np
import pytest
from judged import LARGER, numbers, sampled, strengths

from align.judges.scorers import RewardScorer
from eval.answers.table import Sampled
from eval.report.assemble import judge_report
from eval.report.results import Report
from eval.report.tables import judge_notes, judge_rows, judge_tables, rating_rows
from eval.report.write import to_html, to_json, to_markdown, verdict
from eval.statistics.names import REF


def reported(data, scorer=LARGER, kind="reward", **settings):
    report = Report(data.policies[0])
    judge_report(report, "j", kind, scorer, data, gold=settings.pop("gold", {}), **settings)
    return report


def test_a_report_has_every_figure_under_its_name():
    report = reported(numbers(n=40), compare=True, reference="base")
    assert set(report.estimates) == {
        f"{who}{key}"
        for who in ("", "other/")
        for key in ("win_rate/j", "win_rate_lc/j", "longer_wins/j", "longer_wins/j/agreement", "rating/j")
        if not (key == "win_rate_lc/j" and report.judged["j"].length_controlled.get(who.strip("/") or "mine") is None)
    } | {"rating/j/ref"}
    assert report.estimates["rating/j/ref"] == report.judged["j"].ratings["base"]
    assert len(report.compared["win_rate/j"].pairs) == 3
    assert reported(numbers(n=40)).compared == {}
    text = to_markdown(report) + judge_tables(report)
    assert "## Judges" in text
    assert "longer answer wins" in text
    rate = report.estimates["win_rate/j"]
    longer = report.judged["j"].longer_wins["mine"].value
    assert (
        f"win rate {rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}] (n=40; the longer answer: {longer:.3f})"
        in verdict(report)
    )
    page = to_html(report, {})
    assert page.count("<h2>Judges</h2>") == page.count("<summary>Ratings</summary>") == 1
    read = json.loads(to_json(report))["judges"]["j"]
    assert read["win_rates"]["mine"]["win_rate"]["value"] == rate.value
    assert read["ratings"]["base"]["n"] == 40


@pytest.mark.parametrize(("a", "word"), [("5", "better"), ("-1", "worse")])
def test_the_verdict_says_which_is_better(a, word):
    data = Sampled([{"prompt": f"p{i}"} for i in range(20)], {"a": [[a]] * 20, REF: [["1"]] * 20})
    assert f"a is {word} than reference by judge j, win rate" in verdict(reported(data))
    tied = Sampled(data.rows, {"a": [["1"]] * 20, REF: [["1"]] * 20})
    assert "a is not told apart from reference by judge j" in verdict(reported(tied))


def test_rows_of_ratings_begin_with_the_strongest():
    report = reported(sampled(), strengths(a=-1.0, b=1.0, c=0.0, ref=0.0), "reward_model")
    names = [row[1] for row in rating_rows(report)]
    assert (names[0], names[-1]) == ("b", "a")
    assert rating_rows(report)[0][4] == f"{1000 + 400 / math.log(10):.0f}"
    assert [row[:2] for row in judge_rows(report)] == [("j", who) for who in "abc"]


def test_the_best_of_k_is_chosen_by_the_judge_and_told_in_gold():
    data = numbers(n=12, samples=4, ties=False)
    gold = {who: -np.array(rows, dtype=float) for who, rows in data.answers.items()}
    curve = reported(data, gold=gold).best_of_k["j: mine"]
    assert curve[4].value == pytest.approx(gold["mine"].min(axis=1).mean())
    own = reported(data).best_of_k["j: mine"]
    assert own[4].value == pytest.approx(np.array(data.answers["mine"], dtype=float).max(axis=1).mean())
    assert reported(numbers(n=12)).best_of_k == {}
    assert reported(data, kind="preference_model").best_of_k == {}


def test_a_judge_without_a_score_for_every_answer_draws_no_curve():
    def some(completions, **_):
        return [None if c == completions[0] else float(c) for c in completions]

    report = reported(numbers(n=8, samples=2), RewardScorer(some))
    assert report.best_of_k == {}
    assert any(note.startswith("no best-of-k: reward: must be one finite number") for note in report.judged["j"].notes)


def test_a_length_controlled_rate_says_where_its_difficulty_is_from():
    def told(report):
        return [note for note in judge_notes(report) if "length-controlled" in note]

    alone = reported(numbers(n=60, ties=False))
    several = numbers(n=60, players=("a", "b", "c"), ties=False)
    report = reported(several)
    assert report.judged["j"].difficulty_from == dict.fromkeys("abc", "the verdicts on 2 other policies")
    assert (
        "j: a's length-controlled win rate is with the difficulty of each instruction from the verdicts"
        in told(report)[0]
    )
    first = Sampled(several.rows, {who: several.answers[who] for who in ("a", REF)})
    without = reported(first)
    assert "without the difficulty of instructions" in told(without)[0]
    rows = [row | {"instruction_difficulty": float(i % 7)} for i, row in enumerate(first.rows)]
    given = reported(Sampled(rows, first.answers))
    assert given.judged["j"].difficulty_from == {"a": "the column instruction_difficulty"}
    rates = [r.estimates["win_rate_lc/j"].value for r in (report, without, given)]
    assert len(set(rates)) == 3
    assert told(alone)

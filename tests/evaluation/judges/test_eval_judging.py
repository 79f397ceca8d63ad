"""One judge on all answers: win rates, ratings, cycles and failures, against what they must be."""

import json
import math

import numpy as np
import pytest
from judged import LARGER, numbers, sampled, strengths

from align.judges.protocol import Judge, Verdict
from align.judges.scorers import RewardScorer, TableScorer
from eval.answers.table import Sampled
from eval.report.results import Report
from eval.report.tables import judge_notes
from eval.report.write import to_json, verdict
from eval.statistics.comparisons import corrected
from eval.statistics.names import REF
from eval.statistics.ratings import exploitability
from eval.statistics.win_rate import win_rate
from eval.verdicts import ask_judge, head_to_head, judged_by


def test_win_rates_are_those_of_the_larger_reward():
    data = numbers()
    judged, _ = judged_by("reward", LARGER, data)
    for who in data.policies:
        mine, ref = (np.array([int(row[0]) for row in data.answers[side]]) for side in (who, REF))
        rate = judged.win_rates[who]
        assert [rate.wins, rate.ties, rate.losses] == [int(x.sum()) for x in (mine > ref, mine == ref, mine < ref)]
        assert rate.failed == 0
        assert rate.win_rate.value == pytest.approx(((mine > ref) + 0.5 * (mine == ref)).mean())
    assert judged.position_bias is None
    assert judged.players == ["mine", "other", "reference"]


def test_every_sample_is_judged_against_the_references_and_prompts_are_what_is_independent():
    data = numbers(n=20, samples=3)
    judged, verdicts = judged_by("reward", LARGER, data)
    mine, ref = (np.array(data.answers[side]).astype(int) for side in ("mine", REF))
    wins = (mine > ref) + 0.5 * (mine == ref)
    rate = judged.win_rates["mine"]
    assert rate.win_rate.value == pytest.approx(wins.mean())
    assert rate.win_rate.n == 20
    assert rate.wins + rate.ties + rate.losses == 60
    assert verdicts.prompts.tolist() == [i for i in range(20) for _ in range(3)]
    expected = win_rate(wins.ravel(), clusters=np.repeat(np.arange(20), 3))
    assert rate == expected
    assert judged.ratings["mine"].n == 20


def test_columns_of_the_data_reach_the_judge_and_the_prompt_is_none_of_them():
    asked = []

    class Recording:
        def prefer(self, prompt, answers, **columns):
            asked.append((prompt, list(answers), columns))
            return np.full((len(answers), len(answers)), 0.5)

    data = sampled(2, ("a",))
    for row in data.rows:
        row |= {"answers": "of the data", "completions": "too"}  # names that scorers need themselves
    ask_judge(Recording(), data)
    assert asked == [("p0", ["a", "ref"], {"answer": "0"}), ("p1", ["a", "ref"], {"answer": "1"})]


def test_ratings_are_the_strengths_of_the_world():
    truth = {"a": 0.8, "b": -0.3, "c": 0.1, "ref": -0.6}
    judged, _ = judged_by("reward_model", strengths(**truth), sampled())
    for who, estimate in judged.ratings.items():
        assert estimate.value == pytest.approx(truth["ref" if who == "reference" else who], abs=1e-8)
    assert (judged.circles, judged.exploitability, judged.mixture) == ([], None, {})
    assert np.array(judged.preferences)[0, 3] == pytest.approx(1 / (1 + math.exp(-1.4)))


def test_two_players_have_a_win_rate_and_no_ratings():
    judged, _ = judged_by("reward", strengths(a=0.8, ref=0.0), sampled(names=("a",)))
    assert judged.win_rates["a"].win_rate.value == pytest.approx(1 / (1 + math.exp(-0.8)))
    assert (judged.ratings, judged.preferences, judged.exploitability) == ({}, [], None)


ROCK = [[0.5, 0.9, 0.2, 0.6], [0.1, 0.5, 0.9, 0.6], [0.8, 0.1, 0.5, 0.6], [0.4, 0.4, 0.4, 0.5]]


def test_a_cycle_leaves_everybody_exploitable_and_its_mixture_nobody():
    judged, _ = judged_by("preference_model", TableScorer(["a", "b", "c", "ref"], ROCK), sampled())
    assert judged.exploitability == pytest.approx(0.1)  # the reference is beaten at 0.6, a at 0.8, b and c at 0.9
    mixture = np.array([judged.mixture[who] for who in ("a", "b", "c", "reference")])
    assert exploitability(np.array(judged.preferences), mixture) == pytest.approx(0, abs=1e-9)
    assert judged.mixture["reference"] == pytest.approx(0)
    report = Report("a", judged={"rock": judged})
    assert judged.circles == [["a", "b", "c"]]
    assert judged.one_scale_p < 0.01
    notes = list(judge_notes(report))
    assert "rock: preferences are cyclic: a > b > c > a, each beyond doubt." in notes
    note = next(note for note in notes if "mixture" in note)
    assert "everybody is beaten by somebody, the hardest to beat by 0.100 over one half" in note
    assert "reference" not in note.partition("mixture")[2]


def test_a_player_that_never_loses_is_rated_with_a_drawn_game_and_it_is_said():
    data = Sampled(
        [{"prompt": f"p{i}"} for i in range(10)],
        {"a": [["9"]] * 10, "b": [["1"]] * 10, REF: [[str(i % 3)] for i in range(10)]},
    )
    judged, _ = judged_by("reward", LARGER, data)
    assert judged.ratings["a"].value > max(judged.ratings["b"].value, judged.ratings["reference"].value)
    assert any(note.startswith("ratings with one drawn game added to each pair") for note in judged.notes)
    assert any("never lost to any other" in note for note in judged.notes)


# --- what cannot be judged ---------------------------------------------------------------------


def test_failures_are_counted_listed_and_in_no_other_number():
    def ask(questions):
        return [
            Verdict(np.nan, "", "too long")
            if q.prompt == "p3" and q.first == "a"
            else Verdict(float(q.first == "a"), "A")
            for q in questions
        ]

    data = sampled(n=6, names=("a",), samples=2)
    judged, _ = judged_by("language_model", Judge(ask), data)
    assert [(f["prompt"], f["sample"], f["first"], f["second"], f["error"]) for f in judged.failures] == [
        (3, 0, "a", "reference", "too long"),
        (3, 1, "a", "reference", "too long"),
    ]
    rate = judged.win_rates["a"]
    assert (rate.wins, rate.failed, rate.win_rate.n) == (10, 2, 5)
    assert rate.win_rate.value == 1.0
    notes = list(judge_notes(Report("a", judged={"j": judged})))
    assert "j: 2 questions have no verdict; they are in no other number." in notes
    assert "j: prompt 4, answer 2, a before reference: too long" in notes


def test_many_failures_are_in_json_and_the_first_five_are_shown():
    judged, _ = judged_by(
        "endpoint", Judge(lambda qs: [Verdict(np.nan, "", "no reply") for _ in qs]), sampled(30, ("a",))
    )
    report = Report("a", judged={"j": judged})
    assert len(judged.failures) == 60
    shown = list(judge_notes(report))
    assert sum("no reply" in note for note in shown) == 5
    assert "j: the other 55 failures are in report.json." in shown
    assert len(json.loads(to_json(report))["judges"]["j"]["failures"]) == 60
    assert judged.win_rates == {}
    assert judged.notes == ["not a single verdict, so nothing can be estimated"]
    assert "judge j gave too few verdicts for a win rate" in verdict(report)


def test_a_judge_that_prefers_what_it_is_shown_first_is_found_out():
    judge = Judge(lambda questions: [Verdict(1.0, "A") for _ in questions])
    judged, _ = judged_by("language_model", judge, sampled(names=("a",), samples=2))
    assert judged.position_bias.first_preference.value == 1.0
    assert judged.position_bias.flips.value == 1.0
    assert judged.position_bias.flips.n == 40
    assert judged.win_rates["a"].win_rate.value == 0.5


def test_without_a_fit_there_is_no_length_controlled_rate_and_a_reason():
    judged, _ = judged_by("reward", strengths(a=0.0, ref=0.0), sampled(names=("a",)))
    assert judged.length_controlled == {}
    assert [
        n for n in judged.notes if n.startswith("a: no length-controlled win rate: wins must be probabilities that")
    ]


def test_the_length_controlled_rate_is_at_equal_length():
    """A judge who looks at nothing but length: a plain win rate of a half and more, a controlled one of a half."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 40, size=(2, 400))
    data = Sampled(
        [{"prompt": str(i)} for i in range(400)],
        {"a": [["x" * (5 + n)] for n in lengths[0]], REF: [["x" * n] for n in lengths[1]]},
    )
    judge = RewardScorer(lambda completions, **_: [len(c) / 10 for c in completions])
    judged, _ = judged_by("reward", judge, data)
    assert judged.win_rates["a"].win_rate.low > 0.5
    assert judged.length_controlled["a"].value == pytest.approx(0.5, abs=0.02)
    longer = np.mean(
        [
            (len(a[0]) > len(b[0])) + 0.5 * (len(a[0]) == len(b[0]))
            for a, b in zip(data.answers["a"], data.answers[REF], strict=True)
        ]
    )
    assert judged.longer_wins["a"].value == pytest.approx(longer)
    assert judged.agreement["a"].value > 0.97  # equal lengths count one half


def test_failures_are_in_no_fit_either():
    rng = np.random.default_rng(3)
    data = Sampled(
        [{"prompt": f"p{i}"} for i in range(60)],
        {who: [["x" * n] for n in rng.integers(1, 40, size=60)] for who in ("a", REF)},
    )
    judge = RewardScorer(lambda completions, **_: [len(c) / 20 for c in completions])
    kept = Sampled(data.rows[10:], {who: rows[10:] for who, rows in data.answers.items()})

    class Failing:
        def prefer(self, prompt, answers, **columns):
            if prompt in {f"p{i}" for i in range(10)}:
                raise ValueError("no")
            return judge.prefer(prompt, answers, **columns)

    judged, whole = judged_by("reward", Failing(), data)[0], judged_by("reward", judge, kept)[0]
    assert judged.length_controlled == whole.length_controlled != {}
    assert judged.longer_wins == whole.longer_wins
    assert judged.win_rates["a"].failed == 10
    assert len(judged.failures) == 20


# --- everybody against everybody ---------------------------------------------------------------


def test_all_pairs_are_compared_and_corrected():
    data = numbers(n=60, players=("a", "b", "c"))
    judged, verdicts = judged_by("reward", LARGER, data)
    rows = corrected({"j": head_to_head(verdicts, judged.players)}, rng=np.random.default_rng(0))["j"]
    assert [(row.first, row.second) for row in rows] == [
        ("a", "b"), ("a", "c"), ("a", "reference"), ("b", "c"), ("b", "reference"), ("c", "reference"),
    ]  # fmt: skip
    a, b = (np.array([int(row[0]) for row in data.answers[who]]) for who in ("a", "b"))
    assert rows[0].difference.value == pytest.approx(np.sign(a - b).mean())
    assert rows[0].difference.low < rows[0].difference.value < rows[0].difference.high
    alone = win_rate(verdicts.wins("a", REF)).win_rate
    joint = rows[2].difference
    assert joint.high - joint.low > 2 * (alone.high - alone.low)


def test_a_better_player_is_significantly_better():
    judged, verdicts = judged_by("reward", LARGER, Sampled(
        [{"prompt": f"p{i}"} for i in range(30)],
        {"a": [["5"]] * 30, "b": [[str(i % 2)] for i in range(30)], REF: [[str(i % 3)] for i in range(30)]},
    ))  # fmt: skip
    found = corrected({"j": head_to_head(verdicts, judged.players)}, rng=np.random.default_rng(0))["j"]
    rows = {(row.first, row.second): row for row in found}
    assert rows["a", "b"].difference.value == 1.0
    assert rows["a", "b"].difference.low < 1.0  # a share of one is not known for certain
    assert rows["a", "b"].p_value < 0.01
    assert rows["b", "reference"].p_value > rows["a", "b"].p_value


def test_a_pair_without_a_verdict_is_told_and_the_others_are_estimated():
    def ask(questions):
        return [
            Verdict(np.nan, "", "no") if {q.first, q.second} == {"a", "ref"} else Verdict(0.75, "A") for q in questions
        ]

    judged, verdicts = judged_by("language_model", Judge(ask), sampled(6, ("a", "b")))
    assert "a: no win rate: not a single verdict against the reference" in judged.notes
    assert "no preferences between all: preferences: no verdict between models 0 and 2" in judged.notes
    assert judged.win_rates["b"].win_rate.value == 0.5
    assert set(judged.ratings) == {"a", "b", "reference"}
    with pytest.raises(ValueError, match="fewer than 2 prompts have a verdict on every pair"):
        head_to_head(verdicts, judged.players)

"""Rewards of the recipe on answers of policies and reference: called as the trainer calls them, and counted honestly."""

import math

import numpy as np
import pytest
from judged import wilson_estimate

from align.errors import RunError
from align.rewards import Conciseness, Correctness, make_reward
from eval.answers.table import Sampled
from eval.measures import rewards as objectives
from eval.measures.rewards import check_objectives, objective_report, objective_values
from eval.statistics.comparisons import corrected
from eval.statistics.intervals import mean_estimate
from eval.statistics.sides import every_pair, sided_estimates

NAN = math.nan


def rng():
    return np.random.default_rng(0)


def said(text):
    return [{"role": "user", "content": text}]


ROWS = [
    {"prompt": said("two and two"), "answer": "4"},
    {"prompt": "three and three", "answer": "6"},
    {"prompt": said("anything"), "answer": None},
]
SAMPLED = Sampled(
    ROWS,
    {
        "mine": [["4", "5"], ["6", "it is 6"], ["4", "4"]],
        "ref": [["5", "5"], ["6", "7"], ["4", "4"]],
        "other": [["4", "4"], ["1", "2"], ["", ""]],
    },
)


def ids_of(sampled):
    """A token for each character."""
    return {who: [[list(range(len(text))) for text in row] for row in rows] for who, rows in sampled.answers.items()}


def recorded(monkeypatch, function, name="made:up"):
    """A reward of somebody's package, and what it was called with."""
    calls = []

    def reward(completions, **columns):
        calls.append({"completions": completions, **columns})
        return function(completions)

    monkeypatch.setattr(objectives, "make_reward", lambda wanted, allow=(), **options: reward)
    return {name: {}}, calls


def test_a_prompts_value_is_the_mean_of_its_samples_and_rows_without_an_answer_count_nowhere():
    found = objective_report(SAMPLED, {"correctness": {}})
    estimates = found.estimates
    assert estimates["objectives/correctness/policy"].value == pytest.approx((0.5 + 1) / 2)
    assert estimates["objectives/correctness/ref"].value == pytest.approx((0 + 0.5) / 2)
    assert estimates["objectives/correctness/difference"].value == pytest.approx((0.5 + 0.5) / 2)
    assert estimates["other/objectives/correctness/policy"].value == pytest.approx((1 + 0) / 2)
    assert estimates["other/objectives/correctness/difference"].value == pytest.approx((1 - 0.5) / 2)
    assert {e.n for e in estimates.values()} == {2}
    assert "other/objectives/correctness/ref" not in estimates
    assert found.front is None  # one objective has no front
    rows = corrected(found.comparisons, rng=rng())["objectives/correctness"]
    (row,) = [row for row in rows if "ref" not in (row.first, row.second)]
    assert (row.first, row.second, row.difference.value) == ("mine", "other", pytest.approx(0.25))
    assert row.difference.n == 2


def test_a_value_of_each_answer_is_the_rewards_own():
    values, left_out = objective_values(SAMPLED, {"correctness": {}, "repetition": {"n": 1}})
    want = [Correctness()([t], answer=[row["answer"]])[0] for row, t in zip(ROWS[:2], ("5", "it is 6"), strict=True)]
    assert values["correctness"]["mine"][:2, 1].tolist() == want == [0.0, 1.0]
    assert np.isnan(values["correctness"]["mine"][2]).all()
    assert values["repetition"]["mine"].tolist() == [[1, 1], [1, 1], [1, 1]]
    assert values["repetition"]["other"][2].tolist() == [0, 0]
    assert left_out == {}


def test_rewards_are_called_as_trl_calls_them(monkeypatch):
    rewards, calls = recorded(monkeypatch, lambda completions: [0.5] * len(completions))
    ids = ids_of(SAMPLED)
    objective_values(SAMPLED, rewards, completion_ids=ids)
    mine, ref, other = calls
    assert mine["completions"][:3] == [
        [{"role": "assistant", "content": "4"}], [{"role": "assistant", "content": "5"}], "6",
    ]  # fmt: skip
    assert mine["prompts"] == [row["prompt"] for row in ROWS for _ in range(2)]
    assert mine["answer"] == ["4", "4", "6", "6", None, None]
    assert mine["completion_ids"] == [[0], [0], [0], list(range(7)), [0], [0]]
    assert other["completion_ids"][-2:] == [[], []]
    assert ref["completions"][2] == "6"
    mine["log_extra"]("column", [1])
    mine["log_metric"]("name", 1.0)
    assert "prompt" not in mine
    calls.clear()
    objective_values(SAMPLED, rewards)
    assert "completion_ids" not in calls[0]


def test_columns_that_only_some_rows_have_are_none_in_the_others(monkeypatch):
    rewards, calls = recorded(monkeypatch, lambda completions: [0.5] * len(completions))
    sampled = Sampled([{"prompt": "a"}, {"prompt": "b", "hint": 3}], {w: [["x"], ["y"]] for w in ("mine", "ref")})
    objective_values(sampled, rewards)
    assert calls[0]["hint"] == [None, 3]


def test_a_reward_that_remembers_is_shown_the_references_answers_alone_and_made_anew(monkeypatch):
    made = []
    monkeypatch.setattr(objectives, "make_reward", lambda *a, **kw: made.append(make_reward(*a, **kw)) or made[-1])
    answers = {"mine": [["aa", "a"], ["aaaa", "aa"]], "ref": [["aa", "aa"], ["aaaaa", "aaa"]]}
    sampled = Sampled([{"prompt": "a"}, {"prompt": "b"}], answers)
    values, _ = objective_values(sampled, {"conciseness": {}}, completion_ids=ids_of(sampled))
    (reward,) = made
    assert isinstance(reward, Conciseness)
    assert (reward.tokens, reward.completions) == (12, 4)  # a mean of 3: the policy's lengths left no trace
    assert values["conciseness"]["mine"].tolist() == [[1, 1], [0, 1]]
    assert values["conciseness"]["ref"].tolist() == [[1, 1], [0, 0]]
    first = objective_report(sampled, {"conciseness": {}}, completion_ids=ids_of(sampled)).estimates
    swapped = Sampled(sampled.rows, {"ref": answers["ref"], "mine": answers["mine"]})
    assert objective_report(swapped, {"conciseness": {}}, completion_ids=ids_of(swapped)).estimates == first


def test_answers_of_a_file_have_no_tokens_to_count():
    found = objective_report(SAMPLED, {"conciseness": {}, "length_budget": {"tokens": 3}, "repetition": {}})
    assert found.details["left_out"] == dict.fromkeys(
        ("conciseness", "length_budget"), "it counts tokens, which answers of a file do not have"
    )
    assert found.details["rewards"]["length_budget"] == {"tokens": 3}
    assert {key.split("/")[-2] for key in found.estimates} == {"repetition"}


def test_rewards_of_calls_are_left_out_where_nothing_can_be_called():
    values, left_out = objective_values(SAMPLED, {"fewer_calls": {}, "repetition": {"n": 1}})
    assert list(values) == ["repetition"]
    assert left_out == {"fewer_calls": "it reads calls of tools, and answers are sampled without tools here"}


def test_an_objective_that_applies_to_no_answer_is_left_out():
    rows = [{"prompt": "a", "answer": None}, {"prompt": "b", "answer": " "}]
    found = objective_report(Sampled(rows, {w: [["4"], ["4"]] for w in ("mine", "ref")}), {"correctness": {}})
    assert found.estimates == {}
    assert found.details["left_out"] == {"correctness": "it applies to none of the answers"}


def test_an_answer_to_which_an_objective_does_not_apply_is_no_zero(monkeypatch):
    rewards, _ = recorded(monkeypatch, lambda completions: [float(len(c)) if c else None for c in completions])
    sampled = Sampled(
        [{"prompt": "a"}, {"prompt": "b"}], {"mine": [["xx", ""], ["x", "xxx"]], "ref": [["", ""], ["", "x"]]}
    )
    got = objective_report(sampled, rewards).estimates
    assert got["objectives/made:up/policy"].value == pytest.approx((2 + 2) / 2)
    assert got["objectives/made:up/policy"].n == 2


def test_a_reward_of_a_package_is_measured_between_the_least_and_the_most_seen(monkeypatch):
    rewards, _ = recorded(monkeypatch, lambda completions: [float(len(c)) if c else None for c in completions])
    sampled = Sampled([{"prompt": "a"}, {"prompt": "b"}], {"mine": [["xxx"], [""]], "ref": [["x"], ["xx"]]})
    found = objective_report(sampled, rewards)
    assert found.details["scale"] == {"made:up": [1.0, 3.0]}
    assert found.estimates.keys() == {"objectives/made:up/ref"}  # one value has no interval, nor has one difference
    rewards, _ = recorded(monkeypatch, lambda completions: [2.0] * len(completions))
    assert objective_report(sampled, rewards).details["scale"] == {"made:up": [2.0, 3.0]}
    assert objective_report(SAMPLED, {"positive_sentiment": {}}).details["scale"] == {"positive_sentiment": [-1, 1]}


def test_a_reward_that_gives_too_few_values_is_an_error(monkeypatch):
    rewards, _ = recorded(monkeypatch, lambda completions: [1.0])
    with pytest.raises(RunError, match="'made:up': must give one value for each of 6 answers, got 1"):
        objective_values(SAMPLED, rewards)


@pytest.fixture
def package_reward(tmp_path, monkeypatch):
    monkeypatch.setattr("align.rewards.load._is_installed", lambda module: True)
    (tmp_path / "somebodys.py").write_text("def halves(completions, answer, **_):\n    return [0.5 for _ in answer]\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "somebodys:halves"


def test_a_reward_of_a_package_runs_only_where_it_is_allowed(package_reward):
    found = objective_report(SAMPLED, {package_reward: {}}, allow=[package_reward])
    assert found.estimates[f"objectives/{package_reward}/policy"][:3] == (0.5, -math.inf, math.inf)
    with pytest.raises(RunError, match="add --allow somebodys:halves"):
        objective_report(SAMPLED, {package_reward: {}})
    with pytest.raises(RunError, match="add --allow somebodys:halves"):
        check_objectives({package_reward: {}}, ["prompt"], where="data.eval.x")
    check_objectives({package_reward: {}}, ["prompt"], where="data.eval.x", allow=[package_reward])


@pytest.mark.parametrize(
    ("rewards", "columns", "point", "message"),
    [
        ({"correctness": {}}, ["prompt"], None, "data.eval.x: no column 'answer', which the reward 'correctness' reads"),
        ({"relevance": {"against": "reference"}}, ["prompt"], None, "no column 'reference'"),
        ({"clarity": {"stepps": 1}}, ["prompt"], None, "stepps: unknown key"),
        ({"clarity": {}}, ["prompt"], {"clarety": 0.0}, "eval.reference_point: must have a value for each.*clarity, got clarety"),
        ({"clarity": {}}, ["prompt"], {}, "got none"),
        ({"clarity": {}}, ["prompt"], {"clarity": NAN}, "eval.reference_point.clarity: must be finite, got nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_told_before_anything_is_sampled(rewards, columns, point, message, monkeypatch):
    monkeypatch.setattr("align.rewards.relevance.encoder_folder", lambda name: name)
    with pytest.raises(RunError, match=message):
        check_objectives(rewards, columns, where="data.eval.x", reference_point=point)


def test_what_can_be_scored_passes():
    rewards = {"correctness": {}, "clarity": {"steps": 1}}
    check_objectives(rewards, ["prompt", "answer"], where="x", reference_point={"clarity": 0.0, "correctness": 0.5})


# --- three figures of a quantity -------------------------------------------------------------------------


def test_sides_have_the_intervals_of_their_kind():
    values = {
        "a": np.array([1.0, 0, 1, 1, NAN]),
        "ref": np.array([0.5, 0.25, 1, NAN, 0]),
        "b": np.array([0.0, 1, 1, 0, 1]),
    }
    found = sided_estimates("x", values, shares=False)
    assert list(found) == ["x/policy", "x/ref", "x/difference", "b/x/policy", "b/x/difference"]
    assert found["x/policy"] == mean_estimate(np.array([1.0, 0, 1, 1]))
    assert sided_estimates("x", values, shares=True)["x/policy"] == wilson_estimate(3, 4)
    assert found["x/ref"] == mean_estimate(np.array([0.5, 0.25, 1, 0]))
    assert found["x/difference"] == mean_estimate(values["a"][:3] - values["ref"][:3])
    kept = [0, 1, 2, 4]
    assert found["b/x/difference"] == mean_estimate(values["b"][kept] - values["ref"][kept])


def test_items_of_one_cluster_belong_together():
    clusters = np.array([7, 7, 8, 8, 9, 9])
    values = {"a": np.array([1.0, 1, 0, 0, 1, 1]), "ref": np.array([0.0, 0.5, 1, 1, 0, 0.5])}
    found = sided_estimates("x", values, clusters)
    assert {e.n for e in found.values()} == {3}
    assert found["x/ref"] == mean_estimate(values["ref"], clusters)
    assert found["x/difference"] == mean_estimate(values["a"] - values["ref"], clusters)
    one = {"a": np.array([1.0, 0]), "ref": np.array([0.5, 0.25])}
    assert sided_estimates("x", one, np.array([1, 1])) == {}
    assert sided_estimates("x", one, np.array([1, 1]), shares=True)["x/policy"].n == 1


def test_pairs_are_compared_on_what_applies_to_all():
    values = {"a": np.array([1.0, 0, NAN, 1]), "ref": np.full(4, NAN), "b": np.array([0.0, 0, 1, NAN])}
    found = every_pair("x", values, list("pqrs"))["x"]
    assert found.pairs == [("a", "b")]
    assert found.differences[:, 0].tolist() == [1.0, 0.0]
    assert every_pair("x", values, list("pppp")) == {}
    assert every_pair("x", {"a": values["a"], "ref": values["a"]}, list("pqrs")) == {}

"""The front of several runs: against brute force on the scores, with prompts that do not apply, seeds and pictures."""

import functools
import math

import numpy as np
import pytest
from matplotlib.figure import Figure

from align.weighting.archive import hypervolume
from eval.answers.table import Sampled
from eval.fronts.front import front_of, seeds_of
from eval.fronts.indicators import drawn_means, expected_utility, r2, sparsity, volume_over_seeds
from eval.measures.rewards import objective_report
from eval.report.plots_fronts import objective_pictures
from eval.statistics.intervals import mean_estimate

NAN = math.nan
SCALES = {"right": (0.0, 1.0), "warm": (-1.0, 3.0)}


def rng():
    return np.random.default_rng(0)


def table(*rows):
    """Scores of one run: right and warm of each prompt."""
    return np.array(rows, dtype=float)


SCORES = {
    "a": table((1, 1), (1, 0), (0, 1)),
    "b": table((0, 3), (1, 2), (0, 2)),
    "c": table((0, 1), (0, 1), (1, 0)),
    "ref": table((0, 0), (1, 0), (0, 1)),
}
TWICE = {who: np.tile(rows, (2, 1)) for who, rows in SCORES.items()}


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Enough for a test, and ten times as fast."""
    monkeypatch.setattr("eval.fronts.front.drawn_means", functools.partial(drawn_means, draws=200))


@pytest.fixture
def uncorrected(monkeypatch):
    """The plain values: as if the means were certain."""
    certain = lambda *a, **kw: drawn_means(*a, draws=2, **kw)._replace(errors=np.zeros((2, len(a[0]), a[0].shape[2])))  # noqa: E731
    monkeypatch.setattr("eval.fronts.front.drawn_means", certain)


def front(scores=SCORES, scales=SCALES, recipes=None, **kw):
    return front_of(scores, scales, **{"ranges": scales, "recipes": recipes or {}} | kw)


def test_a_front_by_hand(uncorrected):
    got = front()
    assert got.objectives == ["right", "warm"]
    assert got.points["a"] == pytest.approx([2 / 3, 2 / 3])
    assert got.points["b"] == pytest.approx([1 / 3, 7 / 3])
    assert got.points["ref"] == pytest.approx([1 / 3, 1 / 3])
    assert got.reference == pytest.approx([1 / 3, 1 / 3])
    assert got.on_front == {"a": True, "b": True, "c": False}
    assert got.prompts == {"right": 3, "warm": 3}
    assert got.share_of_draws == {"a": 1.0, "b": 1.0, "c": 0.0}
    e = got.estimates
    assert e["hypervolume"].value == pytest.approx((1 / 3) * (1 / 3) / 4)  # a against the reference, warm in quarters
    assert e["b/hypervolume"].value == 0.0  # as right as the reference: no volume
    assert e["c/hypervolume"].value == 0.0
    assert e["front/hypervolume"].value == pytest.approx(1 / 36)
    unit = np.array([[2 / 3, 5 / 12], [1 / 3, 10 / 12], [1 / 3, 5 / 12]])
    assert e["front/r2"].value == pytest.approx(r2(unit, np.ones(2)))
    assert e["front/expected_utility"].value == pytest.approx(expected_utility(unit))
    assert e["front/sparsity"].value == pytest.approx((1 / 3) ** 2 + (5 / 12) ** 2)
    assert e["front/sparsity"].value == pytest.approx(sparsity(unit))
    assert {x.n for x in e.values()} == {3}


def test_a_stated_reference_point_is_on_the_rewards_own_scale(uncorrected):
    got = front(reference_point={"warm": -1.0, "right": 0.0})
    assert got.reference == [0.0, -1.0]
    assert got.estimates["c/hypervolume"].value == pytest.approx((1 / 3) * (2 / 3 + 1) / 4)
    assert got.estimates["front/hypervolume"].value == pytest.approx(
        hypervolume(np.array([[2 / 3, 5 / 12], [1 / 3, 10 / 12]]), np.zeros(2))
    )


def test_the_reference_is_no_run():
    """Better than everybody in every objective, it is on no front and takes nobody's place there."""
    got = front({**SCORES, "ref": table((1, 3), (1, 3), (1, 3))})
    assert got.on_front == {"a": True, "b": True, "c": False}
    assert got.estimates["front/sparsity"] == front().estimates["front/sparsity"]
    assert got.share_of_draws == pytest.approx(front().share_of_draws, abs=0.05)  # other draws of the same law


def test_a_run_has_the_interval_of_a_mean_in_each_objective():
    got = front(TWICE)
    for who, rows in TWICE.items():
        right, warm = (mean_estimate(rows[:, k], bounds=bounds) for k, bounds in enumerate(SCALES.values()))
        assert got.intervals[who] == [pytest.approx(right[1:3]), pytest.approx(warm[1:3])]


@pytest.mark.parametrize("n", [4, 5])
def test_fewer_than_five_prompts_have_no_interval(n):
    scores = {who: rng().random((5, 2))[:n] + shift for who, shift in (("a", 0.3), ("b", 0.2), ("ref", 0.0))}
    found = front(scores, {"x": (0.0, 2.0), "y": (0.0, 2.0)}, reference_point={"x": 0.0, "y": 0.0})
    e = found.estimates["hypervolume"]
    assert {math.isfinite(end) for end in (*e[1:3], *found.intervals["a"][0])} == {n == 5}


def test_what_the_reference_shares_with_a_run_is_not_in_the_interval():
    """A run that is better by the same on every prompt: the prompts differ widely, its volume does not."""
    ref = rng().random((40, 2))
    scores = {"a": ref + 0.25, "b": ref - 0.25, "ref": ref}
    scales = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
    got = front(scores, scales).estimates["hypervolume"]
    assert got == (pytest.approx(1 / 16), -math.inf, math.inf, 40)  # all prompts alike
    apart = front(scores, scales, reference_point={"x": 0.0, "y": 0.0}).estimates["hypervolume"]
    assert apart.high - apart.low > 0.05


def test_an_objective_counts_where_it_applies_to_everybody():
    scores = {
        "a": table((1, NAN), (0, 1), (1, 3), (1, 1)),
        "b": table((1, 1), (NAN, 2), (0, 2), (0, 1)),
        "ref": table((0, 1), (1, 0), (NAN, 0), (0, 1)),
    }
    got = front(scores)
    assert got.prompts == {"right": 2, "warm": 3}
    assert got.points["a"] == pytest.approx([1.0, 5 / 3])  # prompts 1 and 4; 2, 3 and 4
    assert got.points["b"] == pytest.approx([0.5, 5 / 3])
    assert got.estimates["front/hypervolume"].n == 2


@pytest.mark.parametrize("lost", [1, 4])
def test_objectives_that_less_than_two_prompts_share_are_left_out(lost):
    scores = {who: np.hstack([row, row[:, :1]]) for who, row in SCORES.items()}
    scales = {**SCALES, "rare": (0.0, 1.0)}
    scores["b"][1:, 2] = NAN
    got = front(scores, scales)
    assert got.objectives == ["right", "warm"]
    assert got.estimates == front().estimates
    scores["b"][:lost, 0] = NAN
    scores["b"][2:, 0] = NAN
    assert (front(scores, scales) is None) == (lost == 4 or lost == 1)


def test_runs_that_differ_by_their_seed_alone_are_seeds():
    def recipe(**train):
        return {"method": "dynamic_grpo", "train": {"weighting": "upgrad", **train}}

    recipes = {
        "a0": recipe(seed=0, output_dir="runs/a0"),
        "b0": recipe(seed=0, output_dir="runs/b0", beta=0.1),
        "a1": recipe(output_dir="runs/a1", seed=1),
        "b2": {"train": {"seed": 2, "beta": 0.1, "weighting": "upgrad"}, "method": "dynamic_grpo"},
        "c": recipe(seed=0, learning_rate=1.0),
    }
    assert seeds_of([*recipes, "file"], recipes) == {
        "a0": ["a0", "a1"],
        "b0": ["b0", "b2"],
        "c": ["c"],
        "file": ["file"],
    }
    assert recipes["a0"]["train"]["seed"] == 0  # looked at, not changed
    assert seeds_of(["x", "y"], {}) == {"x": ["x"], "y": ["y"]}


def test_the_volume_over_seeds_is_that_of_each_seed_alone():
    recipes = {who: {"train": {"seed": i}} for i, who in enumerate("ab")}
    got = front(recipes=recipes, reference_point={"right": 0.25, "warm": 0.0})
    alone = [np.array([[2 / 3, 5 / 12]]), np.array([[1 / 3, 10 / 12]])]
    want = volume_over_seeds(alone, np.array([0.25, 0.25]))
    assert got.estimates["front/hypervolume_over_seeds/a"] == pytest.approx(want)
    assert [key for key in got.estimates if "seeds" in key] == ["front/hypervolume_over_seeds/a"]
    assert got.details()["seeds"] == {"a": ["a", "b"], "c": ["c"]}


def test_six_objectives_are_weighed_on_a_coarser_lattice(uncorrected):
    names = {f"k{i}": (0.0, 1.0) for i in range(6)}
    scores = {who: np.random.default_rng(seed).random((5, 6)) for seed, who in enumerate(("a", "b", "ref"))}
    got = front(scores, names).estimates["front/expected_utility"]
    points = np.array([scores["a"].mean(0), scores["b"].mean(0)])
    assert got.value == pytest.approx(expected_utility(points, divisions=8), abs=1e-12)
    assert got.value != pytest.approx(expected_utility(points, divisions=7), abs=1e-6)
    assert math.comb(8 + 5, 5) < 2_000 < math.comb(9 + 5, 5)


# --- in the report ---------------------------------------------------------------------------------------

REWARDS = {"correctness": {}, "repetition": {"n": 1}}
SAMPLED = Sampled(
    [{"prompt": p, "answer": a} for p, a in (("a", "4"), ("b", "6"), ("c", "8"))],
    {
        "mine": [["4"], ["6 6"], ["8"]],
        "ref": [["5 5 5"], ["6 6"], ["1"]],
        "other": [["5"], ["6"], ["1"]],
    },
)


def test_several_policies_have_a_front_in_the_report(uncorrected):
    found = objective_report(SAMPLED, REWARDS, recipes={"mine": {"train": {}}})
    assert found.front is not None
    assert found.front.on_front == {"mine": True, "other": True}
    assert found.estimates.keys() >= {"front/hypervolume", "hypervolume", "other/hypervolume", "front/r2"}
    assert found.details["front"] == found.front.details()
    assert found.details["front"]["on_front"] == ["mine", "other"]
    assert found.details["front"]["points"]["mine"] == {"correctness": 1.0, "repetition": pytest.approx(5 / 6)}
    assert found.details["front"]["reference_point"]["correctness"] == pytest.approx(1 / 3)
    stated = objective_report(SAMPLED, REWARDS, reference_point={"correctness": 0.0, "repetition": 0.0})
    assert stated.estimates["hypervolume"].value == pytest.approx(5 / 6)
    alone = Sampled(SAMPLED.rows, {who: SAMPLED.answers[who] for who in ("mine", "ref")})
    assert objective_report(alone, REWARDS).front is None
    assert not [key for key in objective_report(alone, REWARDS).estimates if "hypervolume" in key]


# --- pictures --------------------------------------------------------------------------------------------


def records(*values, weights=True, names=("right", "warm")):
    keys = [f"objectives/{name}" for name in names] + [f"weights/{name}" for name in names]
    shown = keys if weights else keys[: len(names)]
    return [{"step": i, **dict.fromkeys(shown, value)} for i, value in enumerate(values)]


@pytest.fixture
def figures(monkeypatch):
    seen = []
    monkeypatch.setattr("eval.report.plots.Figure", lambda **kw: seen.append(Figure(**kw)) or seen[-1])
    return seen


def test_the_pictures_of_runs_with_seeds(figures):
    recipes = {who: {"train": {"seed": i}} for i, who in enumerate("ab")}
    curves = {"a": records(0.1, 0.2), "b": records(0.3, 0.4), "c": [{"step": 1, "loss": 1.0}]}
    drawn = objective_pictures(curves, front(recipes=recipes))
    assert list(drawn) == ["Front of the runs", "Objectives while training", "Weights while training"]
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())
    (axes,) = figures[0].axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("right", "warm")
    stairs, *_ = axes.lines
    assert stairs.get_drawstyle() == "steps-pre"
    assert stairs.get_xydata().tolist() == [pytest.approx([1 / 3, 7 / 3]), pytest.approx([2 / 3, 2 / 3])]
    labels = [text.get_text() for text in figures[0].legends[0].texts]
    assert labels == ["reference", "a (2 seeds)", "c"]
    marks = {box.get_label(): box.lines[0] for box in axes.containers if not box.get_label().startswith("_")}
    assert marks["reference"].get_xydata().tolist() == [pytest.approx([1 / 3, 1 / 3])]
    assert marks["a (2 seeds)"].get_markerfacecolor() != "white"
    assert marks["c"].get_markerfacecolor() == "white"
    (mean,) = [line for line in axes.lines if line.get_marker() == "X"]
    assert mean.get_xydata().tolist() == [pytest.approx([1 / 2, 3 / 2])]
    assert " ".join(figures[0].get_supxlabel().split()).endswith("bars: 95% over prompts; cross: mean of the seeds")
    ways = figures[1].axes[0].lines
    assert ways[0].get_color() == ways[3].get_color()  # both seeds
    assert [text.get_text() for text in figures[1].legends[0].texts] == ["a (2 seeds)"]
    assert [axes.get_title() for axes in figures[2].axes] == ["a", "b"]


def test_the_bars_are_the_intervals(figures):
    objective_pictures({}, front(TWICE))
    assert " ".join(figures[0].get_supxlabel().split()).endswith("bars: 95% over prompts")
    box = next(c for c in figures[0].axes[0].containers if c.get_label() == "a")
    (x, y), want = [bars.get_segments()[0] for bars in box.lines[2]], front(TWICE).intervals["a"]
    assert x[:, 0].tolist() == pytest.approx(list(want[0]))
    assert y[:, 1].tolist() == pytest.approx(list(want[1]))
    assert want[0][0] < want[0][1] <= 1.0
    assert -1.0 <= want[1][0] < 2 / 3 < want[1][1]


def test_the_line_joins_runs_alone(figures):
    objective_pictures({}, front({**SCORES, "ref": table((1, 3), (1, 3), (1, 3))}))
    stairs = figures[0].axes[0].lines[0].get_xydata()
    assert stairs.tolist() == [pytest.approx([1 / 3, 7 / 3]), pytest.approx([2 / 3, 2 / 3])]


def test_runs_without_such_metrics_have_no_pictures(figures):
    assert objective_pictures({"a": [], "b": [{"step": 1, "loss": 1.0}]}, None) == {}
    assert objective_pictures({"a": records(1.0, 2.0, weights=False, names=("one",))}, None) == {}
    assert list(objective_pictures({"a": records(1.0, 2.0, weights=False)}, None)) == ["Objectives while training"]
    assert list(objective_pictures({"files": []}, front())) == ["Front of the runs"]


def test_a_way_is_drawn_for_the_objectives_of_the_first_run_that_has_some(figures):
    curves = {"x": [], "a": records(0.1, 0.2), "b": records(0.3, 0.4, names=("other", "warm"))}
    objective_pictures(curves, None)
    assert [text.get_text() for text in figures[0].legends[0].texts] == ["a"]


def test_panels_stand_one_below_the_other_so_that_a_telephone_shows_them(figures):
    names = {f"k{i}": (0.0, 1.0) for i in range(4)}
    scores = {who: rng().random((5, 4)) for who in ("a", "b", "ref")}
    objective_pictures({}, front(scores, names))
    assert len(figures[0].axes) == 6
    assert figures[0].get_size_inches().tolist() == pytest.approx([4.8, 18.2])
    assert {axes.get_subplotspec().colspan.start for axes in figures[0].axes} == {0}
    objective_pictures({f"run {i}": records(0.1, 0.2) for i in range(4)}, None)
    assert len(figures[2].axes) == 4
    assert [bool(axes.get_ylabel()) for axes in figures[2].axes] == [True] * 4

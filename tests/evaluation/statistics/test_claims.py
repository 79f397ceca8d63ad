"""The page of claims: verdicts by the interval alone, the size that would tell, and a page that is of the committed results."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from align.recipe.loading import load_recipe
from align.sweeps.grid import planned, read_space

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def scripts():
    sys.path.insert(0, str(ROOT / "scripts"))
    import claims  # noqa: PLC0415 - a script
    import claims_page  # noqa: PLC0415 - a script

    yield claims, claims_page
    sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize(
    ("low", "high", "bar", "verdict"),
    [(0.1, 0.3, 0, "held"), (-0.3, -0.1, 0, "did not hold"), (-0.1, 0.3, 0, "cannot be told at this size"),
     (0.1, 0.3, 0.2, "cannot be told at this size"), (0.0, 0.3, 0, "cannot be told at this size"), (1.0, 1.2, 1.3, "did not hold")],
)  # fmt: skip
def test_a_verdict_is_by_the_interval_alone(scripts, low, high, bar, verdict):
    figure = scripts[0].Figure("x", (low + high) / 2, low, high, 100, "prompts", bar)
    assert figure.verdict == verdict
    assert bool(figure.enough) == (verdict == scripts[1].OPEN)


def test_the_size_that_would_tell(scripts):
    claims, _ = scripts
    assert (
        claims.Figure("x", 0.1, -0.1, 0.3, 100, "prompts").enough == "400 prompts"
    )  # half as wide, four times as many
    assert claims.Figure("x", 0.0, -0.2, 0.2, 100, "prompts").enough == "no size, if it is as small as this"
    values = [0.1, 0.2, 0.9]
    figure = claims.of_seeds("x", values)
    deviation = np.std(values, ddof=1)
    seeds = int(figure.enough.removesuffix(" seeds"))
    for n, tells in ((seeds, True), (seeds - 1, False)):
        # deviates of mean zero and deviation one, moved and stretched: n seeds with this mean and this deviation
        unit = np.arange(n) - (n - 1) / 2
        there = claims.of_seeds("x", list(figure.value + deviation * unit / np.std(unit, ddof=1)))
        assert (there.verdict == "held") is tells


def test_the_p_of_a_figure_is_that_of_its_interval(scripts):
    """Student's, by the side that faces the bar."""
    claims, _ = scripts
    values = np.array([0.2, 0.5, 0.4, 0.1])
    for bar, sign in ((0.0, 1), (0.6, 1), (0.0, -1)):
        own = sign * values
        figure = claims.of_seeds("x", list(own))._replace(bar=bar)
        assert figure.p_value == pytest.approx(stats.ttest_1samp(own, bar).pvalue, rel=1e-6)
    assert claims.Figure("x", 0.2, 0.1, 0.9, 50, "prompts").p_value < 0.05  # the long side is not asked
    assert claims.Figure("x", 0.2, 0.2, 0.2, 0, "").p_value is None
    assert claims.Figure("x", 0.2, 0.1, 0.3, 4, "rounds").p_value is None


def test_verdicts_that_do_not_stay_after_the_correction(scripts):
    """Of three figures with p of about 0.04 none stays, of one it does; one that is far from its bar stays in any company."""
    claims, page = scripts
    near, far = claims.Figure("x", 1.0, 0.05, 1.95, 500, "prompts"), claims.Figure("x", 1.0, 0.8, 1.2, 500, "prompts")
    none = claims.Figure("x", 1.0, 1.0, 1.0, 0, "")
    claim = claims.Claim("", "", "", [near, near, near, far, none], "", "step")
    p = near.p_value
    assert 0.03 < p < 0.05
    assert claim.holm() == [*[pytest.approx(3 * p)] * 3, pytest.approx(4 * far.p_value), None]
    assert claim.lost() == 3
    assert page.of_all(claim) == "held (5 of 5 figures); 3 not after Holm's correction"
    assert claim._replace(figures=[near]).lost() == 0
    assert page.of_all(claim._replace(figures=[near])) == "held"
    assert claim._replace(figures=[near._replace(low=-0.5, high=2.5)]).lost() == 0  # there was no verdict


def test_mixed_verdicts_are_counted(scripts):
    claims, page = scripts
    figures = [claims.Figure("x", value, value - 1, value + 1, 9, "seeds") for value in (2, 0, 0, -2)]
    claim = claims.Claim("", "", "", figures, "", "step")
    assert page.of_all(claim) == "held: 1 of 4; did not hold: 1 of 4; cannot be told at this size: 2 of 4"
    assert page.of_all(claim._replace(figures=figures[1:3])) == "cannot be told at this size (2 of 2 figures)"
    assert page.headline([claim, claim._replace(figures=figures[:1]), claim._replace(figures=figures[3:])]) == (
        "Of 3 claims 1 held in every figure, 1 did not hold in any, and 1 are mixed or cannot be told at this size."
    )


def test_the_committed_page_is_of_the_committed_results(scripts, tmp_path):
    """`python scripts/claims_page.py` writes it anew."""
    scripts[1].main(["-o", str(tmp_path / "page.html")])
    assert (tmp_path / "page.html").read_text() == (ROOT / "recipes" / "results.html").read_text()


def test_what_training_began_with_is_no_way_to_a_front(scripts):
    figures = [figure.what for claim in scripts[0].of_fronts() for figure in claim.figures]
    assert [what for what in figures if what.startswith("before")] == []
    assert "C-MORL: hypervolume" in figures


def test_every_claim_has_its_command_and_its_file(scripts):
    made = scripts[0].claims()
    assert len(made) >= 10
    for claim in made:
        assert claim.figures
        script = next(word for word in claim.command.split() if word.endswith(".py"))
        assert (ROOT / script).is_file()
        assert (ROOT / "scripts" / "bench" / "results" / f"{claim.result}.json").is_file()


@pytest.fixture(scope="module")
def beyond(scripts):
    """scripts/beyond.py"""
    import beyond  # noqa: PLC0415 - a script

    return beyond


@pytest.mark.parametrize("place", range(6))
def test_recipes_of_sizes_beyond_this_machine_are_ready_to_run(beyond, place):
    """Every setting of a command is a recipe that loads, with as many runs as are counted."""
    trial = beyond.TRIALS[place]
    asked, _, others = trial.command.replace("MODEL", beyond.MODELS["1B"].name).partition(", and the same with ")
    _, command, recipe, *rest = shlex.split(asked)
    if command == "train":
        changes, _, another = others.removesuffix("; three seeds").partition(", and ")
        for words in ([], shlex.split(changes)):
            load_recipe(recipe, [*rest, *words, "train.use_cpu=true"])
        assert trial.runs == 3 * (3 if another else 2)
        if another:
            load_recipe(another, [*rest, "train.use_cpu=true"])
        return
    assert rest[:2] == ["-o", "OUT"]  # without which nothing begins
    words = [word for word in rest if "=" in word]
    space = read_space(words, int(rest[rest.index("--seeds") + 1]))
    settings = planned(space)
    assert len(settings) == trial.runs
    for setting in settings:
        load_recipe(recipe, [*space.fixed, *setting.overrides, "train.use_cpu=true"])


def test_hours_are_those_of_the_rule_of_thumb(beyond):
    """Six FLOPs a weight and token are two forward and four backward; LoRA has two of the four, and checkpointing adds two."""
    small = beyond.MODELS["1B"].architecture
    assert small.linear == pytest.approx(973e6, rel=0.01)  # 1.24e9 less the embeddings, which are tied to the head
    trial = beyond.Trial("", "", 3, 1000, 100, (400,), reference=False)
    tokens, weights = 3 * 1000 * 499, small.linear
    at_least = 6 * weights * tokens / beyond.TRAINING / beyond.PEAK / 3600
    assert at_least < beyond.hours(small, trial) < 1.4 * at_least  # adapters, attention, and the head on the answer
    with_reference = beyond.hours(small, trial._replace(reference=True))
    assert with_reference / beyond.hours(small, trial) == pytest.approx(8 / 6, rel=0.05)
    sampled = beyond.hours(small, trial._replace(sampled=1000)) - beyond.hours(small, trial)
    assert sampled == pytest.approx(3 * 1000 * 400 * 2 * 1.27e9 / beyond.SAMPLING / beyond.PEAK / 3600, rel=0.05)

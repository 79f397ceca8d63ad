"""Intervals hold the truth as often as they say: a few laws anew, and the committed table of all of them."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from tiny import sparing

from eval.statistics.shares import share_estimate

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "scripts/bench/quality/coverage.py"
ERROR = 1.1  # points, of one cell of 400 data sets at 95%


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("bench_coverage", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name], sys.modules["coverage_laws"]
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def table():
    return json.loads((ROOT / "scripts/bench/results/coverage.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", sparing(["shares", "divergences", "tournaments"], "shares", "divergences"))
def test_intervals_of_twenty_prompts_hold_the_truth(coverage, kind):
    sets = 40 if kind == "tournaments" else 120
    cells = [
        coverage.cell(law, 20, sets)
        for law in getattr(sys.modules["coverage_laws"], kind)()
        if not law.miss and 20 in law.sizes
    ]
    found = np.array([cell["coverage"] for cell in cells])
    assert found.mean() >= 92
    assert found.min() >= 95 - 4.5 * np.sqrt(95 * 5 / sets)
    assert not any(cell["zero_width"] for cell in cells)


def test_equal_models_are_rarely_called_different_and_never_cyclic(coverage):
    found = coverage.alarms(3, 20, 60)
    assert found["called_cyclic"] == 0
    assert found["called_different"] <= 5 + 3 * np.sqrt(95 * 5 / 60)


def test_the_table_has_every_kind_of_number_and_what_it_says_holds(coverage, table):
    cells = {(row["estimator"], row["data"], row["n"]): row for row in table["coverage"]}
    assert table["sets"] == coverage.SETS
    known = {(law.estimator, law.data, n) for law in coverage.laws() for n in law.sizes}
    assert cells.keys() == known
    assert {"share", "win rate", "difference of shares", "mean", "best of 8", "over seeds", "KL", "Jensen-Shannon",
            "likelihood per token", "temperature", "calibration error", "rating", "hypervolume", "length-controlled win rate"} <= {
        key[0] for key in cells
    }  # fmt: skip
    for key, row in cells.items():
        assert row["zero_width"] == 0, key
        if not row["misses"]:
            assert row["coverage"] >= (93 if row["n"] >= 50 else 90) - 2 * ERROR, key


def test_in_the_table_equal_models_are_not_called_cyclic_or_different(table):
    assert {(row["models"], row["n"]) for row in table["equal_models"]} == {
        (k, n) for k in (3, 6, 10) for n in (14, 100, 800)
    }
    for row in table["equal_models"]:
        assert row["called_cyclic"] <= 5
        assert row["called_different"] <= 5 + 2 * ERROR
        assert row["not_one_scale"] <= 5 + 3 * ERROR


def test_a_share_holds_as_often_as_the_sum_over_all_outcomes_says():
    """One cell of the table can be off by two standard errors of 400 sets; this sum has no error."""
    for n, p in ((20, 0.5), (50, 0.5), (200, 0.5), (200, 0.97)):
        outcomes = np.arange(n + 1)
        estimates = [share_estimate(np.repeat([1.0, 0.0], [k, n - k])) for k in outcomes]
        holds = np.array([e.low <= p <= e.high for e in estimates])
        assert 0.93 <= float(stats.binom.pmf(outcomes, n, p) @ holds) <= 0.98


def test_a_simulation_that_was_stopped_goes_on_unless_the_code_has_changed(coverage, tmp_path, monkeypatch):
    simulated = []
    monkeypatch.setattr(coverage, "laws", lambda: [coverage.Law("e", "d", 0.0, lambda rng, n: None, (2, 3))])
    monkeypatch.setattr(coverage, "cell", lambda law, n, sets: simulated.append(n) or {"n": n})
    monkeypatch.setattr(coverage, "alarms", lambda k, n, sets: {"models": k, "n": n})
    first = coverage.measure(tmp_path / "t.part", 4, "one")
    assert next(first) == ("coverage", {"n": 2})
    first.close()
    assert [row["n"] for part, row in coverage.measure(tmp_path / "t.part", 4, "one") if part == "coverage"] == [2, 3]
    assert simulated == [2, 3]
    assert len(list(coverage.measure(tmp_path / "t.part", 4, "another"))) == 11
    assert simulated == [2, 3, 2, 3]

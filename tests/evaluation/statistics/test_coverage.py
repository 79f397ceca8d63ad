"""Intervals hold the truth as often as they say: a few laws anew, and the committed table of all of them."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

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
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def table():
    return json.loads((ROOT / "scripts/bench/results/coverage.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("kind", ["shares", "divergences", "tournaments"])
def test_intervals_of_twenty_prompts_hold_the_truth(coverage, kind):
    sets = 40 if kind == "tournaments" else 120
    cells = [coverage.cell(law, 20, sets) for law in getattr(coverage, kind)() if not law.miss and 20 in law.sizes]
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
    assert cells.keys() <= known
    assert {"share", "win rate", "difference of shares", "mean", "best of 8", "over seeds", "KL", "Jensen-Shannon",
            "temperature", "calibration error", "rating", "hypervolume"} <= {key[0] for key in cells}  # fmt: skip
    for key, row in cells.items():
        assert row["zero_width"] == 0, key
        if not row["misses"]:
            assert row["coverage"] >= (93 if row["n"] >= 50 else 90) - 2 * ERROR, key


def test_in_the_table_equal_models_are_not_called_cyclic_or_different(table):
    assert {row["models"] for row in table["equal_models"]} >= {3, 10}
    for row in table["equal_models"]:
        assert row["called_cyclic"] <= 5
        assert row["called_different"] <= 5 + 2 * ERROR
        assert row["not_one_scale"] <= 5 + 3 * ERROR

"""Every figure with an interval that a README gives is one of the committed results, rounded."""

import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "scripts" / "bench" / "results"
FOLDERS = ("align", "eval", "recipes", "scripts")
NUMBER = r"([-+]?\d+(?:\.\d+)?)"
FIGURE = re.compile(rf"{NUMBER} \[{NUMBER}, {NUMBER}\]")
KEYS = [("value", "low", "high"), ("change", "low", "high"), ("median", "min", "max")]
SHOWN = [ROOT / "README.md", *sorted(path for name in FOLDERS for path in (ROOT / name).rglob("README.md"))]


def triples(found):
    """Values with both ends of their intervals or ranges, wherever a result has them."""
    if isinstance(found, list):
        if len(found) == 3 and all(isinstance(one, int | float) for one in found):
            yield tuple(found)
        for one in found:
            yield from triples(one)
    if isinstance(found, dict):
        ranges = [(key, f"{key}_min", f"{key}_max") for key in found]
        for names in (*KEYS, *ranges):
            some = [found.get(name) for name in names]
            if all(isinstance(one, int | float) for one in some):
                yield tuple(some)
        for one in found.values():
            yield from triples(one)


def rounds_to(text, value):
    digits = len(text.partition(".")[2])
    return abs(float(text) - value) <= (0.5 + 1e-6) * 10**-digits


def is_of(figure, pool):
    """As it stands, or the other way round."""
    return any(
        all(rounds_to(text, one) for text, one in zip(figure, some, strict=True))
        for value, low, high in pool
        for some in ((value, low, high), (-value, -high, -low))
    )


@pytest.fixture(scope="module")
def pool():
    sys.path.insert(0, str(ROOT / "scripts"))
    import claims  # noqa: PLC0415 - a script

    sys.path.remove(str(ROOT / "scripts"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    told = [(one.value, one.low, one.high) for claim in claims.claims() for one in claim.figures]
    return sorted({*triples(results), *told})


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_figures_are_of_committed_results(path, pool):
    text = " ".join(path.read_text(encoding="utf-8").replace("*", "").split())
    missing = [found.group() for found in FIGURE.finditer(text) if not is_of(found.groups(), pool)]
    assert not missing, "in no file of scripts/bench/results"


def test_there_are_many_and_a_changed_one_is_noticed(pool):
    text = " ".join((ROOT / "scripts" / "studies" / "README.md").read_text(encoding="utf-8").replace("*", "").split())
    figures = FIGURE.findall(text)
    assert len(figures) > 400
    changed = [(f"{float(value) + 0.011:.3f}", low, high) for value, low, high in figures if len(value) == 5]
    assert sum(is_of(one, pool) for one in changed) < len(changed) / 20
    assert not is_of(("0.01", "-0.113", "0.129"), [(0.00804, -0.113, 0.126)])
    assert is_of(("-0.01", "-0.13", "0.11"), [(0.00804, -0.113, 0.126)])

"""Measures how often each interval of a report holds the truth, since what covers 95% in theory need not on 20 prompts.

Each row is a law with a known truth and the estimator as the report uses it; 400 data sets a cell have a standard error of
1.1 points at 95%. Where a law misses the target, `misses` says so and why. False alarms of equal models are rows too.

Run: python scripts/bench/quality/coverage.py [OUT.json] (one core, about 10 minutes; stopped, it goes on where it was)
"""

import argparse
import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from coverage_laws import Law, laws, played

from eval.statistics.comparisons import compared, doubt_of_each, joint_law
from eval.statistics.cycles import find_cycles

SETS = 400
OUT = Path(__file__).parents[1] / "results" / "coverage.json"
EVAL = Path(__file__).parents[3] / "eval"
MEASURED = [
    *(EVAL / "statistics").glob("*.py"), *(EVAL / "pairs" / f"{name}.py" for name in ("calibration", "labels", "likelihood")),
    EVAL / "fronts" / "indicators.py",
    *(EVAL / "measures" / f"{name}.py" for name in ("best_of", "divergence", "diversity")),
    EVAL.parent / "align" / "intervals.py", *Path(__file__).parent.glob("coverage*.py"),
]  # fmt: skip
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def cell(law: Law, n: int, sets: int) -> dict[str, Any]:
    """How often the interval holds the truth, how wide it is in the middle, and how often it has no width."""
    rng = np.random.default_rng([n, *law.estimator.encode(), *law.data.encode()])
    found = [law.draw(rng, n) for _ in range(sets)]
    holds = np.array([e.low - 1e-9 <= law.truth <= e.high + 1e-9 for e in found])
    widths = np.array([e.high - e.low for e in found])
    return {
        "estimator": law.estimator, "data": law.data, "n": n, "truth": round(law.truth, 4),
        "coverage": round(100 * float(holds.mean()), 1), "width": float(f"{np.median(widths):.3g}"),
        "zero_width": int((widths <= 0).sum()), "misses": law.miss,
    }  # fmt: skip


def alarms(k: int, n: int, sets: int) -> dict[str, Any]:
    """Of equal models: how many reports call two of them different, name a circle, or say that one scale is not enough."""
    rng = np.random.default_rng([k, n])
    different = circles = scale = 0
    for _ in range(sets):
        preferences = played(rng, n, np.zeros(k))
        scores = {f"m{i}": rng.normal(size=n) for i in range(k)}
        pairs = compared(scores, np.arange(n))
        each = doubt_of_each(joint_law([pairs], rng=rng, draws=999))  # p-values say the same, and take longer
        found = [pairs.estimate(column, 1 - each) for column in range(len(pairs.pairs))]
        different += any(not e.low <= 0 <= e.high for e in found)
        tested = find_cycles(preferences, np.arange(n), rng=rng, draws=299)
        circles, scale = circles + bool(tested.circles), scale + (tested.one_scale_p <= 0.05)
    return {
        "models": k, "n": n, "called_different": round(100 * different / sets, 1),
        "called_cyclic": round(100 * circles / sets, 1), "not_one_scale": round(100 * scale / sets, 1),
    }  # fmt: skip


def state() -> str:
    """Digest of the code that is measured, docstrings and comments aside, and of the laws."""
    parts = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(MEASURED)]
    for part in parts:
        for node in ast.walk(part):
            if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
                del node.body[0]
    return hashlib.sha256("\n".join(map(ast.dump, parts)).encode()).hexdigest()


def measure(kept: Path, sets: int, measured: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every cell of `coverage` and `equal_models`; those in `kept` are not simulated again, unless code has changed."""
    head = json.dumps({"sets": sets, "state": measured})
    lines = kept.read_text(encoding="utf-8").split("\n")[:-1] if kept.is_file() else []
    done = dict(json.loads(line) for line in lines[1:]) if lines[:1] == [head] else {}
    if not done:
        kept.write_text(head + "\n", encoding="utf-8")
    cells = [
        ("coverage", f"{law.estimator}: {law.data}, {n}", partial(cell, law, n, sets))
        for law in laws()
        for n in law.sizes
    ]
    cells += [
        ("equal_models", f"{k} models, {n}", partial(alarms, k, n, sets)) for k in (3, 6, 10) for n in (14, 100, 800)
    ]
    for part, name, simulate in cells:
        if name not in done:
            done[name] = simulate()
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, done[name]]) + "\n")
            print(done[name], flush=True)
        yield part, done[name]


def main() -> int:
    """Write the table; what an earlier call measured before it was stopped is kept beside it until it is whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    parser.add_argument("--sets", type=int, default=SETS, help="data sets a cell")
    options = parser.parse_args()
    kept, measured = options.out.with_suffix(".part"), state()
    table: dict[str, list[str]] = {"coverage": [], "equal_models": []}
    for part, row in measure(kept, options.sets, measured):
        table[part].append(json.dumps(row))
    rows, flat = (",\n".join(table[part]) for part in ("coverage", "equal_models"))
    options.out.write_text(
        f'{{"sets": {options.sets}, "state": "{measured}", "coverage": [\n{rows}\n], "equal_models": [\n{flat}\n]}}\n',
        encoding="utf-8",
    )
    kept.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())

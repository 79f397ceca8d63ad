"""Holds a study that was run again against the committed one, figure by figure; exit code 1 if they differ by more than chance.

Run: python scripts/studies/again.py scripts/bench/results/fronts.json OUT/fronts.json

A figure is what has a value with an interval. Two of them agree if they differ by at most the root of the sum of the squares of half their
intervals, which independent runs exceed in about 5% of figures. The figures of a study move together, so that a tenth of
them may; a figure that one of the two lacks may not.
"""

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

MOST = 0.1


class Found(NamedTuple):
    """A figure of both results."""

    name: str
    committed: float
    now: float
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Whether chance explains the difference."""
        return abs(self.now - self.committed) <= self.tolerance + 1e-9


def figures(told: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, float]]]:
    """Everything that has a value and two finite ends, with its place."""
    if isinstance(told, dict):
        if all(isinstance(told.get(key), int | float) for key in ("value", "low", "high")):
            yield " / ".join(at), told
        else:
            for key, one in told.items():
                yield from figures(one, (*at, key))
    elif isinstance(told, list):
        for number, one in enumerate(told):
            yield from figures(one, (*at, str(number)))


def held(committed: Any, now: Any) -> tuple[list[Found], list[str]]:
    """Figures of both, and the names of those that one of the two lacks."""
    old, new = dict(figures(committed)), dict(figures(now))
    both = [name for name in old if name in new]
    found = [
        Found(
            name,
            old[name]["value"],
            new[name]["value"],
            math.hypot(*((one["high"] - one["low"]) / 2 for one in (old[name], new[name]))),
        )
        for name in both
    ]
    return found, sorted(old.keys() ^ new.keys())


def main(argv: Sequence[str] | None = None) -> int:
    """Print what differs, and say whether the study is as committed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("committed", type=Path)
    parser.add_argument("now", type=Path)
    options = parser.parse_args(argv)
    found, lacking = held(*(json.loads(path.read_text(encoding="utf-8")) for path in (options.committed, options.now)))
    if not found and not lacking:
        parser.error(f"{options.committed} has no value with an interval")
    off = [one for one in found if not one.agrees]
    for one in off:
        print(f"{one.name}: {one.now:g}, committed {one.committed:g}; chance explains {one.tolerance:.3g}")
    for name in lacking:
        print(f"{name}: in one of the two alone")
    fails = bool(lacking) or len(off) > MOST * len(found)
    print(f"{len(off)} of {len(found)} figures differ by more than chance: {'NOT ' if fails else ''}as committed")
    return int(fails)


if __name__ == "__main__":
    sys.exit(main())

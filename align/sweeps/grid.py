"""Reads what the settings of a sweep are taken from, values and ranges; all of them, or some drawn."""

import hashlib
import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import yaml

from align.errors import RunError

SEED = "train.seed"
LONGEST_NAME = 80
RANGE = re.compile(r"([^:]+):([^:]+?)(:log)?")
TRIES = 100
"""Draws for each setting that is asked for; two may be the same."""


class Setting(NamedTuple):
    """What one run of a sweep differs in."""

    name: str
    """Of its run directory."""
    overrides: tuple[str, ...]


class Range(NamedTuple):
    """Values from `low` to `high`, both included."""

    low: float
    high: float
    log: bool
    """Whether the logarithm is drawn evenly, and not the value."""
    whole: bool

    def drawn(self, dice: random.Random) -> str:
        """One of them, as it is written in a recipe."""
        if self.whole and not self.log:
            return self.written(dice.randint(int(self.low), int(self.high)))
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = dice.uniform(low, high)
        return self.written(math.exp(value) if self.log else value)

    def written(self, value: float) -> str:
        """A value as it is written in a recipe: a whole number, or one of three digits, in the range."""
        rounded = value if self.whole and not self.log else float(f"{value:.3g}")
        value = min(max(rounded, self.low), self.high)
        return str(round(value)) if self.whole else f"{value:g}"


class Space(NamedTuple):
    """What the settings of a sweep are taken from."""

    fixed: list[str]
    """What all runs share, as `section.key=value`."""
    values: dict[str, list[str]]
    """Of keys with more than one, in the order of their names; without the seeds."""
    ranges: dict[str, Range]
    seeds: list[str | None]
    """Each setting is trained with each of these; None if nothing says the seed."""

    def settings(self, some: Sequence[Mapping[str, str]]) -> list[Setting]:
        """Runs of some choices, each with every seed."""
        each = [{**one, **({SEED: text} if text is not None else {})} for one in some for text in self.seeds]
        return [Setting(_name(one), tuple(f"{key}={text}" for key, text in one.items())) for one in each]


def read_space(words: Sequence[str], seeds: int | None = None) -> Space:
    """What `section.key=value,value`, `section.key=low:high` and `section.key=low:high:log` say.

    Args:
        words: Of the command line.
        seeds: Each setting is trained with so many seeds.

    Raises:
        RunError: If one of them is malformed, or nothing varies.
    """
    values: dict[str, list[str]] = {}
    ranges: dict[str, Range] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RunError(f"{word}: expected section.key=value,value")
        if key in values or key in ranges:
            raise RunError(f"{key}: is given twice; name all of its values in one")
        found = _range(key, text)
        if found is None:
            values[key] = _values(key, text)
        else:
            ranges[key] = found
    if "train.output_dir" in values:
        raise RunError("train.output_dir: each run has one of its own below --out; leave it out")
    if seeds is not None:
        if seeds < 1 or SEED in values or SEED in ranges:
            raise RunError(
                f"--seeds: must be at least 1 and say the seeds alone, got {seeds}; it stands for {SEED}=0,1,..."
            )
        values[SEED] = list(map(str, range(seeds)))
    varied = {key: texts for key, texts in sorted(values.items()) if len(texts) > 1}
    if not varied and not ranges:
        raise RunError("nothing varies: give a key several values, or use `alignkit train`")
    of_seeds: list[str | None] = [*varied.pop(SEED, [None])]
    return Space([f"{key}={texts[0]}" for key, texts in values.items() if len(texts) == 1], varied, ranges, of_seeds)


def planned(space: Space, *, count: int | None = None, seed: int | None = None) -> list[Setting]:
    """The runs of a grid, or of some choices that are drawn of it.

    Args:
        space: What they are taken from.
        count: How many choices are drawn; all by default. Each of them has all seeds.
        seed: Of that draw; 0 by default.

    Raises:
        RunError: If so many cannot be drawn, or a range is to be drawn from without a count.
    """
    if count is None and seed is not None:
        raise RunError(
            "--seed: does nothing without --random or --optuna; leave it out, or vary the seed of training by --seeds"
        )
    if space.ranges and count is None:
        raise RunError(
            f"{next(iter(space.ranges))}: is a range, from which settings are drawn; say how many with --random N"
        )
    grid = [dict(zip(space.values, texts, strict=True)) for texts in itertools.product(*space.values.values())]
    dice = random.Random(seed or 0)
    if count is not None and space.ranges:
        grid = _drawn(space.values, space.ranges, count, dice)
    elif count is not None:
        if not 0 < count <= len(grid):
            raise RunError(f"--random: there are {len(grid)} settings to draw from, got {count}")
        drawn = sorted(dice.sample(range(len(grid)), count))
        grid = [grid[index] for index in drawn]
    return space.settings(grid)


def _range(key: str, text: str) -> Range | None:
    """What `low:high` or `low:high:log` means; None if it is neither."""
    found = RANGE.fullmatch(text)
    try:
        low, high = (float(each) for each in found.group(1, 2)) if found else (math.nan, math.nan)
    except ValueError:
        low = high = math.nan
    if found is None or math.isnan(low + high):
        return None
    log = found[3] is not None
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
        raise RunError(f"{key}: expected a range from low to high, of positive values if it ends in :log, got {text}")
    return Range(low, high, log, all(re.fullmatch(r"[+-]?\d+", each) for each in found.group(1, 2)))


def _drawn(
    varied: dict[str, list[str]], ranges: dict[str, Range], count: int, dice: random.Random
) -> list[dict[str, str]]:
    """Different settings in the order of their drawing, so that a larger count begins with the same ones."""
    found: list[dict[str, str]] = []
    for _ in range(count * TRIES):
        one = {
            key: ranges[key].drawn(dice) if key in ranges else dice.choice(varied[key])
            for key in sorted({*ranges, *varied})
        }
        found += [one] * (one not in found)
        if len(found) == count:
            return found
    raise RunError(
        f"--random: must be at least 1, and {len(found)} different settings were found, got {count}; ask for fewer"
    )


def _values(key: str, text: str) -> list[str]:
    """The YAML between the commas of the highest level, as it is written."""
    whole = f"[{text}]"
    try:
        node = yaml.compose(whole, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        node = None
    if not isinstance(node, yaml.SequenceNode) or node.end_mark.index != len(whole) or not node.value:
        raise RunError(
            f"{key}: expected YAML between commas, got {text!r}; a value with a comma, a bracket or a colon goes into quotes"
        )
    found = [whole[item.start_mark.index : item.end_mark.index].strip() for item in node.value]
    meant: dict[str, str] = {}
    for value in found:
        if (same := meant.get(_meant(value))) is not None:
            raise RunError(f"{key}: {value} is there twice{f' (as {same})' if same != value else ''}; leave one out")
        meant[_meant(value)] = value
    return found


def _meant(text: str) -> str:
    """What is the same for values that are equal, however they are written."""
    value = yaml.safe_load(text)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value)) if number else repr(value)


def _name(one: dict[str, str]) -> str:
    told = "_".join(f"{key.rpartition('.')[2]}-{text}" for key, text in one.items())
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", told)[:LONGEST_NAME]
    digest = hashlib.sha256(repr(sorted(one.items())).encode()).hexdigest()[:8]
    return safe if safe == told else f"{safe.strip('-.')}-{digest}"

"""Trains a recipe with several settings, one run after another, for `alignkit sweep`.

Each run is one of `alignkit train`, in a process of its own and a directory of its own. `sweep.jsonl` gets a synced line when
a run has finished; the same command leaves finished runs and goes on with the others.
"""

import argparse
import dataclasses
import hashlib
import itertools
import logging
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from align.check.environment import GPU_MISSING
from align.check.machine import Machine, accelerate_file
from align.errors import USER_ERRORS, RunError
from align.files import check_writable
from align.findings import printable
from align.own_code import allow_file_argument
from align.recipe.loading import load_recipe
from align.rounds.begin import begin
from align.runs.contents import RECIPE_FILE, SWEEP_FILE
from align.runs.directory import claimed

from .check import inspect

logger = logging.getLogger(__name__)

SEED = "train.seed"
LONGEST_NAME = 80
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class Setting(NamedTuple):
    """What one run of a sweep differs in."""

    name: str
    """Of its run directory."""
    overrides: tuple[str, ...]


class Swept(NamedTuple):
    """What a sweep ended with."""

    runs: list[Path]
    """Those that have finished, in the order of their settings."""
    code: int
    page: Path
    allow: list[str]


class _Ended(Exception):
    """A training ended with another exit code than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(argv: Sequence[str]) -> Swept:
    """Train a recipe with several settings, one after another, and compare the runs in one page."""
    parser = argparse.ArgumentParser(
        prog="alignkit sweep", allow_abbrev=False, description=main.__doc__,
        epilog="Values are YAML between commas: one that holds a comma goes into quotes, and a list into brackets, as in "
        "'lora.target_modules=[q_proj, v_proj],[all]'. A key with one value is the same in all runs.",
    )  # fmt: skip
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("settings", nargs="*", metavar="section.key=value,value")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="of the runs and the page")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"each setting N times: {SEED}=0,1,...")
    parser.add_argument("--random", type=int, metavar="N", help="N of the settings, drawn, in the place of all of them")
    parser.add_argument("--seed", type=int, help="of --random; default: 0")
    parser.add_argument("--num-processes", type=int, help="of each training; as for `alignkit train`")
    parser.add_argument("--accelerate-config", metavar="FILE|NAME", help="likewise")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's rewards run this"
    )
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if "WORLD_SIZE" in os.environ:
        raise RunError("alignkit sweep starts the processes of each training itself; call it without a launcher")
    check_writable(options.out, folder=True)
    fixed, settings = planned(options.settings, seeds=options.seeds, count=options.random, seed=options.seed)
    recipe = load_recipe(options.recipe, [*fixed, f"train.output_dir={options.out}"])
    if recipe.fronts is not None:
        raise RunError(f"fronts: several policies are trained by `alignkit front {recipe.path}`; leave the section out")
    launch = [f"--num-processes={options.num_processes}"] if options.num_processes is not None else []
    launch += [f"--accelerate-config={options.accelerate_config}"] if options.accelerate_config is not None else []
    launch += [word for name in options.allow for word in ("--allow", name)]
    launch += [word for name in options.allow_file for word in ("--allow-file", str(name))]
    with claimed(options.out, resume=True, overwrite=False):
        words = {one: [*fixed, *one.overrides, f"train.output_dir={options.out / one.name}"] for one in settings}
        refuse_all(options.recipe, words, options)
        ledger = begin(recipe, "settings", SWEEP_FILE, resume=True, overwrite=False)
        finished, failed = [], []
        for number, one in enumerate(settings, start=1):
            run = options.out / one.name

            def train(one: Setting = one, run: Path = run, number: int = number) -> dict[str, Any]:
                logger.warning("[%d/%d] %s: %s", number, len(settings), run, " ".join(one.overrides))
                code = started(["train", options.recipe, *words[one], "--resume", "auto", *launch])
                if code:
                    raise _Ended(code)
                return {"settings": list(one.overrides)}

            try:
                ledger.stage(1, one.name, [], [run / RECIPE_FILE], train)
                finished.append(run)
            except _Ended as error:
                if error.code in STOPPED:
                    logger.warning("sweep: stopped; the same command leaves finished runs and goes on")
                    return Swept([], error.code, options.out, [])
                logger.warning("%s: ended with exit code %d; the others go on", run, error.code)
                failed.append(str(run))
    if failed:
        logger.warning("not finished: %s; the same command tries them again", ", ".join(failed))
    return Swept(finished, int(bool(failed)), options.out / "compare.html", options.allow)


def planned(
    words: Sequence[str], *, seeds: int | None = None, count: int | None = None, seed: int | None = None
) -> tuple[list[str], list[Setting]]:
    """What all runs share, and what each has of its own.

    Args:
        words: `section.key=value,value`.
        seeds: Each setting is trained with so many seeds.
        count: How many of the settings are drawn; all by default. Each of them has all seeds.
        seed: Of that draw; 0 by default.

    Raises:
        RunError: If one of them is malformed, or nothing varies.
    """
    values: dict[str, list[str]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise RunError(f"{word}: expected section.key=value,value")
        if key in values:
            raise RunError(f"{key}: is given twice; name all of its values in one")
        values[key] = _values(key, text)
    if "train.output_dir" in values:
        raise RunError("train.output_dir: each run has one of its own below --out; leave it out")
    if seeds is not None:
        if seeds < 1 or SEED in values:
            raise RunError(
                f"--seeds: must be at least 1 and say the seeds alone, got {seeds}; it stands for {SEED}=0,1,..."
            )
        values[SEED] = list(map(str, range(seeds)))
    if count is None and seed is not None:
        raise RunError("--seed: does nothing without --random; leave it out, or vary the seed of training by --seeds")
    varied = {key: texts for key, texts in sorted(values.items()) if len(texts) > 1}
    if not varied:
        raise RunError("nothing varies: give a key several values, or use `alignkit train`")
    of_seeds = varied.pop(SEED, [])
    grid = [dict(zip(varied, texts, strict=True)) for texts in itertools.product(*varied.values())]
    if count is not None:
        if not 0 < count <= len(grid):
            raise RunError(f"--random: there are {len(grid)} settings to draw from, got {count}")
        drawn = sorted(random.Random(seed or 0).sample(range(len(grid)), count))
        grid = [grid[index] for index in drawn]
    each = [one | ({SEED: text} if text is not None else {}) for one in grid for text in of_seeds or [None]]
    fixed = [f"{key}={texts[0]}" for key, texts in values.items() if len(texts) == 1]
    return fixed, [Setting(_name(one), tuple(f"{key}={text}" for key, text in one.items())) for one in each]


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
    for value in found:
        if found.count(value) > 1:
            raise RunError(f"{key}: {value} is there twice; leave one out")
    return found


def _name(one: dict[str, str]) -> str:
    told = "_".join(f"{key.rpartition('.')[2]}-{text}" for key, text in one.items())
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", told)[:LONGEST_NAME]
    digest = hashlib.sha256(repr(sorted(one.items())).encode()).hexdigest()[:8]
    return safe if safe == told else f"{safe.strip('-.')}-{digest}"


def refuse_all(recipe: str, words: dict[Setting, list[str]], options: argparse.Namespace) -> None:
    """Stop before anything is trained if `alignkit check` finds an error in any of the settings; seeds make none.

    Raises:
        RunError: With the errors of each.
    """
    config = accelerate_file(options.accelerate_config) if options.accelerate_config else None
    machine = Machine.here(config)
    if options.num_processes is not None:
        machine = dataclasses.replace(machine, launched=options.num_processes)
    wrong: list[str] = []
    checked: set[tuple[str, ...]] = set()
    for one, overrides in words.items():
        of_setting = tuple(word for word in one.overrides if not word.startswith(f"{SEED}="))
        if of_setting in checked:
            continue
        checked.add(of_setting)
        try:
            findings = inspect(load_recipe(recipe, overrides), machine, allow=options.allow).findings
            errors = [each.line() for each in findings if each.level == "error" or each.rule == GPU_MISSING]
        except USER_ERRORS as error:
            errors = str(error).splitlines()
        wrong += [f"{' '.join(of_setting) or one.name}: {printable(line, 1000)}" for line in errors]
    if wrong:
        raise RunError("\n".join([*wrong, "nothing was trained"]))


def started(words: Sequence[str]) -> int:
    """Run `alignkit` in a process of its own to its end, and hand it the signals that come; returns its exit code.

    It is in a group of its own: Ctrl-C would reach it twice, and the second ends it before it has saved.
    """
    process = subprocess.Popen([sys.executable, "-m", "align", *words], process_group=0)
    before = {
        number: signal.signal(number, lambda number, _: process.send_signal(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code

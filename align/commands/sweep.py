"""Trains a recipe with several settings, one run after another, for `alignkit sweep`.

Each run is one of `alignkit train`, in a process of its own and a directory of its own. `sweep.jsonl` gets a synced line when
a run has finished; the same command leaves finished runs and goes on with the others.
"""

import argparse
import dataclasses
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

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
from .grid import SEED, Setting, planned

logger = logging.getLogger(__name__)

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


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
        "'lora.target_modules=[q_proj, v_proj],[all]'. A key with one value is the same in all runs. With --random, LOW:HIGH "
        "and LOW:HIGH:log are ranges, evenly in the value or in its logarithm.",
    )  # fmt: skip
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("settings", nargs="*", metavar="section.key=value,value|low:high[:log]")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="of the runs and the page")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"each setting N times: {SEED}=0,1,...")
    parser.add_argument("--random", type=int, metavar="N", help="N settings, drawn from values and ranges")
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

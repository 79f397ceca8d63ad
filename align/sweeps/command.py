"""Trains a recipe with several settings, one run after another or several at a time, for `alignkit sweep`.

Each run is one of `alignkit train`, in a process of its own and a directory of its own. `sweep.jsonl` gets a synced line when
a run has finished, and before one that a search asked for; the same command leaves finished runs and goes on with the others.
"""

import argparse
import dataclasses
import logging
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from align.check.environment import GPU_MISSING
from align.check.machine import Machine, accelerate_file
from align.commands.check import inspect
from align.data.loading import TRAIN, content_of, sources_of
from align.errors import USER_ERRORS, RunError
from align.files import check_writable, digest_of
from align.findings import printable
from align.own_code import allow_file_argument
from align.recipe.loading import Recipe, load_recipe
from align.rounds.begin import begin
from align.runs.contents import SWEEP_FILE
from align.runs.directory import claimed

from .grid import SEED, Setting, planned, read_space
from .runs import STOPPED, Runs, words_of
from .search import Aim, Search, aim_of, ends, logged
from .trainings import Trainings, places_of

logger = logging.getLogger(__name__)

ASKED = "asked"
"""The stage of `sweep.jsonl` that has what a search asked for, by its number."""


EVALUATION = ("eval.", "eval=", "data.eval.", "data.eval=")
"""Beginnings of words that say how runs are measured, and change no training."""


class Swept(NamedTuple):
    """What a sweep ended with."""

    runs: list[Path]
    """Those that have finished, in the order of their settings."""
    code: int
    page: Path
    words: list[str]
    """What the comparison is called with besides: permissions, and settings of the evaluation."""


def main(argv: Sequence[str], measurable: Callable[[str, Recipe], None] = lambda name, recipe: None) -> Swept:
    """Train a recipe with several settings, one after another or several at a time, and compare the runs in one page."""
    parser = argparse.ArgumentParser(
        prog="alignkit sweep", allow_abbrev=False, description=main.__doc__,
        epilog="Values are YAML between commas: one that holds a comma goes into quotes, and a list into brackets, as in "
        "'lora.target_modules=[q_proj, v_proj],[all]'. A key with one value is the same in all runs. With --random and --optuna, "
        "LOW:HIGH and LOW:HIGH:log are ranges, evenly in the value or in its logarithm.",
    )  # fmt: skip
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("settings", nargs="*", metavar="section.key=value,value|low:high[:log]")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="of the runs and the page")
    parser.add_argument("--seeds", type=int, metavar="N", help=f"each setting N times: {SEED}=0,1,...")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--random", type=int, metavar="N", help="N settings, drawn from values and ranges")
    which.add_argument(
        "--optuna", type=int, metavar="N", help="N settings that Optuna asks for, each by what those before it reached"
    )
    aim = parser.add_mutually_exclusive_group()
    aim.add_argument(
        "--maximize", metavar="METRIC", help="with --optuna: as a run logs it, say holdout_rewards/accuracies"
    )
    aim.add_argument("--minimize", metavar="METRIC", help="likewise, where less is better")
    parser.add_argument("--seed", type=int, help="of --random and --optuna; default: 0")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="N runs at a time, each on a GPU of its own")
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
    space, aim = read_space(options.settings, options.seeds), aim_of(options)
    recipe = load_recipe(options.recipe, [*space.fixed, f"train.output_dir={options.out}"])
    if recipe.fronts is not None:
        raise RunError(f"fronts: several policies are trained by `alignkit front {recipe.path}`; leave the section out")
    search, settings, extra = None, [], []
    if aim is None:
        settings = planned(space, count=options.random, seed=options.seed)
    else:
        search, extra = Search(space, maximize=aim.maximize, seed=options.seed or 0), logged(recipe, aim)
    machine = _machine(options)
    places = places_of(options, 0 if recipe.train.use_cpu else len(machine.gpus))
    with claimed(options.out, resume=True, overwrite=False, ledger=SWEEP_FILE):
        words = {
            one: [*words_of(options, space, one), *extra]
            for one in (settings if search is None else space.settings(ends(space)))
        }
        refuse_all(options.recipe, words, options, machine)
        for one in apart_from_seeds(words).values():
            try:
                measurable(one.name, load_recipe(options.recipe, words[one]))
            except RunError as error:
                logger.warning("no page will be made of these runs: %s", error)
                break
        trained = digest_of([content_of(source) for source in sources_of(recipe.data, TRAIN)])[:12]
        ledger = begin(
            recipe, "settings", SWEEP_FILE, resume=True, overwrite=False, compared={"rows of data.train": trained}
        )
        with Trainings() as trainings, ThreadPoolExecutor(options.jobs) as pool:
            runs = Runs(options, space, ledger, trainings, places)
            runs.refuse_others(settings)
            if search is None or aim is None:
                counted = [f"{number}/{len(settings)}" for number in range(1, len(settings) + 1)]
                codes = dict(zip(settings, pool.map(runs.train, settings, counted), strict=True))
            else:
                codes = _searched(search, aim, runs)
    stopped = [code for code in codes.values() if code in STOPPED]
    if stopped:
        logger.warning("sweep: stopped; the same command leaves finished runs and goes on")
        return Swept([], stopped[0], options.out, [])
    failed = [str(options.out / one.name) for one, code in codes.items() if code]
    if failed:
        logger.warning("not finished: %s; the same command tries them again", ", ".join(failed))
    told = [word for name in options.allow for word in ("--allow", name)]
    told += [word for word in space.fixed if word.startswith(EVALUATION)]
    finished = [options.out / one.name for one, code in codes.items() if not code]
    return Swept(finished, int(bool(failed)), options.out / "compare.html", told)


def _searched(search: Search, aim: Aim, runs: Runs) -> dict[Setting, int]:
    """Train what a search asks for, one setting after another; exit codes by run."""
    options, codes, told = runs.options, {}, []
    for number in range(1, options.optuna + 1):
        asked = runs.ledger.stage(number, ASKED, [], [], lambda: {"setting": search.ask(told)})["setting"]
        if asked is None:
            logger.warning("sweep: every setting that was found is trained; there is none left to ask for")
            break
        each = search.space.settings([asked])
        codes |= {one: runs.train(one, f"{number}/{options.optuna}") for one in each}
        if runs.trainings.stopped:
            return codes
        value = None
        if not any(codes[one] for one in each):
            value = fmean(
                aim.of_run(options.out / one.name, load_recipe(options.recipe, words_of(options, search.space, one)))
                for one in each
            )
            logger.warning("%s: %s %.4g", _written(asked), aim.metric, value)
        told.append((asked, value))
    known = [(value, asked) for asked, value in told if value is not None and math.isfinite(value)]
    if known:
        value, asked = (max if aim.maximize else min)(known, key=lambda one: one[0])
        logger.warning(
            "best: %s, %s %.4g. The best of %d looks better than it is: its value is by the rows it was picked by",
            _written(asked), aim.metric, value, len(known),
        )  # fmt: skip
    return codes


def _written(asked: Mapping[str, str]) -> str:
    return " ".join(f"{key}={text}" for key, text in asked.items())


def _machine(options: argparse.Namespace) -> Machine:
    """What each run starts on."""
    machine = Machine.here(accelerate_file(options.accelerate_config) if options.accelerate_config else None)
    if options.num_processes is not None:
        machine = dataclasses.replace(machine, launched=options.num_processes)
    return machine


def apart_from_seeds(settings: Iterable[Setting]) -> dict[tuple[str, ...], Setting]:
    """The first of the settings that differ by nothing but their seed, by what they say besides."""
    found: dict[tuple[str, ...], Setting] = {}
    for one in settings:
        found.setdefault(tuple(word for word in one.overrides if not word.startswith(f"{SEED}=")), one)
    return found


def refuse_all(recipe: str, words: dict[Setting, list[str]], options: argparse.Namespace, machine: Machine) -> None:
    """Stop before anything is trained if `alignkit check` finds an error in any of the settings; seeds make none.

    Raises:
        RunError: With the errors of each.
    """
    if options.jobs > 1:
        machine = dataclasses.replace(machine, gpus=machine.gpus[:1])
    wrong: list[str] = []
    for of_setting, one in apart_from_seeds(words).items():
        try:
            findings = inspect(load_recipe(recipe, words[one]), machine, allow=options.allow).findings
            errors = [each.line() for each in findings if each.level == "error" or each.rule == GPU_MISSING]
        except USER_ERRORS as error:
            errors = str(error).splitlines()
        wrong += [f"{' '.join(of_setting) or one.name}: {printable(line, 1000)}" for line in errors]
    if wrong:
        raise RunError("\n".join([*wrong, "nothing was trained"]))

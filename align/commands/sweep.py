"""Trains a recipe with several settings, one run after another or several at a time, for `alignkit sweep`.

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
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
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
    """Train a recipe with several settings, one after another or several at a time, and compare the runs in one page."""
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
    fixed, settings = planned(options.settings, seeds=options.seeds, count=options.random, seed=options.seed)
    recipe = load_recipe(options.recipe, [*fixed, f"train.output_dir={options.out}"])
    if recipe.fronts is not None:
        raise RunError(f"fronts: several policies are trained by `alignkit front {recipe.path}`; leave the section out")
    machine = _machine(options)
    places: SimpleQueue[dict[str, str]] = SimpleQueue()
    for place in places_of(options, 0 if recipe.train.use_cpu else len(machine.gpus)):
        places.put(place)
    launch = [f"--num-processes={options.num_processes}"] if options.num_processes is not None else []
    launch += [f"--accelerate-config={options.accelerate_config}"] if options.accelerate_config is not None else []
    launch += [word for name in options.allow for word in ("--allow", name)]
    launch += [word for name in options.allow_file for word in ("--allow-file", str(name))]
    with claimed(options.out, resume=True, overwrite=False):
        words = {one: [*fixed, *one.overrides, f"train.output_dir={options.out / one.name}"] for one in settings}
        refuse_all(options.recipe, words, options, machine)
        ledger = begin(recipe, "settings", SWEEP_FILE, resume=True, overwrite=False)

        def run(number: int, one: Setting) -> int:
            """Train one setting, unless it is trained; its exit code."""
            folder = options.out / one.name

            def train() -> dict[str, Any]:
                place = places.get()
                try:
                    if trainings.stopped:
                        raise _Ended(trainings.stopped)
                    logger.warning("[%d/%d] %s: %s", number, len(settings), folder, " ".join(one.overrides))
                    log = None if options.jobs == 1 else options.out / f"{one.name}.log"
                    code = trainings.run(
                        ["train", options.recipe, *words[one], "--resume", "auto", *launch], place, log
                    )
                finally:
                    places.put(place)
                if code:
                    told = "" if log is None else f" ({log} has what it said)"
                    logger.warning("%s: ended with exit code %d%s", folder, code, told)
                    raise _Ended(code)
                return {"settings": list(one.overrides)}

            try:
                ledger.stage(1, one.name, [], [folder / RECIPE_FILE], train)
            except _Ended as error:
                if error.code in STOPPED:
                    trainings.stopped = trainings.stopped or error.code
                return error.code
            except BaseException:
                trainings.stopped = 1
                raise
            return 0

        with Trainings() as trainings, ThreadPoolExecutor(options.jobs) as pool:
            codes = list(pool.map(run, range(1, len(settings) + 1), settings))
    stopped = [code for code in codes if code in STOPPED]
    if stopped:
        logger.warning("sweep: stopped; the same command leaves finished runs and goes on")
        return Swept([], stopped[0], options.out, [])
    runs = [options.out / one.name for one in settings]
    failed = [str(run) for run, code in zip(runs, codes, strict=True) if code]
    if failed:
        logger.warning("not finished: %s; the same command tries them again", ", ".join(failed))
    finished = [run for run, code in zip(runs, codes, strict=True) if not code]
    return Swept(finished, int(bool(failed)), options.out / "compare.html", options.allow)


def places_of(options: argparse.Namespace, gpus: int) -> list[dict[str, str]]:
    """What the environment of each of the runs at a time says besides: its GPU, or on a CPU its share of the threads.

    Raises:
        RunError: If there are fewer GPUs than runs, or each of several runs should have several processes.
    """
    if options.jobs < 1:
        raise RunError(f"--jobs: must be at least 1, got {options.jobs}")
    if options.jobs == 1:
        return [{}]
    if options.num_processes is not None or options.accelerate_config is not None:
        raise RunError("--jobs: each of several runs at a time is one process; leave its launcher out, or --jobs")
    if not gpus:
        threads = max(1, (os.cpu_count() or 1) // options.jobs)
        return [{"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}] * options.jobs
    if options.jobs > gpus:
        raise RunError(f"--jobs: each run has a GPU of its own, and {gpus} are visible, got {options.jobs}")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = list(map(str, range(gpus))) if visible is None else [name.strip() for name in visible.split(",")]
    return [{"CUDA_VISIBLE_DEVICES": name} for name in names[: options.jobs]]


def _machine(options: argparse.Namespace) -> Machine:
    """What each run starts on."""
    machine = Machine.here(accelerate_file(options.accelerate_config) if options.accelerate_config else None)
    if options.num_processes is not None:
        machine = dataclasses.replace(machine, launched=options.num_processes)
    return machine


def refuse_all(recipe: str, words: dict[Setting, list[str]], options: argparse.Namespace, machine: Machine) -> None:
    """Stop before anything is trained if `alignkit check` finds an error in any of the settings; seeds make none.

    Raises:
        RunError: With the errors of each.
    """
    if options.jobs > 1:
        machine = dataclasses.replace(machine, gpus=machine.gpus[:1])
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


class Trainings:
    """Runs of `alignkit` in processes of their own, which are handed the signals that come.

    Each is in a group of its own: Ctrl-C would reach it twice, and the second ends it before it has saved.
    """

    def __init__(self) -> None:
        self.stopped = 0
        """The exit code of those that do not begin any more, once one was stopped."""
        self._living: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Trainings":
        self._before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        with self._lock:
            self.stopped = 128 + number
            for process in self._living:
                process.send_signal(number)

    def run(self, words: Sequence[str], given: Mapping[str, str], log: Path | None) -> int:
        """Run one to its end.

        Args:
            words: Of its command line.
            given: What its environment says besides.
            log: A file that is given what it says, in place of the terminal.

        Returns:
            Its exit code; `stopped` if it is not begun any more.
        """
        with self._lock, open(os.devnull if log is None else log, "ab") as file:
            if self.stopped:
                return self.stopped
            said: Any = None if log is None else file
            process = subprocess.Popen(
                [sys.executable, "-m", "align", *words],
                process_group=0, env={**os.environ, **given}, stdout=said, stderr=said,
            )  # fmt: skip
            self._living.add(process)
        code = process.wait()
        with self._lock:
            self._living.discard(process)
        return code if code >= 0 else 128 - code

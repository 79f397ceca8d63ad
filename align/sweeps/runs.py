"""Trains the settings of a sweep, each unless it is trained already."""

import argparse
import logging
import signal
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from align.errors import RunError
from align.recipe.loading import load_recipe
from align.rounds.ledger import Ledger
from align.runs.contents import RECIPE_FILE

from .grid import Setting, Space
from .trainings import Trainings

logger = logging.getLogger(__name__)

STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM)


class _Ended(Exception):
    """A training ended with another exit code than 0."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Runs:
    """Trains settings, each unless it is trained already.

    Args:
        options: Of the command line.
        space: Of the settings.
        ledger: Of the sweep.
        trainings: Which can be stopped.
        places: What the environment of each of the runs at a time says besides.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        space: Space,
        ledger: Ledger,
        trainings: Trainings,
        places: Sequence[dict[str, str]],
    ) -> None:
        self.options, self.space, self.ledger, self.trainings = options, space, ledger, trainings
        self._places: SimpleQueue[dict[str, str]] = SimpleQueue()
        for place in places:
            self._places.put(place)
        launch = [f"--num-processes={options.num_processes}"] if options.num_processes is not None else []
        launch += [f"--accelerate-config={options.accelerate_config}"] if options.accelerate_config is not None else []
        launch += [word for name in options.allow for word in ("--allow", name)]
        self._launch = launch + [word for name in options.allow_file for word in ("--allow-file", str(name))]

    def refuse_others(self, settings: Sequence[Setting]) -> None:
        """Names of runs tell the last parts of keys alone, which two keys may share.

        Raises:
            RunError: If a run of that name was trained with another setting.
        """
        for one in settings:
            known = self.ledger.done.get((1, one.name), {"counts": {}})["counts"].get("settings")
            if known not in (None, list(one.overrides)):
                raise RunError(
                    f"{self.options.out / one.name}: was trained with {' '.join(known)}, and {' '.join(one.overrides)} would have "
                    "the same name; name another folder with -o"
                )

    def train(self, one: Setting, counted: str) -> int:
        """Train a setting, of which `counted` says which it is.

        Returns:
            Its exit code.
        """
        folder = self.options.out / one.name
        words = [*words_of(self.options, self.space, one), "--resume", "auto", *self._launch]

        def trained() -> dict[str, Any]:
            place = self._places.get()
            try:
                if self.trainings.stopped:
                    raise _Ended(self.trainings.stopped)
                logger.warning("[%s] %s: %s", counted, folder, " ".join(one.overrides))
                log = None if self.options.jobs == 1 else self.options.out / f"{one.name}.log"
                code = self.trainings.run(["train", self.options.recipe, *words], place, log)
            finally:
                self._places.put(place)
            if code:
                told = "" if log is None else f" ({log} has what it said)"
                logger.warning("%s: ended with exit code %d%s", folder, code, told)
                raise _Ended(code)
            return {"settings": list(one.overrides)}

        ends_with = load_recipe(self.options.recipe, words_of(self.options, self.space, one)).trains_adapter
        outputs = [folder / RECIPE_FILE, folder / ("adapter" if ends_with else "model")]
        try:
            self.ledger.stage(1, one.name, [], outputs, trained)
        except _Ended as error:
            if error.code in STOPPED:
                self.trainings.stopped = self.trainings.stopped or error.code
            return error.code
        except BaseException:
            self.trainings.stopped = 1
            raise
        return 0


def words_of(options: argparse.Namespace, space: Space, one: Setting) -> list[str]:
    """What a run says otherwise than the recipe."""
    return [*space.fixed, *one.overrides, f"train.output_dir={options.out / one.name}"]

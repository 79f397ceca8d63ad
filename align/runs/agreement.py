"""Lets the main process decide for all: what ranks decide each for itself can differ, where they see other disks."""

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from align.errors import RunError

T = TypeVar("T")


def on_main(decide: Callable[[], T]) -> T:
    """What the main process decides, on every process.

    Raises:
        RunError: On every process, if it does on the main one.
    """
    state = PartialState()
    if state.num_processes == 1:
        return decide()
    decided: list[Any] = [None, None]
    if state.is_main_process:
        try:
            decided[0] = decide()
        except RunError as error:
            decided[1] = str(error)
    broadcast_object_list(decided, from_process=0)
    if decided[1] is not None:
        raise RunError(decided[1])
    return decided[0]


SHARED = "every node needs the same train.output_dir: put it on a disk that all of them share"


def there_everywhere(
    path: Path,
    same: Callable[[Path], Any],
    *,
    told: str = "chosen by the main process",
    remedy: str = f"{SHARED}, or copy the checkpoint to each",
) -> None:
    """Make sure that every process sees what the main one chose.

    Args:
        path: What it chose.
        same: What has to be equal on all; may raise RunError or OSError where it cannot be told.
        told: What the main process did with it.
        remedy: What to do where others do not see it.

    Raises:
        RunError: On every process, naming the machines that do not see it.
    """
    state = PartialState()
    if state.num_processes == 1:
        return
    try:
        seen = same(path)
    except (RunError, OSError) as error:
        seen = str(error)
    found = gather_object([(state.process_index, platform.node(), seen)])
    without = [f"process {rank} on {node}" for rank, node, what in found if what != found[0][2]]
    if without:
        raise RunError(f"{path}: {told}, and not to be found as it is there by {', '.join(without)}; {remedy}")

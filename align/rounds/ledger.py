"""Says which stages of which rounds are done, in a file that only grows: `rounds.jsonl`, one synced line a stage."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from align.errors import RunError
from align.files import append_synced, sha256, whole_lines
from align.runs.contents import ROUNDS_FILE

FILE = ROUNDS_FILE


class Ledger:
    """The finished stages of a run. Only the main process writes.

    Args:
        run: The run directory.
        name: Of the file.
        mend: Whether a last line that was cut short is cut off, by the main process; whoever only reads leaves it.

    Raises:
        RunError: If a line is no stage's.
    """

    def __init__(self, run: Path, name: str = FILE, *, mend: bool = True) -> None:
        self.run, self.path = run, run / name
        self.done: dict[tuple[int, str], dict[str, Any]] = {}
        content = whole_lines(self.path, mend=mend and PartialState().is_main_process)
        for number, line in enumerate(content.splitlines(), start=1):
            try:
                entry = json.loads(line)
                self.done[int(entry["round"]), str(entry["stage"])] = entry
            except (ValueError, KeyError, TypeError):
                raise RunError(
                    f"{self.path}: line {number} is damaged; delete it, and its stage is done again"
                ) from None

    def stage(
        self,
        number: int,
        name: str,
        inputs: Sequence[Path],
        outputs: Sequence[Path],
        act: Callable[[], Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Do a stage, unless it is done.

        Args:
            number: Of the round.
            name: Of the stage.
            inputs: Files or folders that it reads.
            outputs: Files or folders that it makes. Whoever edits one before a later stage has read it has it used.
            act: Does it, on all processes, and returns counts for the record.

        Returns:
            The counts.

        Raises:
            RunError: If an input is not what the stage has read.
        """
        state, known = PartialState(), self.done.get((number, name))
        if known is not None and all(path.exists() for path in outputs):
            for path in inputs:
                if known["inputs"].get(self._name(path)) not in (None, digest(path)):
                    raise RunError(
                        f"{path}: is not what {name} of round {number} has read; restore it, or remove "
                        f"{', '.join(str(one) for one in outputs)} and what follows, to have it done again"
                    )
            return known["counts"]
        begun = time.monotonic()
        counts = dict(act())
        state.wait_for_everyone()
        if state.is_main_process:
            entry = {
                "round": number,
                "stage": name,
                "seconds": round(time.monotonic() - begun, 3),
                "counts": counts,
                "inputs": {self._name(path): digest(path) for path in inputs},
                "outputs": {self._name(path): digest(path) for path in outputs},
            }
            append_synced(self.path, (json.dumps(entry, ensure_ascii=False) + "\n").encode())
            self.done[number, name] = entry
        state.wait_for_everyone()
        return counts

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.run)) if path.is_relative_to(self.run) else str(path)


def digest(path: Path) -> str | None:
    """sha256 of a file, or of the names and contents of a folder's files; None if it is not there."""
    if path.is_file():
        return sha256(path)
    if not path.is_dir():
        return None
    files = sorted(one for one in path.rglob("*") if one.is_file())
    whole = "".join(f"{one.relative_to(path)} {sha256(one)}\n" for one in files)
    return hashlib.sha256(whole.encode()).hexdigest()

"""Decides whether a start begins a run, goes on with one, or finds it finished, and names what is not as it was."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from align.models.identity import different, same_identity
from align.runs.checkpoints import MANIFEST, STATE, check, checkpoint_to_resume, manifest, numbered, step_of_foreign
from align.runs.contents import RECIPE_FILE, RESULTS, ROUNDS_FILE, check_one_policy, ledger_in, result_of
from align.runs.identity import Difference, Identity, differences, lengthened, new_run_id, told

from .errors import RunError
from .run_identity import identity_of_run, read_env, recipe_differences

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """What a run directory offers to one that asks to go on in it."""

    known: Identity | None = None
    """What is gone on with; None where nothing is: the run begins."""
    checkpoint: Path | None = None
    step: int = 0
    result: dict[str, Any] | None = None
    """Manifest of the whole adapter or model of this run, if there is one."""
    env: dict[str, Any] = field(default_factory=dict)
    of_directory: Identity | None = None
    """None where the directory holds no run yet."""
    chosen: bool = False
    """Whether the checkpoint was named."""
    unsealed: bool = False
    """Whether the checkpoint is another trainer's, of which nothing is known but its step."""


def find_start(run: Path, resume: str | None, *, unsealed: bool = False) -> Start:
    """Look at a run directory, before data and weights are read.

    Args:
        run: The run directory.
        resume: "auto", a checkpoint, or None.
        unsealed: Whether the checkpoint may be one without a manifest, as TRL's own trainers write them.

    Raises:
        RunError: If there is nothing usable to go on with, or what `resume` names is of another run than the directory.
    """
    if resume is None:
        return Start()
    of_directory = identity_of_run(run) if (run / RECIPE_FILE).is_file() else None
    own = of_directory.run if of_directory else None
    env = read_env(run)
    if (
        resume != "auto" and env.get("began_from") == resume and not numbered(run)
    ):  # began, and was killed before it saved
        of_directory = own = None
    if unsealed:
        return _foreign_start(run, resume, of_directory)
    checkpoint = checkpoint_to_resume(run, resume, own)
    result = whole_result(run, of_directory, alone=checkpoint is None)
    if checkpoint is None:
        if env.get("began_from") and result is None:
            raise RunError(
                f"{run}: the run went on from {env['began_from']} and has saved nothing since; name that checkpoint again, "
                "with --resume and --changed, or with --resume and --unsealed"
            )
        sealed = [folder for folder in (run / name for name in RESULTS) if (folder / MANIFEST).is_file()]
        if result is None and sealed:
            raise RunError(
                f"{sealed[0]}: cannot be used (see above), and there is no checkpoint to make it from; restore it, or start a new "
                "run with --overwrite or another train.output_dir"
            )
        return Start(of_directory if result else None, result=result, env=env, of_directory=of_directory)
    if not (checkpoint / STATE).is_file():
        raise RunError(f"--resume: {checkpoint}: no checkpoint of a run (no {STATE})")
    found = manifest(checkpoint)
    known: Identity = found["identity"]
    if of_directory is not None:
        inside = checkpoint.resolve().parent == run.resolve()
        if known.run != own if own is not None else not inside:
            raise RunError(
                f"--resume: {checkpoint} is of another run ({known.run or 'unknown'}) than {run} ({own or 'unknown'}), with "
                "whose files its own would mix; go on in another train.output_dir, or take --resume auto"
            )
        if not known.settings:
            known = replace(of_directory, reference=known.reference or of_directory.reference)
    return Start(known, checkpoint, found["step"], result, env, of_directory, resume != "auto")


def _foreign_start(run: Path, resume: str, of_directory: Identity | None) -> Start:
    """A start from a checkpoint that no trainer of ours has sealed; it begins a run."""
    if of_directory is not None:
        raise RunError(f"--unsealed: {run} holds a run already; go on from {resume} in another train.output_dir")
    return Start(Identity(), Path(resume), step_of_foreign(Path(resume)), chosen=True, unsealed=True)


def whole_result(run: Path, of_directory: Identity | None, *, alone: bool = True) -> dict[str, Any] | None:
    """The manifest of a run's adapter or model, if it is whole and of this run.

    Args:
        run: The run directory.
        of_directory: What it says it is.
        alone: Whether one without a manifest counts where the run has no id, as an earlier version wrote it.
    """
    own = of_directory.run if of_directory else None
    for folder in (run / name for name in RESULTS):
        if not folder.is_dir():
            continue
        if not (folder / MANIFEST).is_file():
            if own is None and alone and of_directory is not None and any(folder.glob("*.safetensors")):
                return {"step": None, "ends_at": None, "identity": of_directory}
            continue
        try:
            found = check(folder)
        except RunError as error:
            logger.warning("%s", error)
            continue
        if found["identity"].run == own or own is None:
            return found
        logger.warning("%s: of another run (%s) than the directory's (%s)", folder, found["identity"].run, own)
    return None


GOES_ON = "the run has not finished; continue it with --resume auto"


def finished_run(run: Path) -> tuple[Identity, dict[str, Any]]:
    """What a run directory holds, and the manifest of the adapter or model that it has ended with.

    Of a run with rounds it is what the round whose weights it took holds, or nothing, if it took what the first began with.

    Raises:
        RunError: If the run has not finished: nothing is there, it is damaged, or it is of the run as it was before. Or if
            several policies are there.
    """
    check_one_policy(run)
    of_directory = identity_of_run(run)
    in_rounds = ledger_in(run) == ROUNDS_FILE  # of which each has a recipe of its own, that is looked at
    edited = recipe_differences(run, places=False) if (run / RECIPE_FILE).is_file() and not in_rounds else []
    if edited:
        raise RunError(
            f"{run / RECIPE_FILE}: it was changed after the run, and does not say what was trained:\n{told(edited)}\n"
            "restore it, or train what it says in another train.output_dir"
        )
    folder = result_of(run)
    if folder is None:
        raise RunError(f"{run}: neither adapter/ nor model/ there: {GOES_ON}")
    if in_rounds:
        return _taken(run, folder)
    if not (folder / MANIFEST).is_file():
        if of_directory.run is not None:
            raise RunError(f"{folder}: it was not written to its end (no {MANIFEST}): {GOES_ON}")
        logger.warning("%s: which run and step it is of, is not known: an earlier version wrote it", folder)
        return of_directory, {"step": None, "ends_at": None, "identity": of_directory}
    found = check(folder)
    was: Identity = found["identity"]
    changes = [*differences(was, of_directory), *lengthened(was, of_directory)]
    if changes:
        raise RunError(
            f"{folder}: it is of step {found['step']}, and not of the run that the directory now holds:\n{told(changes)}\n{GOES_ON}"
        )
    return of_directory, found


def taken_round(run: Path) -> int | None:
    """The round whose weights are a run's, 0 for what the first began with; None if none are there, or of no round."""
    folder = result_of(run)
    if folder is None:
        return None
    if not (folder / MANIFEST).is_file():
        return 0
    own = manifest(folder)["identity"].run
    numbers = [int(path.parent.name.rpartition("-")[2]) for path in run.glob("round-*/train")]
    of = [n for n in sorted(numbers) if own is not None and identity_of_run(run / f"round-{n}" / "train").run == own]
    return of[-1] if of else None


def _taken(run: Path, folder: Path) -> tuple[Identity, dict[str, Any]]:
    """As `finished_run`, of a run with rounds."""
    number = taken_round(run)
    if number is None:
        raise RunError(f"{folder}: of none of the rounds that are there: {GOES_ON}")
    if number == 0:
        return Identity(), {"step": 0, "ends_at": 0, "identity": Identity()}
    of_round, found = finished_run(run / f"round-{number}" / "train")
    check(folder)
    return of_round, found


def settled(start: Start, now: Identity, *, changed: bool) -> tuple[Identity, list[dict[str, Any]]]:
    """The identity of the run that starts now, with its id, and what is on record as changed on its way.

    Args:
        start: What there is to go on with.
        now: What the run would be, as far as it is known yet: without weights it can be asked before they are loaded.
        changed: Whether going on with other numbers was asked for.

    Raises:
        RunError: If what determines the numbers is not what it was, and that was not asked for; each difference is named.
    """
    if start.known is None:
        return replace(now, run=new_run_id()), []
    if start.unsealed:
        _check_room(start, now, [])
        told_of = "began with a checkpoint that is not sealed: what it was trained with is not known"
        return replace(now, run=new_run_id()), [
            {"step": start.step, "from": str(start.checkpoint), "changes": [told_of]}
        ]
    where = start.checkpoint or "the finished run"
    forks = start.of_directory is None
    found = differences(start.known, now)
    if forks:
        found.insert(0, Difference("run", start.known.run or "unknown", "a new one, in another directory"))
    _check_reference(start, now)
    if found and not changed and not _agreed(start, now):
        raise RunError(
            f"{where}: what determines the numbers is not what it was:\n{told(found)}\nrestore it; or go on all the same with "
            "--changed, which env.json will say; or start a new run in another train.output_dir"
        )
    longer = lengthened(start.known, now)
    if start.checkpoint is None and (found or longer):
        raise RunError(
            f"{where}: has no checkpoint from which it could go on with\n{told([*found, *longer])}\nstart a new run in "
            "another train.output_dir, or replace this one with --overwrite"
        )
    _check_room(start, now, found)
    own = new_run_id() if forks else start.known.run
    said = [str(difference) for difference in (*found, *longer)]
    entries = [{"step": start.step, "from": str(start.checkpoint), "changes": said}] if said else []
    if found and not changed:  # asked for before, at this step
        entries = [entry for entry in _changes(start.env) if entry["step"] == start.step]
    return replace(now, run=own), [*(e for e in _changes(start.env) if e["step"] < start.step), *entries]


def is_finished(start: Start, now: Identity) -> bool:
    """Whether the run has ended with what a whole adapter or model holds, just as it is asked for now."""
    if start.result is None or start.of_directory is None:
        return False
    was: Identity = start.result["identity"]
    ended = start.result["step"] is None or start.result["step"] >= (start.result["ends_at"] or 0)
    return ended and not differences(was, replace(now, run=was.run)) and not lengthened(was, now)


def _check_reference(start: Start, now: Identity) -> None:
    known = [start.known, start.of_directory] if start.of_directory else [start.known]
    for recorded in (identity.reference for identity in known if identity is not None):
        if recorded and now.reference and not same_identity(recorded, now.reference):
            was, ref = recorded, now.reference
            raise RunError(
                f"{start.checkpoint or 'the run'}: the run started with another reference ({was.get('kind')} "
                f"{was.get('model')}, {str(was.get('digest'))[:12]}) than the recipe now gives ({ref['kind']} {ref['model']}, "
                f"{ref['digest'][:12]}), which differs in {' and '.join(different(was, ref)) or 'its kind'}; restore it, or start a new run in another train.output_dir"
            )


def _check_room(start: Start, now: Identity, found: Sequence[Difference]) -> None:
    """Whether the run can go on there at all."""
    end = now.settings.get("train.max_steps") or 0
    if 0 < end < start.step:
        raise RunError(
            f"{start.checkpoint}: has done {start.step} steps, and train.max_steps={end} ends before; name an earlier "
            "checkpoint with --resume CHECKPOINT, in another train.output_dir"
        )
    if found and start.chosen and start.checkpoint is not None and start.of_directory is not None:
        later = [step for step, _ in numbered(start.checkpoint.parent) if step > start.step]
        if later:
            raise RunError(
                f"{start.checkpoint}: later checkpoints of the run as it was lie beside it (step {later[-1]}); go on with other "
                "settings in another train.output_dir, or from the last one with --resume auto"
            )


def _agreed(start: Start, now: Identity) -> bool:
    """Whether these same changes were asked for already, at this step."""
    here = any(entry["step"] == start.step for entry in _changes(start.env))
    return here and start.of_directory is not None and not differences(start.of_directory, replace(now, run=None))


def _changes(env: dict[str, Any]) -> list[dict[str, Any]]:
    changes = env.get("changes") or []
    sound = isinstance(changes, list) and all(isinstance(c, dict) and isinstance(c.get("step"), int) for c in changes)
    return changes if sound else []

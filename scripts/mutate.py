"""Break the code on purpose, one line at a time; a mutant that survives its tests is a missing test.

Each mutant names a file, a piece of text that must occur in it exactly once, what takes its place, and the tests that
should notice, slow ones too. A mutant that no longer applies is an error, so the list cannot rot. Copies of the project are
broken, two at a time, never the working tree; tests run in forks of a process that has imported everything but the project,
which saves ten seconds a mutant. Run: python scripts/mutate.py [NAME-PART ...]
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]
AT_ONCE = 2
NOT_COPIED = (".git", ".venv", ".cache", "runs", "results")  # at the top, or `results` of the benchmarks


def preload() -> None:
    """Import what tests import, the project aside."""
    import accelerate  # noqa: F401, PLC0415
    import beartype  # noqa: F401, PLC0415
    import datasets  # noqa: F401, PLC0415
    import hypothesis  # noqa: F401, PLC0415
    import peft  # noqa: F401, PLC0415
    import pytest  # noqa: F401, PLC0415
    import torch  # noqa: F401, PLC0415
    import transformers  # noqa: F401, PLC0415
    from trl import DPOTrainer, GRPOTrainer, RewardTrainer, RLOOTrainer, SFTTrainer  # noqa: F401, PLC0415


def left_out(folder: str, names: list[str]) -> list[str]:
    """What of a folder is not copied: `align/runs` is code, `runs` at the top is not."""
    top = Path(folder) in (ROOT, ROOT / "scripts" / "bench")
    return [name for name in names if name == "__pycache__" or (top and name in NOT_COPIED)]


def begin(root: Path, *options: str) -> int:
    """Run pytest in the copy at `root`, in a process of its own; returns the process."""
    child = os.fork()
    if child:
        return child
    try:
        os.chdir(root)
        sys.path.insert(0, str(root))
        os.environ |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        log = os.open(root / "mutant.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        import pytest  # noqa: PLC0415

        code = pytest.main(["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-m", "not gpu", *options])
        sys.stdout.flush()
        os._exit(int(code))
    finally:
        os._exit(70)


def start(mutant: Mutant, root: Path) -> int:
    """Break the copy at `root` and begin its tests; returns the process."""
    path = root / mutant.file
    path.write_text(path.read_text(encoding="utf-8").replace(mutant.old, mutant.new), encoding="utf-8")
    return begin(root, *mutant.tests)


def check_collected(chosen: list[Mutant], root: Path) -> None:
    """Stop where tests cannot even be collected from an unbroken copy: every mutant would seem to be killed."""
    child = begin(root, "--collect-only", *sorted({test for mutant in chosen for test in mutant.tests}))
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise SystemExit(
            f"the tests of an unbroken copy are not collected:\n{(root / 'mutant.log').read_text()[-4000:]}"
        )


def killer(mutant: Mutant, root: Path, code: int) -> str | None:
    """Mend the copy; the first failing test, or None if all passed."""
    (root / mutant.file).write_text((ROOT / mutant.file).read_text(encoding="utf-8"), encoding="utf-8")
    if code == 0:
        return None
    log = (root / "mutant.log").read_text(encoding="utf-8", errors="replace")
    lines = [line for line in log.splitlines() if line.startswith(("FAILED", "ERROR tests", "ERROR align"))]
    if not lines:
        raise SystemExit(f"mutant {mutant.name!r}: the tests did not run:\n{log[-4000:]}")
    return lines[0].split(" - ")[0]


def main(parts: list[str]) -> int:
    chosen = [m for m in MUTANTS if not parts or any(part in m.name for part in parts)]
    for mutant in chosen:
        count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            raise SystemExit(f"mutant {mutant.name!r}: its text occurs {count} times in {mutant.file}")
    preload()
    survivors, waiting, running, done = [], list(chosen), {}, 0
    with tempfile.TemporaryDirectory() as scratch:
        free = [Path(scratch) / f"{number}" for number in range(AT_ONCE)]
        for copy in free:
            shutil.copytree(ROOT, copy, ignore=left_out)
        check_collected(chosen, free[0])
        while waiting or running:
            while waiting and free:
                mutant, copy = waiting.pop(0), free.pop()
                running[start(mutant, copy)] = (mutant, copy)
            child, status = os.wait()
            mutant, copy = running.pop(child)
            noticed = killer(mutant, copy, os.waitstatus_to_exitcode(status))
            free.append(copy)
            done += 1
            print(
                f"{done:2}/{len(chosen)} {'killed  ' if noticed else 'SURVIVED'} {mutant.name:42} {noticed or ''}",
                flush=True,
            )
            survivors += [] if noticed else [mutant.name]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

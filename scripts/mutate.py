"""Break the code on purpose, one line at a time; a mutant that survives its tests is a missing test.

Each mutant names a file, a piece of text that must occur in it exactly once, what takes its place, and the tests that
should notice. A mutant that no longer applies is an error, so the list cannot rot. Copies of the project are broken,
two at a time, never the working tree. Run: python scripts/mutate.py [NAME-PART ...]
"""

import os
import queue
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).parents[1]


def killed_by(mutant: Mutant, root: Path) -> str | None:
    """The first failing test in the copy at `root`, or None if all pass."""
    path = root / mutant.file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *mutant.tests]
        env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True)
    finally:
        path.write_text(text, encoding="utf-8")
    if done.returncode == 0:
        return None
    lines = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not lines:
        raise SystemExit(f"mutant {mutant.name!r}: the tests did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return lines[0].split(" - ")[0]


def main(parts: list[str]) -> int:
    chosen = [m for m in MUTANTS if not parts or any(part in m.name for part in parts)]
    for mutant in chosen:
        count = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.old)
        if count != 1:
            raise SystemExit(
                f"mutant {mutant.name!r} no longer applies: its text occurs {count} times in {mutant.file}"
            )
    survivors = []
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(2):
            copy = Path(scratch) / f"{number}"
            shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".cache", "runs", "__pycache__"))
            copies.put(copy)

        def attempt(mutant: Mutant) -> tuple[Mutant, str | None]:
            copy = copies.get()
            try:
                return mutant, killed_by(mutant, copy)
            finally:
                copies.put(copy)

        for number, (mutant, killer) in enumerate(pool.map(attempt, chosen), start=1):
            print(
                f"{number:2}/{len(chosen)} {'killed  ' if killer else 'SURVIVED'} {mutant.name:42} {killer or ''}",
                flush=True,
            )
            survivors += [] if killer else [mutant.name]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

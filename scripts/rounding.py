"""What a recipe's estimates are on other machines, imitated on this one: other instruction sets and numbers of threads.

Run: python scripts/rounding.py RECIPE OUT_FOLDER [-o RESULTS]. Each way is a process of its own, the same seed, trained and evaluated; what
is there is not done again. RESULTS/rounding.json then holds, by way, the estimates that the recipe expects.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "studies"))
from study_parts.results import RESULTS, made_on

from align.files import write_text
from align.recipe.loading import load_recipe
from align.runs.contents import REPORT_FILE

NARROW = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
WAYS = {
    "as it is, 1 thread": {"OMP_NUM_THREADS": "1"},
    "as it is, 2 threads": {"OMP_NUM_THREADS": "2"},
    "AVX2, 1 thread": {"OMP_NUM_THREADS": "1", **NARROW},
    "AVX2, 2 threads": {"OMP_NUM_THREADS": "2", **NARROW},
}


def estimates(recipe: str, names: list[str], run: Path, setting: dict[str, str]) -> dict[str, float]:
    """Of a run's report; both are made if they are not there."""
    if not (run / REPORT_FILE).is_file():
        env = os.environ | setting
        words = [recipe, f"train.output_dir={run}", "train.disable_tqdm=true", "--overwrite"]
        subprocess.run([sys.executable, "-m", "align.train", *words], env=env, check=True)
        subprocess.run([sys.executable, "-m", "eval", str(run)], env=env, check=True)
    found = json.loads((run / REPORT_FILE).read_text(encoding="utf-8"))["estimates"]
    return {name: round(found[name]["value"], 6) for name in names}


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, way by way."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    names = list(load_recipe(options.recipe, anywhere=True).expect)
    told: dict[str, Any] = {**made_on(), "recipe": options.recipe, "ways": {}}
    for number, (way, setting) in enumerate(WAYS.items()):
        run = options.out.absolute() / f"way-{number}"
        told["ways"][way] = estimates(options.recipe, names, run, setting)
    write_text(options.results / "rounding.json", json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()

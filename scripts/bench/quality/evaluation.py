"""What evaluating stored responses costs: `alignkit compare` of four files at 1,000, 10,000 and 100,000 prompts.

Each size is a process of its own; its time, its CPU seconds and its largest memory are those of the whole command, imports
and report included. The answers are invented: words with the frequencies of Zipf's law, 20 to 280 of them, so that costs
are those of answers and nothing else is said. Where the load average is above the number of cores, other work
ran beside it: CPU seconds are then the figure to read, not the wall clock.

Run (about five minutes on two cores): python scripts/bench/quality/evaluation.py scripts/bench/results/evaluation.json
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml

SIZES = (1_000, 10_000, 100_000)
FILES = ("first", "second", "third", "fourth")
LENGTHS = (20, 280)
SEED = 0
RECIPE = {
    "method": "dpo",
    "model": {"model_name_or_path": "tiny-random"},
    "data": {"train": {"path": "unused.jsonl"}},
    "train": {"output_dir": "unused", "use_cpu": True, "bf16": False},
    "eval": {
        "generate": {},
        "gold_reward": "clarity",
        "judges": {"plain": {"kind": "reward", "reward": "repetition", "temperature": 0.1}},
    },
}
SYLLABLES = ("ka", "lo", "mi", "ner", "sa", "tu", "vel", "po", "rin", "da", "good", "bad", "fine", "sad")


def write_responses(folder: Path, prompts: int) -> list[Path]:
    """Four files of invented answers to the same prompts; the later, the longer."""
    rng = np.random.default_rng(SEED)
    words = np.array([one + other for one in SYLLABLES for other in ("", *SYLLABLES)])
    shares = 1 / np.arange(1, len(words) + 1)
    paths = []
    for place, name in enumerate(FILES):
        paths.append(folder / f"{name}.jsonl")
        with paths[-1].open("w", encoding="utf-8") as file:
            for number in range(prompts):
                count = int(rng.integers(*LENGTHS)) + 10 * place
                text = " ".join(words[rng.choice(len(words), size=count, p=shares / shares.sum())].tolist())
                file.write(json.dumps({"prompt": f"Question {number}?", "response": text}) + "\n")
    return paths


def measured(prompts: int) -> dict[str, float]:
    """One evaluation in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = write_responses(folder, prompts)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
        words = [*map(str, paths), "--recipe", str(folder / "recipe.yaml"), "-o", str(folder / "out")]
        start = time.perf_counter()
        child = subprocess.Popen([sys.executable, "-m", "align", "compare", *words], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        if status:
            raise SystemExit(f"{prompts} prompts: the evaluation ended with status {status}")
        estimates = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["estimates"]
        assert estimates["gold_reward/difference"]["n"] == prompts
        cpu = usage.ru_utime + usage.ru_stime
        return {
            "prompts": prompts,
            "answers": prompts * len(FILES),
            "wall_seconds": round(wall, 2),
            "cpu_seconds": round(cpu, 2),
            "peak_megabytes": round(usage.ru_maxrss * 1024 / 1e6, 1),
            "load_average": round(os.getloadavg()[0], 1),
            "estimates": len(estimates),
        }


def main() -> None:
    """Measure each size, and how the cost of a further prompt changes between sizes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    options = parser.parse_args()
    rows = []
    for prompts in options.sizes:
        rows.append(measured(prompts))
        print(rows[-1], flush=True)
    results = {
        "what": f"alignkit compare of {len(FILES)} files of responses of {LENGTHS[0]} to {LENGTHS[1]} words: gold reward, a "
        "judge by a reward, lengths, diversity, ratings, every pair, report",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("numpy", "torch", "transformers", "sacrebleu")},
        "seed": SEED,
        "repetitions": 1,
        "sizes": rows,
        "cpu_milliseconds_per_further_prompt": [
            round(1000 * (b["cpu_seconds"] - a["cpu_seconds"]) / (b["prompts"] - a["prompts"]), 3)
            for a, b in pairwise(rows)
        ],
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

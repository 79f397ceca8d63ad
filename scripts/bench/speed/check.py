"""CPU time and memory of `alignkit check` against the number of rows, memory of its own apart from pages of mapped files.

Pairs of 290 bytes are written to a file, and the recipe is `dpo/tiny`'s with a random model of two layers. Each count is one
command in a process of its own with empty caches. `/proc/PID/smaps_rollup` is read five times a second: what is anonymous is
the process's own, the rest are pages of files (Arrow's, libraries'), which the kernel takes back when it needs them. Linux only.

Run (about five minutes): python scripts/bench/speed/check.py scripts/bench/results/check.json [ROWS ...]
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
from pathlib import Path
from typing import Any

ROWS = (1_000, 10_000, 100_000, 1_000_000)
EVERY = 0.2  # seconds
RECIPE = """method: dpo
model: {{model_name_or_path: tiny-random, dtype: float32}}
lora: {{r: 4, lora_alpha: 8, target_modules: all-linear}}
data: {{train: {{path: {path}}}}}
train: {{output_dir: run, max_steps: 4, use_cpu: true, bf16: false, report_to: none}}
"""


def write(path: Path, count: int) -> None:
    """Pairs of about 290 bytes, no two the same."""
    filler = "It takes a few words more to fill a row as long as those of real sets are, "
    with path.open("w", encoding="utf-8") as file:
        for n in range(count):
            row = {
                "prompt": f"What is {n} plus {n % 7}? {filler}",
                "chosen": f" It is {n + n % 7}. {filler}",
                "rejected": f" {n}, I think.",
            }
            file.write(json.dumps(row) + "\n")


def resident(process: int) -> dict[str, float]:
    """MiB of a process that are resident now, and those of them that are its own."""
    lines = (line.split() for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines())
    kib = {words[0]: int(words[1]) for words in lines if words[0] in ("Rss:", "Anonymous:")}
    return {"resident_mib": kib["Rss:"] / 1024, "own_mib": kib["Anonymous:"] / 1024}


def checked(count: int) -> dict[str, Any]:
    """One `alignkit check`: seconds of CPU and clock, and the most that was resident."""
    with tempfile.TemporaryDirectory() as folder:
        pairs, recipe = Path(folder, "pairs.jsonl"), Path(folder, "recipe.yaml")
        write(pairs, count)
        recipe.write_text(RECIPE.format(path=pairs))
        env = os.environ | {
            "OMP_NUM_THREADS": "1", "HF_DATASETS_CACHE": f"{folder}/datasets", "ALIGNKIT_CACHE": f"{folder}/cache",
        }  # fmt: skip
        began, most = time.perf_counter(), {"resident_mib": 0.0, "own_mib": 0.0}
        command = subprocess.Popen([sys.executable, "-m", "align.cli", "check", str(recipe)], env=env, cwd=folder)
        trace = []
        while True:
            pid, status, used = os.wait4(command.pid, os.WNOHANG)
            if pid:
                break
            try:
                now = resident(command.pid)
            except (OSError, KeyError):  # it has just ended
                continue
            trace.append([round(time.perf_counter() - began, 1), *(round(value) for value in now.values())])
            most = {name: max(value, now[name]) for name, value in most.items()}
            time.sleep(EVERY)
        if os.waitstatus_to_exitcode(status):
            raise SystemExit(f"check of {count} rows failed")
        seconds = time.perf_counter() - began
        found = {"bytes_a_row": pairs.stat().st_size / count, "cpu_seconds": used.ru_utime + used.ru_stime}
        return found | {"clock_seconds": seconds, **most, "trace": trace}


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("rows", type=int, nargs="*", default=ROWS)
    asked = parser.parse_args()
    record: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, one thread",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft", "datasets")},
        "rows": {},
    }
    for count in asked.rows:
        found = record["rows"][count] = checked(count)
        print(json.dumps({count: {k: v for k, v in found.items() if k != "trace"}}), flush=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Wall and CPU seconds, throughput and peak memory of one DPO step: alignkit and TRL, alternating in one process.

Contestants take turns on the same batch, so that what disturbs the machine disturbs all; results are ratios of the
same round. Peak memory is measured in a process of its own for each contestant.

Run (about half an hour on two cores): python scripts/bench/speed/step.py scripts/bench/results/step.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import mib
from contestants import Contestant, batch_of

NAMES = ("trl_default", "trl_best", "trl_best_bf16", "ours", "ours_checkpointing", "ours_compiled")
GRID = {(64, 64): 6, (64, 256): 3, (256, 128): 6, (1024, 128): 2, (2048, 128): 1}  # prompt, response: rounds
COMPILED = ("ours", "ours_compiled", "trl_best", "trl_best_compiled")  # at one shape: TRL's takes minutes to compile
MEMORY = ((256, 128), (1024, 128))
PAIRS = 2


def peak(name: str, prompt: int, response: int) -> dict[str, float]:
    """Resident MiB before the step and at its peak, in this process."""
    contestant = Contestant(name)
    contestant.step(batch_of([(16, 8, 8)] * PAIRS))
    before = mib("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    batch = batch_of([(prompt, response, response)] * PAIRS)
    began = time.perf_counter()
    contestant.step(batch)
    return {"before_mib": before, "peak_mib": mib("VmHWM"), "seconds": time.perf_counter() - began}


def timed(contestants: list[Contestant], prompt: int, response: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of each step by contestant; the order is turned around every other round."""
    batch = batch_of([(prompt, response, response)] * PAIRS)
    found = {c.name: {"wall": [], "cpu": []} for c in contestants}
    for turn in range(rounds + 1):
        for contestant in contestants if turn % 2 else reversed(contestants):
            wall, cpu = time.perf_counter(), time.process_time()
            contestant.step(batch)
            if turn:  # the first is a warm-up
                found[contestant.name]["wall"].append(time.perf_counter() - wall)
                found[contestant.name]["cpu"].append(time.process_time() - cpu)
    return found


def summary(found: dict[str, dict[str, list[float]]], tokens: int) -> dict[str, dict]:
    """Medians, tokens per second, and how many times as long as ours each round took."""
    rows = {}
    for name, seconds in found.items():
        ratios = [a / b for a, b in zip(seconds["wall"], found["ours"]["wall"], strict=True)]
        wall = statistics.median(seconds["wall"])
        rows[name] = {
            "wall_seconds": wall,
            "cpu_seconds": statistics.median(seconds["cpu"]),
            "tokens_per_second": tokens / wall,
            "times_ours": statistics.median(ratios),
            "times_ours_min": min(ratios),
            "times_ours_max": max(ratios),
            "rounds": len(ratios),
        }
    return rows


def picture(results: dict, path: Path) -> None:
    """Times ours, by contestant and shape, with the spread over the rounds."""
    import matplotlib.pyplot as plt  # noqa: PLC0415

    shapes = list(results["steps"])
    shown = [name for name in NAMES if name != "ours"]
    figure, axes = plt.subplots(figsize=(9, 4.2))
    width = 0.8 / len(shown)
    for i, name in enumerate(shown):
        rows = [results["steps"][shape][name] for shape in shapes]
        middle = [row["times_ours"] for row in rows]
        spread = [[m - r["times_ours_min"] for m, r in zip(middle, rows, strict=True)], [r["times_ours_max"] - m for m, r in zip(middle, rows, strict=True)]]  # fmt: skip
        at = [s + (i - (len(shown) - 1) / 2) * width for s in range(len(shapes))]
        axes.bar(at, middle, width * 0.92, yerr=spread, capsize=2, label=name, error_kw={"lw": 0.8})
    axes.axhline(1, color="black", lw=1)
    axes.set_xticks(range(len(shapes)), shapes)
    axes.set_xlabel("tokens of prompt : of each answer (2 pairs)")
    axes.set_ylabel("wall time, times ours (min to max of the rounds)")
    axes.legend(frameon=False, ncols=len(shown), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Measure and write, or, with `--peak`, print one contestant's memory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--peak", nargs=3, metavar=("NAME", "PROMPT", "RESPONSE"))
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(options.peak[0], int(options.peak[1]), int(options.peak[2]))))
        return
    results = {
        "what": "one DPO step, SmolLM2-135M-Instruct, LoRA r=16 on all linear layers, 2 pairs, bf16 autocast",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "steps": {},
        "memory": {},
    }
    for prompt, response in MEMORY:
        for name in NAMES[:-1]:  # compiling would be most of what a process of its own does
            command = [sys.executable, __file__, "--peak", name, str(prompt), str(response)]
            said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
            results["memory"].setdefault(f"{prompt}:{response}", {})[name] = json.loads(said)
    contestants = [Contestant(name) for name in NAMES]
    for (prompt, response), rounds in GRID.items():
        found = timed(contestants, prompt, response, rounds)
        results["steps"][f"{prompt}:{response}"] = summary(found, PAIRS * 2 * (prompt + response))
        options.out.write_text(json.dumps(results, indent=1) + "\n")
        print(
            prompt,
            response,
            {n: round(r["times_ours"], 2) for n, r in results["steps"][f"{prompt}:{response}"].items()},
        )
    picture(results, options.out.with_suffix(".png"))
    del contestants
    found = timed([Contestant(name) for name in COMPILED], 256, 128, 8)
    results["compiled"] = {"256:128": summary(found, PAIRS * 2 * (256 + 128))}
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

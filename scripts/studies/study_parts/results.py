"""What studies read of their records and write of their results."""

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sentiment_frontier_report import sums

from align.files import write_text

RESULTS = Path(__file__).parents[2] / "bench" / "results"


def arguments(about: str | None, *folders: str) -> argparse.ArgumentParser:
    """The command line of a study: its folders, how many seeds, and where results go."""
    parser = argparse.ArgumentParser(description=about)
    for folder in folders:
        parser.add_argument(folder, type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    return parser


def made_on(spent: int | None = None, of: str = " for training") -> dict[str, Any]:
    """Machine and versions.

    Args:
        spent: Seconds of CPU, where they were counted.
        of: What they were spent on.
    """
    seconds = "" if spent is None else f", one thread, beside other work; {spent} s of CPU{of}"
    versions = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {"machine": platform.machine() + seconds, "versions": versions}


def once(path: Path, made: Callable[[], dict[str, Any]]) -> None:
    """Writes what was made as JSON, with the seconds of CPU that it took, unless the file is there."""
    if not path.is_file():
        began = time.process_time()
        told = made()
        write_text(path, json.dumps(told | {"cpu_seconds": round(time.process_time() - began)}))
        print(f"{path.stem}: {time.process_time() - began:.0f} s of CPU", flush=True)


def records_of(out: Path, names: Iterable[str]) -> dict[str, list[dict[str, Any]]]:
    """Records of `methods.record` by condition, in order of seeds; conditions without one are left out."""
    found = {
        name: [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob(f"records/{name}-[0-9].json"))]
        for name in names
    }
    return {name: some for name, some in found.items() if some}


def spent_on(records: Mapping[str, list[dict[str, Any]]]) -> int:
    """Seconds of CPU of all records."""
    return sum(record["cpu_seconds"] for some in records.values() for record in some)


def held_out_pairs(out: Path) -> list[dict[str, Any]]:
    """The pairs of a bench that no method learns from."""
    return [json.loads(line) for line in (out / "held-out-pairs.jsonl").read_text(encoding="utf-8").splitlines()]


def measures_of(points: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Of policies' answers: both rewards, and how much likelier each is by its policy than by the reference, in nats."""
    kl = [sums(one["policy_logps"]) - sums(one["reference_logps"]) for one in points]
    rewards = {key: np.array([one[key] for one in points], dtype=float) for key in ("gold", "proxy")}
    return rewards | {"kl": np.array(kl)}


def reference_record(out: Path) -> dict[str, Any]:
    """What was recorded of what training begins with."""
    return json.loads((out / "records" / "reference.json").read_text(encoding="utf-8"))


def before_training(out: Path) -> dict[str, float]:
    """Mean rewards of what training begins with, which is the reference."""
    record = reference_record(out)["end"]
    return {measure: round(float(np.mean(record[measure])), 4) for measure in ("gold", "proxy")} | {"kl": 0.0}


def write_results(name: str, told: Mapping[str, Any], figure: Figure, folder: Path) -> None:
    """NAME.json and NAME.png of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{name}.json", json.dumps(told, indent=1) + "\n")
    figure.savefig(folder / f"{name}.png")

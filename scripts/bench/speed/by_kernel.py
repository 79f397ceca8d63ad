"""Where a DPO step's time goes, by kind of kernel: alignkit and TRL's best at 256:128, profiled in turn on one thread.

Run (some minutes): python scripts/bench/speed/by_kernel.py scripts/bench/results/by_kernel.json

Seconds are of the profiler, by the clock: what else the machine does is in them, so shares and ratios tell more than seconds. A
kernel counts by itself, without what it calls.
"""

import argparse
import json
import platform
import statistics
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from contestants import Contestant, batch_of

NAMES = ("ours", "trl_best_bf16", "trl_best")
PROMPT, RESPONSE, PAIRS, ROUNDS = 256, 128, 2, 4
KINDS = (
    ("matrix products", ("::mm", "::addmm", "::bmm", "::baddbmm", "mkldnn")),
    ("attention", ("scaled_dot_product", "flash_attention")),
    ("head and log-probabilities", ("log_softmax", "logsumexp", "gather", "nll_loss")),
    ("copies and changes of type", ("::copy_", "::_to_copy", "::cat", "::clone", "::contiguous", "::index")),
    ("optimizer", ("Optimizer", "_foreach", "_fused_adam")),
)
REST = "elementwise, norms, bookkeeping"


def kind_of(name: str) -> str:
    """Of a kernel."""
    return next((kind for kind, parts in KINDS if any(part in name for part in parts)), REST)


def seconds_by_kind(contestant: Contestant, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    """Of one step."""
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        contestant.step(batch)
    found = dict.fromkeys([*(kind for kind, _ in KINDS), REST], 0.0)
    for event in seen.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    return found


def main() -> None:
    """Measure, and write medians over the rounds."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    contestants = [Contestant(name) for name in NAMES]
    batch = batch_of([(PROMPT, RESPONSE, RESPONSE)] * PAIRS)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    for turn in range(ROUNDS + 1):
        for contestant in contestants if turn % 2 else reversed(contestants):
            found = seconds_by_kind(contestant, batch)
            if turn:  # the first is a warm-up
                rounds[contestant.name].append(found)
    told = {
        name: {kind: round(statistics.median(one[kind] for one in every), 4) for kind in every[0]}
        for name, every in rounds.items()
    }
    for by_kind in told.values():
        by_kind["all"] = round(sum(by_kind.values()), 4)
    result = {
        "what": f"median seconds of one DPO step by kind of kernel, {PROMPT}:{RESPONSE}, {PAIRS} pairs, SmolLM2-135M, LoRA r=16; "
        f"{ROUNDS} rounds in turn",
        "machine": f"{platform.machine()}, one thread",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "seconds": told,
        "times_ours": {
            name: {kind: round(value / told["ours"][kind], 2) for kind, value in by_kind.items() if told["ours"][kind]}
            for name, by_kind in told.items()
        },
    }
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

"""Counted FLOPs of one DPO step with SmolLM2-135M: alignkit's against TRL's, and a group of eight completions.

Counting does not depend on the machine or what else it does. To bound memory and time, a batch is counted pair by pair,
each as wide as the batch and pairs of the same lengths once: pairs meet in no product, so they add up.

Run (about 15 minutes on one core, up to 6 GB): python scripts/bench/count_flops.py scripts/bench/results/flops.json
"""

import argparse
import gc
import json
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contestants import SETTINGS, SMOLLM2, Contestant, batch_of
from peft import LoraConfig, get_peft_model
from torch.nn.functional import pad
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from align.models import resolve_model_path
from align.scoring.flops import Architecture, FlopCounter, count_flops, step_flops
from align.scoring.shared_prefix import SharedPrefixModel, prepare
from align.trainers.trl_contract import fast_head

NAMES = ("trl_default", "trl_default_compact", "trl_best", "ours", "ours_online", "ours_checkpointing", "ours_padded")
SHAPES = ((64, 64), (64, 256), (256, 64), (256, 128), (256, 256), (1024, 128), (1024, 256))
MIXES = 1000
GROUP = {"completions": 8, "prompt": 512, "completion": 128}
Pairs = list[tuple[int, int, int]]


def mixed(seed: int, pairs: int = 8, *, prompt: float = 264.0, answer: float = 140.0, spread: float = 0.6) -> Pairs:
    """Log-normal lengths in tokens: mean prompt and answer, and the standard deviation of the logarithms."""
    drawn = np.random.default_rng(seed).lognormal(-(spread**2) / 2, spread, (pairs, 3)) * [prompt, answer, answer]
    return [tuple(row) for row in np.maximum(drawn.round(), 4).astype(int).tolist()]


def alone(pair: tuple[int, int, int], width: int) -> dict[str, torch.Tensor]:
    """The batch of one pair, filled up to `width` with padding."""
    batch = batch_of([pair])
    missing = width - batch["input_ids"].shape[1]
    return {name: value if value.dim() == 1 else pad(value, (0, missing)) for name, value in batch.items()}


def predicted(name: str, architecture: Architecture, pairs: Pairs) -> float:
    """What the step of a contestant should take, in FLOPs."""
    setting, trl = SETTINGS[name], name.startswith("trl")
    return step_flops(
        architecture, pairs, shared=setting.extra.get("shared_prefix") == "on", checkpointing=setting.checkpointing,
        reference_online=setting.reference == "online", head_products=3 if trl else 2,
        head_everywhere=trl and not setting.compact_head,
    )  # fmt: skip


def compared(tflop: dict[str, float]) -> dict[str, float]:
    """How many times the FLOPs of `ours` each of TRL's takes."""
    return {name: tflop[name] / tflop["ours"] for name in NAMES if name.startswith("trl")}


def count(name: str, batches: dict[str, Pairs]) -> tuple[Architecture, dict[str, dict[str, float]]]:
    """One contestant on all batches: TFLOP in total and by kind, and the prediction with its relative error."""
    contestant = Contestant(name)
    for _ in range(2):
        contestant.step(batch_of([(16, 8, 8)] * 2))  # settles how rows are scored
    policy: Any = contestant.trainer.model
    architecture = Architecture.of(policy)
    rows = {}
    for key, pairs in batches.items():
        width = max(prompt + max(answers) for prompt, *answers in pairs)
        kinds: Counter[str] = Counter()
        for pair, times in Counter(pairs).items():
            with FlopCounter(policy) as counter:
                contestant.step(alone(pair, width))
            if sum(counter.by_kind.values()) != counter.get_total_flops():
                raise RuntimeError("the kinds do not add up to the library's total")
            kinds.update({kind: times * flops for kind, flops in counter.by_kind.items()})
        total, expected = kinds.total(), predicted(name, architecture, pairs)
        rows[key] = {
            "tflop": total / 1e12,
            **{kind: flops / 1e12 for kind, flops in kinds.items()},
            "predicted": expected / 1e12,
            "error": expected / total - 1,
        }
        print(name, key, {field: round(value, 4) for field, value in rows[key].items()}, flush=True)
    return architecture, rows


def group() -> dict[str, Any]:
    """One prompt and its completions, forward and backward: TRL's padded rows and head against ours, in float32."""
    n, p, c = GROUP.values()
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat(
        [
            torch.randint(10, 49000, (1, p), generator=generator).expand(n, p),
            torch.randint(10, 49000, (n, c), generator=generator),
        ],
        dim=1,
    )
    labels = ids.clone()
    labels[:, :p] = -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    model = AutoModelForCausalLM.from_pretrained(resolve_model_path(SMOLLM2), dtype=torch.float32)
    add_fused_lm_head(model, outputs=("log_probs",))
    policy = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"))
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02, generator=generator)
    scale = torch.linspace(-1, 1, n)[:, None]

    def passes(scorer: Any, rows: slice) -> None:
        scored = scorer(**{name: value[rows] for name, value in batch.items()}, fused_lm_head=True)
        (scored.log_probs * scale[rows]).sum().backward()

    def gradients() -> list[torch.Tensor]:
        found = [weight.grad.clone() for weight in weights if weight.grad is not None]
        policy.zero_grad()
        return found

    halves = (slice(0, n // 2), slice(n // 2, n))  # rows meet in no product either
    padded = sum(count_flops(lambda rows=rows: passes(policy, rows)) for rows in halves)
    one = gradients()
    prepare(policy)
    with fast_head():
        shared = count_flops(lambda: passes(SharedPrefixModel(policy), slice(None)))
    other = gradients()
    expected = step_flops(
        Architecture.of(policy), [(p, *[c] * n)], shared=True, checkpointing=False, reference_online=False
    )
    pairs = list(zip(one, other, strict=True))
    difference, whole = torch.cat([(a - b).flatten() for a, b in pairs]), torch.cat([a.flatten() for a in one])
    return {
        **GROUP,
        "padded_tflop": padded / 1e12,
        "shared_tflop": shared / 1e12,
        "ratio": padded / shared,
        "predicted_shared_tflop": expected / 1e12,
        "error_of_the_prediction": expected / shared - 1,
        "gradient_relative_difference": float(difference.norm() / whole.norm()),
        "gradient_largest_relative_difference_of_a_weight_matrix": max(
            float((a - b).norm() / a.norm()) for a, b in pairs
        ),
        "gradient_largest_difference_over_largest_entry": max(
            float((a - b).abs().max() / a.abs().max()) for a, b in pairs
        ),
    }


def main() -> None:
    """Count, contestant by contestant, one in memory at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    batches: dict[str, Pairs] = {f"{p}:{r}": [(p, r, r)] * 2 for p, r in SHAPES} | {"mixed": mixed(0)}
    results: dict[str, Any] = {
        "what": "one DPO step: SmolLM2-135M-Instruct, LoRA r=16 on all linear layers, products in bfloat16; 2 pairs of "
        "prompt:answer tokens, or 8 pairs of mixed lengths",
        "mixed_lengths": mixed(0),
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "settings": {
            name: {
                "checkpointing": SETTINGS[name].checkpointing,
                "reference": SETTINGS[name].reference,
                "compact_head": SETTINGS[name].compact_head or name.startswith("ours"),
                **SETTINGS[name].extra,
            }
            for name in NAMES
        },
    }
    counted: dict[str, dict[str, dict[str, float]]] = {}
    architectures = {}
    for name in NAMES:
        architectures[name], counted[name] = count(name, batches)
        gc.collect()
    tflop = {key: {name: counted[name][key]["tflop"] for name in NAMES} for key in batches}
    draws = [
        compared({name: predicted(name, architectures[name], mixed(seed)) for name in NAMES}) for seed in range(MIXES)
    ]
    results |= {
        "tflop": tflop,
        "fewer_than": {key: compared(row) for key, row in tflop.items()},
        "worst_error_of_the_prediction": max(abs(row["error"]) for rows in counted.values() for row in rows.values()),
        "predicted_fewer_than_over_mixed_batches": {
            "batches": MIXES,
            **{name: np.quantile([draw[name] for draw in draws], (0.05, 0.5, 0.95)).tolist() for name in draws[0]},
        },
        "group": group(),
        "detail": counted,
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

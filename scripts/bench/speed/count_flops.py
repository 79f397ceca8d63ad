"""Counted FLOPs of one DPO step with SmolLM2-135M: alignkit's against TRL's, and a group of eight completions.

Counting does not depend on the machine or what else it does. Run (about 10 minutes on two cores):
python scripts/bench/speed/count_flops.py scripts/bench/results/flops.json
"""

import argparse
import gc
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from contestants import SETTINGS, SMOLLM2, Contestant, batch_of
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from align.models.loading import resolve_model_path
from align.scoring.flops import Architecture, count_flops, step_flops
from align.scoring.shared_prefix import SharedPrefixModel, prepare
from align.trainers.shared.trl_contract import fast_head

NAMES = ("trl_default", "trl_default_compact", "trl_best", "ours", "ours_online", "ours_checkpointing")
SHAPES = ((64, 64), (64, 256), (256, 128), (1024, 128))
MIXED = [(612, 95, 210), (88, 31, 54), (233, 160, 72), (410, 301, 188), (57, 22, 140), (150, 64, 33), (301, 90, 97), (97, 410, 120)]  # fmt: skip
GROUP = {"completions": 8, "prompt": 512, "completion": 128}


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
    found = {}
    for way in ("padded", "shared"):

        def passes(way: str = way) -> None:
            policy.zero_grad()
            scorer = SharedPrefixModel(policy) if way == "shared" else policy
            (scorer(**batch, fused_lm_head=True).log_probs * scale).sum().backward()

        if way == "shared":
            prepare(policy)
            with fast_head():
                flops = count_flops(passes)
        else:
            flops = count_flops(passes)
        found[way] = (flops, torch.cat([weight.grad.flatten() for weight in weights]))
    (padded, one), (shared, other) = found["padded"], found["shared"]
    return {
        **GROUP,
        "padded_tflop": padded / 1e12,
        "shared_tflop": shared / 1e12,
        "ratio": padded / shared,
        "gradient_relative_difference": float((one - other).norm() / one.norm()),
    }


def main() -> None:
    """Count, shape by shape, one contestant in memory at a time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    batches = {f"{p}:{r}": [(p, r, r)] * 2 for p, r in SHAPES} | {"mixed": MIXED}
    counted: dict[str, dict[str, float]] = {key: {} for key in batches}
    worst = 0.0
    for name in NAMES:
        contestant = Contestant(name)
        contestant.step(batch_of([(16, 8, 8)] * 2))  # settles how rows are scored
        setting, architecture = SETTINGS[name], Architecture.of(contestant.trainer.model)
        for key, pairs in batches.items():
            batch = batch_of(pairs)
            counted[key][name] = count_flops(lambda batch=batch, c=contestant: c.step(batch)) / 1e12
            if name.startswith("ours"):
                predicted = step_flops(
                    architecture, pairs, shared=name != "ours_padded", checkpointing=setting.checkpointing,
                    reference_online=setting.reference == "online",
                )  # fmt: skip
                worst = max(worst, abs(predicted / 1e12 / counted[key][name] - 1))
            print(name, key, round(counted[key][name], 3), flush=True)
        del contestant
        gc.collect()
    results = {
        "what": "counted TFLOP of one DPO step: SmolLM2-135M-Instruct, LoRA r=16 on all linear layers; 2 pairs of prompt:"
        f"answer tokens, or 8 pairs of mixed lengths {MIXED}",
        "versions": {name: version(name) for name in ("torch", "trl", "transformers", "peft")},
        "tflop": counted,
        "fewer_than": {
            key: {name: row[name] / row["ours"] for name in NAMES if name.startswith("trl")}
            for key, row in counted.items()
        },
        "worst_error_of_the_prediction": worst,
        "group": group(),
    }
    options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""One process of `test_multi_objective_ddp.py`: trains and writes what it saw. Not a test by itself."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from objectives import Oracle, dynamic, first, low, sometimes

from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig
from align.trainers.online.multi_objective import DynamicGRPOTrainer, DynamicRLOOTrainer

GRPO, RLOO = (DynamicGRPOTrainer, DynamicGRPOConfig), (DynamicRLOOTrainer, DynamicRLOOConfig)
SPLIT = {"weighting": "gradient_influence", "weighting_options": {"step": 100.0, "estimator": "split"}}
CASES = {
    "upgrad": (GRPO, {"weighting": "upgrad", "gradient_layers": "all", "loss_type": "dapo", "beta": 0.1}),
    "split": (GRPO, {"loss_type": "dr_grpo", "steps_per_generation": 2, "gradient_accumulation_steps": 2, **SPLIT}),
    "rloo": (RLOO, {"weighting": "max_min", "beta": 0.2}),
}


def outcome(name, folder):
    kind, settings = CASES[name]
    trainer = dynamic(
        *kind, folder / name, rewards=[low, first, sometimes], per_device_train_batch_size=4, max_steps=3, **settings
    )
    oracle, told = Oracle(trainer), []
    asked = trainer._grams
    trainer._grams = lambda *args: told.append(asked(*args)) or told[-1]
    if name == "upgrad":
        trainer.add_callback(oracle)
    trainer.train()
    records = [r for r in trainer.state.log_history if "loss" in r]
    gap = gram_gap = 0.0
    for (seen, (*of_each, rest), weights), (gram, _) in zip(oracle.steps, told if oracle.steps else [], strict=True):
        each = trainer.accelerator.reduce(torch.stack([g - rest for g in of_each]), "mean").double()
        gram_gap = max(gram_gap, float((each @ each.T - gram).abs().max() / gram.abs().max()))
        own = rest + weights @ torch.stack([g - rest for g in of_each])
        gap = max(gap, float((trainer.accelerator.reduce(own, "mean") - seen).abs().max()))
    return {
        "weights": [[v for k, v in r.items() if k.startswith("weights/")] for r in records],
        "advantages": list(trainer._logs["advantages"]),
        "trained": {n: w.flatten().tolist() for n, w in tiny.weights(trainer).items()},
        "gap": gap,
        "gram_gap": gram_gap,
        "largest": max((float(seen.abs().max()) for seen, _, _ in oracle.steps), default=0.0),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    os.environ["ALIGNKIT_CACHE"] = str(out / "cache")
    results = {name: outcome(name, out) for name in CASES}
    (out / f"{torch.distributed.get_rank()}.json").write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

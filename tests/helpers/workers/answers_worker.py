"""One process of `test_answers_ddp.py`: trains on known answers, and rank 0 writes what it saw. Not a test."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from objectives import PROMPTS, TEXTS, answered, first, head_of, low, taught, vowels, windowed

from align.configs.hpt import HPTConfig
from align.configs.online import ReinforceConfig
from align.configs.own_losses import FDPGConfig, TSPMOConfig
from align.trainers.online.hpt import HPTTrainer
from align.trainers.online.matching import FDPGTrainer
from align.trainers.online.multi_objective import ReinforceTrainer
from align.trainers.online.prefixes import TSPMOTrainer

HPT = (HPTTrainer, HPTConfig), {"gate": 1, "columns": {"demonstration": TEXTS}}
TSPMO = (TSPMOTrainer, TSPMOConfig), {"rewards": [vowels, first], "learning_rate": 20.0}
FDPG = (FDPGTrainer, FDPGConfig), {"rewards": [vowels, first], "beta": 0.5, "learning_rate": 0.1}
MANY = [[{"role": "user", "content": f"{p[0]['content']} {n}"}] for n in range(3) for p in PROMPTS]
STREAM = (ReinforceTrainer, ReinforceConfig), {
    "rewards": [first, low], "estimator": "single_stream", "weighting": "fixed", "num_generations": 1, "prompts": MANY,
    "estimator_options": {"rho": "kl", "prompts": "uncertain"}, "learning_rate": 0.2, "max_steps": 4,
}  # fmt: skip
WINDOWS = {"rewards": [vowels, low], "learning_rate": 0.1, "beta": 0.05, "max_steps": 4, "prompts": MANY}
CASES = {"tppo": (None, WINDOWS, {}), "single stream": (*STREAM, {})} | {
    name: (*kind, further)
    for method, kind in {"hpt": HPT, "tspmo": TSPMO, "fdpg": FDPG}.items()
    for name, further in {method: {}, f"{method}, a group on both": {"num_generations": 16}}.items()
}


def outcome(name, folder, processes):
    """Sixteen answers a step over all processes."""
    kind, settings, further = CASES[name]
    made = {"per_device_train_batch_size": 16 // processes, **settings, **further}
    trainer = taught(windowed(folder / name, **made)) if kind is None else answered(kind, folder / name, **made)
    trainer.train()
    own = {key: [r[key] for r in trainer.state.log_history if key in r] for key in ("loss", "loss/demonstrations")}
    table = getattr(trainer.estimator, "table", {}) if hasattr(trainer, "estimator") else {}
    own |= {key: tiny.losses(trainer, key) for key in ("loss/value", "values/tokens", "windows/finished", "kl")}
    own["head"] = head_of(trainer).tolist() if kind is None else []
    own["drift"] = [r["drift"] for r in trainer.state.log_history if "drift" in r]
    own["table"] = [float(v) for _, counts in sorted(table.items()) for v in counts.flatten()]
    return {**own, "weights": {n: w.flatten().tolist() for n, w in tiny.weights(trainer).items()}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    results = {name: outcome(name, out.parent, processes=int(os.environ["WORLD_SIZE"])) for name in CASES}
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

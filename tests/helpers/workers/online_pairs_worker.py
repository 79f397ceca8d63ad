"""One process of `test_online_pairs_ddp.py`: trains on known answers, and rank 0 writes what it saw. Not a test."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from groups import known
from groups import pair_run as trained

CASES = {"online_dpo": {}, "egpo": {"max_grad_norm": 0.5}, "xpo": {"gradient_accumulation_steps": 2}}


def lame(prompts, completions, **_):
    """Gives the answers to one prompt nothing: one of two processes then has fewer pairs."""
    return [
        None if p[0]["content"] == "up" else float(len(c[0]["content"]))
        for p, c in zip(prompts, completions, strict=True)
    ]


def outcome(name, folder, processes):
    """Four prompts a step over all processes and micro-batches."""
    settings = {"optim": "sgd", "learning_rate": 0.1 if name == "egpo" else 5.0} | CASES[name]
    size = 8 // processes // settings.get("gradient_accumulation_steps", 1)
    trainer = trained(
        folder / name, method=name, reward_funcs=[lame], answers=known, per_device_train_batch_size=size, **settings
    )
    return {
        "loss": tiny.losses(trainer),
        "unscored": tiny.losses(trainer, "pairs/unscored"),
        "weights": {n: w.flatten().tolist() for n, w in tiny.weights(trainer).items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    results = {name: outcome(name, out.parent, processes=int(os.environ["WORLD_SIZE"])) for name in CASES}
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

"""One process of `test_answers_ddp.py`: trains on known answers, and rank 0 writes what it saw. Not a test."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from objectives import TEXTS, answered

from align.configs.hpt import HPTConfig
from align.trainers.online.hpt import HPTTrainer

HPT = (HPTTrainer, HPTConfig), {"gate": 1, "columns": {"demonstration": TEXTS}}
CASES = {"hpt": (*HPT, {}), "hpt, a group on both": (*HPT, {"num_generations": 16})}


def outcome(name, folder, processes):
    """Sixteen answers a step over all processes."""
    kind, settings, further = CASES[name]
    trainer = answered(kind, folder / name, per_device_train_batch_size=16 // processes, **settings, **further)
    trainer.train()
    own = {key: [r[key] for r in trainer.state.log_history if key in r] for key in ("loss", "loss/demonstrations")}
    return {**own, "weights": {n: w.flatten().tolist() for n, w in tiny.weights(trainer).items()}}


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    results = {name: outcome(name, out.parent, processes=int(os.environ["WORLD_SIZE"])) for name in CASES}
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

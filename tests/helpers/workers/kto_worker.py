"""Small runs of KTO and BCO, and one process of `test_kto_ddp.py`. Not a test by itself."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from datasets import Dataset

from align import BCOConfig, BCOTrainer, KTOConfig, KTOTrainer

METHODS = {
    "kto": (KTOTrainer, KTOConfig, "kto/baseline", {}),
    "bco": (BCOTrainer, BCOConfig, "bco/shift", {}),
    "bco_ratio": (BCOTrainer, BCOConfig, "bco/shift", {"prompt_encoder": "reference", "min_density_ratio": 0.0}),
}
"""Trainer, configuration, what each reckons rewards from, and settings."""


def rows(n=16):
    """Two labelled answers to each prompt, in an order that mixes labels and prompts."""
    made = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "completion": [{"role": "assistant", "content": answer}],
            "label": label,
        }
        for prompt, chosen, rejected in tiny.ROWS
        for answer, label in ((chosen, True), (rejected, False))
    ]
    return Dataset.from_list([made[(7 * i) % 20] for i in range(n)])


def trainer(folder, method="kto", **kw):
    settings = {"shuffle_rows": False} | METHODS[method][3] | kw
    return tiny.trainer(*METHODS[method][:2], folder, data=settings.pop("data", rows()), **settings)


def outcome(folder, processes, method):
    """Four rows a step over all processes; five evaluation rows, which two processes cannot share evenly."""
    made = trainer(
        folder, method, eval_data={"b": rows(5)}, per_device_train_batch_size=4 // processes,
        per_device_eval_batch_size=2,
    )  # fmt: skip
    made.train()
    evaluated = made.evaluate()
    keys = ("loss", METHODS[method][2], "rewards/margins")
    return {
        "train": {key: tiny.losses(made, key) for key in keys},
        "eval": {key: evaluated[f"eval_b_{key}"] for key in keys},
        "weights": {n: w.flatten().tolist() for n, w in tiny.weights(made).items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    os.environ["ALIGNKIT_CACHE"] = str(out.parent / "cache")
    result = outcome(out.parent / "run", processes=int(os.environ["WORLD_SIZE"]), method=sys.argv[2])
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

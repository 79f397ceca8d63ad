"""One process of `test_pairwise_invariance.py`: trains every objective, and rank 0 writes what it saw. Not a test."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import scored
import tiny
import torch

from align import AOTConfig, AOTTrainer, BetaDPOConfig, BetaDPOTrainer, TDPOConfig, TDPOTrainer
from align.configs.pairwise import PairwiseConfig
from align.trainers.pairs.pairwise import PairwiseTrainer

WHOLE_STEP = {
    "aot": (AOTTrainer, AOTConfig, {}),
    "aot_unpaired": (AOTTrainer, AOTConfig, {"matching": "unpaired"}),
    "beta_dpo": (BetaDPOTrainer, BetaDPOConfig, {"margin_weight": 0.9}),
    "beta_dpo_filtered": (BetaDPOTrainer, BetaDPOConfig, {"margin_weight": 0.9, "filter_ratio": 0.3}),
}
"""Methods whose loss depends on all pairs of a step: trainer, configuration, settings."""
OWN = {
    "tdpo1": (TDPOTrainer, TDPOConfig, {"kl_weight": 1.0, "hold_chosen_kl": False}),
    "tdpo2": (TDPOTrainer, TDPOConfig, {}),
}
"""Methods with a trainer of their own whose loss depends on each pair alone."""
NAMES = [*scored.OBJECTIVES, *WHOLE_STEP, *OWN]


def outcome(name: str, folder: Path, processes: int) -> dict:
    """Four pairs a step over all processes; five evaluation pairs, which two processes cannot share evenly."""
    cls, config, settings = (WHOLE_STEP | OWN).get(name) or (PairwiseTrainer, PairwiseConfig, scored.OBJECTIVES[name])
    trainer = tiny.trainer(
        cls, config, folder / name, data=scored.pairs(8), eval_data={"b": scored.pairs(5)},
        per_device_train_batch_size=4 // processes, per_device_eval_batch_size=2, max_steps=2, learning_rate=0.003,
        **settings,
    )  # fmt: skip
    trainer.train()
    evaluated = trainer.evaluate()
    return {
        "loss": tiny.losses(trainer),
        "margins": tiny.losses(trainer, "rewards/margins"),
        "eval": {k: v for k, v in evaluated.items() if k.startswith("eval_") and not k.endswith(("time", "second"))},
        "weights": {n: w.flatten().tolist() for n, w in tiny.weights(trainer).items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    os.environ["ALIGNKIT_CACHE"] = str(out.parent / "cache")
    results = {name: outcome(name, out.parent, processes=int(os.environ["WORLD_SIZE"])) for name in NAMES}
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

"""One process of `test_ddp.py` and `test_processes.py`: trains, evaluates, and rank 0 writes what it saw. Not a test by itself."""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from transformers import TrainerCallback
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer

from align import DPOConfig, DPOTrainer, RPOConfig, RPOTrainer
from align.trainers.shared import trl_contract

CASES = {
    "dpo": (DPOTrainer, DPOConfig, {"shared_prefix": "off"}),
    "rpo": (RPOTrainer, RPOConfig, {"eta": 0.5, "shared_prefix": "on"}),
    "stored": (RPOTrainer, RPOConfig, {"eta": 0.5, "precompute_ref_log_probs": True, "max_tokens_per_batch": 60}),
    "half": (DPOTrainer, DPOConfig, {"trained_part": "half", "redraw_every": 2, "loraplus_lr_ratio": 4.0}),
    "trl": (TRLDPOTrainer, TRLDPOConfig, {}),
}
BY_NAME = {"skips": (DPOTrainer, DPOConfig, {}), "dies": (DPOTrainer, DPOConfig, {})}
OUR_HEAD = trl_contract._Head


class Fault(TrainerCallback):
    """In the second step the first process has a loss that is not finite, or the last one dies."""

    def __init__(self, name, trainer):
        self.name, self.trainer, self.plain = name, trainer, trainer.preference_loss

    def on_step_begin(self, args, state, control, **_):
        second = state.global_step == 1
        if second and self.name == "dies" and args.process_index == args.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        broken = second and self.name == "skips" and args.process_index == 0
        self.trainer.preference_loss = self.infinite if broken else self.plain

    def infinite(self, *pairs):
        """The gradient stays finite: a NaN in it would reach every process by itself."""
        result = self.plain(*pairs)
        return result._replace(losses=result.losses + float("inf"))


def outcome(name: str, folder: Path, processes: int) -> dict:
    """Four pairs a step over all processes; ten evaluation pairs, which two processes cannot share evenly."""
    cls, config, kw = (CASES | BY_NAME)[name]
    trl_contract._Head = trl_contract.CHUNKED_HEAD if name == "dpo" else OUR_HEAD  # TRL's, to the last digits
    trainer = tiny.trainer(
        cls, config, folder / name, data=tiny.pairs(8), eval_data={"a": tiny.pairs(), "b": tiny.pairs(3)},
        per_device_train_batch_size=4 // processes, per_device_eval_batch_size=3, max_steps=4, **kw,
    )  # fmt: skip
    if name in BY_NAME:
        trainer.add_callback(Fault(name, trainer))
    trainer.train()
    evaluated = trainer.evaluate()
    return {
        "loss": tiny.losses(trainer),
        "margins": tiny.losses(trainer, "rewards/margins"),
        "tokens": tiny.losses(trainer, "num_tokens"),
        "eval": {k: v for k, v in evaluated.items() if k.startswith("eval_") and not k.endswith(("time", "second"))},
        "skipped": trainer.guard.skipped if hasattr(trainer, "guard") else 0,
        "weights": {n: w.flatten().tolist() for n, w in tiny.weights(trainer).items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    os.environ["ALIGNKIT_CACHE"] = str(out.parent / "cache")
    count = torch.distributed.get_world_size() if torch.distributed.is_initialized() else int(os.environ["WORLD_SIZE"])
    results = {name: outcome(name, out.parent, processes=count) for name in sys.argv[2:] or CASES}
    if torch.distributed.get_rank() == 0:
        out.write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

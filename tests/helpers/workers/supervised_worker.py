"""Small supervised runs for tests, and one process of `test_supervised_ddp.py`. Not a test by itself."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from datasets import Dataset
from peft import LoraConfig

from align.configs.supervised import SupervisedConfig
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.completions.supervised import SupervisedTrainer

OBJECTIVES = {
    "nll": {"nll": 1.0},
    "dft": {"dft": 1.0},
    "asft": {"dft": 1.0, "ref_kl": 0.5},
    "poft": {"poft": 1.0},
    "rwr": {"rwr": 1.0},
    "awr": {"awr": 1.0},
    "unlikelihood": {"unlikelihood": 1.0},
    "fsft": {"fsft": 1.0},
    "mixed": {"nll": 0.5, "poft": 2.0, "fsft": 0.25, "ref_kl": 0.1},
}


def rows(n=10, chat=False):
    """Completions of very different lengths, so that means over rows and over tokens differ."""
    texts = [(p, c * (1 + 3 * (i % 3))) for i, (p, c, _) in enumerate((tiny.ROWS * 2)[:n])]
    data = [
        {"prompt": p, "completion": " " + c, "reward": 0.7 - 0.4 * (i % 4), "aligned_logp": -5.0 - 0.3 * i}
        for i, (p, c) in enumerate(texts)
    ]
    if chat:
        for row in data:
            row["prompt"] = [{"role": "user", "content": row["prompt"]}]
            row["completion"] = [{"role": "assistant", "content": row["completion"]}]
    return Dataset.from_list(data)


def arguments(config, folder, **kw):
    settings = {
        "output_dir": str(folder), "max_steps": 4, "per_device_train_batch_size": 2, "learning_rate": 0.01,
        "use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1, "seed": 3, "save_strategy": "no",
        "gradient_checkpointing": False, "disable_tqdm": True,
    }  # fmt: skip
    return config(**settings | kw)


def trainer(
    folder, *, cls=SupervisedTrainer, config=SupervisedConfig, data=None, eval_data=None, model=None, lora=None, **kw
):
    tokenizer = tiny_tokenizer()
    return cls(
        model=tiny_model(tokenizer) if model is None else model,
        args=arguments(config, folder, **kw),
        train_dataset=rows() if data is None else data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        peft_config=LoraConfig(**tiny.LORA | (lora or {})) if model is None else None,
    )


def outcome(name, folder, processes):
    """Eight rows a step over all processes, four in an epoch's last; ten evaluation rows, which two cannot share evenly."""
    made = trainer(
        folder / name, objective=OBJECTIVES[name], data=rows(12), eval_data={"a": rows(), "b": rows(3)},
        per_device_train_batch_size=2, gradient_accumulation_steps=4 // processes, per_device_eval_batch_size=3,
    )  # fmt: skip
    made.train()
    evaluated = made.evaluate()
    head = {} if made.values is None else {"value head": made.values.weight, "value bias": made.values.bias}
    return {
        "loss": tiny.losses(made),
        "tokens": tiny.losses(made, "num_tokens"),
        "eval": {k: v for k, v in evaluated.items() if not k.endswith(("time", "second", "epoch"))},
        "weights": {n: w.flatten().tolist() for n, w in (tiny.weights(made) | head).items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    processes = int(os.environ["WORLD_SIZE"])
    results = {name: outcome(name, out.parent, processes) for name in OBJECTIVES}
    if int(os.environ["RANK"]) == 0:
        out.write_text(json.dumps(results))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

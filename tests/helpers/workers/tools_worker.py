"""One process of `test_tools_ddp.py`: trains a policy that calls tools, and writes what it learnt. Not a test by itself."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny
import torch
from datasets import Dataset
from peft import LoraConfig
from tool_world import ANSWERS_LEARNT, LEARNT, corpus
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.configs.online import DynamicGRPOConfig
from align.models.stopping import stop_ids
from align.rewards import make_reward
from align.sampling.generate import Decoding, sampled_ids, seed_of
from align.sampling.trl_loop import Row
from align.tools import make_environment, read_calls
from align.trainers.online.multi_objective import DynamicGRPOTrainer


def trainer_of(caller, out, *, rows, **settings):
    """Trains the learnt caller in an environment that owns a reward; `rows` are those of a process."""
    tokenizer = AutoTokenizer.from_pretrained(caller)
    read_calls(tokenizer)
    data = [{"prompt": [{"role": "user", "content": q}], "answer": ANSWERS_LEARNT[q]} for q in LEARNT]
    return DynamicGRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(caller),
        reward_funcs=[make_reward("fewer_calls", most=4)],
        args=DynamicGRPOConfig(
            **{
                "output_dir": str(out), "max_steps": 2, "per_device_train_batch_size": rows, "num_generations": 2,
                "generation_batch_size": 8, "use_cpu": True, "bf16": False, "report_to": "none", "save_strategy": "no",
                "disable_tqdm": True, "max_completion_length": 250, "learning_rate": 0.1, "optim": "sgd", "gradient_checkpointing": False,
                "temperature": 1.0, "logging_steps": 1, "beta": 0.0, "max_tool_calling_iterations": 3, "shuffle_dataset": False,
                **settings,
            }
        ),
        train_dataset=Dataset.from_list(data),
        processing_class=tokenizer,
        peft_config=LoraConfig(**tiny.LORA),
        environment_factory=make_environment("search", path=corpus(Path(out))),
    )  # fmt: skip


def by_row(trainer):
    """Let the noise of a completion be of its place in the whole batch, whichever process has it."""
    tokenize, tokenizer = trainer._tokenize_prompts, trainer.processing_class

    def numbered(prompts):
        ids, *rest = tokenize(prompts)
        first = trainer.accelerator.process_index * len(ids)
        return [Row(each, first + number) for number, each in enumerate(ids)], *rest

    def write(prompt_ids, *_, **__):
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        seeds = [seed_of(list(row), row.number, trainer.state.global_step) for row in prompt_ids]
        decoding = Decoding(trainer.max_completion_length, trainer.temperature)
        ids = [list(row) for row in prompt_ids]
        return sampled_ids(model, tokenizer, stop_ids(tokenizer, model), ids, seeds, decoding), None

    trainer._tokenize_prompts, trainer._generate_single_turn = numbered, write
    return trainer


def outcome(caller, out, *, rows):
    trainer = by_row(trainer_of(caller, out, rows=rows))
    trainer.train()
    told = [r for r in trainer.state.log_history if "loss" in r]
    return {
        "trained": {name: w.flatten().tolist() for name, w in tiny.weights(trainer).items()},
        "calls": [r["tools/call_frequency"] for r in told],
        "failed": [r["tools/failure_frequency"] for r in told],
        "rewards": [[r["objectives/fewer_calls"], r["objectives/SearchEnvironment"]] for r in told],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    caller, out, rows = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    rank = os.environ["RANK"]
    folder = out / str(rank)
    folder.mkdir()
    result = outcome(caller, folder, rows=rows)
    (out / f"{torch.distributed.get_rank()}.json").write_text(json.dumps(result))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

"""What a weighting rule adds to a GRPO step, as a ratio: rules take turns on the same batches, in one process.

A step is: generate, score, weigh, learn. Weighing is timed for each rule next to learning and to generating the same
batch, so that what disturbs the machine disturbs all. The model has the shape of SmolLM2-135M, random weights and LoRA.

Run (some minutes on two cores): python scripts/bench/speed/weighting.py scripts/bench/results/weighting.json
"""

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from align.configs.online import DynamicGRPOConfig
from align.models.tiny import tiny_tokenizer
from align.trainers.online.multi_objective import DynamicGRPOTrainer
from align.weighting import make_rule

LIKE_SMOLLM2 = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "bos_token_id": None,
}  # fmt: skip
CONTENDERS: dict[str, tuple[str, dict[str, Any], int | str, str]] = {
    "fixed": ("fixed", {}, 4, "gradients"),
    "max_min": ("max_min", {}, 4, "gradients"),
    "hypervolume": ("hypervolume", {"bounds": [[0.0, 1.0]] * 3}, 4, "gradients"),
    "upgrad, advantages": ("upgrad", {}, 4, "advantages"),
    "upgrad, last 4 layers": ("upgrad", {}, 4, "gradients"),
    "mgda, last 4 layers": ("mgda", {}, 4, "gradients"),
    "influence, last 4 layers": ("gradient_influence", {}, 4, "gradients"),
    "upgrad, all layers": ("upgrad", {}, "all", "gradients"),
}
"""Name: rule, its options, layers, gram."""


def low(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of tokens from the first half of the vocabulary."""
    return [sum(i < 24576 for i in ids) / len(ids) for ids in completion_ids]


def first(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Where the first token lies in the vocabulary."""
    return [ids[0] / 49152 for ids in completion_ids]


def even(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of even tokens."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def trainer_of(folder: str, prompts: int, completions: int, tokens: int) -> Any:
    """A trainer that takes no step by itself."""
    tokenizer = tiny_tokenizer()
    text = "How many apples are left if three of the twenty are eaten, and who ate them? "
    args = DynamicGRPOConfig(
        output_dir=folder, weighting="fixed", num_generations=completions, max_completion_length=tokens, beta=0.0,
        per_device_train_batch_size=prompts * completions, report_to="none", save_strategy="no", bf16=False,
        use_cpu=not torch.cuda.is_available(), gradient_checkpointing=False,
    )  # fmt: skip
    trainer = DynamicGRPOTrainer(
        model=LlamaForCausalLM(LlamaConfig(pad_token_id=0, eos_token_id=1, **LIKE_SMOLLM2)),
        reward_funcs=[low, first, even],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [text + str(i) for i in range(64)]}),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = 1
    trainer.model.train()
    return trainer


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measured(trainer: Any, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of generating, weighing and learning by contender; the order is turned around every other round."""
    base = [1 / 3] * 3
    rules = {name: make_rule(rule, base=base, **options) for name, (rule, options, _, _) in CONTENDERS.items()}
    found: dict[str, dict[str, list[float]]] = {name: {"generate": [], "weigh": [], "learn": []} for name in rules}
    rows = trainer.args.per_device_train_batch_size
    for turn in range(rounds + 1):
        places = [(turn * 7 + i // trainer.num_generations) % len(trainer.train_dataset) for i in range(rows)]
        inputs = [trainer.train_dataset[place] for place in places]
        began = now()
        batch = trainer._generate_and_score_completions(inputs)
        generated, rewards = now() - began, trainer._rewards
        for name in rules if turn % 2 else reversed(rules):
            _, _, trainer.args.gradient_layers, trainer.args.gram = CONTENDERS[name]
            trainer.rule, trainer._rewards = rules[name], rewards
            batches = [dict(batch)]
            began = now()
            trainer._weigh(batches)
            weighed = now() - began
            began = now()
            trainer._compute_loss(trainer.model, batches[0]).backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad()
            learnt = now() - began
            if turn:  # the first is a warm-up
                for key, seconds in (("generate", generated), ("weigh", weighed), ("learn", learnt)):
                    found[name][key].append(seconds)
    return found


def summary(found: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Medians over rounds of what weighing adds, to learning alone and to the whole step."""
    rows = {}
    for name, seconds in found.items():
        weigh, learn, generate = seconds["weigh"], seconds["learn"], seconds["generate"]
        alone = [w / x for w, x in zip(weigh, learn, strict=True)]
        whole = [w / (g + x) for w, x, g in zip(weigh, learn, generate, strict=True)]
        rows[name] = {
            "weigh_seconds": statistics.median(weigh),
            "learn_seconds": statistics.median(learn),
            "generate_seconds": statistics.median(generate),
            "added_to_learning": statistics.median(alone),
            "added_to_learning_min": min(alone),
            "added_to_learning_max": max(alone),
            "added_to_step": statistics.median(whole),
            "rounds": len(alone),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--completions", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    set_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainer_of(folder, options.prompts, options.completions, options.tokens)
        rows = summary(measured(trainer, options.rounds))
    for name, row in rows.items():
        print(f"{name:26} +{row['added_to_learning']:7.1%} of learning, +{row['added_to_step']:6.1%} of the step")
    about = {
        "settings": {key: value for key, value in vars(options).items() if key != "out"},
        "trainable_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(about | {"rules": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()

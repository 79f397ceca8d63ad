"""Time and FLOPs of one online step (sampling, scoring, loss, update): alignkit's GRPO and TRL's, in one process.

And of an evaluation's answers, four to a prompt, sampled and scored: `align.sampling.generate`, and `generate` of transformers
with `num_return_sequences`; both then run every answer behind its whole prompt, as either would.

A model of SmolLM2's width and vocabulary with random weights, LoRA r=16 on all linear layers, one prompt in a group of eight, answers cut at
a fixed length. Contestants take turns, the order turned around every other round; results are ratios of the same round.
CPU seconds of one thread. FLOPs are counted by torch over one whole step.

Run (about half an hour): python scripts/bench/speed/online.py scripts/bench/results/online.json
With --evaluation, of the second alone (ten minutes); what the file holds of the first stays.
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
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, set_seed
from trl import GRPOConfig as TRLGRPOConfig
from trl import GRPOTrainer as TRLGRPOTrainer

from align import GRPOConfig, GRPOTrainer
from align.models.tiny import tiny_tokenizer
from align.sampling import generate as sampling_module
from align.sampling.generate import Decoding, generate
from align.scoring.completions import completion_logps

GROUP = 8
VOCABULARY = 49_152  # of SmolLM2; texts are those of a small tokenizer, which skips what it does not know
SAMPLES, PROMPTS = 4, 4  # of an evaluation; answers to all prompts in one batch
SHAPES = {
    (128, 64): 3,
    (128, 128): 3,
    (512, 64): 3,
    (512, 128): 2,
    (1024, 64): 2,
    (1024, 128): 1,
}  # prompt, answer: rounds
CONTESTANTS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "ours": (GRPOTrainer, GRPOConfig, {}),
    "ours, prompts apart": (GRPOTrainer, GRPOConfig, {"shared_prefix": "off"}),
    "trl_default": (TRLGRPOTrainer, TRLGRPOConfig, {}),
    "trl_paged": (TRLGRPOTrainer, TRLGRPOConfig, {"use_transformers_continuous_batching": True}),
}


def model_of(tokenizer: Any, layers: int) -> LlamaForCausalLM:
    """SmolLM2's width, random weights."""
    set_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=576, intermediate_size=1536, num_hidden_layers=layers,
            num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=4096, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip


def contestant(name: str, prompt: int, answer: int, layers: int, folder: str) -> Any:
    """A trainer whose every step is one group of answers of `answer` tokens to a prompt of `prompt` tokens."""
    trainer, config, more = CONTESTANTS[name]
    tokenizer = tiny_tokenizer()
    model = model_of(tokenizer, layers)
    args = config(
        output_dir=folder, num_generations=GROUP, per_device_train_batch_size=GROUP, max_completion_length=answer,
        steps_per_generation=1, use_cpu=True, bf16=False, report_to="none", save_strategy="no", max_steps=10_000,
        gradient_checkpointing=False, beta=0.0, disable_tqdm=True, logging_strategy="no", learning_rate=1e-5,
        generation_kwargs={"min_new_tokens": answer}, **more,
    )  # fmt: skip
    words = "two plus two is four "
    ids = tokenizer(words * prompt)["input_ids"][:prompt]
    rows = Dataset.from_list([{"prompt": tokenizer.decode(ids)}] * 4)
    made = trainer(
        model=model, reward_funcs=_vowels, args=args, train_dataset=rows, processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    made.create_optimizer_and_scheduler(10_000)
    made.rows = [{"prompt": rows[0]["prompt"]}] * GROUP
    made.current_gradient_accumulation_steps = 1
    return made


def _vowels(completions: list[str], **_: Any) -> list[float]:
    return [sum(text.count(vowel) for vowel in "aeiou") / (1 + len(text)) for text in completions]


def step(trainer: Any) -> None:
    """Sample, score, learn, update."""
    trainer.model.train()
    trainer._step = 0  # sampling is due
    trainer.training_step(trainer.model, list(trainer.rows), num_items_in_batch=None)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()


def evaluated(prompt: int, answer: int, layers: int, rounds: int) -> dict[str, Any]:
    """Seconds of sampling and of scoring, by turns, and what transformers takes as a multiple of ours."""
    tokenizer = tiny_tokenizer()
    model = model_of(tokenizer, layers).eval()
    words = [f"question {number}: what is two plus two and {number} " for number in range(PROMPTS)]
    texts = [tokenizer.decode(tokenizer(text * prompt)["input_ids"][:prompt]) for text in words]
    rows = [tokenizer(text)["input_ids"] for text in texts]
    ids = torch.tensor(rows)

    def ours() -> list[tuple[list[int], list[int]]]:
        made = generate(model, tokenizer, texts, Decoding(answer), samples=SAMPLES, batch_size=PROMPTS * SAMPLES)
        return [(each.prompt_ids, each.completion_ids) for answers in made for each in answers]

    def transformers() -> list[tuple[list[int], list[int]]]:
        with torch.inference_mode():
            out: Any = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=answer, do_sample=True,
                num_return_sequences=SAMPLES, top_k=0,
            )  # fmt: skip
        return [(row[:prompt], row[prompt:]) for row in out.tolist()]

    def score(sequences: list[tuple[list[int], list[int]]]) -> None:
        completion_logps(model, sequences, pad_token_id=int(tokenizer.pad_token_id), batch_size=PROMPTS)

    sampling_module.stop_ids = lambda *_: []  # answers of full length, in both
    model.generation_config.eos_token_id = None
    jobs = {"ours": ours, "transformers": transformers}
    sampling: dict[str, list[float]] = {name: [] for name in jobs}
    scoring: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name in list(jobs) if turn % 2 else reversed(jobs):
            began = time.process_time()
            sequences = jobs[name]()
            between = time.process_time()
            score(sequences)
            sampling[name].append(between - began)
            scoring[name].append(time.process_time() - between)
            if {len(completion) for _, completion in sequences} != {answer} or len(sequences) != PROMPTS * SAMPLES:
                raise SystemExit("answers of other lengths than asked for")
    sums = {n: [a + b for a, b in zip(sampling[n], scoring[n], strict=True)][1:] for n in jobs}
    sampled = {n: values[1:] for n, values in sampling.items()}  # the first round warms up

    def ratio(of: dict[str, list[float]]) -> list[float]:
        found = [a / b for a, b in zip(of["transformers"], of["ours"], strict=True)]
        return [statistics.median(found), min(found), max(found)]

    return {
        "vocabulary": VOCABULARY, "prompt": prompt, "answer": answer, "prompts": PROMPTS, "samples": SAMPLES,
        "sampling_cpu_seconds": sampled, "cpu_seconds": sums,
        "times_ours": {"sampling": ratio(sampled), "sampling and scoring": ratio(sums)},
    }  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--shapes", nargs="*", help="such as 128:128; by default all")
    parser.add_argument("--evaluation", action="store_true", help="measure sampling and scoring alone, not steps")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    shapes = {s: n for s, n in SHAPES.items() if not asked.shapes or f"{s[0]}:{s[1]}" in asked.shapes}
    record: dict[str, Any] = {
        "machine": {"processor": platform.machine(), "cpus": os.cpu_count(), "threads": 1},
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
        "layers": asked.layers,
        "rows": [],
    }
    if asked.evaluation and asked.out.is_file():
        record = {**json.loads(asked.out.read_text(encoding="utf-8")), "evaluation": []}
    for (prompt, answer), rounds in ({} if asked.evaluation else shapes).items():
        with tempfile.TemporaryDirectory() as folder:
            trainers = {name: contestant(name, prompt, answer, asked.layers, folder) for name in CONTESTANTS}
            flops, seconds = {}, {name: [] for name in trainers}
            for name, trainer in trainers.items():
                step(trainer)  # the first packed batch is scored both ways
                with FlopCounterMode(display=False) as counter:
                    step(trainer)
                flops[name] = counter.get_total_flops()
            for turn in range(rounds):
                for name in list(trainers) if turn % 2 else reversed(trainers):
                    began = time.process_time()
                    step(trainers[name])
                    seconds[name].append(time.process_time() - began)
        ours = seconds["ours"]
        ratios = {n: [a / b for a, b in zip(s, ours, strict=True)] for n, s in seconds.items() if n != "ours"}
        row = {
            "vocabulary": VOCABULARY, "prompt": prompt, "answer": answer, "group": GROUP, "cpu_seconds": seconds, "flops": flops,
            "times_ours": {n: [statistics.median(r), min(r), max(r)] for n, r in ratios.items()},
            "flops_times_ours": {n: count / flops["ours"] for n, count in flops.items() if n != "ours"},
        }  # fmt: skip
        record["rows"].append(row)
        print(json.dumps({k: row[k] for k in ("prompt", "answer", "times_ours", "flops_times_ours")}), flush=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for (prompt, answer), rounds in shapes.items():
        row = evaluated(prompt, answer, asked.layers, rounds)
        record.setdefault("evaluation", []).append(row)
        print(json.dumps({k: row[k] for k in ("prompt", "answer", "times_ours")}), flush=True)
        asked.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

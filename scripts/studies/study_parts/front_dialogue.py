"""The task `dialogue` of `fronts.py`: a booking assistant's sentences, with two rewards that are learnt from people's ratings.

Prompts and answers are those of `sfx_multi`: a dialogue act, and sentences for it that people rated for informativeness and
naturalness. A warm-up on a sentence of each prompt of training, whatever its rating, makes SmolLM2-135M-Instruct answer as they do.

Each reward is a reward model of its own (`method: reward_model`), trained on pairs of sentences for the same act, the one with the higher
rating chosen. To be cheap enough for every answer in training it has the first sixteen layers of SmolLM2 only, with LoRA on the last six of
these. Held-out accuracy is that on pairs of other prompts, beside that of "the longer sentence is chosen". The reward
is σ((r - m) / s), where m and s are mean and standard deviation of r over the rated sentences of training: 0.5 is a usual sentence.
The policies' held-out prompts are among those other prompts.
"""

import gzip
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from trl import ModelConfig

import align
from align.annotators.em import margins
from align.files import write_text
from align.models.loading import load_model, load_tokenizer
from align.rewards.load import REWARDS, Known
from align.rewards.texts import stands_in, text_of
from eval.statistics.intervals import mean_estimate
from study_parts.as_json import shown
from study_parts.base import SMOLLM2, adapters, save_whole
from study_parts.front_tasks import Task, write

OBJECTIVES = ("informativeness", "naturalness")
OTHERS, HELD_OUT, SCALED, TOKENS, STEPS = 170, 40, 60, 24, 20
CLEAR, LAYERS, JUDGE_STEPS, JUDGE_BATCH = 1.0, 16, 50, 8
JUDGE_RATES = {"informativeness": 1e-3, "naturalness": 5e-4}
WARM_STEPS, WARM_BATCH, WARM_RATE = 24, 8, 1e-3
Row = dict[str, Any]
VALUE = re.compile(r"=(?:'([^']*)'|([^,()']+))")
TRAIN = {
    "output_dir": "runs/study", "lr_scheduler_type": "constant", "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "save_strategy": "no",
    "logging_steps": 1, "report_to": "none", "seed": 0, "max_length": 160,
}  # fmt: skip


def rated(data: Path) -> tuple[list[Row], list[Row]]:
    """Prompts of training with their rated sentences, and other prompts, drawn by hash."""
    with gzip.open(data / "sfx_multi" / "responses_train.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows.sort(key=lambda row: hashlib.sha256(json.dumps(row["prompt"]).encode()).digest())
    for row in rows:
        row["prompt"] = short(row["prompt"][-1]["content"])
    return rows[OTHERS:], rows[:OTHERS]


def short(prompt: str) -> list[Row]:
    """What is to be booked, and the dialogue act: half as many tokens as the prompt of the data."""
    asked, act = prompt.split("\n", 1)
    return [{"role": "system", "content": asked.split()[3]}, {"role": "user", "content": act}]


def pairs_of(rows: Sequence[Row], objective: str) -> list[Row]:
    """Two sentences of the same prompt whose ratings differ, the better one chosen."""
    return [
        {"prompt": row["prompt"], "chosen": [said(better)], "rejected": [said(worse)]}
        for row in rows
        for two in combinations(row["responses"], 2)
        for worse, better in [sorted(two, key=lambda one: one["scores"][objective])]
        if better["scores"][objective] - worse["scores"][objective] >= CLEAR and worse["content"] != better["content"]
    ]


def said(response: Row) -> dict[str, str]:
    return {"role": "assistant", "content": response["content"]}


def trained(recipe: Row, where: Path) -> Any:
    """The run of a recipe, begun anew."""
    recipe["train"] = TRAIN | recipe["train"]
    path = where.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return align.run(path, [f"train.output_dir={where}"], overwrite=True)


def warm_up(rows: Sequence[Row], out: Path) -> None:
    """The model after some steps on a sentence of each prompt, its first layers on their own for the reward models."""
    texts = [{"prompt": row["prompt"], "completion": [said(row["responses"][k % 2])]} for k, row in enumerate(rows)]
    done = trained({
        "method": "sft", "model": {"model_name_or_path": SMOLLM2, "dtype": "float32"}, "lora": adapters(range(15, 30)),
        "data": {"train": {"path": str(write(out / "warm-up.jsonl", texts))}, "unusable": "drop"},
        "train": {"max_steps": WARM_STEPS, "learning_rate": WARM_RATE, "per_device_train_batch_size": WARM_BATCH,
                  "gradient_accumulation_steps": 1},
    }, out / "warm-run")  # fmt: skip
    save_whole(done.trainer.model.merge_and_unload(), done.trainer.processing_class, out / "warm")


def beginning(out: Path) -> Path:
    """SmolLM2's first layers, as a base of reward models."""
    where = out / "judge-base"
    if not where.is_dir():
        settings = ModelConfig(model_name_or_path=SMOLLM2, dtype="float32")
        model: Any = load_model(settings)
        model.model.layers = model.model.layers[:LAYERS]
        model.config.num_hidden_layers = LAYERS
        save_whole(model, load_tokenizer(settings), where)
    return where


def judge(objective: str, rows: Sequence[Row], out: Path) -> Path:
    """A reward model of an objective, unless there is one; its adapter."""
    where = out / f"judge-{objective}"
    if not (where / "adapter").is_dir():
        pairs = write(out / f"pairs-{objective}.jsonl", pairs_of(rows, objective))
        trained({
            "method": "reward_model", "model": {"model_name_or_path": str(beginning(out)), "dtype": "float32"},
            "lora": adapters(range(LAYERS - 6, LAYERS)), "data": {"train": {"path": str(pairs)}, "unusable": "drop"},
            "train": {"max_steps": JUDGE_STEPS, "learning_rate": JUDGE_RATES[objective], "per_device_train_batch_size": JUDGE_BATCH,
                      "gradient_accumulation_steps": 1},
        }, where)  # fmt: skip
    return where / "adapter"


def told_right(adapter: Path, rows: Sequence[Row], objective: str) -> dict[str, Any]:
    """How often a reward model agrees with people on pairs of other prompts, and how often the longer sentence does."""
    pairs = pairs_of(rows, objective)
    prompts = np.array([json.dumps(pair["prompt"]) for pair in pairs])
    gaps = np.array([len(text_of(pair["chosen"])) - len(text_of(pair["rejected"])) for pair in pairs])
    found = {"reward model": margins([adapter], pairs)[0], "the longer": gaps}
    found["reward model less the longer"] = found["reward model"]
    right = {name: (np.sign(values) + 1) / 2 for name, values in found.items()}
    right["reward model less the longer"] = right["reward model"] - right["the longer"]
    return {
        name: shown(mean_estimate(each, prompts, bounds=(-1.0 if "less" in name else 0.0, 1.0)))
        for name, each in right.items()
    }


def standing(objective: str, adapter: Path, rows: Sequence[Row], kept: Path) -> Callable[..., list[float]]:
    """σ of a reward in standard deviations over the mean of rated sentences."""
    reward = align.make_reward("reward_model", path=str(adapter))
    if not kept.is_file():
        both = [(row["prompt"], [said(one)]) for row in rows[:SCALED] for one in row["responses"]]
        prompts, sentences = map(list, zip(*both, strict=True))
        found = np.array(reward(sentences, prompts=prompts), dtype=float)
        write_text(kept, json.dumps({"mean": found.mean(), "deviation": found.std()}))
    scale = json.loads(kept.read_text(encoding="utf-8"))

    def stands(completions: list[Any], prompts: list[Any], **_: Any) -> list[float]:
        found = np.array(reward(completions, prompts=prompts), dtype=float)
        return (1 / (1 + np.exp(-(found - scale["mean"]) / scale["deviation"]))).tolist()

    stands.__name__ = objective  # by which its figures are logged
    return stands


def values_said(prompt: list[dict[str, str]], answer: str) -> float:
    """The share of the act's values, yes, no and "don't care" aside, that stand in an answer word for word; 1 if it has none."""
    values = ["".join(two) for two in VALUE.findall(prompt[-1]["content"])]
    wanted = [value for value in values if value not in ("yes", "no", "none", "dont_care")]
    return sum(stands_in(value, answer) for value in wanted) / len(wanted) if wanted else 1.0


def prepare(data: Path, out: Path) -> dict[str, Any]:
    """Rated sentences, the warmed-up model, and the two reward models as rewards; how right these are."""
    train, others = rated(data)
    if not (out / "warm").is_dir():
        warm_up(train, out)
    write(out / "held-out.jsonl", [{"prompt": row["prompt"]} for row in others[:HELD_OUT]])
    write(out / "train.jsonl", [{"prompt": row["prompt"]} for row in train])
    told: dict[str, Any] = {}
    for objective in OBJECTIVES:
        adapter = judge(objective, train, out)
        kept = out / f"right-{objective}.json"
        if not kept.is_file():
            write_text(kept, json.dumps(told_right(adapter, others, objective)))
        told[objective] = json.loads(kept.read_text(encoding="utf-8"))
        reward = standing(objective, adapter, train, out / f"scale-{objective}.json")
        REWARDS[objective] = Known(reward, 0, 1, ("prompts",))
    return {"pairs of other prompts told right": told}


DIALOGUE = Task("fronts_dialogue", OBJECTIVES, STEPS, TOKENS, HELD_OUT, prepare, "values said", values_said)

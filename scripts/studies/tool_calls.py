"""A planner that may search before a frozen answerer: what its searches are worth against how many they are.

Run: python scripts/studies/tool_calls.py OUT_FOLDER [--seeds N] [--methods NAME ...]. What is there is not done again; what was killed goes
on. After every method of every seed tool_calls.json and tool_calls.png are written anew.

Facts are invented: 240 sentences on places that do not exist, in a corpus that one tool searches. Half of the questions say the fact
that they ask for, so that a search is worth nothing there; the others cannot be answered without one. Planner and answerer are
SmolLM2-135M-Instruct. The planner first learns demonstrations of both kinds of question, of which every second searches,
whatever the question; so it begins as a coin.

Then two policies, LoRA on the upper half, 12 steps of 2 questions with 4 answers: one weighs what the answerer says alone, the other
0.7 of it and 0.3 of few calls (1 without a call, 0 from two on); the front holds them and the mean of their adapters. `group` compares the
answers to a question, `stratified` half by those that call as often (arXiv:2510.06214). All answer the same 48 other questions once.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from study_parts.as_json import shown
from study_parts.base import SMOLLM2, adapters, warmed
from study_parts.tool_calls_report import HIDDEN, STATED, Found, picture, summary
from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from align.commands.front import main as front
from align.data.loading import DataSource, read
from align.files import write_rows, write_text
from align.fronts.run import MEMBERS, REF
from align.models.loading import load_tokenizer
from align.rewards.calls import FrozenAnswerer
from align.tools.load import make_tool
from align.tools.templates import hold_tools
from eval.report.front import write_front
from eval.statistics.shares import share_estimate

LORA = adapters(range(15, 30))
FACTS, HELD_OUT, SHOWN = 240, 48, 96
"""Facts, those asked of every policy, those of the demonstrations; the rest is for training."""
WARM_STEPS, WARM_BATCH, WARM_RATE = 30, 8, 1e-3
STEPS, ANSWERS, RATE, TOKENS, TURNS = 12, 8, 1.5e-4, 160, 2
USEFUL, FEW, RESULT = "frozen_answerer", "fewer_calls", "tool_calls"
WEIGHTS = [[1.0, 0.0], [0.7, 0.3]]
METHODS: dict[str, dict[str, Any]] = {
    "group": {"estimator": "group"},
    "stratified": {"estimator": "stratified", "estimator_options": {"key": "tool_calls"}},
}
_FIRST = (
    "Bel",
    "Cor",
    "Dun",
    "El",
    "Far",
    "Gor",
    "Hol",
    "Is",
    "Kel",
    "Lor",
    "Mar",
    "Nor",
    "Os",
    "Pel",
    "Ras",
    "Sol",
    "Tar",
    "Ul",
    "Ver",
    "Wen",
)
_LAST = ("ack", "bury", "dale", "esk", "ford", "gate", "ham", "ick", "low", "mere", "ness", "over")
_NAMES = (
    "Anna",
    "Boris",
    "Clara",
    "David",
    "Emma",
    "Felix",
    "Greta",
    "Henry",
    "Ivan",
    "Julia",
    "Karl",
    "Laura",
    "Martin",
    "Nina",
    "Oscar",
    "Paula",
)
_THINGS = ("oak", "chalk", "slate", "copper", "glass", "marble", "brick", "granite", "cedar", "iron")
_ASKED = (  # what the place has, the fact, the question, where the answer is from
    ("lighthouse", "The lighthouse of {place} was built in {year}.", "In which year was the lighthouse of {place} built?", "year"),
    ("mayor", "The mayor of {place} is called {name}.", "What is the mayor of {place} called?", "name"),
    ("bridge", "The bridge of {place} is made of {thing}.", "What is the bridge of {place} made of?", "thing"),
    ("market", "The market of {place} has {number} stalls.", "How many stalls does the market of {place} have?", "number"),
)  # fmt: skip


def facts() -> list[dict[str, Any]]:
    """Invented facts in a fixed order, each with its question, the words that find it, and whether the question says it."""
    rng = np.random.default_rng(0)
    places = [first + last for first in _FIRST for last in _LAST]
    order = rng.permutation(len(places))[:FACTS]
    rows = []
    for number, place in enumerate(places[k] for k in order):
        what, said, asked, answer = _ASKED[number % len(_ASKED)]
        values = {
            "place": place, "year": str(rng.integers(1700, 1990)), "name": str(rng.choice(_NAMES)), "thing": str(rng.choice(_THINGS)),
            "number": str(rng.integers(12, 99)),
        }  # fmt: skip
        fact, kind = said.format(**values), (STATED, HIDDEN)[number // len(_ASKED) % 2]
        question = asked.format(**values)
        prompt = f"{fact} {question}" if kind == STATED else question
        rows.append({"prompt": [{"role": "user", "content": prompt}], "answer": values[answer], "fact": fact, "kind": kind,
                     "query": f"{what} of {place}"})  # fmt: skip
    return rows


def demonstrations(
    rows: list[dict[str, Any]], corpus: Path, tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, str]]:
    """Texts before and after which the planner speaks: every second question of each kind is searched for first."""
    hold_tools(tokenizer)
    search = make_tool("search", path=str(corpus))

    def asked(messages: list[dict[str, Any]]) -> str:
        return str(tokenizer.apply_chat_template(messages, tools=[search], tokenize=False, add_generation_prompt=True))

    made = []
    for number, row in enumerate(rows):
        messages = list(row["prompt"])
        if number % 2:
            call = {"name": "search", "arguments": {"query": row["query"]}}
            made.append({"prompt": asked(messages), "completion": f"<tool_call>{json.dumps(call)}</tool_call>"})
            messages += [
                {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]},
                {"role": "tool", "name": "search", "content": search(row["query"])},
            ]
        made.append({"prompt": asked(messages), "completion": "Ready."})
    return made


def prepare(out: Path) -> None:
    """Write corpus and questions, and train the planner on demonstrations, unless they are there."""
    rows = facts()
    corpus = out / "corpus.jsonl"
    write_rows([{"text": row["fact"]} for row in rows], corpus, replace=True)
    asked = [{key: row[key] for key in ("prompt", "answer", "kind")} for row in rows]
    write_rows(asked[:HELD_OUT], out / "held-out.jsonl", replace=True)
    write_rows(asked[HELD_OUT + SHOWN :], out / "train.jsonl", replace=True)
    if (out / "warm").is_dir():
        return
    settings = ModelConfig(model_name_or_path=SMOLLM2, dtype="float32")
    shown_rows = rows[HELD_OUT : HELD_OUT + SHOWN]
    data = out / "demonstrations.jsonl"
    write_rows(demonstrations(shown_rows, corpus, load_tokenizer(settings)), data, replace=True)
    warmed(data, out, LORA, max_steps=WARM_STEPS, learning_rate=WARM_RATE, per_device_train_batch_size=WARM_BATCH,
           warmup_steps=3, max_length=320)  # fmt: skip


def recipe_of(name: str, out: Path) -> dict[str, Any]:
    """The recipe of a front, without seed and folder."""
    return {
        "method": "dynamic_grpo",
        "model": {"model_name_or_path": str(out / "warm"), "dtype": "float32"},
        "lora": LORA,
        "data": {"train": {"path": str(out / "train.jsonl")}, "eval": {"held_out": {"path": str(out / "held-out.jsonl")}}},
        "tools": {"search": {"path": str(out / "corpus.jsonl")}},
        "rewards": {USEFUL: {"model_name_or_path": SMOLLM2, "dtype": "float32"}, FEW: {"most": 2}},
        "fronts": {"kind": "soups", "weights": WEIGHTS, "sweep": 3, "reference_point": {USEFUL: 0, FEW: 0}},
        "train": {
            "output_dir": "runs/study", "learning_rate": RATE, "lr_scheduler_type": "constant", "max_steps": STEPS,
            "per_device_train_batch_size": ANSWERS, "num_generations": 4, "max_completion_length": TOKENS,
            "max_tool_calling_iterations": TURNS, "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "save_steps": 8,
            "save_total_limit": 1, "logging_steps": 1, "report_to": "none", "seed": 0, **METHODS[name],
        },
        "eval": {"generate": {"prompts": HELD_OUT, "samples": 1, "max_new_tokens": TOKENS, "temperature": 1.0, "seed": 7,
                 "batch_size": HELD_OUT}},
    }  # fmt: skip


def table(path: Path, asked: list[str]) -> np.ndarray:
    """What the answerer said right and the calls of one answer a question, in the order of `asked`; shape (questions, 2)."""
    rows = {json.dumps(row["prompt"]): row for row in read(DataSource(str(path))).to_list()}
    return np.array([[rows[one]["rewards"][0][USEFUL], rows[one]["tool_calls"][0]] for one in asked])


def reached(name: str, seed: int, out: Path) -> Found:
    """Train what is missing of a method with a seed, and read what its policies reach."""
    run, recipe = out / name / f"seed-{seed}", out / f"{name}.yaml"
    write_text(recipe, yaml.safe_dump(recipe_of(name, out), sort_keys=False))
    write_front(front([str(recipe), f"train.seed={seed}", f"train.output_dir={run}", "--resume", "auto"]))
    told = json.loads((run / MEMBERS).read_text(encoding="utf-8"))
    paths = {REF: run / "policies" / REF / "scores.jsonl"} | {m["name"]: run / m["scores"] for m in told["members"]}
    asked = [json.dumps(row["prompt"]) for row in read(DataSource(str(out / "held-out.jsonl"))).to_list()]
    return Found(list(paths), np.stack([table(path, asked) for path in paths.values()]))


def bounds(rows: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """What the answerer says right of held-out questions that it is shown alone, and of all of them with their facts."""
    answerer = FrozenAnswerer(model, dtype="float32")
    golds = [row["answer"] for row in rows]
    alone = [[{"role": "assistant", "content": ""}] for _ in rows]
    told = [[{"role": "tool", "content": row["fact"]}] for row in rows]
    prompts = [row["prompt"] for row in rows]
    return {
        what: shown(share_estimate(np.array([float(one or 0) for one in answerer(said, prompts, answer=golds)])))
        for what, said in (("without a search", alone), ("with the fact", told))
    }


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args(argv)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    prepare(out)
    asked = facts()[:HELD_OUT]
    ends_file = out / "answerer.json"
    if not ends_file.is_file():
        write_text(ends_file, json.dumps(bounds(asked, SMOLLM2)))
    ends = json.loads(ends_file.read_text(encoding="utf-8"))
    every: dict[tuple[int, str], Found] = {}
    for seed in range(options.seeds):
        for name in options.methods:
            every[seed, name] = reached(name, seed, out)
            told = summary(every, np.array([row["kind"] for row in asked])) | {"answerer": ends}
            write_text(out / f"{RESULT}.json", json.dumps(told, indent=1) + "\n")
            (out / f"{RESULT}.png").write_bytes(picture(told))
            print(json.dumps({name: told["seeds"][str(seed)][name]}), flush=True)


if __name__ == "__main__":
    main()

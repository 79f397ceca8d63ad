"""Rewards in Context as stages of rounds: targets in the prompts, and rows that say what was obtained."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState

from align.data.loading import DataSource, read
from align.data.prompts.control import appended, front_targets, normalised, reward_context, top_of_any
from align.data.rows.completions import read_completion
from align.data.rows.messages import RowError
from align.data.split import prompt_position
from align.errors import RunError
from align.files import write_rows, write_text
from align.judges.answered import together
from align.judges.from_scores import refuse_missing
from align.recipe.loading import Recipe
from align.runs.contents import CONTEXT_FILE

from .plan import Place

logger = logging.getLogger(__name__)

ASKED = "asked"
"""The column of the prompt without its targets."""


def original_rows(recipe: Recipe) -> list[dict[str, Any]]:
    """The given answers.

    Raises:
        DataError: If they cannot be read, or lack a column that a reward reads.
    """
    rounds: Any = recipe.rounds
    rows = together([Path(rounds.in_context.originals.path)])
    refuse_missing(rounds.score, rows[0], rounds.in_context.originals.path)
    return rows


def with_targets(recipe: Recipe, rows: Sequence[Mapping[str, Any]], number: int) -> list[dict[str, Any]]:
    """The prompts of a later round, each with the rewards that it asks for; drawn by `train.seed` and the round."""
    rounds: Any = recipe.rounds
    settings, names = rounds.in_context, rounds.score.names()
    rng = np.random.default_rng([recipe.train.seed, number])
    low, high = [settings.low] * len(names), [settings.high] * len(names)
    made = []
    for row in rows:
        asked = front_targets(rng, low, high, smallest=settings.rule == "smallest")
        text = reward_context(dict(zip(names, asked, strict=True)))
        made.append({**row, "prompt": appended(row["prompt"], text), ASKED: row["prompt"]})
    return made


def without_targets(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of answers as they are scored: by their own prompts."""
    return [{**{k: v for k, v in row.items() if k != ASKED}, "prompt": row.get(ASKED, row["prompt"])} for row in rows]


def obtained(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> tuple[list[dict[str, Any]], int, Counter[str]]:
    """One row for each answer with all its rewards; how many lack one, and why training would refuse others."""
    made, unscored, refused = [], 0, Counter[str]()
    for row in rows:
        for completion, rewards in zip(row["completions"], row["rewards"], strict=True):
            found = {name: rewards[name] for name in names}
            if None in found.values():
                unscored += 1
                continue
            one = {"prompt": row["prompt"], "completion": completion, "rewards": found}
            try:
                read_completion(one, {name: name for name in ("prompt", "completion")})
            except RowError as error:
                refused[str(error)] += 1
                continue
            made.append(one)
    return made, unscored, refused


def context_rows(
    rows: Sequence[Mapping[str, Any]], statistics: Mapping[str, tuple[float, float]]
) -> list[dict[str, Any]]:
    """Rows for supervised training whose prompts end with the rewards obtained, in standard deviations, to one decimal."""
    made = []
    for row in rows:
        z = {name: round((row["rewards"][name] - mean) / sd, 1) for name, (mean, sd) in statistics.items()}
        made.append({**row, "prompt": appended(row["prompt"], reward_context(z)), "rewards": z})
    return made


def good_rows(rows: Sequence[dict[str, Any]], quantile: float) -> list[dict[str, Any]]:
    """Those at or above the quantile of any of their rewards."""
    by_name = {name: [row["rewards"][name] for row in rows] for name in (rows[0]["rewards"] if rows else ())}
    return [rows[index] for index in top_of_any(by_name, quantile=quantile)] if rows else []


def context_stage(recipe: Recipe, place: Place) -> dict[str, Any]:
    """The rows of a round: of all given answers in the first, of the good ones among its own in a later one."""
    rounds: Any = recipe.rounds
    if not PartialState().is_main_process:
        return {}
    settings, names = rounds.in_context, rounds.score.names()
    rows, unscored, refused = obtained(_read(place.scores), names)
    left = f"{sum(refused.values())} that training would refuse: {', '.join(refused)}" if refused else ""
    if not rows:
        why = f"no answer has all of its rewards{' but ' * bool(left)}{left}"
        raise RunError(f"round {place.number}: {why}; what was made is kept in {place.run}")
    if left:
        logger.warning("round %d: answers left out: %s", place.number, left)
    if place.number == 1:
        _, statistics = normalised({name: [row["rewards"][name] for row in rows] for name in names})
    else:
        statistics = json.loads((Place(place.run, 1).folder / CONTEXT_FILE).read_text(encoding="utf-8"))["rewards"]
    told = {"rewards": statistics, "low": settings.low, "high": settings.high}
    write_text(place.folder / CONTEXT_FILE, json.dumps(told, indent=1) + "\n")
    made = context_rows(rows, statistics)
    kept = made if place.number == 1 else good_rows(made, settings.quantile)
    write_rows(kept, place.pairs, replace=True)
    return {
        "rows": len(kept),
        "share_kept": round(len(kept) / len(made), 6),
        "unscored": unscored,
        "refused": dict(refused),
    }


def mix_context(recipe: Recipe, place: Place) -> dict[str, Any]:
    """The rows of a later round: its own, those of the later rounds before it, and good ones of the given answers."""
    rounds: Any = recipe.rounds
    settings = rounds.in_context
    good = good_rows(_read(Place(place.run, 1).pairs), settings.quantile)
    ordered = sorted(good, key=lambda row: prompt_position([recipe.train.seed, place.number, row["prompt"], str(row)]))
    given = ordered[: settings.kept]
    own = [row for number in range(2, place.number + 1) for row in _read(Place(place.run, number).pairs)]
    if PartialState().is_main_process:
        write_rows([*own, *given], place.mixed, replace=True)
    return {"own": len(own), "originals": len(given)}


def _read(path: Path) -> list[dict[str, Any]]:
    return read(DataSource(str(path))).to_list()

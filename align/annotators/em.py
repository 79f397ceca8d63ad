"""Groups annotators of texts by EM: a Bradley-Terry adapter for each group, trained by ordinary runs, and who is of which.

Source: Chakraborty et al. 2024, "MaxMin-RLHF" (arXiv:2402.08925), algorithm 2. The authors begin with random groups and train each
model on from where it was; here groups begin as those of linear rewards on the base's features, and each round trains
adapters anew from the base, so that a group's model has seen its own pairs alone.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from align.data.loading import TRAIN, load_set, say_as_read
from align.data.prompts import Prompt, prompt_of
from align.data.rows.scored import text_of
from align.data.split import hold_out
from align.errors import DataError, RunError
from align.files import write_rows, write_text
from align.findings import Finding
from align.models.loading import load_tokenizer
from align.models.preference_model import PreferenceModel, load_preference_base, load_preference_model
from align.models.use import share_weights
from align.recipe.loading import Recipe
from align.rounds.plan import load_training, write_recipe
from align.weighting.groups import (
    adjusted_rand,
    by_annotator,
    groups_by_features,
    likeliest,
    posterior,
)

logger = logging.getLogger(__name__)
Train = Callable[..., Any]
FILE, ANNOTATOR = "groups.json", "annotator"
COMPONENTS, PAIRS_EACH = 64, 50
"""Directions of the features: at most so many, and so many pairs for each."""
LEAST_PAIRS = 2
"""Of a group, without which nothing is trained on it."""


class Annotated(NamedTuple):
    """Pairs with who judged each."""

    rows: list[dict[str, Any]]
    annotator: Int[np.ndarray, " pairs"]
    names: list[str]
    """Of annotators, by their number."""


class Place(NamedTuple):
    """Where the files of a group's training in a round are."""

    folder: Path

    @property
    def run(self) -> Path:
        """The directory of all."""
        return self.folder.parents[1]

    @property
    def recipe(self) -> Path:
        """Of its training."""
        return self.folder / "recipe.yaml"

    @property
    def trained(self) -> Path:
        """Its run directory."""
        return self.folder / "train"

    @property
    def pairs(self) -> Path:
        """Of its annotators."""
        return self.folder / "pairs.jsonl"


def annotated(recipe: Recipe) -> Annotated:
    """The training pairs of a recipe, with their column `annotator`, of texts.

    Raises:
        DataError: If there is no such column, or fewer than two annotators.
        RunError: If the recipe trains no reward model with an adapter, or has several sources.
    """
    if getattr(recipe.train, "dimension", None) != 1:
        raise RunError(f"method: groups are found by reward models, got {recipe.method!r}; take reward_model")
    if recipe.lora is None:
        raise RunError("lora: missing section; the models of the groups are adapters on one base")
    if isinstance(recipe.data.train, list):
        raise RunError("data.train: one source, whose annotators are told apart; join the files")
    if (column := getattr(recipe.train, "reference_column", None)) is not None:
        raise RunError(f"train.reference_column: answers are compared without a {column} here; take reward_model")
    told: list[Finding] = []
    data, _ = load_set(TRAIN, recipe.data, keep=(), texts=(ANNOTATOR,), rows="pairs", told=told)
    if recipe.data.holdout:
        data = hold_out(data, recipe.data.holdout)[0]
    say_as_read(told, TRAIN)
    names = sorted(set(data[ANNOTATOR]))
    if len(names) < 2:
        raise DataError(f"data.train: groups of at least 2 annotators, got {len(names)}")
    number = {name: k for k, name in enumerate(names)}
    return Annotated(data.to_list(), np.array([number[name] for name in data[ANNOTATOR]]), names)


def features(recipe: Recipe, rows: Sequence[dict[str, Any]]) -> Float[np.ndarray, "pairs features"]:
    """Features of the chosen answer less those of the rejected: the base's hidden states, mean over what is read.

    Only the differences' leading principal directions are kept, each of unit size: one for each 50 pairs, and at most 64. With more
    of them a group's rewards fit who is in it by chance.
    """
    tokenizer = load_tokenizer(recipe.model)
    base = load_preference_base(recipe.model, dimension=1, seed=0).eval()
    base.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    reader = PreferenceModel(base, tokenizer, 1, 1.0)
    seen: dict[str, Float[np.ndarray, " d"]] = {}

    def of(prompt: Prompt, answer: str) -> Float[np.ndarray, " d"]:
        key = json.dumps([prompt, answer])
        if key not in seen:
            seen[key] = reader.states(reader.token_ids(prompt, answer)).mean(dim=0).double().cpu().numpy()
        return seen[key]

    both = [[of(prompt_of(row), text_of(row[side])) for side in ("chosen", "rejected")] for row in rows]
    x = np.array([chosen - rejected for chosen, rejected in both])
    values, directions = np.linalg.eigh(x.T @ x / len(x))  # not centred: which side is chosen is what is learnt
    kept = values > 1e-9 * max(values.max(), 1e-300)
    order = np.flatnonzero(kept)[::-1][: min(COMPONENTS, max(2, len(rows) // PAIRS_EACH))]
    return x @ directions[:, order] / np.sqrt(values[order])


def run_em(
    recipe: Recipe, train: Train, *, groups: int = 2, rounds: int = 3, soft: bool = False, allow: Sequence[str] = ()
) -> dict[str, Any]:
    """Groups of annotators and a reward model for each, by EM; returns what `groups.json` of the run directory holds.

    Round 0 groups by `features`. Every further round trains a model on the pairs of each group, as ordinary runs in
    `round-N/group-K/train`, and groups annotators anew by all their choices; it ends where nobody moves. Finished
    trainings are not done again. With `soft` an annotator's group is drawn by its probability in each round (stochastic EM,
    Celeux and Diebolt 1985), and the last probabilities are told.

    Args:
        recipe: Of a reward model, with an adapter; its pairs have a column `annotator`.
        train: `align.train.run`.
        groups: How many.
        rounds: The most trainings of each group's model.
        soft: Whether groups are drawn.
        allow: As for `align.train.run`.

    Raises:
        DataError, RunError: As `annotated`; or if a group is left with fewer than two pairs.
    """
    run, data = Path(str(recipe.train.output_dir)), annotated(recipe)
    if not 2 <= groups <= len(data.names) or rounds < 1:
        raise RunError(
            f"--groups: from 2 to {len(data.names)} annotators, and at least 1 round, got {groups}, {rounds}"
        )
    rng = np.random.default_rng(recipe.train.seed)
    begun = groups_by_features(data.annotator, features(recipe, data.rows), groups, rng=rng, soft=soft)
    told: list[dict[str, Any]] = [{"round": 0, "log_likelihood": begun.log_likelihood, "sizes": _sizes(begun.shares)}]
    if begun.doubt:
        logger.warning("%s", begun.doubt)
    shares, members, value, adapters = begun.shares, begun.members, begun.log_likelihood, []
    for number in range(1, rounds + 1):
        places = [Place(run / f"round-{number}" / f"group-{k + 1}") for k in range(groups)]
        rows = [_rows_of(data, members == k) for k in range(groups)]
        for place, of in zip(places, rows, strict=True):
            if len(of) < LEAST_PAIRS:
                raise RunError(
                    f"{place.folder}: a group is left with {len(of)} pairs; take fewer groups, in another train.output_dir"
                )
        for place, of in zip(places, rows, strict=True):
            _train_group(recipe, place, of, train, allow)
        adapters = [place.trained / "adapter" for place in places]
        total = by_annotator(data.annotator, margins(adapters, data.rows))
        value, new = (posterior if soft else likeliest)(total, shares)
        drawn = np.array([rng.choice(groups, p=row / row.sum()) for row in new]) if soft else new.argmax(axis=1)
        moved, shares = int((new.argmax(axis=1) != members).sum()), new
        told.append({"round": number, "log_likelihood": value, "sizes": _sizes(shares), "moved": moved})
        settled, members = moved == 0, drawn
        if settled:
            break
    record = {
        "groups": groups,
        "annotators": {name: shares[k].round(6).tolist() for k, name in enumerate(data.names)},
        "adapters": [str(path.relative_to(run)) for path in adapters],
        "log_likelihood": value,
        "doubt": begun.doubt,
        "same_as_at_the_beginning": adjusted_rand(begun.members, shares.argmax(axis=1)),
        "rounds": told,
    }
    write_text(run / FILE, json.dumps(record, indent=1) + "\n")
    return record


def margins(adapters: Sequence[Path], rows: Sequence[dict[str, Any]]) -> Float[np.ndarray, "groups pairs"]:
    """Log-odds of each pair's chosen answer under each reward model, in nats; their base is held once."""
    models = [load_preference_model(path) for path in adapters]
    for model in models[1:]:
        share_weights(model.model, models[0].model)
    asked: dict[str, dict[str, None]] = {}  # each answer to a prompt once, however many judge it
    for row in rows:
        of = asked.setdefault(json.dumps(prompt_of(row)), {})
        of |= dict.fromkeys(text_of(row[side]) for side in ("chosen", "rejected"))
    found = []
    for model in models:
        scores = {
            prompt: dict(zip(answers, model.score(json.loads(prompt), list(answers)) / model.tau, strict=True))
            for prompt, answers in asked.items()
        }
        of_rows = [(scores[json.dumps(prompt_of(row))], row) for row in rows]
        found.append([one[text_of(row["chosen"])] - one[text_of(row["rejected"])] for one, row in of_rows])
    return np.array(found)


def _rows_of(data: Annotated, of: np.ndarray) -> list[dict[str, Any]]:
    """Pairs of some annotators, without who judged them."""
    return [
        {key: value for key, value in row.items() if key != ANNOTATOR}
        for row, who in zip(data.rows, data.annotator, strict=True)
        if of[who]
    ]


def _train_group(recipe: Recipe, place: Place, rows: list[dict[str, Any]], train: Train, allow: Sequence[str]) -> None:
    """Train the model of a group on its annotators' pairs, unless that is done."""
    place.folder.mkdir(parents=True, exist_ok=True)
    write_rows(rows, place.pairs, replace=True)
    raw = {name: value for name, value in recipe.raw.items() if name not in ("data", "eval", "expect")}
    raw["data"] = {"train": {"path": str(place.pairs.resolve())}, "unusable": "drop"}
    raw["train"] = dict(raw["train"]) | {"output_dir": "train", "eval_strategy": "no"}
    write_recipe(place, f"{place.folder.parent.name}, {place.folder.name}", raw)
    train(load_training(place), resume="auto" if place.trained.is_dir() else None, allow=allow)


def _sizes(shares: Float[np.ndarray, "annotators groups"]) -> list[float]:
    return shares.sum(axis=0).round(6).tolist()

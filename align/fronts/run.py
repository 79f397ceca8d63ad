"""Trains the policies of a front and estimates each, policy by policy, and goes on wherever it was stopped."""

import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from jaxtyping import Float

from align.data.kept import data_digest
from align.data.loading import DataSource, Loaded, read
from align.errors import RunError
from align.files import write_rows, write_text
from align.judges.from_scores import scorers_of
from align.judges.scoring import score_rows
from align.merging.adapters import load_adapter_factors, save_merged
from align.merging.command import merge, sweep
from align.models.gated import parts
from align.recipe.loading import Recipe
from align.rounds.begin import begin
from align.rounds.ledger import Ledger
from align.rounds.plan import load_training, write_recipe
from align.rounds.validation import PROMPTS, compared_by
from align.runs.contents import FRONTS_FILE, RECIPE_FILE
from align.sampling.answer_file import HowToSample, read_prompts, sample_to_file
from align.sampling.ask import decoding_of
from align.sampling.policy import Policy, policy_of, reference_of

from .plan import ENDS, SOUPS, Place, extension_recipe, first_recipe, manifold_recipe, policies_at_most
from .ready import caller_of, check_front, score_of
from .sparse import Member, two_stages

logger = logging.getLogger(__name__)
Train = Callable[..., Any]
Rows = list[dict[str, Any]]
MEMBERS, REF = "members.json", "ref"


def run_front(
    recipe: Recipe,
    train: Train,
    *,
    resume: bool,
    overwrite: bool = False,
    sets: Loaded | None = None,
    allow: Collection[str] = (),
) -> Path:
    """All policies of a front, and `members.json`. The run directory is claimed already.

    Args:
        recipe: With `fronts`.
        train: `align.train.run`, for the training of each policy.
        resume: Whether to go on in a front that is there.
        overwrite: Delete the front that is there, once recipe and data are known to work.
        sets: The prompts, where they are read already.
        allow: As for `align.train.run`.

    Returns:
        The directory of the front.

    Raises:
        RunError: If the front that is there is another's, or a reward applies to fewer than two prompts.
    """
    rows, same_for_all = check_front(recipe, allow, sets=sets)
    trained = data_digest(same_for_all)
    by = {"data.train": f"{trained['rows']} rows, {trained['sha256'][:12]}", **compared_by(recipe, rows)}
    ledger = begin(recipe, "fronts", FRONTS_FILE, resume=resume, overwrite=overwrite, compared=by)
    making = _Making(recipe, ledger, train, allow)
    making.prompts(rows)
    making.estimate(0, REF, reference_of(recipe), [])
    fronts: Any = recipe.fronts
    {"soups": _soups, "manifold": _manifold, "c_morl": _c_morl}[fronts.kind](making)
    making.write_members()
    return making.run


def _soups(making: "_Making") -> None:
    """A policy for each weight vector, then weighted sums of their adapters."""
    names = [member.name for member in making.first_policies()]
    _mixed(making, names, [Place(making.run, name).trained / "adapter" for name in names])


def _manifold(making: "_Making") -> None:
    """An adapter for each reward, trained at once as parts of one; then weighted sums of them.

    Source: Dimitriadis et al. 2023, "Pareto manifold learning" (arXiv:2210.09759), algorithm 1 with one draw a step.
    """
    recipe, names = making.recipe, [f"end-{k}" for k in range(1, len(making.recipe.rewards) + 1)]
    whole = making.trained(0, ENDS, manifold_recipe(recipe), [])
    out = making.run / ENDS
    adapters = [out / name / "adapter" for name in names]

    def part() -> dict[str, int]:
        if PartialState().is_main_process:
            shutil.rmtree(out, ignore_errors=True)  # what a kill left
            adapter = load_adapter_factors(whole)
            for folder, factors in zip(adapters, parts(adapter.factors, len(names)), strict=True):
                save_merged(folder, adapter, factors)
        return {"ends": len(names)}

    making.ledger.stage(0, ENDS, [whole], adapters, part)
    for k, (name, adapter) in enumerate(zip(names, adapters, strict=True)):
        weights = [float(i == k) for i in range(len(names))]
        making.add(0, name, policy_of(str(adapter)), adapter, {"weights": weights})
    _mixed(making, names, adapters)


def _mixed(making: "_Making", names: Sequence[str], adapters: Sequence[Path]) -> None:
    """Weighted sums of adapters, of which each is a member of the front already."""
    fronts: Any = making.recipe.fronts
    out = making.run / SOUPS
    mixed = [v for v in sweep(len(names), fronts.sweep or 5) if max(v) < 1]  # ends are the policies themselves
    if not mixed:
        return

    def mix() -> dict[str, int]:
        if PartialState().is_main_process:
            shutil.rmtree(out, ignore_errors=True)  # by a kill, before its line was written
            merge(adapters, out, weights=mixed)
        return {"soups": len(mixed)}

    soups = [out / f"soup-{number:02}" / "adapter" for number in range(len(mixed))]
    making.ledger.stage(1, SOUPS, adapters, soups, mix)
    for number, (vector, adapter) in enumerate(zip(mixed, soups, strict=True)):
        parts = {name: weight for name, weight in zip(names, vector, strict=True) if weight}
        making.add(1, f"soup-{number:02}", policy_of(str(adapter)), adapter, {"soup": parts})
    making.fronts = [list(names), list(making.made)]


def _c_morl(making: "_Making") -> None:
    """Policies for fixed weights, then extensions of the sparse points of their front."""
    fronts: Any = making.recipe.fronts
    objectives = list(making.recipe.rewards)

    def extend(member: Member, objective: int, number: int) -> Member:
        start = Place(making.run, member.name).trained
        name = f"{member.name}-to-{objective + 1}"
        made = {"from": member.name, "towards": objectives[objective]}
        recipe = extension_recipe(making.recipe, start, member.values, objective)
        return making.policy(number, name, recipe, made, [start / "adapter"])

    found = two_stages(
        making.first_policies(), extend, extensions=fronts.extensions, points=fronts.points, most=fronts.most
    )
    making.fronts = [[member.name for member in front] for front in found]


class _Making:
    """A front on its way: trains and estimates policies, each once."""

    def __init__(self, recipe: Recipe, ledger: Ledger, train: Train, allow: Collection[str]) -> None:
        self.recipe, self.run, self.train, self.allow, self.ledger = recipe, ledger.run, train, allow, ledger
        self.made: dict[str, dict[str, Any]] = {}
        self.fronts: list[list[str]] = []

    def prompts(self, rows: Rows) -> None:
        """Write the prompts that all policies are estimated on."""

        def told() -> dict[str, int]:
            if PartialState().is_main_process:
                write_rows(rows, self.run / PROMPTS, replace=True)
            return {"prompts": len(rows)}

        self.ledger.stage(0, "prompts", [], [self.run / PROMPTS], told)

    def first_policies(self) -> list[Member]:
        """A policy for each weight vector."""
        fronts: Any = self.recipe.fronts
        vectors = fronts.vectors(len(self.recipe.rewards))
        return [
            self.policy(0, f"first-{k}", first_recipe(self.recipe, weights), {"weights": weights}, [])
            for k, weights in enumerate(vectors, start=1)
        ]

    def policy(
        self, number: int, name: str, recipe: Mapping[str, Any], made: Mapping[str, Any], inputs: Sequence[Path]
    ) -> Member:
        """Train a policy by its recipe, unless that is done, and estimate it."""
        adapter = self.trained(number, name, recipe, inputs)
        return self.add(number, name, policy_of(str(adapter.parent)), adapter, made)

    def trained(self, number: int, name: str, recipe: Mapping[str, Any], inputs: Sequence[Path]) -> Path:
        """Train by a recipe, unless that is done; the adapter."""
        place = Place(self.run, name)
        logger.warning("policy %d of at most %d: %s", len(self.made) + 1, policies_at_most(self.recipe), name)
        place.folder.mkdir(parents=True, exist_ok=True)
        if PartialState().is_main_process and not place.recipe.is_file():
            write_recipe(place, name, recipe)
        PartialState().wait_for_everyone()
        adapter = place.trained / "adapter"

        def learn() -> dict[str, Any]:
            begun = (place.trained / RECIPE_FILE).is_file()
            done = self.train(load_training(place), resume="auto" if begun else None, allow=self.allow)
            return {"steps": done.trainer.state.global_step}

        self.ledger.stage(number, f"train {name}", [place.recipe, *inputs], [adapter], learn)
        return adapter

    def add(self, number: int, name: str, policy: Policy, adapter: Path, made: Mapping[str, Any]) -> Member:
        """Take a policy for a member, and estimate it."""
        values = self.estimate(number, name, policy, [adapter])
        self.made[name] = {
            "name": name,
            "made": dict(made),
            "adapter": str(adapter.relative_to(self.run)),
            "scores": str(Place(self.run, name).scores.relative_to(self.run)),
        }
        return Member(name, values)

    def estimate(self, number: int, name: str, policy: Policy, inputs: Sequence[Path]) -> tuple[float, ...]:
        """Answers of a policy to the common prompts, their rewards, and the mean of each."""
        place, settings = Place(self.run, name), self.recipe.eval.generate
        assert settings is not None
        prompts = self.run / PROMPTS

        def answer() -> dict[str, int]:
            place.folder.mkdir(parents=True, exist_ok=True)
            how = HowToSample(decoding_of(settings), settings.samples, settings.batch_size)
            rows = read_prompts(DataSource(str(prompts)))
            who = policy._replace(caller=caller_of(self.recipe))
            return {"answers": sample_to_file(who, rows, how, place.answers, who=name, replace=True)}

        def score() -> dict[str, Any]:
            if not PartialState().is_main_process:
                return {}
            scorers = scorers_of(score_of(self.recipe), self.recipe.model, where="rewards", allow=list(self.allow))
            scored = score_rows(read(DataSource(str(place.answers))).to_list(), scorers)
            write_rows(scored.rows, place.scores, replace=True)
            return {"unscored": scored.unscored}

        self.ledger.stage(number, f"answers {name}", [prompts, *inputs], [place.answers], answer)
        self.ledger.stage(number, f"scores {name}", [place.answers], [place.scores], score)
        table = scores_by_prompt(place.scores, list(self.recipe.rewards))
        known = (~np.isnan(table)).sum(axis=0)
        if known.min() < 2:
            reward = list(self.recipe.rewards)[int(known.argmin())]
            raise RunError(
                f"{place.scores}: the reward {reward!r} applies to {known.min()} prompts, and an interval needs 2; ask more "
                "in eval.generate.prompts, or leave the reward out; what was made is kept"
            )
        return tuple(np.nanmean(table, axis=0).tolist())

    def write_members(self) -> None:
        """`members.json`: the policies, how each was made, and the fronts on the way."""
        fronts: Any = self.recipe.fronts
        told = {
            "kind": fronts.kind,
            "rewards": {name: options or {} for name, options in self.recipe.rewards.items()},
            "reference_point": fronts.reference_point or None,
            "ref": str(Place(self.run, REF).scores.relative_to(self.run)),
            "members": list(self.made.values()),
            "fronts": self.fronts or [list(self.made)],
        }
        if PartialState().is_main_process:
            write_text(self.run / MEMBERS, json.dumps(told, indent=1) + "\n")


def scores_by_prompt(path: Path, rewards: Sequence[str]) -> Float[np.ndarray, "prompts rewards"]:
    """The mean of each reward over the answers to each prompt, NaN where it applies to none."""
    found = []
    for row in read(DataSource(str(path))).to_list():
        given = [[one[name] for one in row["rewards"] if one.get(name) is not None] for name in rewards]
        found.append([float(np.mean(values)) if values else float("nan") for values in given])
    return np.array(found)

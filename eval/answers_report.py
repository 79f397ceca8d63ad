"""Everything that a recipe wants to know of answers as texts, in one order, from models and from files alike."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import RunError
from align.recipe.loading import Recipe
from align.rewards import Reward, load_reward

from .generate import Prompt
from .judge_kinds import MakeScorer, prepare_judges
from .judging import judge_report
from .objectives import Ids, check_objectives, objective_report
from .prompt_sets import load_prompt_sets, prompt_set_report
from .results import REFERENCE, Report
from .sampled import Sampled
from .texts import ByPolicy, measure_texts


class Prepared(NamedTuple):
    """What scores answers, checked as far as that is possible without weights."""

    recipe: Recipe
    allow: Collection[str]
    gold: Reward | None
    judges: dict[str, MakeScorer]
    prompt_sets: dict[str, list[dict[str, Any]]]
    """Rows of `eval.instructions` and `eval.refusals`, by these names."""

    def check_columns(self, columns: Collection[str], where: str) -> None:
        """Raise RunError unless the data that `where` names have what the objectives read."""
        recipe = self.recipe
        point = recipe.eval.reference_point
        check_objectives(recipe.rewards, columns, where=where, allow=self.allow, reference_point=point)


def prepare(recipe: Recipe, *, allow: Sequence[str] = (), ledgers: Path | None = None) -> Prepared:
    """What a recipe's `eval` section asks for beside pairs.

    Raises:
        RunError: If something it names is missing, unknown, or may not run or be asked.
        DataError: If a prompt set cannot be read.
    """
    config = recipe.eval
    gold = None if config.gold_reward is None else load_reward(config.gold_reward, allow)
    if gold is not None:
        gold(["five plain words to try"])  # a missing package shows before anything is computed
    judges = prepare_judges(config, recipe.model, allow=allow, ledgers=ledgers)
    return Prepared(recipe, allow, gold, judges, load_prompt_sets(config))


def measure_answers(
    report: Report, sampled: Sampled, found: ByPolicy, prepared: Prepared, *, compare: bool, reference: str = REFERENCE,
    completion_ids: Ids | None = None, recipes: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:  # fmt: skip
    """Score answers and write what was found into the report.

    Args:
        report: Gets everything.
        sampled: Whose answers.
        found: By policy, estimates that come first.
        prepared: From `prepare`.
        compare: Whether everybody is compared with everybody.
        reference: What the reference is called.
        completion_ids: Like `sampled.answers`, the token ids of each answer, where they are known.
        recipes: By policy, what its recipe says, where there is one.
    """
    recipe, config = prepared.recipe, prepared.recipe.eval
    rewards = measure_texts(report, sampled, found, prepared.gold)
    if prepared.gold is not None:
        report.settings["gold_reward"] = config.gold_reward
    if recipe.rewards:
        objectives = objective_report(
            sampled, recipe.rewards, completion_ids=completion_ids, recipes=recipes, allow=prepared.allow,
            reference_point=config.reference_point,
        )  # fmt: skip
        report.estimates |= objectives.estimates
        report.comparisons |= objectives.comparisons
        report.details["objectives"] = objectives.details
        report.front = objectives.front
    for name, make in prepared.judges.items():
        judge = config.judges[name]
        said = {key: value for key, value in vars(judge).items() if value is not None}
        report.settings.setdefault("judges", {})[name] = said
        judge_report(report, name, judge.kind, make(), sampled, gold=rewards, compare=compare, reference=reference)


def add_prompt_set(report: Report, name: str, sampled: Sampled) -> None:
    """What answers to one prompt set show, into the report."""
    found = prompt_set_report(name, sampled)
    report.estimates |= found.estimates
    report.comparisons |= found.comparisons
    report.details[name] = found.details


def of_prompt_set(name: str, rows: Sequence[Mapping[str, Any]], sampled: Sampled) -> Sampled:
    """The answers to one prompt set among others, as files hold them.

    Raises:
        RunError: If a prompt of the set is not among them, or has several answers.
    """
    if sampled.samples != 1:
        raise RunError(f"eval.{name}: one response to each prompt is measured, and the files hold {sampled.samples}")
    places = {json.dumps(row["prompt"]): place for place, row in enumerate(sampled.rows)}
    found = []
    for row in rows:
        prompt: Prompt = row["prompt"]
        asked = [prompt, [{"role": "user", "content": prompt}]] if isinstance(prompt, str) else [prompt]
        place = next((places[key] for form in asked if (key := json.dumps(form)) in places), None)
        if place is None:
            raise RunError(
                f"eval.{name}: the files hold no response to its prompt {json.dumps(prompt)[:80]}; add responses to all of "
                f"its prompts, or leave the set out with eval.{name}=null"
            )
        found.append(place)
    answers = {who: [texts[place] for place in found] for who, texts in sampled.answers.items()}
    return Sampled([dict(row) for row in rows], answers)

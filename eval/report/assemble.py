"""Collects everything that a recipe wants to know of answers as texts, from models and files alike."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.judges.from_recipe import MakeScorer, prepare_judges
from align.judges.scorers import Scorer
from align.recipe.loading import Recipe
from align.recipe.sections import GIVE_REWARDS
from align.rewards import Reward, load_reward
from eval.answers.table import Sampled
from eval.fronts.front import OVER_SEEDS
from eval.measures.best_of import best_of_curves
from eval.measures.prompt_sets import load_prompt_sets, prompt_set_report
from eval.measures.rewards import Ids, check_objectives, objective_report, range_of
from eval.measures.texts import MEASURES, gold_found, gold_rewards
from eval.statistics.comparisons import corrected
from eval.statistics.groups import group_shares
from eval.statistics.intervals import UNBOUNDED, Estimate, claimed, rng_of_report
from eval.statistics.names import REF, REFERENCE
from eval.statistics.sides import ByPolicy, every_pair, merged, per_prompt
from eval.verdicts import Judged, Verdicts, estimate_or_note, head_to_head, judged_by, scores_of

from .results import Report


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
    bounds = range_of(config.gold_reward)
    rewards = measure_texts(report, sampled, found, prepared.gold, bounds)
    if prepared.gold is not None:
        report.settings["gold_reward"] = config.gold_reward
    if recipe.rewards or sampled.turns is not None:
        objectives = objective_report(
            sampled, recipe.rewards, completion_ids=completion_ids, recipes=recipes, allow=prepared.allow,
            reference_point=config.reference_point,
        )  # fmt: skip
        report.estimates |= objectives.estimates
        report.compared |= objectives.comparisons
        report.details["objectives"] = objectives.details
        report.front = objectives.front
    for name, make in prepared.judges.items():
        judge = config.judges[name]
        said = {key: value for key, value in vars(judge).items() if value is not None}
        report.settings.setdefault("judges", {})[name] = said
        judge_report(
            report, name, judge.kind, make(), sampled, gold=rewards, compare=compare, reference=reference,
            bounds=bounds if rewards else range_of(judge.reward), group=config.group,
        )  # fmt: skip


def add_revisions(report: Report, stages: Sequence[Sampled], prepared: Prepared) -> None:
    """What the first policy's answers are worth after each number of revisions, against the reference's unrevised ones.

    Args:
        report: Gets `after_N_revisions/...`, nothing if nobody revised.
        stages: The answers after 0, 1 and more revisions.
        prepared: From `prepare`.
    """
    for number, stage in enumerate(stages) if len(stages) > 1 else ():
        who, bounds = stage.policies[0], range_of(prepared.recipe.eval.gold_reward)
        one = stage._replace(answers={name: stage.answers[name] for name in (who, REF)})
        found: dict[str, Estimate] = {}
        if prepared.gold is not None:
            found |= gold_found(one, gold_rewards(one, prepared.gold), bounds)[who]
        for name, make in prepared.judges.items():
            found |= _estimates(name, judged_by(prepared.recipe.eval.judges[name].kind, make(), one)[0], who)
        shown = {key: value for key, value in found.items() if key.rpartition("/")[2] != "ref"}
        report.estimates |= {f"after_{number}_revisions/{key}": value for key, value in shown.items()}


def add_prompt_set(report: Report, name: str, sampled: Sampled) -> None:
    """What answers to one prompt set show, into the report."""
    found = prompt_set_report(name, sampled)
    report.estimates |= found.estimates
    report.compared |= found.comparisons
    report.details[name] = found.details


def settle(report: Report, reference: str = REFERENCE) -> None:
    """What is sure of everything that was compared, all at once; the last step of an evaluation.

    A figure of fewer items than `claimed` asks for loses its interval here; seeds have theirs of Student's law.
    """
    report.estimates = {key: e if OVER_SEEDS in key else claimed(e) for key, e in report.estimates.items()}
    report.best_of_k = claimed(report.best_of_k)
    for judged in report.judged.values():
        for name, found in vars(judged).items():
            setattr(judged, name, claimed(found))
    for measure, rows in corrected(report.compared, rng=rng_of_report()).items():
        named = [
            row._replace(first=_called(row.first, reference), second=_called(row.second, reference)) for row in rows
        ]
        report.comparisons[measure] = named


def _called(who: str, reference: str) -> str:
    return reference if who == REF else who


def add(report: Report, found: Mapping[str, Mapping[str, Estimate]]) -> None:
    """Estimates by policy to the report: the first policy's under their names, the others' behind "POLICY/".

    What is the reference's own is there once.
    """
    for index, (who, estimates) in enumerate(found.items()):
        if index == 0:
            report.estimates |= estimates
        else:
            report.estimates |= {f"{who}/{key}": e for key, e in estimates.items() if not key.endswith("/ref")}


def shown_answers(sampled: Sampled, rewards: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Per prompt the first answers of everybody, with their gold rewards if there are any."""
    first, *others = sampled.policies
    rows = []
    for index, prompt in enumerate(row["prompt"] for row in sampled.rows):
        row: dict[str, Any] = {"prompt": prompt}
        for side, who in (("policy", first), ("ref", REF)):
            row[side] = sampled.answers[who][index][0]
        for side, who in (("policy", first), ("ref", REF)):
            row |= {f"{side}_reward": float(rewards[who][index, 0])} if rewards else {}
        if others:
            row["others"] = {
                who: {"text": sampled.answers[who][index][0]}
                | ({"reward": float(rewards[who][index, 0])} if rewards else {})
                for who in others
            }
        if sampled.samples > 1:
            row["samples"] = {who: answers[index] for who, answers in sampled.answers.items()}
        rows.append(row)
    return rows


def measure_texts(
    report: Report,
    sampled: Sampled,
    found: ByPolicy,
    gold: Reward | None,
    bounds: tuple[float, float] = UNBOUNDED,
) -> dict[str, np.ndarray]:
    """Everything that answers as texts tell, after what was found before; returns the gold rewards by policy and "ref".

    Args:
        report: Gets everything.
        sampled: Whose answers.
        found: By policy, estimates that come first.
        gold: The gold reward, if there is one.
        bounds: The least and the greatest that it can be.
    """
    found = merged(found, *(measure(sampled) for measure in MEASURES))
    rewards = {} if gold is None else gold_rewards(sampled, gold)
    for who, values in rewards.items():
        report.measured.setdefault(who, {})["gold_reward"] = values.tolist()
    add(report, merged(found, gold_found(sampled, rewards, bounds)) if rewards else found)
    report.answers = shown_answers(sampled, rewards)
    if len(sampled.policies) > 1 and rewards:
        scores = {who: per_prompt(rewards[who], sampled.samples) for who in sampled.answers}
        report.compared |= every_pair("gold_reward", scores, [row["prompt"] for row in sampled.rows], bounds=bounds)
    if sampled.samples > 1 and rewards:
        report.best_of_k |= best_of_curves(rewards, rewards, "gold reward", bounds)
    return rewards


def judge_report(
    report: Report, name: str, kind: str, scorer: Scorer, sampled: Sampled, *, gold: dict[str, np.ndarray],
    compare: bool = False, reference: str = REFERENCE, bounds: tuple[float, float] = UNBOUNDED, group: str | None = None,
) -> None:  # fmt: skip
    """A judge's verdicts into a report: `win_rate/NAME` and what belongs to it, best-of-k curves, comparisons.

    Args:
        report: Gets everything.
        name: Of the judge.
        kind: Of the judge.
        scorer: The judge.
        sampled: Whose answers.
        gold: Gold rewards by policy and "ref"; without them a curve shows what the judge itself thinks of its choice.
        compare: Whether everybody is compared with everybody.
        reference: What the reference is called.
        bounds: The least and the greatest that `gold` can be, or the judge's own reward.
        group: A column of the prompts by which win rates are told, too.
    """
    judged, verdicts = judged_by(kind, scorer, sampled, reference=reference)
    report.judged[name] = judged
    for who in sampled.policies:
        wins = verdicts.wins(who, REF).reshape(-1, sampled.samples)
        shown = [[None if np.isnan(win) else float(win) for win in row] for row in wins]
        report.measured.setdefault(who, {})[f"wins/{name}"] = shown
    add(report, {who: _estimates(name, judged, who) for who in sampled.policies})
    for who in sampled.policies if group is not None else ():
        estimate_or_note(
            judged,
            f"{who}: no win rates by {group}",
            lambda who=who: _by_group(report, name, who, verdicts, sampled, group),
        )
    if judged.position_bias is not None:
        bias = judged.position_bias._asdict()
        report.estimates |= {f"position_bias/{name}/{key}": estimate for key, estimate in bias.items()}
    if judged.ratings:
        report.estimates[f"rating/{name}/ref"] = judged.ratings[reference]
    if compare and len(judged.players) > 2:

        def compared() -> None:
            report.compared[f"win_rate/{name}"] = head_to_head(verdicts, judged.players)

        estimate_or_note(judged, "no comparisons", compared)
    if sampled.samples > 1 and kind in GIVE_REWARDS:

        def curves() -> None:
            scores = scores_of(scorer, sampled)
            report.best_of_k.update(best_of_curves(gold or scores, scores, name, bounds))

        estimate_or_note(judged, "no best-of-k", curves)


def _by_group(report: Report, name: str, who: str, verdicts: Verdicts, sampled: Sampled, group: str | None) -> None:
    """Win rates of each group of prompts, and of the one that is worst off."""
    if any(group not in row for row in sampled.rows):
        raise ValueError(f"not every prompt has a column {group!r}")
    of = np.array([str(row[str(group)]) for row in sampled.rows])[verdicts.prompts]
    found = group_shares(verdicts.wins(who, REF), of, verdicts.prompts)
    add(report, {who: {f"win_rate/{name}/{key}": estimate for key, estimate in found.items()}})


def _estimates(name: str, judged: Judged, who: str) -> dict[str, Estimate]:
    rates = judged.win_rates
    found = {
        f"win_rate/{name}": rates[who].win_rate if who in rates else None,
        f"win_rate_lc/{name}": judged.length_controlled.get(who),
        f"longer_wins/{name}": judged.longer_wins.get(who),
        f"longer_wins/{name}/agreement": judged.agreement.get(who),
        f"rating/{name}": judged.ratings.get(who),
    }
    return {key: estimate for key, estimate in found.items() if estimate is not None}

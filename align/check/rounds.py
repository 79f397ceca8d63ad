"""Computes what rounds will make and take at most, and whether all of them can be made, before a weight is loaded."""

from typing import Any

from align.data.loading import Loaded
from align.findings import Finding
from align.recipe.loading import Recipe
from align.rounds.run import check_rounds

BYTES_A_TOKEN = 16
"""On disk, of an answer: its text three times, and its token id as text."""


def check_all_rounds(recipe: Recipe, sets: Loaded) -> None:
    """The refusals of `alignkit train`, but for what only --allow says: who may be asked, and whose code may run.

    Raises:
        DataError: If prompts or their columns cannot be used.
        RunError: If a scorer cannot be made.
    """
    score: Any = recipe.rounds and recipe.rounds.score
    named = [*score.rewards, *(str(judge.reward) for judge in score.judges.values() if judge.kind == "reward")]
    hosts = [judge for judge in score.judges.values() if judge.kind == "endpoint"]
    check_rounds(recipe, sets=sets, scorers=not hosts and not any(":" in name for name in named))


def prompts_of_round(recipe: Recipe, prompts: int) -> int:
    """How many prompts a round has."""
    rounds: Any = recipe.rounds
    return prompts if rounds.prompts == "all" else rounds.prompts.each


def pairs_of_round(recipe: Recipe, prompts: int) -> int:
    """How many pairs a round makes of so many prompts, at most."""
    rounds: Any = recipe.rounds
    k, select = answers_to_prompt(recipe), rounds.select
    every = {
        "margin": k * (k - 1) // 2,
        "all_pairs": k * (k - 1) // 2,
        "verified": min(select.most or 10, (k // 2) * (k - k // 2)),
    }
    return prompts_of_round(recipe, prompts) * every.get(select.rule, 1)


def answers_to_prompt(recipe: Recipe) -> int:
    """Answers that are scored together, those of earlier rounds aside."""
    rounds: Any = recipe.rounds
    sampled = rounds.sample.samples * sum(who in ("policy", "ref") for who in rounds.sample.who)
    return sampled + ("gold" in rounds.sample.who)


def answers_to_choose(recipe: Recipe) -> int:
    """Answers of all rounds, and of what they begin with, that the best is chosen by, at most; 0 where the last is taken."""
    rounds, settings = recipe.rounds, recipe.eval.generate
    if rounds is None or rounds.take == "last" or settings is None:
        return 0
    return (rounds.count + 1) * settings.prompts * settings.samples


def inspect_rounds(recipe: Recipe, prompts: int, steps: int) -> Finding:
    """A line on what all rounds make, at most."""
    rounds: Any = recipe.rounds
    each, k = prompts_of_round(recipe, prompts), answers_to_prompt(recipe)
    sampled = rounds.count * each * rounds.sample.samples * sum(who in ("policy", "ref") for who in rounds.sample.who)
    compares = any(judge.kind in ("language_model", "endpoint") for judge in rounds.score.judges.values())
    asked = f", {rounds.count * each * k * (k - 1):,} questions to each judge" if compares else ""
    chosen_by = answers_to_choose(recipe)
    more = f", {chosen_by:,} answers to choose the best round by" if chosen_by else ""
    message = (
        f"{rounds.count} rounds of {each:,} prompts: at most {sampled:,} answers of {rounds.sample.max_new_tokens} tokens "
        f"to sample{asked}, {rounds.count * pairs_of_round(recipe, prompts):,} pairs, {rounds.count * steps:,} steps{more}"
    )
    return Finding("note", "rounds", "rounds", message, "nothing to do")


def bytes_of_answers(recipe: Recipe, prompts: int) -> int:
    """What the answers of all rounds take on disk, at most."""
    rounds, settings = recipe.rounds, recipe.eval.generate
    if rounds is None:
        return 0
    of_rounds = rounds.count * prompts_of_round(recipe, prompts) * answers_to_prompt(recipe)
    to_choose = answers_to_choose(recipe) * settings.max_new_tokens if settings is not None else 0
    return (of_rounds * rounds.sample.max_new_tokens + to_choose) * BYTES_A_TOKEN

"""Says whether a front can be made, before a weight is loaded."""

from collections.abc import Callable, Collection
from typing import Any

from datasets import Dataset

from align.data import load_data
from align.data.loading import Loaded
from align.errors import RunError
from align.judges.from_scores import scorers_of
from align.models.loading import load_tokenizer
from align.recipe.loading import Recipe
from align.recipe.scores import ScoreConfig
from align.rounds.validation import validation_rows
from align.sampling.answer_file import HowToSample, check_calling
from align.sampling.ask import decoding_of
from align.sampling.policy import Policy

Rows = list[dict[str, Any]]


def check_front(
    recipe: Recipe, allow: Collection[str] = (), *, sets: Loaded | None = None, scorers: bool = True
) -> tuple[Rows, Dataset]:
    """The prompts that policies are estimated on, and those that they learn from, once all that can be known is in order.

    Args:
        recipe: With `fronts`.
        allow: As for `align.train.run`.
        sets: The prompts, where they are read already.
        scorers: Whether to look at the rewards, too.

    Raises:
        DataError: If prompts cannot be used, or lack a column that a reward reads.
        RunError: If a reward cannot be made, reads what an answer's text does not say, or may not be run; or if there are
            fewer than two prompts.
    """
    score, sets = score_of(recipe), sets or load_data(recipe.data, rows="prompts")
    rows = validation_rows(recipe, score, sets.eval)
    if len(rows) < 2:
        raise RunError(f"data.eval: an interval needs at least 2 different prompts, got {len(rows)}; add some")
    caller = Policy(recipe.model, caller=caller_of(recipe))
    if caller.caller is not None:
        settings: Any = recipe.eval.generate
        check_calling(caller, rows, HowToSample(decoding_of(settings)), load_tokenizer(recipe.model))
    if scorers:
        scorers_of(score, recipe.model, where="rewards", allow=list(allow))
    return rows, sets.train


def caller_of(recipe: Recipe) -> Callable[[], Recipe] | None:
    """What gives the recipe itself, if its policy calls something; the adapters of a front do not say what they call."""
    return (lambda: recipe) if recipe.tools or recipe.environments else None


def score_of(recipe: Recipe) -> ScoreConfig:
    """What scores answers: the rewards that policies learn from."""
    return ScoreConfig(rewards={name: options or None for name, options in recipe.rewards.items()})

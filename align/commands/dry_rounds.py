"""Estimates what the rounds of a recipe will cost in time, from a few answers, their scores, and a few real steps."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from align.check.rounds import answers_to_prompt, pairs_of_round, prompts_of_round
from align.data.prompts import prompt_of
from align.errors import RunError
from align.files import write_rows
from align.judges.from_scores import scorers_of
from align.judges.scoring import score_rows
from align.methods import METHODS
from align.models.loading import load_tokenizer
from align.models.use import Use
from align.recipe.loading import Recipe
from align.rounds.plan import Place, load_training, round_recipe, write_recipe
from align.rounds.run import check_rounds
from align.rounds.stages import decoding_of_round
from align.sampling.generate import generate
from align.sampling.policy import beginning_of

from .dry_run import Cost, predict

FEW, MORE = 4, 16
"""New tokens of the two batches that are timed."""
SCORED = 4
"""Prompts whose answers are scored."""
SHOWN = 16
"""Pairs that steps are timed on, at least."""


@dataclass(frozen=True)
class RoundsCost:
    """A prediction, at most: all answers as long as they may be, and a pair wherever there can be one. Of one process."""

    rounds: int
    sampling_seconds: float
    """Of one round."""
    scoring_seconds: float
    unasked: list[str]
    """Scorers that were not asked, and whose time is not in it."""
    steps: int
    """Of one round."""
    training: Cost

    @property
    def hours(self) -> float:
        """All rounds."""
        learning = self.training.reference_seconds + self.steps * self.training.seconds_per_step
        return self.rounds * (self.sampling_seconds + self.scoring_seconds + learning) / 3600

    def __str__(self) -> str:
        """In lines for people."""
        without = f", without what {', '.join(self.unasked)} take" if self.unasked else ""
        return (
            f"  predicted for each of {self.rounds} rounds, at most: {self.sampling_seconds:.3g} s of sampling, "
            f"{self.scoring_seconds:.3g} s of scoring{without}, {self.steps} steps of {self.training.seconds_per_step:.3g} s\n"
            f"  {self.hours:.2g} h in all rounds without evaluations and loading; predicted peak memory of training: "
            f"{self.training.peak_bytes / 2**30:.2f} GiB of each process"
        )


def predict_rounds(recipe: Recipe, steps: int) -> RoundsCost:
    """Load what a recipe begins with, and time two batches of answers, the scores of one prompt, and some steps.

    Answers of MORE tokens are repeated to the length that they may have. Nothing is written but to a scratch folder.

    Args:
        recipe: With `rounds`.
        steps: Of a round, at most.

    Raises:
        RunError: If the method learns from completions.
    """
    if METHODS[recipe.method].rows != "pairs":
        raise RunError("--deep predicts rounds that learn from preference pairs; leave it out")
    rounds: Any = recipe.rounds
    rows, _ = check_rounds(recipe, scorers=False)
    number, sampling = prompts_of_round(recipe, len(rows)), rounds.sample
    policy = beginning_of(recipe)
    tokenizer, use = load_tokenizer(policy.settings), policy.load()
    samplers = sum(who in ("policy", "ref") for who in sampling.who) * (1 + sampling.revisions)
    prompts = [prompt_of(row) for row in rows[: min(sampling.batch_size, number * sampling.samples)]]
    samples = min(sampling.batch_size // len(prompts), sampling.samples)

    def sampled(tokens: int) -> Any:
        decoding = decoding_of_round(recipe, Place(Path("."), 1))
        shorter = replace(decoding, max_new_tokens=min(tokens, decoding.max_new_tokens))
        with use() as model:
            return generate(model, tokenizer, prompts, shorter, samples=samples, batch_size=sampling.batch_size)

    sampled(1)
    (few, _), (more, answers) = _timed(lambda: sampled(FEW)), _timed(lambda: sampled(MORE))
    least, most = min(FEW, sampling.max_new_tokens), min(MORE, sampling.max_new_tokens)
    each = max(more - few, 0.0) / (most - least) if most > least else few / least
    beginning = max(few - least * each, 0.0)
    batches = samplers * -(-number * sampling.samples // (len(prompts) * samples))
    ids = max((one.completion_ids for row in answers for one in row), key=len)
    longest = str(tokenizer.decode((ids * sampling.max_new_tokens)[: sampling.max_new_tokens]))
    scoring, unasked = _scoring(recipe, use, rows[:SCORED], longest)
    pairs = [_pair(rows[k % len(rows)], longest) for k in range(max(SHOWN, recipe.train.per_device_train_batch_size))]
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(Path(scratch), 1)
        place.folder.mkdir()
        write_recipe(place, f"Round {place.number}", round_recipe(recipe, place))
        write_rows(pairs, place.pairs)
        training = predict(load_training(place))
    return RoundsCost(
        rounds=rounds.count,
        sampling_seconds=batches * (beginning + sampling.max_new_tokens * each),
        scoring_seconds=scoring * number,
        unasked=unasked,
        steps=steps,
        training=_of_all(training, pairs_of_round(recipe, len(rows)), len(pairs)),
    )


def _scoring(recipe: Recipe, use: Use, rows: list[dict[str, Any]], text: str) -> tuple[float, list[str]]:
    """Seconds for the answers to one prompt, and who was not asked: endpoints, and code that --allow has to name."""
    rounds: Any = recipe.rounds
    unasked = [name for name, judge in rounds.score.judges.items() if judge.kind == "endpoint"]
    unasked += [name for name in rounds.score.rewards if ":" in name]
    unasked += [name for name, judge in rounds.score.judges.items() if judge.reward and ":" in judge.reward]
    if unasked:
        return 0.0, rounds.score.names()
    scorers = scorers_of(rounds.score, recipe.model, where="rounds.score", policy=lambda: use)
    asked = [row | {"completions": [text + str(k) for k in range(answers_to_prompt(recipe))]} for row in rows]
    loading_and_one, _ = _timed(lambda: score_rows(asked[:1], scorers))
    if len(asked) == 1:
        return loading_and_one, []
    all_of_them, _ = _timed(lambda: score_rows(asked, scorers))
    return max(all_of_them - loading_and_one, 0.0) / (len(asked) - 1), []


def _pair(row: dict[str, Any], text: str) -> dict[str, Any]:
    sides = {name: text + end for name, end in (("chosen", "."), ("rejected", "!"))}
    if not isinstance(row["prompt"], str):
        sides = {name: [{"role": "assistant", "content": said}] for name, said in sides.items()}
    return (
        {"prompt": row["prompt"]} | sides | {"chosen_reward": 1.0, "rejected_reward": 0.0, "margin": 1.0, "weight": 1.0}
    )


def _of_all(cost: Cost, pairs: int, timed: int) -> Cost:
    """The cost of a round's training, whose reference pass is over all pairs."""
    return replace(cost, reference_seconds=cost.reference_seconds * pairs / timed)


def _timed(act: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    made = act()
    return time.perf_counter() - began, made

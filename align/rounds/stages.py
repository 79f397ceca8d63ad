"""Runs the stages of a round: each reads files and writes a file, with the functions that the commands call."""

import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from align.data.commands.pairs import Built, build
from align.data.loading import DataSource, read
from align.data.rows.kinds import KINDS
from align.data.rows.scored import text_of
from align.data.split import prompt_position
from align.errors import RunError
from align.files import write_rows
from align.judges.answered import GOLD, JUDGES, together
from align.judges.from_scores import refuse_missing, scorers_of
from align.judges.scoring import SCORES, score_rows
from align.methods import METHODS
from align.recipe.loading import Recipe
from align.sampling.answer_file import HowToSample, read_prompts, sample_to_file
from align.sampling.generate import Decoding
from align.sampling.policy import Policy, policy_of
from align.sampling.vllm_engine import VLLM

from .in_context import context_stage, mix_context, with_targets, without_targets
from .plan import Place, prompt_key, round_prompts, words_here

logger = logging.getLogger(__name__)
EARLIER = "earlier"


def prompts_stage(recipe: Recipe, rows: Sequence[Mapping[str, Any]], place: Place) -> dict[str, int]:
    """The prompts of the round."""
    made = round_prompts(recipe, rows, place.number)
    if recipe.rounds is not None and recipe.rounds.in_context is not None and place.number > 1:
        made = with_targets(recipe, made, place.number)
    if PartialState().is_main_process:
        write_rows(made, place.prompts, replace=True)
    return {"prompts": len(made)}


def answerer(place: Place, *, reference: bool = False) -> Policy:
    """Who answers in a round: the newest policy, or what the round is held against."""
    if reference or place.number == 1:
        return policy_of(str(place.recipe), words_here(place), reference=reference)
    return policy_of(str(place.before().trained))


def sample_stage(recipe: Recipe, place: Place, who: str, vllm: VLLM | None = None) -> dict[str, int]:
    """Answers of one of those that the recipe names; `earlier` are those that earlier rounds have to the same prompts."""
    rounds: Any = recipe.rounds
    rows = read_prompts(DataSource(str(place.prompts)))
    out = place.answers(who)
    out.parent.mkdir(parents=True, exist_ok=True)
    if who == EARLIER:
        made = _earlier(rows, place)
        if PartialState().is_main_process:
            write_rows(made, out, replace=True)
        return {"answers": sum(len(row["completions"]) for row in made)}
    sampling = rounds.sample
    policy = answerer(place, reference=who == "ref")
    how = HowToSample(
        decoding_of_round(recipe, place), sampling.samples, sampling.batch_size, vllm, sampling.revisions,
        policy.instruction,
    )  # fmt: skip
    return {"answers": sample_to_file(policy, rows, how, out, who=who, replace=True)}


def decoding_of_round(recipe: Recipe, place: Place) -> Decoding:
    """How the answers of a round are sampled."""
    sampling: Any = recipe.rounds and recipe.rounds.sample
    temperatures = sampling.temperatures()
    temperature = temperatures[min(place.number, len(temperatures)) - 1]
    return Decoding(sampling.max_new_tokens, temperature, sampling.seed + place.number - 1, sampling.top_p)


def _earlier(rows: Sequence[Mapping[str, Any]], place: Place) -> list[dict[str, Any]]:
    known: dict[str, list[Any]] = {}
    for number in range(1, place.number):
        for row in _read(Place(place.run, number).answers("policy")):
            known.setdefault(prompt_key(row), []).extend(row["completions"])
    return [dict(row) | {"completions": known.get(prompt_key(row), [])} for row in rows]


def answer_files(recipe: Recipe, place: Place) -> list[Path]:
    """The files of answers that a round scores."""
    rounds: Any = recipe.rounds
    if rounds.in_context is not None and place.number == 1:
        return [Path(rounds.in_context.originals.path)]
    named = [who for who in rounds.sample.who if who != GOLD and (who != EARLIER or place.number > 1)]
    return [place.answers(who) for who in named]


def score_stage(recipe: Recipe, place: Place, allow: Collection[str] = ()) -> dict[str, Any]:
    """All answers with their scores. Only the main process asks."""
    rounds: Any = recipe.rounds
    if not PartialState().is_main_process:
        return {}
    rows = together(answer_files(recipe, place), gold=rounds.sample.gold)
    _refuse_collapse(rows, place, several=rounds.in_context is None)
    rows = without_targets(rows)
    rows = [{n: v for n, v in row.items() if n not in SCORES} for row in rows]  # given answers may have some
    refuse_missing(rounds.score, rows[0], str(place.prompts))
    ledgers = place.folder / f"{place.scores.stem}-{JUDGES}"
    scorers = scorers_of(
        rounds.score,
        recipe.model,
        where="rounds.score",
        allow=list(allow),
        ledgers=ledgers,
        policy=lambda: answerer(place).load(),
    )
    scored = score_rows(rows, scorers)
    write_rows(scored.rows, place.scores, replace=True)
    answers = sum(len(row["rewards"]) for row in scored.rows)
    if scored.told():
        logger.warning("round %d, of %d answers: %s", place.number, answers, scored.told())
    return {"answers": answers, "unscored": scored.unscored} | ({"said": scored.told()} if scored.told() else {})


def _refuse_collapse(rows: Sequence[Mapping[str, Any]], place: Place, *, several: bool = True) -> None:
    """Words for a policy that says nothing, or the same to each prompt, before anybody is paid to score it."""
    texts = [[text_of(one) for one in row["completions"]] for row in rows]
    sampled = [
        text
        for row, given in zip(rows, texts, strict=True)
        for text, who in zip(given, row["sources"], strict=True)
        if who not in (GOLD, EARLIER)
    ]
    if not any(one.strip() for one in sampled):
        raise RunError(
            f"round {place.number}: all answers are empty; the policy has collapsed: lower train.learning_rate, raise "
            f"train.beta, or look at rounds.sample.max_new_tokens; what was made is kept in {place.run}"
        )
    if several and all(len(set(given)) < 2 for given in texts):
        raise RunError(
            f"round {place.number}: all answers to each prompt are equal, of which no pair can be made; the policy has "
            f"collapsed, or rounds.sample.temperature is too low; what was made is kept in {place.run}"
        )


def pairs_stage(recipe: Recipe, place: Place) -> dict[str, Any]:
    """The pairs of the round, or for methods that learn from completions their better sides."""
    rounds: Any = recipe.rounds
    if rounds.in_context is not None:
        return context_stage(recipe, place)
    if not PartialState().is_main_process:
        return {}
    score, select = rounds.score, rounds.select
    weights = score.weights or None
    where = str(place.scores)
    made = build(_read(place.scores), select.rule, seed=select.seed, weights=weights, where=where, **select.options())
    if not made.pairs:
        raise RunError(_nothing(made, place, select.rule))
    if made.without or made.refused:
        logger.warning("round %d: prompts without a pair: %s", place.number, _why(made))
    write_rows(
        KINDS["chosen" if METHODS[recipe.method].rows == "completions" else "pairs"](made.pairs),
        place.pairs,
        replace=True,
    )
    return {
        "pairs": len(made.pairs),
        "without": dict(made.without),
        "refused": dict(made.refused),
        "unscored": made.unscored,
    }


def _nothing(made: Built, place: Place, rule: str) -> str:
    return (
        f"round {place.number}: no prompt yields a pair by the rule {rule!r}: {_why(made)}; sample more answers "
        f"(rounds.sample.samples) or at a higher temperature, ask for a smaller gap, or take easier prompts, in another "
        f"train.output_dir; what was made is kept in {place.run}"
    )


def _why(made: Built) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in (made.without + made.refused).most_common(3))


def mixed_from(recipe: Recipe, place: Place) -> list[Path]:
    """The files of pairs that a round's training draws on, its own first."""
    rounds: Any = recipe.rounds
    ages = place.number if rounds.in_context is not None else 1 + len(rounds.keep.shares())
    return [Place(place.run, number).pairs for number in range(place.number, max(0, place.number - ages), -1)]


def mix_stage(recipe: Recipe, place: Place) -> dict[str, Any]:
    """The round's pairs and, by their shares of the whole, those of the rounds before, the same for the same seed."""
    rounds: Any = recipe.rounds
    if rounds.in_context is not None:
        return mix_context(recipe, place)
    new = _read(place.pairs)
    shares = rounds.keep.shares()[: place.number - 1]
    whole = len(new) / (1 - sum(shares))
    mixed, counts = list(new), {"new": len(new)}
    for age, share in enumerate(shares, start=1):
        old = _read(Place(place.run, place.number - age).pairs)
        ordered = sorted(old, key=lambda row: prompt_position([recipe.train.seed, place.number, row]))
        taken = ordered[: round(whole * share)]
        mixed += taken
        counts[f"round-{place.number - age}"] = len(taken)
    if PartialState().is_main_process:
        write_rows(mixed, place.mixed, replace=True)
    return counts


def _read(path: Path) -> list[dict[str, Any]]:
    return read(DataSource(str(path))).to_list()

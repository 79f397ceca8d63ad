"""Defines judges: shown two answers in both orders, they say which is better, and what failed.

`Judge` makes a scorer (`align.judges.scorers`) of anything that answers questions in one order: a local language model, an
endpoint. Rewards, preference models and tables are scorers already; `judge_all` takes any.
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from transformers import PreTrainedTokenizerBase

from align.data.prompts import Prompt
from align.models.use import Model
from align.scoring.completions import completion_logps, prompt_ids
from align.strict.places import wrong_places

from .scorers import Matrix, Scorer, check_matrix

logger = logging.getLogger(__name__)

Orders = Float[np.ndarray, "prompts models models"]
COMPARE = """Compare two answers to one instruction. Judge how well each does what is asked: whether it is correct, \
helpful and clear. Neither length nor the order in which the answers appear counts.

# Instruction
{prompt}

# Answer A
{a}

# Answer B
{b}

# Your verdict
"""
TEMPLATE = COMPARE + "Reply with the letter of the better answer and nothing else: A or B"


class JudgeError(RuntimeError):
    """A preference that the judge did not give. The message says why."""


class Question(NamedTuple):
    """Two answers to a prompt, in the order in which the judge is shown them."""

    prompt: Prompt
    first: str
    second: str


class Verdict(NamedTuple):
    """What a judge made of a question."""

    first_wins: float
    """Probability that the answer shown first is better; NaN without a verdict."""
    said: str
    """The verdict as it was given."""
    error: str | None = None


Ask = Callable[[Sequence[Question]], Sequence[Verdict]]


class Failure(NamedTuple):
    """A question without a verdict: which prompt, which answer was shown first and which second, and why."""

    prompt: int
    first: int
    second: int
    error: str


class Judgements(NamedTuple):
    """Verdicts on every pair of answers to every prompt, in both orders."""

    orders: Float[np.ndarray, "prompts answers answers"]
    """[p, i, j]: probability that answer i beats j, shown i first. NaN on the diagonal and where the judge failed."""
    said: dict[tuple[int, int, int], str]
    """The raw verdicts by prompt, answer shown first, answer shown second."""
    failures: list[Failure]

    @property
    def preferences(self) -> Float[np.ndarray, "prompts answers answers"]:
        """The mean of both orders; see `both_orders`."""
        return both_orders(self.orders)


class Judge:
    """A scorer that asks about every pair in both orders.

    Args:
        ask: Gives one verdict per question, in order, failures included.
    """

    def __init__(self, ask: Ask) -> None:
        self.ask = ask

    def judge(self, prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> Judgements:
        """Verdicts on all pairs of each prompt's answers; all questions are asked at once.

        Raises:
            ValueError: If prompts differ in their number of answers.
        """
        k = _number_of_answers(prompts, answers)
        places = [(p, i, j) for p in range(len(prompts)) for i in range(k) for j in range(k) if i != j]
        verdicts = self.ask([Question(prompts[p], answers[p][i], answers[p][j]) for p, i, j in places])
        orders = np.full((len(prompts), k, k), np.nan)
        said, failures = {}, []
        for place, verdict in zip(places, verdicts, strict=True):
            if verdict.error is not None:
                failures.append(Failure(*place, verdict.error))
            else:
                orders[place] = verdict.first_wins
                said[place] = verdict.said
        _report(failures, len(places))
        return Judgements(orders, said, failures)

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Matrix:
        """See `align.judges.scorers.Scorer.prefer`. Columns are not shown to the judge.

        Raises:
            JudgeError: If a verdict is missing.
        """
        judgements = self.judge([prompt], [answers])
        if judgements.failures:
            _, first, second, error = judgements.failures[0]
            raise JudgeError(f"no verdict on answers {first} and {second}: {error}")
        return judgements.preferences[0]


def judge_all(
    scorer: Scorer,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[str]],
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> Judgements:
    """Judgements of any scorer. One that raises ValueError for a prompt fails on this prompt's pairs, and goes on.

    A scorer that is no `Judge` has no order: both are the same.

    Args:
        scorer: A `Judge`, or any scorer of `align.judges.scorers`.
        prompts: Text or messages.
        answers: For each prompt, as many answers.
        columns: For each prompt, what its row holds besides.

    Raises:
        ValueError: If prompts differ in their number of answers.
    """
    if isinstance(scorer, Judge):
        return scorer.judge(prompts, answers)
    k = _number_of_answers(prompts, answers)
    orders = np.full((len(prompts), k, k), np.nan)
    said, failures = {}, []
    pairs = [(i, j) for i in range(k) for j in range(k) if i != j]
    rows = columns if columns is not None else [{} for _ in prompts]
    for p, (prompt, given, row) in enumerate(zip(prompts, answers, rows, strict=True)):
        try:
            matrix = scorer.prefer(prompt, given, **row)
            check_matrix(matrix, k)
        except ValueError as error:
            failures += [Failure(p, i, j, str(error)) for i, j in pairs]
            continue
        for i, j in pairs:
            orders[p, i, j] = matrix[i, j]
            said[p, i, j] = f"{matrix[i, j]:.6g}"
    _report(failures, len(prompts) * len(pairs))
    return Judgements(orders, said, failures)


def _number_of_answers(prompts: Sequence[Prompt], answers: Sequence[Sequence[str]]) -> int:
    numbers = {len(row) for row in answers}
    if len(prompts) != len(answers) or len(numbers) != 1 or min(numbers) < 2:
        raise ValueError(
            f"answers: as many for each of the {len(prompts)} prompts, at least 2, got {len(answers)} rows of "
            f"{', '.join(map(str, sorted(numbers))) or 'none'}"
        )
    return numbers.pop()


def _report(failures: Sequence[Failure], asked: int) -> None:
    if failures:
        logger.warning("%d of %d judgements failed; the first: %s", len(failures), asked, failures[0].error)


def question_text(template: str, question: Question) -> str:
    """The template with prompt and answers in their places; what looks like a place inside an answer stays as it is.

    Raises:
        ValueError: If {prompt}, {a} or {b} does not occur exactly once.
    """
    parts = {"prompt": _text(question.prompt), "a": question.first, "b": question.second}
    if wrong := wrong_places(template):
        raise ValueError(wrong[0])
    return re.sub(r"\{(prompt|a|b)\}", lambda place: parts[place[1]], template)


def _text(prompt: Prompt) -> str:
    if isinstance(prompt, str):
        return prompt
    messages = [(message["role"], message["content"]) for message in prompt]
    return messages[0][1] if len(messages) == 1 else "\n\n".join(f"{role}: {content}" for role, content in messages)


class LanguageModelJudge:
    """Asks a local language model: P(A) / (P(A) + P(B)) as the next words after the question. `Judge(...)` of it.

    A model whose next words are neither A nor B is no judge: `said` holds the share of its probability on the two.

    Source: Zheng et al. 2023, "Judging LLM-as-a-judge" (arXiv:2306.05685), section 3.1. Deviation: probabilities of the
    two letters instead of a sampled verdict, so that ties have measure zero and nothing has to be parsed.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer; the question is a user's message if there is a chat template, else plain text.
        template: With {prompt}, {a} and {b}.
        batch_size: Sequences per forward pass.
    """

    def __init__(
        self, model: Model, tokenizer: PreTrainedTokenizerBase, *, template: str = TEMPLATE, batch_size: int = 8
    ) -> None:
        question_text(template, Question("", "", ""))
        self.model, self.tokenizer, self.template, self.batch_size = model, tokenizer, template, batch_size
        letters = ("A", "B") if tokenizer.chat_template else (" A", " B")
        self.letters = [list(tokenizer(letter, add_special_tokens=False)["input_ids"]) for letter in letters]

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict per question; a question longer than the model's context fails."""
        encoded = [self._ids(question) for question in questions]
        longest = int(getattr(self.model.config, "max_position_embeddings", 10**9)) - max(map(len, self.letters))
        fits = [ids for ids in encoded if len(ids) <= longest]
        sequences = [(ids, letter) for ids in fits for letter in self.letters]
        pad: Any = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        rows = completion_logps(self.model, sequences, pad_token_id=pad, batch_size=self.batch_size, desc="judgements")
        logps = iter(np.array([float(row.double().sum()) for row in rows]).reshape(-1, 2))
        return [
            self._verdict(next(logps))
            if len(ids) <= longest
            else Verdict(np.nan, "", f"the question has {len(ids)} tokens, the judge's context allows {longest}")
            for ids in encoded
        ]

    def _ids(self, question: Question) -> list[int]:
        text = question_text(self.template, question)
        return prompt_ids(self.tokenizer, [{"role": "user", "content": text}] if self.tokenizer.chat_template else text)

    def _verdict(self, logps: Float[np.ndarray, " 2"]) -> Verdict:
        if not np.isfinite(logps).all():
            return Verdict(np.nan, "", "the model gives no finite probability to A and B")
        first_wins = float(np.exp(-np.logaddexp(0.0, logps[1] - logps[0])))
        return Verdict(first_wins, f"A {first_wins:.6g}, share on A and B {np.exp(logps).sum():.3g}")


def both_orders(orders: Orders) -> Orders:
    """Preferences without a side: the mean of both orders, so that entry [i, j] plus entry [j, i] is 1.

    NaN where either order is missing. The diagonal is one half. A pair of which each order prefers the other answer is
    a tie: it counts one half, as a game that is won only if both orders agree.

    Raises:
        ValueError: If a judgement is outside [0, 1].
    """
    if ((orders < 0) | (orders > 1)).any():
        raise ValueError("orders: every judgement must be a probability in [0, 1], or NaN where there is none")
    preferences = (orders + 1 - orders.transpose(0, 2, 1)) / 2
    diagonal = np.arange(orders.shape[1])
    preferences[:, diagonal, diagonal] = 0.5
    return preferences

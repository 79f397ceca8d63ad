"""Scores who prefers which answer, as a matrix of probabilities, for evaluations and for the making of pairs.

A matrix and not a number for each answer, because preferences may be cyclic and people may be divided. Every scorer
here gives a K x K matrix M with M + M^T = 1, so that the diagonal is one half; `M.mean(axis=1)` are average win rates.
"""

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from align.data.prompts import Prompt
from align.rewards.load import Reward, reward_value

Matrix = Float[np.ndarray, "answers answers"]
Scores = Float[np.ndarray, " answers"]


@runtime_checkable
class Scorer(Protocol):
    """Who prefers which of several answers to a prompt."""

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Matrix:
        """Probability that the answer of the row is preferred to the answer of the column.

        Args:
            prompt: Text or messages.
            answers: The K answers, as text.
            **columns: What else the row of the prompt holds, one value each: a right solution, say, or a reference.
        """
        ...


COMBINED = ("mean", "min", "lower")
JUDGES: dict[str, Callable[..., Scorer]] = {}
"""Judges of files that `--allow-file` has run, by the name that a recipe gives: `{kind: own, name: NAME}`."""


class RewardScorer:
    """Preferences by a scalar reward: M_ij = σ((r_i - r_j) / temperature), one half for a tie.

    Args:
        reward: With TRL's signature. Answers to a prompt of messages are handed over as messages.
        temperature: In units of the reward. 0 is its limit: the larger reward is preferred for certain.

    Raises:
        ValueError: If the temperature is negative or not finite.
    """

    def __init__(self, reward: Reward, *, temperature: float = 1.0) -> None:
        if not 0 <= temperature < np.inf:
            raise ValueError(f"temperature: must be finite and not negative, got {temperature}")
        self.reward, self.temperature = reward, temperature

    def score(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Scores:
        """Rewards of the answers.

        Raises:
            ValueError: If there are no answers, or the function gives no finite number for one of them.
        """
        _some(answers)
        k = len(answers)
        plain = isinstance(prompt, str)
        completions = [answer if plain else [{"role": "assistant", "content": answer}] for answer in answers]
        each = {name: [value] * k for name, value in columns.items()}
        given = self.reward(prompts=[prompt] * k, completions=completions, **each)
        rewards = np.array([reward_value(r) for r in given], dtype=np.float64)
        if rewards.shape != (k,) or not np.isfinite(rewards).all():
            raise ValueError(f"reward: must be one finite number for each of {k} answers, got {list(given)[:10]}")
        return rewards

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Matrix:
        """See `Scorer.prefer`."""
        rewards = self.score(prompt, answers, **columns)
        with np.errstate(over="ignore"):  # a margin beyond the largest number is infinite: certain
            return of_margins(rewards[:, None] - rewards[None, :], self.temperature)


class AnswerScorer(RewardScorer):
    """Preferences by an answer checker: right over wrong for certain (1), one half between equals.

    Args:
        check: A reward with TRL's signature that is larger for right answers, such as 1 for right and 0 for wrong.
    """

    def __init__(self, check: Reward) -> None:
        super().__init__(check, temperature=0.0)


class TableScorer:
    """Preferences that are known beforehand, for tests and simulated judges.

    Args:
        names: The answers, in the order of the table.
        table: Their preference matrix, the same for every prompt.

    Raises:
        ValueError: If it is no preference matrix, or a name occurs twice.
    """

    def __init__(self, names: Sequence[str], table: Any) -> None:
        self.table = np.asarray(table, dtype=np.float64)
        check_matrix(self.table, len(names))
        self.index = {name: i for i, name in enumerate(names)}
        if len(self.index) != len(names):
            raise ValueError(f"names: each must occur once, got {list(names)}")

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Matrix:
        """See `Scorer.prefer`.

        Raises:
            ValueError: If there are no answers.
            KeyError: If an answer is not in the table.
        """
        _some(answers)
        rows = [self.index[answer] for answer in answers]
        return self.table[np.ix_(rows, rows)]


class NoisyScorer:
    """Another scorer that is mistaken at a known rate: each pair of answers is judged the wrong way round by chance.

    Which pairs, depends on the seed, the prompt and the two answers: asked again, or in another order, it says the same.

    Args:
        scorer: Who is right.
        flip: Probability that a pair is flipped, in [0, 1].
        seed: Of the mistakes.

    Raises:
        ValueError: If `flip` is no probability.
    """

    def __init__(self, scorer: Scorer, *, flip: float, seed: int) -> None:
        if not 0 <= flip <= 1:
            raise ValueError(f"flip: must be in [0, 1], got {flip}")
        self.scorer, self.flip, self.seed = scorer, flip, seed

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Matrix:
        """See `Scorer.prefer`."""
        matrix = self.scorer.prefer(prompt, answers, **columns)
        flipped = [[self._draw(prompt, one, other) < self.flip for other in answers] for one in answers]
        return np.where(np.array(flipped), matrix.T, matrix)

    def _draw(self, prompt: Prompt, one: str, other: str) -> float:
        """A uniform number in [0, 1) that belongs to the prompt and the two answers in either order."""
        text = repr((self.seed, _as_values(prompt), *sorted((one, other))))
        return int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:6]) / 2**48


class EnsembleScorer:
    """Several reward models as one: the mean of their rewards, the least, or the mean less some standard deviations.

    Rewards are in nats, r / tau. Of each member the mean over the answers to the prompt is taken away, and the mean of these means
    is added afterwards: a Bradley-Terry reward is known up to a constant of the prompt, which would decide whose is the
    least. So members disagree about answers to one prompt among each other, and a single answer has the mean of
    its rewards. Preferences are σ of differences.

    Source: Coste et al. 2023, "Reward model ensembles help mitigate overoptimization" (arXiv:2310.02743), section 3.2. They
    normalise each member over a data set, and take the variance off where this takes the standard deviation, which has
    the unit of a reward.

    Args:
        members: Reward models, two or more.
        combine: `mean`, `min`, or `lower`, which is mean - deviations · std over members (with n in the denominator).
        deviations: Of `lower`.

    Raises:
        ValueError: If there are fewer than two members, or the rule is none of these.
    """

    dimension = 1

    def __init__(self, members: Sequence[Any], *, combine: str = "mean", deviations: float = 1.0) -> None:
        if len(members) < 2 or combine not in COMBINED:
            raise ValueError(f"an ensemble has at least 2 members and a rule of {', '.join(COMBINED)}")
        self.members, self.combine, self.deviations = list(members), combine, deviations

    def each(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Float[np.ndarray, "members answers"]:
        """The rewards of each member, in nats, with the same mean over the answers; ValueError if there are none."""
        _some(answers)
        rewards = np.stack([member.score(prompt, answers, **columns) / member.tau for member in self.members])
        return rewards - rewards.mean(axis=1, keepdims=True) + rewards.mean()

    def score(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Scores:
        """Rewards of the answers."""
        rewards = self.each(prompt, answers, **columns)
        if self.combine == "min":
            return rewards.min(axis=0)
        return rewards.mean(axis=0) - (self.deviations * rewards.std(axis=0) if self.combine == "lower" else 0.0)

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Matrix:
        """See `Scorer.prefer`."""
        rewards = self.score(prompt, answers, **columns)
        return of_margins(np.subtract.outer(rewards, rewards), 1.0)


def of_margins(margins: Float[np.ndarray, "..."], temperature: float) -> Float[np.ndarray, "..."]:
    """σ(margin / temperature): preferences of differences of rewards. At temperature 0 the larger wins, and a tie is one half."""
    if temperature == 0:
        return (1 + np.sign(margins)) / 2
    with np.errstate(over="ignore"):
        return np.exp(-np.logaddexp(0.0, -margins / temperature))


def check_matrix(matrix: Any, answers: int) -> None:
    """Refuse what is no preference matrix.

    Raises:
        ValueError: If it is no array of K x K, not of probabilities, or M + M^T is not 1.
    """
    if not hasattr(matrix, "shape"):
        raise ValueError(f"matrix: must be an array of {answers} x {answers}, got {type(matrix).__name__}")
    if matrix.shape != (answers, answers):
        raise ValueError(f"matrix: must be {answers} x {answers}, got {' x '.join(map(str, matrix.shape))}")
    if not (matrix >= 0).all():  # and none beyond 1, by the sums below
        raise ValueError("matrix: must hold probabilities")
    apart = np.abs(matrix + matrix.T - 1).max(initial=0.0)
    if apart > 1e-9:
        raise ValueError(f"matrix: M + M^T must be 1 everywhere, and is off by {apart:.3g}")


def _some(answers: Sequence[str]) -> None:
    if not answers:
        raise ValueError("answers: none given; a preference needs at least one")


def _as_values(prompt: Prompt) -> Any:
    return prompt if isinstance(prompt, str) else [sorted(message.items()) for message in prompt]

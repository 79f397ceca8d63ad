"""Reads the verdict in what an endpoint replied: a letter alone, one after reasons, or the probabilities of the letters."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ALONE = re.compile(r"[\W_]*(?:answer\W+)?(a|b|tie)[\W_]*", re.IGNORECASE)
REASONED = re.compile(r"\[\[\s*(a|b|c|tie)\s*\]\]", re.IGNORECASE)
FIRST_WINS = {"a": 1.0, "b": 0.0, "tie": 0.5, "c": 0.5}
BEGINS = {"a": 1.0, "b": 0.0, "tie": 0.5, "t": 0.5, "ti": 0.5}
"""What a token says by which a verdict begins."""


class Token(NamedTuple):
    """One token of a reply."""

    text: str
    likely: Mapping[str, float]
    """What might have stood there, and its log-probability; the endpoint says how many."""


class Reading(NamedTuple):
    """How a reply is read."""

    reasoning: bool = False
    """Whether reasons may stand before the verdict, which is then the last [[A]], [[B]] or [[C]]."""
    logprobs: bool = False
    """Whether the verdict counts by its probability: P(A) plus half of P(tie), of all three.

    Source: Liu et al. 2023, "G-Eval" (arXiv:2303.16634), equation 1, of two answers in place of one score."""

    def __call__(self, reply: str, tokens: Sequence[Token] = ()) -> tuple[str, float]:
        """What was said, and the probability that the answer shown first is better.

        Raises:
            ValueError: If there is no verdict, or its tokens are not those of the reply.
        """
        found = self._last(reply) if self.reasoning else ALONE.fullmatch(reply.strip())
        if found is None:
            asked = "no [[A]], [[B]] or [[C]]" if self.reasoning else "neither A, B nor tie"
            raise ValueError(f"{asked}: {reply.strip()[-200:]!r}")
        if not self.logprobs:
            return reply.strip(), FIRST_WINS[found[1].lower()]
        before = 0 if self.reasoning else len(reply) - len(reply.lstrip())
        return reply.strip(), _weighted(tokens, before + found.start(1), reply, ties=("c",) if self.reasoning else ())

    @staticmethod
    def _last(reply: str) -> re.Match[str] | None:
        return (list(REASONED.finditer(reply)) or [None])[-1]


def _weighted(tokens: Sequence[Token], place: int, reply: str, *, ties: Sequence[str]) -> float:
    if "".join(token.text for token in tokens)[: place + 1] != reply[: place + 1]:
        raise ValueError("the tokens with log-probabilities are not those of the reply")
    at, token = 0, Token("", {})
    for token in tokens:
        if at + len(token.text) > place:
            break
        at += len(token.text)
    chances: dict[float, float] = {}
    for text, logp in token.likely.items():
        said = re.sub(r"[\W_]+", "", text).lower()
        value = 0.5 if said in ties else BEGINS.get(said)
        if value is not None:
            chances[value] = chances.get(value, 0.0) + math.exp(logp)
    whole = math.fsum(chances.values())
    if whole <= 0:
        raise ValueError(f"no log-probability of A, B or tie at the verdict {token.text!r}")
    return math.fsum(value * chance for value, chance in chances.items()) / whole

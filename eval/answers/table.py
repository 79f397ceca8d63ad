"""Holds answers as texts, which every measure of answers starts from, whoever wrote them."""

from typing import Any, NamedTuple

from align.sampling.generate import Turns
from eval.statistics.names import REF


class Sampled(NamedTuple):
    """Prompts, and what every policy and the reference answered to them."""

    rows: list[dict[str, Any]]
    """One per prompt: `prompt` (text or messages) and the data's further columns."""
    answers: dict[str, list[list[str]]]
    """By the name of a policy, the one in question first, or "ref": [prompt][sample] -> text."""
    turns: dict[str, list[list[Turns]]] | None = None
    """Like `answers`, what each answer is made of, where tools may be called."""

    @property
    def samples(self) -> int:
        """Answers per prompt; everybody has as many."""
        return len(next(iter(self.answers.values()))[0])

    @property
    def policies(self) -> list[str]:
        """Names of the policies, the one in question first."""
        return [name for name in self.answers if name != REF]

    def flat(self, who: str) -> list[str]:
        """All answers of one of them, those to a prompt together."""
        return [text for row in self.answers[who] for text in row]

    def first(self, who: str) -> list[str]:
        """The first answer to each prompt."""
        return [row[0] for row in self.answers[who]]

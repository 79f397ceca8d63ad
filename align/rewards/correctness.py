r"""Rewards a solution whose final answer is right."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .expressions import same_expression
from .numbers import numbers, plain, same_number, whole_number
from .texts import Text, has_value, needed, text_of

LONGEST_ANSWER = 300  # characters; a longer one is not read
LAST_CHARACTERS = 2000  # where a bare last number is looked for
_PHRASE = re.compile(r"\banswer[ \t]{0,3}(?:is\b|[:=])", re.IGNORECASE)
_BOX = "\\boxed{"


@dataclass
class Correctness:
    r"""1 if the final answer equals the row's `answer`, else 0; None for a row without an answer.

    Of a row's answer that is a worked solution with `####`, as GSM8K's are, what follows the last one counts.

    The final answer is what stands in the last `\boxed{}`; without one, what follows the last `####`; without that, the
    last "answer is", "answer:" or "answer ="; without that, the last number of the text. Only one answer is read, so
    listing many does not pay. Plain numbers are compared exactly, to within 1e-6: decimals, fractions, mixed numbers,
    thousands separators, percent (50% equals 50 and 0.5), currency, units, digits of any script. Whatever is no plain
    number is left to math-verify where it is installed, else compared as text without spaces; it counts only in a box
    or after one of the words above.

    Where it can be fooled: it does not read the way to the answer, so a guess counts as much as a proof; the answer
    repeated fifty times counts; an unevaluated `45/5` counts as 9; units are not compared; without a box or a word
    that announces it any last number counts.

    Source: the accuracy reward of Lu et al. 2025 (arXiv:2509.11452), which reads the last box only (`boxed_only`).
    """

    boxed_only: bool = False
    """Nothing outside of a box counts."""

    __name__ = "correctness"

    def __call__(
        self, completions: Sequence[Text], prompts: Any = None, answer: Sequence[Any] | None = None, **_: Any
    ) -> list[float | None]:
        """One reward per completion, 0 or 1, or None where `answer` is None, blank or NaN.

        Raises:
            ValueError: If there is no column `answer`.
        """
        golds = needed("correctness", "answer", answer, completions)
        return [
            float(self._is_right(text_of(completion), _stated(str(gold)))) if has_value(gold) else None
            for completion, gold in zip(completions, golds, strict=True)
        ]

    def _is_right(self, text: str, gold: str) -> bool:
        wanted = whole_number(gold)
        stated = _boxed(text)
        if stated is None and not self.boxed_only:
            announced = _announced(text)
            if announced is not None:
                found = _announced_number(announced)
                if wanted is not None:
                    return found is not None and same_number(found, wanted)
                stated = announced.rstrip(" .")
            elif wanted is not None:
                found = numbers(plain(text[-LAST_CHARACTERS:]))
                return bool(found) and same_number(found[-1], wanted)
        if stated is None:
            return False
        number = whole_number(stated)
        if number is not None and wanted is not None:
            return same_number(number, wanted)
        return same_expression(gold, stated)


def _stated(gold: str) -> str:
    """A row's answer; of a worked solution with `####`, as GSM8K has them, what follows the last one."""
    return gold.rpartition("####")[2].strip() or gold.strip()


def _boxed(text: str) -> str | None:
    """What the last box holds; None without one that is closed and not empty."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    start += len(_BOX)
    depth = 1
    for end in range(start, min(len(text), start + LONGEST_ANSWER)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            return text[start:end].strip() or None
    return None


def _announced(text: str) -> str | None:
    """What follows the last `####`, or the last "answer is", up to the end of its line."""
    start = text.rfind("####")
    if start >= 0:
        start += 4
    else:
        ends = [match.end() for match in _PHRASE.finditer(text)]
        if not ends:
            return None
        start = ends[-1]
    return text[start : start + LONGEST_ANSWER].strip().partition("\n")[0] or None


def _announced_number(text: str) -> "re.Match[str] | None":
    """The first number of an announcement, or the first after the last `=` of its first sentence."""
    sentence = re.split(r"[.!?](?:\s|$)", plain(text), maxsplit=1)[0]
    found = numbers(sentence.rsplit("=", 1)[-1])
    return found[0] if found else None

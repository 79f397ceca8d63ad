r"""Rewards a solution that is laid out in steps and boxes its answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .texts import Text, text_of

_BRACE = re.compile(r"\\boxed\{|\\[{}]|[{}]")
_LABEL = r"(?:step\s{0,3})?(?:\d{1,9}|[a-z]|[ivxlcdm]{1,9})[).:-]"
_ANYWHERE = re.compile(rf"(?:^|[\s(]){_LABEL}|(?:^|\s)[-*•]\s", re.IGNORECASE | re.MULTILINE)
_AT_LINE_START = re.compile(rf"^[ \t(]{{0,9}}(?:{_LABEL}|[-*•])(?=\s|$)", re.IGNORECASE | re.MULTILINE)
_ORDINAL = re.compile(
    r"\b(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|next|then)\b", re.IGNORECASE
)


@dataclass
class Clarity:
    r"""1 if an answer holds a `\boxed{}` that is closed and not empty and shows at least two steps, else 0.

    A step is an enumerator (`1.`, `b)`, `Step 3:`, `iv.`, a bullet) or an ordinal word (first … tenth, next, then); two
    of one kind are needed.

    Where it can be fooled: it looks at form alone. "First, then. \boxed{x}" earns it in full. As in the official code
    any number before a full stop or a colon is an enumerator, so two sentences that end in numbers are steps;
    `line_start` asks for enumerators where a line begins.

    Source: Lu et al. 2025 (arXiv:2509.11452), the clarity reward of the official code.
    """

    boxed: bool = True
    """A box is needed."""
    steps: int = 2
    """So many enumerators, or so many ordinal words, are needed."""
    line_start: bool = False
    """Enumerators count only where a line begins. The paper's count anywhere."""

    __name__ = "clarity"

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps: must not be negative, got {self.steps}")
        if self.steps == 0 and not self.boxed:
            raise ValueError("steps: without `boxed` nothing is asked, got 0; ask for one of them")

    def __call__(self, completions: Sequence[Text], prompts: Any = None, **_: Any) -> list[float]:
        """One reward per completion, 0 or 1."""
        return [float(self._is_clear(text_of(completion))) for completion in completions]

    def _is_clear(self, text: str) -> bool:
        if self.boxed and not _has_box(text):
            return False
        enumerator = _AT_LINE_START if self.line_start else _ANYWHERE
        return max(len(enumerator.findall(text)), len(_ORDINAL.findall(text))) >= self.steps


def _has_box(text: str) -> bool:
    """Whether a box is opened, filled and closed, in one pass; escaped braces are none."""
    opened: list[int | None] = []
    for brace in _BRACE.finditer(text):
        if brace[0] in ("{", r"\boxed{"):
            opened.append(brace.end() if len(brace[0]) > 1 else None)
        elif brace[0] == "}" and opened:
            start = opened.pop()
            if start is not None and text[start : brace.start()].strip():
                return True
    return False

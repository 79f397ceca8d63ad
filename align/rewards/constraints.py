"""Rewards an answer by the constraints of its prompt that it satisfies, by rules."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from align.data.making.constraints import CHECKERS, Constraint

from .texts import Text, needed, text_of

logger = logging.getLogger(__name__)


@dataclass
class Constraints:
    """Share of the row's constraints that an answer satisfies, in [0, 1]; 0 for an answer without text.

    The constraints are IFEval's: `instruction_id_list` names them, `kwargs` holds the arguments of each; `align.data`
    has the checkers. None for a row without constraints, or with one that has no checker (told once for each kind).

    Where it can be fooled: it checks form. "No comma" and "at most 20 words" are satisfied by one letter, and an answer
    may keep every rule and not answer; put it beside an objective that reads.

    Source: Zhou et al. 2023 (arXiv:2311.07911), whose strict accuracy per prompt is `all_of`.
    """

    all_of: bool = False
    """1 if every constraint is satisfied, else 0, instead of the share."""

    __name__ = "constraints"

    def __call__(
        self,
        completions: Sequence[Text],
        prompts: Any = None,
        instruction_id_list: Sequence[Sequence[str] | None] | None = None,
        kwargs: Sequence[Sequence[Mapping[str, Any] | None] | None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """One reward per completion.

        Raises:
            ValueError: If a column is missing, or a row's arguments are not those of its constraints.
        """
        kinds = needed("constraints", "instruction_id_list", instruction_id_list, completions)
        arguments = needed("constraints", "kwargs", kwargs, completions)
        return [
            self._reward(text_of(completion), row_kinds or [], row_arguments or [])
            for completion, row_kinds, row_arguments in zip(completions, kinds, arguments, strict=True)
        ]

    def _reward(self, text: str, kinds: Sequence[str], arguments: Sequence[Mapping[str, Any] | None]) -> float | None:
        if len(kinds) != len(arguments):
            raise ValueError(
                f"constraints: `kwargs` must have one entry per constraint ({len(kinds)}), got {len(arguments)}"
            )
        unknown = [kind for kind in kinds if kind not in CHECKERS]
        for kind in unknown:
            _say_unknown(kind)
        if unknown or not kinds:
            return None
        rules = [Constraint(kind, given or {}) for kind, given in zip(kinds, arguments, strict=True)]
        if not text.strip():
            return 0.0
        held = [rule.holds(text) for rule in rules]
        return float(all(held)) if self.all_of else sum(held) / len(held)


@cache
def _say_unknown(kind: str) -> None:
    logger.warning("reward 'constraints': no checker for %r; rows with it get no reward", kind)

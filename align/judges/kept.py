"""Keeps what a local judge says, so that a report is made again, or a killed evaluation goes on, without asking again."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.files import digest_of
from align.models.identity import log_probability_identity, text_identity

from .ledger import Ledger
from .protocol import Ask, Judge, Question, Verdict

AT_ONCE = 256
"""Questions after which verdicts are written."""


def keeping(make: Callable[[], Any], ledger: Path) -> Callable[[], Judge]:
    """What makes a judge that asks a local language model, so that its verdicts are kept."""

    def made() -> Judge:
        ask = make().ask
        about = {**log_probability_identity(ask.model), **text_identity(ask.tokenizer), "template": ask.template}
        return Judge(KeptJudge(ask, ledger, about))

    return made


class KeptJudge:
    """Answers questions from a ledger, and asks for what is missing there. `Judge(...)` of it is a scorer.

    Failures are not kept.

    Args:
        ask: Gives one verdict per question.
        ledger: The jsonl file of verdicts.
        about: What determines them besides the question.
    """

    def __init__(self, ask: Ask, ledger: Path, about: Mapping[str, Any]) -> None:
        self.ask, self.ledger, self.about = ask, Ledger(ledger), digest_of(dict(about))

    def __call__(self, questions: Sequence[Question]) -> list[Verdict]:
        """One verdict per question. Equal questions are asked once."""
        keys = [digest_of([self.about, *question]) for question in questions]
        missing = {
            key: question
            for key, question in zip(keys, questions, strict=True)
            if self.ledger.get(key) is None
        }  # fmt: skip
        failed: dict[str, Verdict] = {}
        for start in range(0, len(missing), AT_ONCE):
            some = list(missing)[start : start + AT_ONCE]
            for key, verdict in zip(some, self.ask([missing[key] for key in some]), strict=True):
                if verdict.error is not None or not np.isfinite(verdict.first_wins):
                    failed[key] = verdict
                else:
                    self.ledger.append({"key": key, "first_wins": verdict.first_wins, "said": verdict.said})
        return [failed[key] if key in failed else Verdict(*(self.ledger.get(key) or (np.nan, ""))) for key in keys]

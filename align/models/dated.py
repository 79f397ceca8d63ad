"""Dates a chat template that writes the date once: a run that resumes tomorrow must read the prompts of today.

Templates ask for it by `strftime_now(FORMAT)`, as those of Llama 3.1, SmolLM3 and gpt-oss do.
"""

import json
import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import torch.distributed as dist
from accelerate.utils import broadcast_object_list
from transformers import PreTrainedTokenizerBase

from align.errors import RunError
from align.files import read_json

DAY = "template_day"
"""Where a run's record keeps the day, if its template is dated."""
_CALL = re.compile(r"""\bstrftime_now\s*\(\s*(?:format\s*=\s*)?("[^"\\]*"|'[^'\\]*')\s*\)""")
_ANY = re.compile(r"\bstrftime_now\s*\(")


def writes_the_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template asks for the date."""
    return any(_ANY.search(template) for template in _templates(tokenizer).values())


def date_template(tokenizer: PreTrainedTokenizerBase, day: str | None = None) -> str | None:
    """Let the tokenizer's chat template write one date for ever; hours and minutes are those of midnight.

    Args:
        tokenizer: Its template is replaced.
        day: As `2026-11-28`; by default today, the same on all processes.

    Returns:
        The day, or None if the template writes no date.

    Raises:
        RunError: If the template asks for the date in a way that cannot be replaced, or `day` is no day.
    """
    if not writes_the_date(tokenizer):
        return None
    today = date.today().isoformat() if day is None else day
    if dist.is_available() and dist.is_initialized():  # midnight may come between two processes
        [today] = broadcast_object_list([today])
    try:
        when = datetime.fromisoformat(str(today))
    except ValueError:
        raise RunError(f"{DAY}: expected a day such as 2026-11-28, got {str(today)[:40]!r}") from None
    found = {
        name: _CALL.sub(lambda call: json.dumps(when.strftime(call[1][1:-1]), ensure_ascii=False), template)
        for name, template in _templates(tokenizer).items()
    }
    if any(_ANY.search(template) for template in found.values()):
        raise RunError(
            "the chat template asks for the date with a format that it computes, so that it cannot be dated once; write "
            "strftime_now('%d %b %Y'), or a date, in its place"
        )
    tokenizer.chat_template = found if isinstance(tokenizer.chat_template, dict) else found[""]
    return str(today)


def recorded_day(record: Path) -> str | None:
    """The day in the record of a run; None if it has none."""
    return read_json(record).get(DAY) if record.is_file() else None


def _templates(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    template: Any = tokenizer.chat_template
    return template if isinstance(template, dict) else {"": template} if template else {}

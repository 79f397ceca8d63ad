"""Names the method and its paper on a model's card, and keeps paths of this machine out of it."""

import re
from pathlib import Path
from typing import Any

from align.files import write_text
from align.methods import METHODS

from .trl_contract import label, paper_of

CARD = "README.md"
_ON_A_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def name_method(trainer: Any) -> None:
    """Have the card say what was trained: the method whose configuration, and fixed fields, these are."""
    fitting = [
        method
        for method in METHODS.values()
        if type(trainer.args) is method.config
        and all(getattr(trainer.args, name) == value for name, value in method.preset.items())
    ]
    if not fitting:
        return
    method = max(fitting, key=lambda each: len(each.preset))
    known = paper_of(trainer)
    if method.arxiv != known.get("id"):
        known = {} if method.arxiv is None else {"title": f"arXiv:{method.arxiv}", "id": method.arxiv}
    label(trainer, method.title, known)


def is_local(name: str) -> bool:
    """Whether a model or data set is a path of this machine, and no name on a hub."""
    return Path(name).exists() or not _ON_A_HUB.fullmatch(name)


def without_paths(card: Path, base: str, named: str) -> None:
    """Rewrite a card, if it is there: the folder of the base by its last part, what is missing by what it is.

    Args:
        card: The file.
        base: Name or path of the model that training began with.
        named: What the trained model is called, where it has no name on a hub.
    """
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8")
    last = Path(base).name or "a model without a name"
    if base and is_local(base):
        text = text.replace(base, last)
    text = text.replace("[None](https://huggingface.co/None)", last).replace('model="None"', f'model="{named}"')
    write_text(card, text)

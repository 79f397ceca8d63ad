"""Names the method and its paper on a model's card, and keeps what is of this machine out of cards and uploads."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, try_to_load_from_cache
from transformers import trainer as trainer_module

from align.files import is_local, write_text
from align.methods import METHODS
from align.models.folders import write_in_order
from align.runs.contents import CARD, TENSORBOARD

from .guard import SKIPPED
from .trl_contract import TrainerBase, label, paper_of

PLACEHOLDER = "licence: license\n"
"""What TRL's template writes for every model."""
ARGUMENTS = "training_args.bin"
STAYS_HERE = (f"*{ARGUMENTS}", f"{SKIPPED}/*", f"{TENSORBOARD}/*", ".*")
"""What the Trainer would upload beside a model: the pickle of its arguments, batches of the data, event files, whose names hold
the machine's, locks and leftovers."""


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


def licence_of(base: str) -> str | None:
    """The licence that the card of a model names, where that card is on this machine; adapters and tuned models are under it."""
    try:
        found = Path(base) / CARD if is_local(base) else try_to_load_from_cache(base, CARD) if base else None
        if not isinstance(found, str | Path) or not Path(found).is_file():
            return None
        said = ModelCard.load(found, ignore_metadata_errors=True).data.get("license")
    except (OSError, ValueError):  # a name that is none of a hub, a card that is none
        return None
    return said if isinstance(said, str) and re.fullmatch(r"[\w.-]{1,60}", said) else None


def without_paths(card: Path, base: str, named: str) -> None:
    """Rewrite a card, if it is there: the base's folder by its last part, what is missing by what it is, the licence by the base's.

    Args:
        card: The file.
        base: Name or path of the model that training began with.
        named: What the trained model is called, where it has no name on a hub.
    """
    if not card.is_file():
        return
    text = card.read_text(encoding="utf-8")
    licence = licence_of(base)
    text = text.replace(PLACEHOLDER, f"license: {licence}\n" if licence else "", 1)
    last = Path(base).name or "a model without a name"
    if base and is_local(base):
        text = text.replace(base, last)
    text = text.replace("[None](https://huggingface.co/None)", last).replace('model="None"', f'model="{named}"')
    write_text(card, text)


class _Api:
    """The hub's, which uploads no file whose path in its folder fits one of some patterns."""

    def __init__(self, api: Any, patterns: Sequence[str]) -> None:
        self._api, self._patterns = api, patterns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def upload_folder(self, *args: Any, ignore_patterns: Sequence[str] = (), **kwargs: Any) -> Any:
        return self._api.upload_folder(*args, ignore_patterns=[*ignore_patterns, *self._patterns], **kwargs)


@contextlib.contextmanager
def uploads_without(patterns: Sequence[str]) -> Iterator[None]:
    """Let the Trainer, which uploads by `transformers.trainer.hf_api()`, leave these files out."""
    original = trainer_module.hf_api
    trainer_module.hf_api = lambda: _Api(original(), patterns)
    try:
        yield
    finally:
        trainer_module.hf_api = original


class Published(TrainerBase):
    """A Trainer that writes cards and uploads without what nobody else should have. Mixed in before the Trainer."""

    args: Any
    accelerator: Any
    model: Any

    def create_model_card(self, model_name: Any = None, dataset_name: Any = None, tags: Any = None) -> None:
        """TRL's, with the method's own name and paper, and without paths of this machine."""
        name_method(self)
        if isinstance(dataset_name, str) and is_local(dataset_name):
            dataset_name = None
        super().create_model_card(model_name=model_name, dataset_name=dataset_name, tags=tags)
        if self.accelerator.is_main_process:
            where = Path(self.args.output_dir)
            without_paths(where / CARD, self._base(), model_name or where.name)

    def _base(self) -> str:
        return getattr(self.accelerator.unwrap_model(self.model).config, "_name_or_path", "")

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """TRL's, without the pickle of the arguments, which nothing reads, with no path in PEFT's card, and its settings in order."""
        super()._save(output_dir, state_dict)
        where = Path(output_dir or self.args.output_dir)
        (where / ARGUMENTS).unlink(missing_ok=True)
        without_paths(where / CARD, self._base(), where.name)
        write_in_order(where)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """The Trainer's, without the pickle of its arguments and what else stays here."""
        with uploads_without(STAYS_HERE):
            return super().push_to_hub(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """The Trainer's, without the pickle of its arguments and what else stays here."""
        with uploads_without(STAYS_HERE):
            super()._push_from_checkpoint(checkpoint_folder)
        (Path(self.args.output_dir) / ARGUMENTS).unlink(missing_ok=True)

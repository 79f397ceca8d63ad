"""Tokens at which an answer ends: one rule for training, sampling and judging, so that all stop at the same place.

Models say it in several places, which differ: `generation_config.json` may list several tokens, the tokenizer names one,
and the chat template ends a turn with a token that may be neither.
"""

from collections.abc import Iterable
from typing import Any

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedTokenizerBase

from align.errors import RunError
from align.findings import printable

MARK = "alignkit9answer"


def stop_ids(tokenizer: PreTrainedTokenizerBase, model: Any) -> list[int]:
    """The tokens that end an answer of this model, the tokenizer's end of sequence first; none if nothing names one.

    They are those of the model's generation settings, its configuration, its tokenizer, and the token with which the
    chat template ends a turn of the assistant.

    Args:
        tokenizer: The model's.
        model: A language model, with an adapter or not.

    Raises:
        RunError: If one of them is no token id.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    named = named_stop_ids(tokenizer, base.config, getattr(base, "generation_config", None))
    turn = turn_end(tokenizer)
    return named if turn is None or turn in named else [*named, turn]


def named_stop_ids(
    tokenizer: PreTrainedTokenizerBase, config: PreTrainedConfig, generation: GenerationConfig | None
) -> list[int]:
    """The tokens that generation settings, configuration and tokenizer name as the end of an answer.

    Those of the configuration count if the tokenizer knows them as special: a class has a default of its own, which
    says nothing of this vocabulary.

    Raises:
        RunError: If one of them is no token id.
    """
    special = special_ids(tokenizer)
    found = [*_ids(tokenizer.eos_token_id, "tokenizer"), *_ids(_of(generation), "generation_config")]
    for each in (config, config.get_text_config()):
        found += [token for token in _ids(_of(each), "config") if token in special]
    return list(dict.fromkeys(found))


def turn_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token with which the chat template ends a turn of the assistant; None if it writes none, or refuses."""
    if tokenizer.chat_template is None:
        return None
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": MARK}]
    try:
        written = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # templates are programs of strangers; who trains on it is told
        return None
    before, _, end = written.rpartition(MARK)
    if not before:
        return None
    special = special_ids(tokenizer)
    ids: Any = tokenizer(end, add_special_tokens=False)["input_ids"]
    return next((token for token in ids if token in special), None)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that no text is cut into, unless it spells them out."""
    return frozenset(tokenizer.all_special_ids) | frozenset(tokenizer.added_tokens_decoder)


def _of(settings: Any) -> Any:
    return getattr(settings, "eos_token_id", None)


def _ids(value: Any, where: str) -> Iterable[int]:
    values = value if isinstance(value, list | tuple) else [] if value is None else [value]
    for each in values:
        if not isinstance(each, int) or isinstance(each, bool):
            raise RunError(f"{where}: eos_token_id holds {printable(repr(each))}, which is no token id; mend the file")
        if each >= 0:  # -1 is an old way to say none
            yield each

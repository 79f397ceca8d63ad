"""Samples several answers to a prompt and runs the prompt through the model once."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DynamicCache, GenerationConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

logger = logging.getLogger(__name__)
PROMPT = frozenset({"input_ids", "attention_mask"})
_said: set[str] = set()


@contextlib.contextmanager
def prompts_once(model: Any) -> Iterator[None]:
    """Within it, `model.generate` runs each distinct prompt of its batch once and copies its cache to all its answers.

    Tokens are drawn as before. Only the rounding of a prompt's keys and values may differ: they come from a smaller batch.
    Where this cannot be done, every row's prompt is run, and one line says why.

    Args:
        model: A causal language model, with adapters or not, whose `generate` is called within.
    """
    generate = model.generate

    def once(*args: Any, **kwargs: Any) -> Any:
        cache = None if args else repeated_cache(model, generate, kwargs)
        return generate(*args, **kwargs) if cache is None else generate(**kwargs, past_key_values=cache)

    with generating_by(model, once):
        yield


@contextlib.contextmanager
def generating_by(model: Any, instead: Callable[..., Any]) -> Iterator[None]:
    """Within it, `model.generate` is something else."""
    generate, own = model.generate, "generate" in vars(model)
    model.generate = instead
    try:
        yield
    finally:
        if own:
            model.generate = generate
        else:
            del model.generate  # the attribute of the object; the method of its class stays


def repeated_cache(model: Any, generate: Callable[..., Any], asked: dict[str, Any]) -> DynamicCache | None:
    """Keys and values of all prompt tokens but the last, for every row; None if no prompt repeats or this cannot be done.

    Args:
        model: Whose `generate` it is.
        generate: Called once with the distinct prompts, for a single token that is thrown away.
        asked: What `generate` is to be called with: `input_ids` and `attention_mask` (rows, time), padded on the left, and
            how to sample.
    """
    ids, mask = asked.get("input_ids"), asked.get("attention_mask")
    if not isinstance(ids, Tensor) or not isinstance(mask, Tensor):
        return None
    places: dict[tuple[int, ...], int] = {}
    row_of = [places.setdefault(tuple(row), len(places)) for row in torch.cat([ids, mask], dim=1).tolist()]
    if len(places) == len(row_of):
        return None
    reason = _unsuited(model, asked)
    if reason is None:
        first = [row_of.index(place) for place in range(len(places))]
        start = GenerationConfig(max_new_tokens=1, do_sample=False, return_dict_in_generate=True, disable_compile=True)
        start.pad_token_id = 0  # of rows that end before others, which none does
        cache: Any = generate(
            input_ids=ids[first, :-1], attention_mask=mask[first, :-1], generation_config=start
        ).past_key_values
        reason = _not_copied(cache)
        if reason is None:
            cache.batch_select_indices(torch.tensor(row_of, device=ids.device))
            return cache
    say_once(reason)
    return None


def say_once(reason: str) -> None:
    """One line for one reason to run every row's prompt."""
    if reason not in _said:
        _said.add(reason)
        logger.warning("sampling: every prompt is computed once per answer, because %s", reason)


def _unsuited(model: Any, asked: dict[str, Any]) -> str | None:
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    config = asked.get("generation_config") or base.generation_config
    beyond = sorted(name for name, value in asked.items() if isinstance(value, Tensor) and name not in PROMPT)
    if isinstance(model, PeftModel) and model.active_peft_config.is_prompt_learning:
        return f"{type(model.active_peft_config).__name__} puts tokens of its own before the prompt"
    if base.config.is_encoder_decoder:
        return f"{type(base).__name__} reads the prompt with an encoder"
    if beyond:
        return f"the prompt is more than tokens ({', '.join(beyond)})"
    if config.use_cache is False or config.cache_implementation is not None or (config.num_beams or 1) > 1:
        return "the generation settings ask for beams or a cache of their own"
    if int(asked["attention_mask"].sum(dim=1).min()) < 2:  # nothing but padding would come before its last token
        return "a prompt has one token"
    return _not_copied(DynamicCache(config=base.config))


def _not_copied(cache: Any) -> str | None:
    kinds = {type(layer) for layer in getattr(cache, "layers", [])} - {DynamicLayer, DynamicSlidingWindowLayer}
    if not isinstance(cache, DynamicCache) or kinds:
        names = ", ".join(sorted(kind.__name__ for kind in kinds)) or type(cache).__name__
        return f"the state of {names} is more than keys and values"
    return None

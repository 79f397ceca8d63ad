"""Cuts completions into tokens as training reads them, and scores them under a model."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.data_utils import common_prefix_length

from align.data.prompts import template_of
from align.data.rows.truncation import truncated
from align.models.use import head_in_one_product

Sequences = Sequence[tuple[list[int], list[int]]]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Any) -> list[int]:
    """Token ids of a prompt: a string as it is, messages through the chat template with a generation prompt.

    The template is given what a `Chat` has for it.
    """
    encoded: Any = (
        tokenizer(prompt)
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(
            list(prompt), add_generation_prompt=True, return_dict=True, **template_of(prompt)
        )
    )
    return list(encoded["input_ids"])


def completion_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: Any, completion: Any, max_length: int | None = None
) -> tuple[list[int], int]:
    """Token ids of a row and where its completion begins, as in training: where the prompt alone and the whole part.

    The very first token always counts as prompt: nothing predicts it.

    Args:
        tokenizer: With a chat template if prompts are messages.
        prompt: A string or a list of messages.
        completion: Likewise.
        max_length: Tokens after which a row is cut.

    Raises:
        ValueError: If no token of the completion is left.
    """
    if isinstance(prompt, str):
        end = str(tokenizer.eos_token or "")
        whole: Any = tokenizer(text=prompt + completion + end * (not completion.endswith(end)))["input_ids"]
    else:
        template: Any = tokenizer.apply_chat_template
        whole = template([*prompt, *completion], return_dict=True, **template_of(prompt))["input_ids"]
    begin = max(common_prefix_length(prompt_ids(tokenizer, prompt), whole), 1)
    prompt_part, kept = truncated(list(whole[:begin]), list(whole[begin:]), max_length)
    if not kept:
        raise ValueError(f"no token of the completion is left after the prompt: {completion!r}")
    return prompt_part + kept, begin


def pair_ids(tokenizer: PreTrainedTokenizerBase, prompt: Any, chosen: Any, rejected: Any) -> Sequences:
    """Both answers of a pair after the same prompt ids: as in training, the earlier of their two splits is used."""
    sides = [completion_ids(tokenizer, prompt, completion) for completion in (chosen, rejected)]
    shared = min(begin for _, begin in sides)
    return [(ids[:shared], ids[shared:]) for ids, _ in sides]


def completion_logps(
    model: PreTrainedModel | PeftModel,
    sequences: Sequences,
    *,
    pad_token_id: int,
    batch_size: int = 4,
    temperature: float = 1.0,
    desc: str = "scoring",
) -> list[Float[Tensor, " _tokens"]]:
    """Log-probability log π(y_t | x, y_<t) of every completion token, in nats, float32.

    Sequences that are the same are scored once, and so have the same values to the bit, wherever they stand: batching
    changes rounding, and would make a win or a loss of a tie.

    Args:
        model: A causal language model; put adapters on or off before the call.
        sequences: (prompt ids, completion ids) pairs.
        pad_token_id: Padding, ignored by the attention mask.
        batch_size: Sequences per forward pass; the result does not depend on it beyond rounding.
        temperature: Logits are divided by it, to score what was sampled at that temperature.
        desc: Title of the progress bar.

    Returns:
        One tensor of shape (completion tokens,) per sequence, in the order given.

    Raises:
        ValueError: If a sequence has no prompt token: nothing would predict its first completion token.
    """
    if any(not prompt for prompt, _ in sequences):
        raise ValueError("every sequence needs at least one prompt token, to predict the first completion token from")
    keys = [(tuple(prompt), tuple(completion)) for prompt, completion in sequences]
    first_of: dict[Any, int] = {}
    for i, key in enumerate(keys):
        first_of.setdefault(key, i)
    order = sorted(first_of.values(), key=lambda i: len(sequences[i][0]) + len(sequences[i][1]))
    results: list[Tensor] = [torch.empty(0)] * len(sequences)
    with tqdm(total=len(order), desc=desc, unit="answer") as bar, torch.inference_mode():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            found = batch_logps(
                model, [sequences[i] for i in batch], pad_token_id=pad_token_id, temperature=temperature
            )
            together = torch.cat(found).cpu()  # one copy from the device for all rows
            for i, row in zip(batch, together.split([len(one) for one in found]), strict=True):
                results[i] = row
            bar.update(len(batch))
    return [results[first_of[key]] for key in keys]


def batch_logps(
    model: PreTrainedModel | PeftModel, batch: Sequences, *, pad_token_id: int, temperature: float = 1.0
) -> list[Float[Tensor, " _tokens"]]:
    """`completion_logps` of one forward pass, on the model's device; differentiable unless gradients are off."""
    rows = [prompt + completion for prompt, completion in batch]
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad_token_id] * (width - len(row)) for row in rows], device=model.device)
    attention = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=model.device)
    first = min(len(prompt) for prompt, _ in batch)  # no logits for what is prompt in every row
    with head_in_one_product(model):
        out = model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=width - first + 1)
    logits = out.logits
    logps = (logits[:, :-1].float() / temperature).log_softmax(-1)
    picked = logps.gather(-1, ids[:, first:].unsqueeze(-1)).squeeze(-1)
    return [
        row[len(prompt) - first : len(prompt) - first + len(completion)]
        for row, (prompt, completion) in zip(picked, batch, strict=True)
    ]

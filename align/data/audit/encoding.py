"""Makes the token ids that a trainer makes of rows, many rows at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.data_utils import common_prefix_length

from align.data.prompts import prompt_of, template_of
from align.data.rows.columns import TEMPLATE

from .lengths import PARTS

SLICE = 1000  # rows whose ids are Python objects at a time


class Encoded(NamedTuple):
    """A pair as the trainer will hold it, before truncation."""

    prompt: list[int]
    """Tokens that the prompt alone and both contexts begin with."""
    chosen: list[int]
    rejected: list[int]
    left_out: list[int]
    """End of the prompt alone that is in no context: what a model is asked with, but not trained on."""


class Parted(NamedTuple):
    """A prompt and its answers as a trainer will hold them, before truncation; see `Encoded`."""

    prompt: list[int]
    answers: list[list[int]]
    left_out: list[int]


def encode(rows: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Token ids of pairs; see `encode_sides`."""
    return [
        Encoded(one.prompt, *one.answers, left_out=one.left_out) for one in encode_sides(rows, tokenizer, PARTS[1:])
    ]


def encode_sides(
    rows: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> list[Parted]:
    """Token ids as TRL's DPOTrainer makes them of pairs, and its SFTTrainer of completions (`_prepare_dataset` in trl 1.16).

    Many rows at a time take a fraction of TRL's time, which has one after the other.

    Args:
        rows: Columns `prompt` and those of the answers, all texts or all lists of messages; `tools` and
            `chat_template_kwargs`, if there are some.
        tokenizer: With a chat template if the rows are messages.
        names: The columns of the answers.
    """
    prompts, sides = rows["prompt"], [rows[name] for name in names]
    quiet: Any = {"verbose": False}
    if isinstance(prompts[0], str):
        end = str(tokenizer.eos_token)
        alone = tokenizer(text=prompts, **quiet)["input_ids"]
        texts = ([p + a + end * (not a.endswith(end)) for p, a in zip(prompts, s, strict=True)] for s in sides)
        both = [tokenizer(text=side, **quiet)["input_ids"] for side in texts]
    elif set(TEMPLATE) & set(rows):
        each: Any = [prompt_of(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
        parts = ((prompt, template_of(prompt)) for prompt in each)
        one: Any = tokenizer.apply_chat_template
        quietly = {"return_dict": True, "tokenizer_kwargs": quiet}
        return [
            _parted(
                one(list(prompt), add_generation_prompt=True, **quietly, **given)["input_ids"],
                *(one([*prompt, *side[index]], **quietly, **given)["input_ids"] for side in sides),
            )
            for index, (prompt, given) in enumerate(parts)
        ]
    else:
        template: Any = tokenizer.apply_chat_template
        alone = template(prompts, add_generation_prompt=True, tokenizer_kwargs=quiet)["input_ids"]
        chats = ([p + a for p, a in zip(prompts, side, strict=True)] for side in sides)
        both = [template(side, tokenizer_kwargs=quiet)["input_ids"] for side in chats]
    return [_parted(*ids) for ids in zip(alone, *both, strict=True)]


def _parted(alone: list[int], *both: list[int]) -> Parted:
    kept = min(common_prefix_length(alone, ids) for ids in both)
    return Parted(alone[:kept], [ids[kept:] for ids in both], alone[kept:])


def encode_all(dataset: Dataset, tokenizer: PreTrainedTokenizerBase) -> Iterator[Encoded | Exception]:
    """`encode`, a slice at a time; a row that the chat template refuses gives the exception in its place."""
    for start in range(0, len(dataset), SLICE):
        rows = {
            part: list(column) for part, column in dataset[start : start + SLICE].items() if part in (*PARTS, *TEMPLATE)
        }
        try:
            yield from encode(rows, tokenizer)
        except Exception:  # a template may raise anything
            for index in range(len(rows["prompt"])):
                try:
                    yield from encode({part: [column[index]] for part, column in rows.items()}, tokenizer)
                except Exception as error:
                    yield error

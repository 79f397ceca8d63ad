"""Makes the token ids that a trainer makes of rows, many rows at a time."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from transformers import PreTrainedTokenizerBase
from trl.data_utils import common_prefix_length

from align.data.prompts import prompt_of, template_of
from align.data.rows.columns import TEMPLATE
from align.errors import DataError

from .lengths import PARTS

SLICE = 1000  # rows whose ids are Python objects at a time
QUIET: Any = {"verbose": False}


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
    prompts = rows["prompt"]
    if isinstance(prompts[0], str):
        alone = _of_texts(prompts, tokenizer)
    elif set(TEMPLATE) & set(rows):
        alone = [_rendered(list(row), given, tokenizer, add_generation_prompt=True) for row, given in _each(rows)]
    else:
        alone = _of_chats(prompts, tokenizer, add_generation_prompt=True)
    return [_parted(*ids) for ids in zip(alone, *encode_wholes(rows, tokenizer, names), strict=True)]


def encode_wholes(
    rows: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, names: Sequence[str]
) -> list[list[list[int]]]:
    """Token ids of each prompt with an answer, a list for each column of answers, as TRL's RewardTrainer makes them too.

    Arguments are those of `encode_sides`.

    Raises:
        DataError: If rows are texts, and the tokenizer has no token that ends them.
    """
    prompts, sides = rows["prompt"], [rows[name] for name in names]
    if isinstance(prompts[0], str):
        end = tokenizer.eos_token
        if not isinstance(end, str):
            raise DataError("the tokenizer has no eos_token, which ends every answer; give it one")
        texts = ([p + a + end * (not a.endswith(end)) for p, a in zip(prompts, s, strict=True)] for s in sides)
        return [_of_texts(side, tokenizer) for side in texts]
    if set(TEMPLATE) & set(rows):
        each = _each(rows)
        return [
            [_rendered([*row, *answer], given, tokenizer) for (row, given), answer in zip(each, side, strict=True)]
            for side in sides
        ]
    chats = ([p + a for p, a in zip(prompts, side, strict=True)] for side in sides)
    return [_of_chats(side, tokenizer) for side in chats]


def _each(rows: Mapping[str, list[Any]]) -> list[tuple[Any, dict[str, Any]]]:
    """Each prompt, and what its row gives the chat template."""
    prompts: Any = [prompt_of(dict(zip(rows, row, strict=True))) for row in zip(*rows.values(), strict=True)]
    return [(prompt, template_of(prompt)) for prompt in prompts]


def _of_texts(texts: list[str], tokenizer: Any) -> list[list[int]]:
    """Of a tokenizer that reads texts in its own way, one after the other."""
    if _is_stock(tokenizer, "__call__"):
        return tokenizer(text=texts, **QUIET)["input_ids"]
    return [tokenizer(text=text)["input_ids"] for text in texts]


def _of_chats(chats: list[Any], tokenizer: Any, **more: Any) -> list[list[int]]:
    """Of a tokenizer that renders chats in its own way, one after the other."""
    if _is_stock(tokenizer, "apply_chat_template"):
        return _rendered(chats, {}, tokenizer, tokenizer_kwargs=QUIET, **more)
    return [_rendered(chat, {}, tokenizer, **more) for chat in chats]


def _rendered(chat: list[Any], given: dict[str, Any], tokenizer: Any, **more: Any) -> list[Any]:
    return tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True, **more, **given)["input_ids"]


def _is_stock(tokenizer: Any, method: str) -> bool:
    return getattr(type(tokenizer), method) is getattr(PreTrainedTokenizerBase, method)


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

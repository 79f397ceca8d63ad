"""Samples answers that call tools: the policy writes, its calls are answered, it goes on, by the loop that trains such policies.

Tokens of results count in the length that an answer may have, as in training, and are not the policy's. Each token is drawn
with noise of its own turn, which what comes before decides: neither batching nor other prompts change an answer.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.prompts import Chat, Prompt
from align.errors import RunError
from align.models.stopping import stop_ids
from align.models.use import Model
from align.rewards.texts import calls_of, text_of
from align.scoring.completions import prompt_ids
from align.tools import Begun, Calling

from .generate import Answer, Decoding, Engine, Job, Turns, sampled_ids, seed_of
from .trl_loop import Row, ToolLoop, Written


def calling_engine(
    calling: Calling, model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], decoding: Decoding,
    *, batch_size: int, desc: str,
) -> Engine:  # fmt: skip
    """What samples answers to prompts in the place of the model's own `generate`; tools are part of its identity.

    Args:
        calling: What is called.
        model: As for `generate`.
        tokenizer: As for `generate`.
        prompts: Made by `calling.prompt`.
        decoding: Its `max_new_tokens` are those of a whole answer, with what tools return.
        batch_size: Answers written together.
        desc: Title of the progress bar.
    """

    def batches(encoded: Sequence[list[int]], jobs: Sequence[Job]) -> Iterator[dict[Job, Answer]]:
        ordered = sorted(jobs, key=lambda job: len(encoded[job.prompt]))
        with tqdm(total=len(jobs), desc=desc, unit="answer") as bar:
            for start in range(0, len(ordered), batch_size):
                batch = ordered[start : start + batch_size]
                chats = [_chat(prompts[job.prompt]) for job in batch]
                answers = _answered(calling, model, tokenizer, chats, [job.sample for job in batch], decoding)
                yield dict(zip(batch, answers, strict=True))
                bar.update(len(batch))

    return Engine({"tools": calling.digest}, batches)


def _chat(prompt: Prompt) -> Chat:
    if not isinstance(prompt, Chat):
        raise RunError("tools: a prompt is plain text, and calls of tools are messages of a chat")
    return prompt


def _answered(
    calling: Calling, model: Model, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Chat], samples: Sequence[int],
    decoding: Decoding,
) -> list[Answer]:  # fmt: skip
    """One answer to each prompt, of a sample's number."""
    stops = stop_ids(tokenizer, model)

    def write(rows: Sequence[Row], room: int) -> list[list[int]]:
        seeds = [seed_of(list(row), samples[row.number], decoding.seed) for row in rows]
        shorter = replace(decoding, max_new_tokens=min(room, decoding.max_new_tokens))
        return sampled_ids(model, tokenizer, stops, [list(row) for row in rows], seeds, shorter)

    begun = [calling.begin(prompt) for prompt in prompts]
    asked = [prompt_ids(tokenizer, one.prompt) for one in begun]
    written = ToolLoop(model, tokenizer, calling, decoding.max_new_tokens, write).answers(begun, asked)
    return [_answer(stops, *each) for each in zip(begun, asked, written, strict=True)]


def _answer(stops: Sequence[int], begun: Begun, asked: list[int], written: Written) -> Answer:
    try:
        messages: list[dict[str, Any]] = json.loads(json.dumps(written.messages))
        prompt: list[dict[str, Any]] = json.loads(json.dumps(list(begun.prompt)))
    except TypeError as error:
        raise RunError(f"tools: a result is no text, and cannot be kept: {error}; let the tool return text") from error
    turns = Turns(prompt, messages, _lengths(written.own), calls_of(messages), written.failed, begun.rewards())
    ended = bool(written.own) and bool(written.own[-1]) and written.completion_ids[-1] in stops
    return Answer(
        asked, written.completion_ids, text_of(messages), ended and not messages[-1].get("tool_calls"), turns
    )  # fmt: skip


def _lengths(own: Sequence[int]) -> list[int]:
    """Lengths of the parts that the policy and the tools wrote in turn, the policy's first."""
    changes = [place for place, (one, other) in enumerate(pairwise([1, *own])) if one != other]
    return [end - start for start, end in pairwise([0, *changes, len(own)])]

"""Asks a policy or an endpoint for texts, and has either rate rows or write them anew."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.data.making.diagnosis import HARD, LONELY, read_rating
from align.data.prompts import Prompt, prompt_of
from align.judges.endpoint import Endpoint
from align.models.use import Use
from align.rewards.texts import question_of, text_of
from align.sampling.ask import Asking, ask, rendered_as
from align.sampling.endpoint_answers import endpoint_answers
from align.sampling.generate import Decoding

Asked = Callable[[Sequence[Prompt]], list[str]]
"""A reply to each prompt, empty where there is none."""

OF_WHAT = {
    "clarity": "how clear it is",
    "completeness": "how complete it is",
    "factuality": "how far what it says or takes for granted is true",
}
RATE_PROMPT = "Rate an instruction by {how}, from 0 to 10.\n\nInstruction:\n{prompt}\n\nReply with the number alone."
RATE_ANSWER = "Rate an answer by {how}, from 0 to 10.\n\nInstruction:\n{prompt}\n\nAnswer:\n{answer}\n\nReply with the number alone."
SIMPLER = "Write a simpler instruction about the same matter, which a beginner could follow.\n\nInstruction:\n{prompt}"
BETWEEN = (
    "Write one new instruction that is related to all of the following, and most to the first.\n\nInstructions:\n{prompt}\n\n"
    "{neighbours}"
)
BETTER = "Write a better instruction about the same matter: clear, complete, and true in what it takes for granted.\n\nInstruction:\n{prompt}"
ALONE = "\n\nReply with the instruction alone."


class Rewritten(NamedTuple):
    """What became of flagged rows."""

    rows: list[dict[str, Any]]
    """All rows in their order."""
    failed: list[int]
    """Indices of flagged rows that stay as they were: no instruction or no answer came."""


def policy_asked(use: Use, tokenizer: Any, decoding: Decoding, folder: Path, *, batch_size: int) -> Asked:
    """A loaded policy that is asked; what it says is kept in the folder, and not sampled again."""

    def asked(prompts: Sequence[Prompt]) -> list[str]:
        chats = [_as_chat(prompt) if tokenizer.chat_template else prompt for prompt in prompts]
        answers = ask(tokenizer, use, Asking(chats, decoding, 1, batch_size, folder), "policy", "the policy")
        return [one.text.strip() for (one,) in answers]

    return asked


def endpoint_asked(endpoint: Endpoint, kept: Path) -> Asked:
    """An endpoint that is asked; what it says is appended to the file, and not asked again."""

    def asked(prompts: Sequence[Prompt]) -> list[str]:
        answers, _ = endpoint_answers(endpoint, [{"prompt": prompt} for prompt in prompts], 1, kept)
        return [said[0].strip() if said else "" for said in answers]

    return asked


def _as_chat(prompt: Prompt) -> Prompt:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def ratings(rows: Sequence[Mapping[str, Any]], asked: Asked) -> np.ndarray:
    """What each row is rated, from 0 to 10: the mean of clarity, completeness and factuality of prompt and completion.

    Args:
        rows: With `prompt` and `completion`.
        asked: Who rates. Source: Middo's self-score, where it is the model that was trained.

    Returns:
        Shape (rows,). NaN unless all six replies of a row have a number.
    """
    questions = [question for row in rows for question in _questions(row)]
    said = [read_rating(reply) for reply in asked(questions)]
    values = np.array([np.nan if one is None else one for one in said])
    return values.reshape(len(rows), -1).mean(axis=1)


def _questions(row: Mapping[str, Any]) -> Iterator[str]:
    texts = {"prompt": question_of(row["prompt"]), "answer": text_of(row["completion"])}
    for how in OF_WHAT.values():
        yield _filled(RATE_PROMPT, how=how, **texts)
        yield _filled(RATE_ANSWER, how=how, **texts)


def _filled(template: str, **texts: str) -> str:
    """The template with the texts in their places; what looks like a place inside a text stays as it is."""
    parts = template.split("{")
    return parts[0] + "".join(texts[name] + rest for name, _, rest in (part.partition("}") for part in parts[1:]))


def rewritten(
    rows: Sequence[Mapping[str, Any]], flags: Sequence[Sequence[str]], near: Sequence[Sequence[int]], asked: Asked
) -> Rewritten:
    """Each flagged row with a new instruction and a new answer to it, both in one's own words; the others as they are.

    A hard row gets a simpler instruction, a lonely one an instruction between its own and those of its neighbours, a poor one
    a better one. The last question of a conversation is replaced, what stands before it stays. A prompt of plain text is
    replaced as a whole but for the white space at its end, by which it is kept apart from its completion.

    Deviation from Middo: there the filters come one after another, each on what the one before has rewritten. Here a row is
    rewritten once, by the first of its flags.

    Args:
        rows: With `prompt` and `completion`.
        flags: Of each row.
        near: Of each row the indices of its neighbours.
        asked: Who writes.
    """
    places = [index for index, own in enumerate(flags) if own]
    instructions = asked([_instruction(rows, index, flags[index][0], near[index]) for index in places])
    prompts = {
        index: _with_question(rows[index], text) for index, text in zip(places, instructions, strict=True) if text
    }
    answers = dict(zip(prompts, asked(list(prompts.values())), strict=True)) if prompts else {}
    made = [dict(row) for row in rows]
    for index, text in answers.items():
        if text:
            made[index] |= _with_answer(rows[index], prompts[index], text)
    return Rewritten(made, [index for index in places if not answers.get(index)])


def _instruction(rows: Sequence[Mapping[str, Any]], index: int, flag: str, near: Sequence[int]) -> str:
    template = {HARD: SIMPLER, LONELY: BETWEEN}.get(flag, BETTER) + ALONE
    neighbours = "\n\n".join(question_of(rows[other]["prompt"]) for other in near)
    return _filled(template, prompt=question_of(rows[index]["prompt"]), neighbours=neighbours)


def _with_question(row: Mapping[str, Any], text: str) -> Prompt:
    prompt = prompt_of(row)
    if isinstance(prompt, str):
        return text + prompt[len(prompt.rstrip()) :]
    last = max((i for i, one in enumerate(prompt) if one["role"] == "user"), default=len(prompt) - 1)
    return rendered_as(prompt, [dict(one) | {"content": text} if i == last else one for i, one in enumerate(prompt)])


def _with_answer(row: Mapping[str, Any], prompt: Prompt, text: str) -> dict[str, Any]:
    if isinstance(prompt, str):
        old = row["completion"]
        return {"prompt": prompt, "completion": old[: len(old) - len(old.lstrip())] + text}
    return {"prompt": list(prompt), "completion": [{"role": "assistant", "content": text}]}

"""Writes answers together with their prompts in a file that the other commands read, and keeps every answer as it comes.

A row is that of the prompt, with all of its columns, and `completions`, a list of texts, and `finished`, whether each came to
its end. Where tools may be called, `conversations` has each answer with its calls and their results, as JSON in a text, and
`tool_calls` how many there are; `completions` is then what the policy says. The answers themselves are kept beside, in `kept/`, by `align.sampling.store`: what was killed goes on there.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from align.data import DataConfig, DataSource, load_data
from align.data.loading import TRAIN
from align.data.prompts import prompt_of
from align.data.prompts.revision import INSTRUCTION
from align.data.rows.normalise import OR_DROP
from align.errors import DataError, RunError
from align.files import write_rows
from align.models.loading import load_tokenizer
from align.rewards.texts import CALLS, CONVERSATIONS
from align.tools import Calling

from .ask import Asking, ask
from .generate import Answer, Decoding
from .policy import Policy
from .vllm_engine import VLLM

KEPT = "kept"
TAKEN = ("completions", "finished", CONVERSATIONS, CALLS, "rewards", "preferences")


class HowToSample(NamedTuple):
    """How answers are sampled."""

    decoding: Decoding
    samples: int = 1
    batch_size: int = 32
    vllm: VLLM | None = None
    revisions: int = 0
    instruction: str = INSTRUCTION
    context: str = ""
    """What is written after each prompt that is asked, and not into the file."""


def read_prompts(source: DataSource) -> list[dict[str, Any]]:
    """The rows of a file of prompts, each with all of its columns.

    Raises:
        DataError: Naming the rows that cannot be used.
        RunError: If a column has a name that answers or their scores are written under.
    """
    try:
        rows = load_data(DataConfig(source), rows="prompts").train.to_list()
    except DataError as error:  # which speaks of a recipe's data, and of a setting that prompts do not have
        said = str(error).replace(TRAIN, "prompts").replace(OR_DROP, "")
        raise DataError(said) from None
    taken = [name for name in TAKEN if name in rows[0]]
    if taken:
        raise RunError(
            f"{source.path}: a column {taken[0]!r} is there already, where answers and their scores go; rename it"
        )
    return rows


def sample_to_file(
    policy: Policy, rows: Sequence[Mapping[str, Any]], how: HowToSample, out: Path, *, who: str, replace: bool = False
) -> int:
    """Have a policy answer every prompt, and write the rows with its answers; each process answers its share.

    Args:
        policy: Who answers; loaded here.
        rows: With `prompt`, from `read_prompts`.
        how: Decoding and number of answers.
        out: The file, which appears when it is whole; its folder is made.
        who: Its name in messages, and in the file of what is kept.
        replace: Whether the file takes the place of one that is there.

    Returns:
        The number of answers.

    Raises:
        AnswersError: If what is kept cannot be gone on with.
    """
    state = PartialState()
    many = 1 if how.vllm is not None else state.num_processes  # one vLLM uses the devices of all
    folder = out.parent / KEPT
    tokenizer = load_tokenizer(policy.settings)
    calling = check_calling(policy, rows, how, tokenizer)
    prompts = [prompt_of(row) if calling is None else calling.prompt(row) for row in rows]
    folder.mkdir(parents=True, exist_ok=True)

    def asked(process: int) -> dict[int, list[Answer]]:
        theirs = range(process, len(prompts), many)
        asking = Asking(
            [prompts[index] for index in theirs], how.decoding, how.samples, how.batch_size, folder, how.vllm,
            how.revisions, how.instruction, how.context, calling,
        )  # fmt: skip
        name = who if many == 1 else f"{who}-{process}-of-{many}"
        return dict(zip(theirs, ask(tokenizer, use, asking, name, who), strict=True))

    use = policy.load()
    answers = asked(state.process_index) if state.process_index < many else {}
    state.wait_for_everyone()
    if state.is_main_process:
        for other in range(1, many):  # all of them are kept, and none is sampled again
            answers |= asked(other)
        made = [row | told(answers[index]) for index, row in enumerate(map(dict, rows))]
        write_rows(made, out, replace=replace)
    state.wait_for_everyone()
    return len(rows) * how.samples


def check_calling(
    policy: Policy, rows: Sequence[Mapping[str, Any]], how: HowToSample, tokenizer: PreTrainedTokenizerBase
) -> Calling | None:
    """What a policy calls while it answers, looked at before its weights are loaded.

    Raises:
        RunError: If something of it cannot be made, or begin with the first row, or answers are asked for otherwise than
            calls can be answered.
    """
    calling = policy.calling(tokenizer, rows[0])
    if calling is None:
        return None
    if how.vllm is not None or how.revisions:
        raise RunError(
            f"{'--revisions' if how.revisions else '--vllm'}: answers that call tools are not sampled so; leave it out"
        )
    if any(isinstance(row["prompt"], str) for row in rows):
        raise RunError(
            "the prompts are plain text, and calls of tools are messages of a chat; write each as a list of messages"
        )
    calling.begin(calling.prompt(rows[0]))
    return calling


def told(answers: Sequence[Answer]) -> dict[str, Any]:
    """The columns that a row gets."""
    made: dict[str, Any] = {
        "completions": [one.text for one in answers],
        "finished": [one.finished for one in answers],
    }
    turns = [one.turns for one in answers if one.turns is not None]
    if turns:
        made |= {CONVERSATIONS: [json.dumps(one.messages) for one in turns], CALLS: [one.calls for one in turns]}
    return made

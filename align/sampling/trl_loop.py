"""Runs TRL's own loop over calls of tools without a trainer; what we assume of it is here and in `trl_contract`, and tested.

`GRPOTrainer._tool_call_loop` calls tools, writes their results into the conversation, renders them with
`_get_tool_suffix_ids`, and goes on with `_generate_single_turn` until there is no call, no turn or no room left. It reads no
more of a trainer than `ToolLoop` has, where there are no images.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from trl.chat_template_utils import parse_response
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import start_event_loop_in_daemon

from align.rewards.texts import calls_of
from align.tools import Begun, Calling


class Row(list[int]):
    """Token ids of a prompt that stays a row of its own, with its number, when ids are added to it."""

    def __init__(self, ids: Sequence[int], number: int) -> None:
        super().__init__(ids)
        self.number = number

    def __add__(self, other: Any) -> "Row":
        return Row([*self, *other], self.number)


class Written(NamedTuple):
    """What came of one answer."""

    messages: list[dict[str, Any]]
    completion_ids: list[int]
    own: list[int]
    """1 for each token that the policy wrote, 0 for those of tools."""
    failed: int
    """How many of its calls failed."""


class ToolLoop:
    """Stands in TRL's loop for the trainer.

    Args:
        model: Whose configuration says how long a text may be.
        tokenizer: With a way to read calls; see `align.tools.read_calls`.
        calling: What is called.
        most_tokens: Of an answer, with all that tools return.
        write: Given rows of token ids and the most tokens that any of them has room for, what the policy writes after each.
    """

    use_vllm, _is_vlm, vllm_mode = False, False, None
    environment_factories: Any = None  # each row's functions are in `tools`, below

    _loop = GRPOTrainer._tool_call_loop
    _get_tool_suffix_ids = GRPOTrainer._get_tool_suffix_ids

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, calling: Calling, most_tokens: int,
        write: Callable[[Sequence[Row], int], list[list[int]]],
    ) -> None:  # fmt: skip
        self.model, self._tokenizer, self.processing_class = model, tokenizer, tokenizer
        self.max_tool_calling_iterations, self.max_completion_length = calling.most, most_tokens
        self.chat_template_kwargs = dict(calling.template)
        self.chat_template = self.chat_template_kwargs.pop("chat_template", None)
        self._write = write
        self.tools: Any = []

    def answers(self, begun: Sequence[Begun], prompt_ids: Sequence[list[int]]) -> list[Written]:
        """The answers to prompts, of which TRL's loop gets the first turns.

        Args:
            begun: Whose functions are called.
            prompt_ids: Their prompts.
        """
        rows = [Row(ids, number) for number, ids in enumerate(prompt_ids)]
        first = self._write(rows, self.max_completion_length)
        counted = [_counted(one.functions) for one in begun]
        self._sync_tool_dicts = [_named(one.functions, is_async=False) for one in counted]
        self._async_tool_dicts = [_named(one.functions, is_async=True) for one in counted]
        self._lengths = [len(ids) for ids in prompt_ids]
        # by number: TRL parses each turn with the functions that its row's prompt was rendered with
        self.environment_factories, self._batch_environments = {}, list(range(len(begun)))
        self._env_tools = {number: one.functions for number, one in enumerate(begun)}
        said = [
            [parse_response(self._tokenizer, ids, prefix=list(row), tools=list[Any](one.functions))]
            for row, ids, one in zip(rows, first, begun, strict=True)
        ]
        own, messages, completion_ids, *_ = self._loop(
            [list(one.prompt) for one in begun], rows, [list(ids) for ids in first], said, None, None, {}
        )
        return [
            Written(list(said), list(ids), list(mask), self._tried(said) - one.succeeded)
            for said, ids, mask, one in zip(messages, completion_ids, own, counted, strict=True)
        ]

    def _tried(self, messages: Sequence[dict[str, Any]]) -> int:
        """How many calls were made: all but those of a last turn that is one too many."""
        turns = [calls_of([message]) for message in messages if message.get("tool_calls")]
        return sum(turns[: self.max_tool_calling_iterations])

    def _generate_single_turn(self, prompt_ids: Sequence[Row], *_: Any, **__: Any) -> tuple[list[list[int]], None]:
        room = [self._lengths[row.number] + self.max_completion_length - len(row) for row in prompt_ids]
        some = [row for row, left in zip(prompt_ids, room, strict=True) if left > 0]
        written = iter(self._write(some, max(room)) if some else [])
        return [next(written)[:left] if left > 0 else [] for left in room], None

    @functools.cached_property
    def async_loop(self) -> Any:
        """Where coroutines among the tools run."""
        _, loop, ready = start_event_loop_in_daemon(name="alignkit-tools")
        ready.wait()
        return loop


class _Counted:
    """Functions that count how often they return."""

    def __init__(self) -> None:
        self.functions: list[Callable[..., Any]] = []
        self.succeeded = 0


def _counted(functions: Sequence[Callable[..., Any]]) -> _Counted:
    made = _Counted()

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            found = function(*args, **kwargs)
            made.succeeded += 1
            return found

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            found = await function(*args, **kwargs)
            made.succeeded += 1
            return found

        return awaited if inspect.iscoroutinefunction(function) else counted

    made.functions = [wrapped(function) for function in functions]
    return made


def _named(functions: Sequence[Callable[..., Any]], *, is_async: bool) -> dict[str, Callable[..., Any]]:
    return {f.__name__: f for f in functions if inspect.iscoroutinefunction(f) == is_async}

"""Holds what a policy calls while it answers, for whoever has it answer: tools, a fresh environment each answer, their digest."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase
from transformers.utils import get_json_schema
from trl.chat_template_utils import get_training_chat_template, is_chat_template_prefix_preserving

from align.data.prompts import Chat
from align.errors import RunError
from align.files import digest_of, sha256
from align.findings import printable
from align.rewards.load import awaited

from .load import ENVIRONMENTS, ROUTE, TOOLS, called_by
from .templates import read_calls

NOT_TOOLS = ("reset", "get_reward")
"""Public methods of an environment that the policy does not call."""


class Begun(NamedTuple):
    """An answer that is about to be written."""

    prompt: Chat
    """What is asked, with what the environment says of itself."""
    functions: list[Callable[..., Any]]
    """What may be called."""
    environment: Any
    """This answer's own, None without environments."""

    def rewards(self) -> dict[str, float | None]:
        """What the environment says that the answer is worth, now that it is written, by the name of its class."""
        if not hasattr(self.environment, "get_reward"):
            return {}
        found = awaited(self.environment.get_reward())
        return {type(self.environment).__name__: None if found is None else float(found)}


@dataclass(frozen=True)
class Calling:
    """What the policy of a recipe calls, as a trainer of it is given it."""

    tools: list[Callable[..., Any]]
    environments: dict[str | None, Callable[[], Any]]
    """By what a row's `environment` says, None where one environment serves all rows."""
    most: int
    """How many turns of calls are answered; what is called in a later one is not."""
    template: dict[str, Any]
    """What the chat template is given besides the tools."""
    digest: str
    """Of all that determines what a call gives: schemas, options, files that tools read, the files that they are written in."""

    def prompt(self, row: Mapping[str, Any]) -> Chat:
        """A row's prompt with the schemas of what may be called; where there are environments, with the row that one begins with."""
        schemas = [get_json_schema(function) for function in self._functions(self._fresh(row))]
        given = {"tools": schemas or None, **self.template}
        return Chat(row["prompt"], given, dict(row) if self.environments else None)

    def begin(self, prompt: Chat) -> Begun:
        """Begin an answer to what `prompt` gave, in an environment of its own.

        Raises:
            RunError: If the environment cannot begin with the row.
        """
        row = prompt.row
        environment = None if row is None else self._fresh(row)
        if row is None or environment is None:
            return Begun(prompt, self._functions(None), None)
        given = {key: value for key, value in row.items() if key != ROUTE} if None not in self.environments else row
        try:
            said = environment.reset(**{**given, "prompt": list(prompt)})
        except RunError:
            raise
        except Exception as error:  # code of others
            told = printable(f"{type(error).__name__}: {error}", 200)
            raise RunError(f"environment {type(environment).__name__}: `reset` fails on a row: {told}") from error
        begun = list(prompt) if said is None else [*prompt[:-1], {**prompt[-1], "content": _after(prompt[-1], said)}]
        return Begun(Chat(begun, prompt.template, row), self._functions(environment), environment)

    def _fresh(self, row: Mapping[str, Any]) -> Any:
        if not self.environments:
            return None
        name = None if None in self.environments else row.get(ROUTE)
        if name not in self.environments:
            known = ", ".join(str(each) for each in self.environments)
            raise RunError(f"a row has the {ROUTE} {printable(str(name), 100)!r}, which is none of {known}")
        return self.environments[name]()

    def _functions(self, environment: Any) -> list[Callable[..., Any]]:
        return [*self.tools, *methods_of(environment)]


def methods_of(environment: Any) -> list[Callable[..., Any]]:
    """The methods of an environment that the policy may call, by TRL's rule: public, in the order of their names."""
    if environment is None:
        return []
    named = inspect.getmembers(type(environment), predicate=inspect.isfunction)
    return [getattr(environment, name) for name, _ in named if name not in NOT_TOOLS and not name.startswith("_")]


def calling_of(recipe: Any, tokenizer: PreTrainedTokenizerBase, columns: Collection[str]) -> Calling | None:
    """What the policy of a recipe calls, None if nothing. The tokenizer's chat template then holds tools, as in training.

    Args:
        recipe: With `tools` or `environments`.
        tokenizer: The policy's.
        columns: Of the rows that are to be answered.

    Raises:
        RunError: If a tool or an environment cannot be made, or the template cannot hold tools.
    """
    if not recipe.tools and not recipe.environments:
        return None
    made = called_by(recipe, tokenizer, columns)
    try:
        read_calls(tokenizer)
    except ValueError as error:
        raise RunError(f"tools: {error}") from error
    factory = made["environment_factory"]
    environments: dict[str | None, Callable[[], Any]] = {} if factory is None else {None: factory}
    environments = dict(factory) if isinstance(factory, dict) else environments
    tools: list[Callable[..., Any]] = list(made["tools"] or ())
    asked = recipe.train.max_tool_calling_iterations
    most = sys.maxsize if asked is None else asked
    template = dict(recipe.train.chat_template_kwargs or {})
    if not is_chat_template_prefix_preserving(tokenizer):
        template["chat_template"] = get_training_chat_template(tokenizer)
    each = [[*tools, *methods_of(make())] for make in environments.values()] or [tools]
    told = {
        "schemas": [[get_json_schema(function) for function in functions] for functions in each],
        "options": [{name: _told(options) for name, options in of.items()} for of in (recipe.tools, recipe.environments)],
        "code": [_source(TOOLS[name]) for name in recipe.tools] + [_source(ENVIRONMENTS[name]) for name in recipe.environments],
        "most": most,
    }  # fmt: skip
    return Calling(tools, environments, most, template, digest_of(told))


def _after(message: Mapping[str, Any], said: Any) -> Any:
    """The content of the last message of a prompt, and what the environment says after it; either text or parts."""
    both: list[Any] = [message["content"], said]
    if {type(one) for one in both} == {str, list}:
        both = [[{"type": "text", "text": one}] if isinstance(one, str) else one for one in both]
    return both[0] + both[1]


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options, of which one that names a file is what that holds, wherever it lies."""
    return {key: sha256(Path(value)) if _is_file(value) else value for key, value in options.items()}


def _is_file(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_file()


def _source(entry: Any) -> str:
    """Digest of the file that a tool or an environment is written in; of its name where there is none."""
    try:
        path = inspect.getsourcefile(inspect.unwrap(entry))
    except TypeError:
        path = inspect.getsourcefile(type(entry))
    if path is None or not Path(path).is_file():
        return f"{getattr(entry, '__module__', '')}:{getattr(entry, '__qualname__', entry)}"
    return sha256(Path(path))

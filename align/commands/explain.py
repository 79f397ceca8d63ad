"""Explains a key of a recipe, a method, a reward, a tool or a weighting rule, out of the dataclasses and classes themselves."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from peft import LoraConfig, PeftType
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from trl import ModelConfig

from align.data.loading import DataConfig, DataSource
from align.errors import RunError
from align.methods import METHODS
from align.recipe.elsewhere import ELSEWHERE
from align.recipe.fronts import FrontsConfig
from align.recipe.rounds import Each, KeepConfig, RoundsConfig, SampleConfig, SelectConfig
from align.recipe.scores import ScoreConfig
from align.recipe.sections import EvalConfig, Expectation, Generate, JudgeConfig, PromptSet, RefConfig, StartConfig
from align.rewards import REWARDS
from align.strict.fields import nearest
from align.tools import ENVIRONMENTS, TOOLS
from align.tuning.kinds import TRIED
from align.weighting.advantages import ESTIMATORS, estimator_options
from align.weighting.rules import REQUIRED, RULES, rule_options

from .methods import method_row

SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "lora": LoraConfig,
    "start": StartConfig,
    "ref": RefConfig,
    "data": DataConfig,
    "data.train": DataSource,
    "data.eval.NAME": DataSource,
    "judge": JudgeConfig,
    "rounds": RoundsConfig,
    "rounds.prompts": Each,
    "rounds.sample": SampleConfig,
    "rounds.score": ScoreConfig,
    "rounds.select": SelectConfig,
    "rounds.keep": KeepConfig,
    "fronts": FrontsConfig,
    "eval": EvalConfig,
    "eval.generate": Generate,
    "eval.judges.NAME": JudgeConfig,
    "eval.instructions": PromptSet,
    "expect.NAME": Expectation,
}
"""Sections of a recipe that are dataclasses; `train` is the configuration of the method."""
MUST_BE_GIVEN = "must be given"


def main(argv: Sequence[str]) -> int:
    """`alignkit explain KEY|METHOD|REWARD|RULE [--method NAME]`.

    Raises:
        RunError: If nothing has that name; the nearest are named.
    """
    parser = argparse.ArgumentParser(prog="alignkit explain", allow_abbrev=False)
    parser.add_argument("name", metavar="KEY|METHOD|REWARD|RULE", help="such as train.beta, lora.r, rpo, upgrad")
    parser.add_argument("--method", choices=METHODS, help="whose `train` section is meant")
    options = parser.parse_args(argv)
    sys.stdout.write("\n".join(explained(options.name, options.method)))
    return 0


def explained(name: str, method: str | None = None) -> list[str]:
    """Every meaning of a name, a paragraph each.

    Args:
        name: A key with or without its section, a method, a reward or a weighting rule.
        method: Whose `train` section is meant; by default that of every method which has the key.

    Raises:
        RunError: If nothing has that name.
    """
    found = [*_things(name), *_keys(name, method)]
    if not found:
        if name in ELSEWHERE:
            raise RunError(f"{name}: {ELSEWHERE[name]}")
        known = [
            *METHODS,
            *REWARDS,
            *RULES,
            *ESTIMATORS,
            *TOOLS,
            *ENVIRONMENTS,
            *(f"{where}.{field.name}" for where, _, field in _all_fields(method)),
        ]
        raise RunError(f"{name}: no key, method, reward or weighting rule; {nearest(name, known)}")
    return found


def _things(name: str) -> Iterator[str]:
    if name in METHODS:
        row = method_row(name)
        yield (
            f"method {name}: {row['title']}\n  paper: {row['paper'] or 'none'}\n  rows: {row['rows']}\n"
            f"  settings: fields of {METHODS[name].config.__name__}"
            + (f", with {METHODS[name].preset}" if METHODS[name].preset else "")
            + f"\n  example: alignkit train {row['recipe']}\n"
        )
    if name in REWARDS:
        yield f"reward {name}: {_with_options(REWARDS[name].reward)}"
    for kind, table in (("tool", TOOLS), ("environment", ENVIRONMENTS)):
        if name in table:
            yield f"{kind} {name}: {_with_options(table[name])}"
    for kind, classes, options_of in (
        ("weighting rule", RULES, rule_options),
        ("estimator", ESTIMATORS, estimator_options),
    ):
        if name in classes:
            options = options_of(name).items()
            told = (
                f"  {key}: {MUST_BE_GIVEN if value is REQUIRED else f'default {value!r}'}\n" for key, value in options
            )
            yield f"{kind} {name}: {_about(classes[name], paragraphs=2)}\n" + "".join(told)


def _with_options(thing: Any) -> str:
    fields = [f for f in dataclasses.fields(thing) if f.init] if dataclasses.is_dataclass(thing) else []
    return f"{_about(thing)}\n" + "".join(f"  {f.name}: {_default_of(f)}\n" for f in fields)


def _about(thing: Any, paragraphs: int = 1) -> str:
    """The first paragraphs of its docstring, before its arguments."""
    text = (inspect.getdoc(thing) or "no description").partition("\nArgs:")[0].strip()
    return " ".join(text.split("\n\n")[:paragraphs]).replace("\n", " ")


def _default_of(field: Any) -> str:
    """`default VALUE`, or that there is none."""
    if field.default is not dataclasses.MISSING:
        return f"default {field.default!r}"
    return MUST_BE_GIVEN if field.default_factory is dataclasses.MISSING else f"default {field.default_factory()!r}"


def _keys(name: str, method: str | None) -> Iterator[str]:
    section, _, key = name.rpartition(".")
    told = set()
    for where, cls, field in _all_fields(method):
        if field.name != key or (section and not _is_within(section, where)) or (where == "peft" and not section):
            continue
        owner = _owner(cls, key)
        if (where, owner) in told:
            continue
        told.add((where, owner))
        yield _paragraph(where, cls, field, owner)


def _is_within(section: str, where: str) -> bool:
    one, other = section.split("."), where.split(".")
    return len(one) == len(other) and all(b in (a, "NAME") for a, b in zip(one, other, strict=True))


def _all_fields(method: str | None) -> Iterator[tuple[str, type, Any]]:
    """Section, dataclass and field of every key of a recipe."""
    configs = [METHODS[method].config] if method else list(dict.fromkeys(m.config for m in METHODS.values()))
    kinds = [("peft", PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]) for kind in TRIED]
    for where, cls in [*SECTIONS.items(), *(("train", config) for config in configs), *kinds]:
        for field in dataclasses.fields(cls):
            yield where, cls, field


def _owner(cls: type, key: str) -> type:
    """The class of the hierarchy that declares the field."""
    return next(base for base in cls.__mro__ if key in vars(base).get("__annotations__", {}))


def _paragraph(where: str, cls: type, field: Any, owner: type) -> str:
    default = _default_of(field)
    value = "VALUE" if default == MUST_BE_GIVEN else default.removeprefix("default ")
    origin = owner.__module__.partition(".")[0]
    kind = field.type.__name__ if type(field.type) is type else field.type
    about = inspect.getdoc(owner) if origin in ("align", "peft") else None  # where a field has no line of its own
    meaning = field.metadata.get("help") or _text_below(owner, field.name) or about or "no description"
    lines = [
        f"{where}.{field.name} ({cls.__name__})",
        f"  type: {kind}",
        f"  {default.replace('default ', 'default: ', 1)}",
        *textwrap.wrap(
            " ".join(str(meaning).split()), 110, initial_indent="  meaning: ", subsequent_indent="    ",
        ),
        f"  from: {'alignkit' if origin == 'align' else origin}, {owner.__module__}.{owner.__name__}",
        f"  example: {where}.{field.name}={value}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _text_below(owner: type, key: str) -> str | None:
    """The string under a field, in the source of the class that declares it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    except (OSError, TypeError, SyntaxError):
        return None
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    for node, below in itertools.pairwise(body):
        named = isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == key
        if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            return str(below.value.value)
    return None

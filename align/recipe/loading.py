"""Loads recipes: YAML in, typed sections out. Keys are field names of TRL's and PEFT's own dataclasses."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from peft import LoraConfig
from trl import ModelConfig

from align.data import DataConfig, Rows
from align.data.rows.normalise import REF_COLUMNS
from align.errors import RecipeError
from align.methods import METHODS
from align.models.adapters import without_reference
from align.own_code import digests, lacking
from align.strict.fields import build, describe, nearest
from align.strict.yaml_tree import Tree, override

from .anywhere import set_aside
from .bases import with_bases
from .elsewhere import ELSEWHERE
from .fronts import FrontsConfig, build_fronts, check_fronts
from .lora import build_peft, check_lora
from .reward_section import build_judge, build_rewards
from .rounds import RoundsConfig, build_rounds, by_round, check_rounds
from .sections import EvalConfig, Expectation, Generate, JudgeConfig, RefConfig, StartConfig
from .shipped import find_recipe
from .tool_section import build_tools
from .trust import as_a_file_may_say_it, check_trust

__all__ = ["EvalConfig", "Expectation", "Generate", "Recipe", "RecipeError", "RefConfig", "load_recipe"]

SECTIONS = (
    "extends", "method", "model", "lora", "peft", "start", "ref", "data", "rewards", "judge", "tools", "environments", "train",
    "rounds", "fronts", "eval", "expect", "own_code",
)  # fmt: skip
OF_THE_POLICY = frozenset(("method", "model", "lora", "peft", "start", "ref"))
DTYPES = (None, "auto", "float32", "bfloat16", "float16")
NOT_IN_MODEL = "LoRA has its own section, `lora`, with the fields of peft.LoraConfig"
NOT_IN_TRAIN = {
    "model_init_kwargs": "the `model` section says how the model is loaded",
    "resume_from_checkpoint": "use --resume on the command line",
    "hub_token": "a secret does not belong into a recipe; log in with `hf auth login`",
    "do_train": "training is what a recipe does",
    "do_eval": "`data.eval` and `train.eval_strategy` decide",
    "do_predict": "there is no prediction step",
    "local_rank": "the launcher sets it",
}


@dataclass
class Recipe:
    """A checked recipe. `raw` is what was read, `extends` and overrides applied; it replays the run."""

    path: Path
    method: str
    model: ModelConfig
    lora: Any
    """Settings of a new adapter: peft.LoraConfig, of the section `peft` another of PEFT's, or None."""
    ref: RefConfig
    data: DataConfig
    train: Any
    """The configuration of the method."""
    eval: EvalConfig
    rewards: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Reward functions of online methods, by name, with their options."""
    expect: dict[str, Expectation] = field(default_factory=dict)
    judge: JudgeConfig | None = None
    """Who compares the answers that an online method samples, in the place of rewards."""
    tools: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the policy may call while it answers, by name, with options."""
    environments: dict[str, dict[str, Any]] = field(default_factory=dict)
    start: StartConfig | None = None
    """By default the policy begins with a new adapter, or with that of the reference."""
    rounds: RoundsConfig | None = None
    """What a round is, if the policy writes its own data; `data` then holds prompts."""
    fronts: FrontsConfig | None = None
    """Which policies make a front, if there are to be several."""
    raw: dict[str, Any] = field(default_factory=dict)
    set_aside: tuple[str, ...] = ()
    """Settings of `train` that need a GPU which is not here; they are off in `train`, and as they were in `raw`."""

    @property
    def trains_adapter(self) -> bool:
        """Whether it is an adapter that is trained, new or old."""
        return self.lora is not None or self.start is not None or self.ref.kind == "adapter"

    @property
    def rows(self) -> Rows:
        """What a row of the data is."""
        return METHODS[self.method].rows if self.rounds is None else "prompts"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of numbers that the data must have besides texts."""
        if self.rounds is not None:  # a round's pairs have them
            return ()
        return (*self.train.columns(), *(REF_COLUMNS if self.ref.kind == "cached" else ()))

    @property
    def texts(self) -> tuple[str, ...]:
        """Columns of texts that the data must have besides those of a pair."""
        return self.train.text_columns() if self.rounds is None else ()

    def resolved_yaml(self) -> str:
        """The recipe as one self-contained file for the run directory.

        What only the command line may say is left out: replaying a run uploads nothing unless it is asked for again,
        and an output folder that no file may name becomes `.`, the folder that the file lies in.
        """
        own = {"own_code": digests()} if digests() else {}
        return yaml.safe_dump(as_a_file_may_say_it(self.raw) | own, sort_keys=False, allow_unicode=True)


def load_recipe(
    name: str | Path, overrides: Iterable[str] = (), *, anywhere: bool = False, policy_alone: bool = False
) -> Recipe:
    """Read a recipe and check everything that can be checked without data or weights.

    Args:
        name: A path, or the name of a shipped recipe.
        overrides: `section.key=value` strings; values are read as YAML.
        anywhere: Read precisions that only a GPU has where there is none, for what does not train: see `set_aside`.
        policy_alone: Pass over what is wrong elsewhere in the file than in `OF_THE_POLICY`; such sections may be None.

    Raises:
        RecipeError: With every problem, one a line: file and line, key path, rule, value, remedy.
    """
    path = find_recipe(name)
    tree = with_bases(path)
    override(tree, overrides)
    tree.unread = frozenset(SECTIONS) - OF_THE_POLICY if policy_alone else frozenset()
    for key in tree.values:
        if key not in SECTIONS:
            tree.problem((key,), f"unknown section; {nearest(key, SECTIONS)}")
        if key == "extends":
            tree.problem((key,), "only a file can extend another; give that file's name instead")
    for line in lacking(tree.values.get("own_code", {}), path.parent):
        tree.problem(("own_code",), line)
    if "own_code" in tree.values:
        tree.fail_on_problems()  # what it names would be unknown
    check_trust(tree, path.parent)
    train = tree.get("train")
    aside = set_aside(train) if anywhere and isinstance(train, dict) else ()
    off = dict.fromkeys(aside, False)
    recipe = _build(path, tree, off)
    _cross_check(recipe, tree, off)
    tree.fail_on_problems()
    return Recipe(path, **recipe, raw=tree.values, set_aside=aside)


def _build(path: Path, tree: Tree, off: dict[str, bool]) -> dict[str, Any]:
    method = tree.get("method")
    is_known = isinstance(method, str) and method in METHODS
    if not is_known:
        got = "missing" if method is None else f"unknown, got {describe(method)}"
        tree.problem(("method",), f"{got}; {_instead_of(method)}")
    for section in ("model", "data", "train"):
        if section not in tree.values:
            tree.problem((section,), "missing section")

    def made(cls: type, section: str, hints: dict[str, str] | None = None) -> Any:
        values = tree.values.get(section)
        return build(cls, {} if values is None else values, (section,), tree, hints)

    return {
        "method": method,
        "model": made(ModelConfig, "model") if "model" in tree.values else None,
        "lora": _adapter(made, tree),
        "start": made(StartConfig, "start") if tree.values.get("start") is not None else None,
        "ref": made(RefConfig, "ref"),
        "data": made(DataConfig, "data") if "data" in tree.values else None,
        "train": _train(str(method), tree, off) if is_known and "train" in tree.values else None,
        "eval": made(EvalConfig, "eval"),
        "rounds": build_rounds(tree) if tree.values.get("rounds") is not None else None,
        "fronts": build_fronts(tree) if tree.values.get("fronts") is not None else None,
        "expect": _expect(tree),
        "rewards": build_rewards(METHODS[str(method)] if is_known else None, tree),
        "judge": build_judge(METHODS[str(method)] if is_known else None, tree),
        **build_tools(METHODS[str(method)] if is_known else None, tree),
    }


def _adapter(made: Callable[..., Any], tree: Tree) -> Any:
    if tree.values.get("peft") is not None:
        return build_peft(tree)
    return made(LoraConfig, "lora") if tree.values.get("lora") is not None else None


def _instead_of(method: Any) -> str:
    if method is None:
        return f"one of {', '.join(METHODS)}"
    known = str(method).lower().replace("-", "_")
    return ELSEWHERE[known] if known in ELSEWHERE else nearest(str(method), METHODS)


def _train(method: str, tree: Tree, off: dict[str, bool]) -> Any:
    config, preset = METHODS[method].config, METHODS[method].preset
    values = tree.get("train")
    if tree.values.get("rounds") is not None:
        values = by_round(values, config, tree.get("rounds", "count"), 1, tree)
    own = {f.name for f in fields(config)}
    hints: dict[str, str] = {}
    for other, entry in METHODS.items():
        for f in fields(entry.config):
            if f.name not in own:
                hints.setdefault(f.name, f"it belongs to method {other!r}")
    hints["rpo_alpha"] = "RPO's weight is `eta` (method: rpo), with `sft_reduction` and `scale_by_beta`"
    for key, why in NOT_IN_TRAIN.items():
        if isinstance(values, dict) and key in values:
            shown = "" if key == "hub_token" else f", got {values[key]!r}"
            tree.problem(("train", key), f"not allowed in a recipe{shown}; {why}")
    if isinstance(values, dict) and not values.get("output_dir"):
        tree.problem(("train", "output_dir"), "missing; the run directory")
    for key, value in preset.items():
        if isinstance(values, dict) and key in values:
            general = next((name for name, m in METHODS.items() if m.config is config and not m.preset), "another")
            tree.problem(("train", key), f"method {method!r} is {key}={value!r}; to choose it, use method {general!r}")
    return build(config, values | preset | off if isinstance(values, dict) else values, ("train",), tree, hints)


def _expect(tree: Tree) -> dict[str, Expectation]:
    values = tree.values.get("expect")
    if values is None:
        return {}
    if not isinstance(values, dict):
        tree.problem(("expect",), f"expected names of estimates, got {describe(values)}")
        return {}
    return {name: build(Expectation, item, ("expect", name), tree) for name, item in values.items()}


def _cross_check(recipe: dict[str, Any], tree: Tree, off: dict[str, bool]) -> None:
    model, lora, start, ref, train = (recipe[name] for name in ("model", "lora", "start", "ref", "train"))
    settings = tree.get("model")
    for key in settings if isinstance(settings, dict) else ():
        if key.startswith("lora_") or key in ("use_peft", "use_rslora", "use_dora"):
            tree.problem(("model", key), f"not used here; {NOT_IN_MODEL}")
    if model is not None and not model.model_name_or_path:
        tree.problem(("model", "model_name_or_path"), "missing; a hub id, a folder, a .gguf file or tiny-random")
    if model is not None and model.dtype not in DTYPES:
        tree.problem(("model", "dtype"), f"must be one of {', '.join(filter(None, DTYPES))}, got {model.dtype!r}")
    if (
        model is not None
        and (model.load_in_4bit or model.load_in_8bit)
        and lora is None
        and start is None
        and ref is not None
        and ref.kind != "adapter"
    ):
        tree.problem(("model",), "quantised weights cannot be trained; add a `lora` section (QLoRA)")
    section = "lora" if tree.values.get("peft") is None else "peft"
    if lora is not None:
        if section == "lora":
            check_lora(lora, tree)
        elif recipe["method"] == "meet":
            tree.problem(("peft",), "contradicts method 'meet', whose controls are LoRA adapters; give `lora`")
        if start is not None:
            tree.problem(
                (section,), f"contradicts start: training begins with the adapter {start.adapter}; remove `{section}`"
            )
        elif ref is not None and ref.kind == "adapter":
            tree.problem(
                (section,), f"contradicts ref.kind=adapter: the policy starts from {ref.path}; remove `{section}`"
            )
        share = getattr(lora, "lora_dropout", 0)
        if train is not None and train.turns_dropout_off() and share > 0:
            tree.problem(
                ("lora", "lora_dropout"),
                f"{share} would be switched off by train.disable_dropout=true; "
                "leave that out to train with it, or set lora_dropout to 0",
            )
    method = METHODS[recipe["method"]] if train is not None else None
    if start is not None and method is not None and method.model != "language":
        tree.problem(("start",), f"method {recipe['method']!r} begins with a new head on the model; remove it")
    if (
        lora is not None
        and ref is not None
        and ref.kind == "base"
        and method is not None
        and method.model == "language"
    ):
        for key, reason in without_reference(lora):
            tree.problem((section, key), reason)
    allowed = ["base", "adapter"] if method is not None and method.model == "language" else ["base"]
    if method is not None and ref is not None and not method.compares_with_any_reference and ref.kind not in allowed:
        tree.problem(("ref", "kind"), f"this method has {' and '.join(allowed)}, got {ref.kind!r}")
    if recipe["rounds"] is not None and method is not None:
        check_rounds(recipe, method, tree, off)
    if recipe["fronts"] is not None and method is not None:
        check_fronts(recipe, method, tree)
    if getattr(train, "prompt_weights", None) is not None and len(recipe["rewards"]) < 2:
        tree.problem(("train", "prompt_weights"), "weighs two reward functions or more; give them as `rewards`")
    if ref is not None and ref.kind == "cached" and train is not None and train.stores_reference():
        tree.problem(
            ("train", "precompute_ref_log_probs"), "contradicts ref.kind=cached: the values come with the data"
        )

"""Finds the model that a name on the command line means: a run, an adapter, a recipe or a model, or what it is held against."""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from align.data.prompts.revision import INSTRUCTION
from align.errors import RecipeError, RunError
from align.methods import METHODS
from align.models.loading import another_model, base_model_of, load_model
from align.models.start import adapter_folder
from align.models.use import Use
from align.recipe.loading import Recipe, load_recipe
from align.recipe.shipped import find_recipe
from align.runs.contents import RECIPE_FILE, check_one_policy
from align.tools import Calling, calling_of

YAML = (".yaml", ".yml")


class Policy(NamedTuple):
    """A language model that answers, before it is loaded."""

    settings: ModelConfig
    adapter: str | None = None
    instruction: str = INSTRUCTION
    """What it has learnt to be told after a draft."""
    caller: Callable[[], Recipe] | None = None
    """Reads the recipe whose tools and environments it calls, if it calls any."""

    def calling(self, tokenizer: PreTrainedTokenizerBase, columns: Collection[str]) -> Calling | None:
        """What it calls while it answers rows with these columns; see `align.tools.calling_of`."""
        return None if self.caller is None else calling_of(self.caller(), tokenizer, columns)

    def load(self) -> Use:
        """The model, in evaluation mode."""
        return Use(load_model(self.settings, adapter=self.adapter).eval(), self.settings, self.adapter)


def policy_of(name: str, overrides: Iterable[str] = (), *, reference: bool = False) -> Policy:
    """What a name means.

    Args:
        name: The directory of a run: what it trained. A recipe: what its training begins with. An adapter's folder. Else a
            model: a hub id, a folder or a .gguf file.
        overrides: `section.key=value` strings, for a run or a recipe.
        reference: What a run or a recipe is held against, instead.

    Raises:
        RunError: If the run has not finished, or trains a model that writes no answers; or if what is neither run nor
            recipe has no reference or takes no overrides.
        RecipeError: If the recipe cannot be used.
    """
    run, overrides = Path(name), list(overrides)
    is_run = (run / RECIPE_FILE).is_file()
    if not is_run and not _is_recipe(name):
        if overrides or reference:
            what = overrides[0] if overrides else "--ref"
            raise RunError(f"{what}: {name} is neither a run nor a recipe, to which alone this applies; leave it out")
        if (run / "adapter_config.json").is_file():
            return Policy(_plain(base_model_of(run)), str(run))
        return Policy(_plain(name))
    recipe = load_recipe(run / RECIPE_FILE if is_run else name, overrides, policy_alone=is_run)
    policy = _of_recipe(run, name, recipe, is_run=is_run, reference=reference)
    if not recipe.raw.get("tools") and not recipe.raw.get("environments"):
        return policy
    return policy._replace(caller=partial(load_recipe, recipe.path, overrides, anywhere=True))


def refuse_idle(overrides: Iterable[str]) -> None:
    """Refuse what says nothing of who answers, for commands that ask a policy by flags of their own.

    Raises:
        RunError: Naming the first such override.
    """
    idle = [word for word in overrides if word.partition("=")[0].split(".")[0] in ("data", "eval", "expect")]
    if idle:
        raise RunError(
            f"{idle[0]}: says nothing of who answers; leave it out: how answers are asked for, flags say (--help)"
        )


def _of_recipe(run: Path, name: str, recipe: Recipe, *, is_run: bool, reference: bool) -> Policy:
    if METHODS[recipe.method].model != "language":
        raise RunError(f"{name}: method {recipe.method!r} trains a model that judges answers and writes none")
    if reference:
        return _reference(name, recipe)
    if not is_run:
        return beginning_of(recipe)
    if (run / "adapter").is_dir():
        return Policy(recipe.model, str(run / "adapter"), instruction_of(recipe))
    if (run / "model").is_dir():
        return Policy(another_model(recipe.model, run / "model"), instruction=instruction_of(recipe))
    check_one_policy(run)
    raise RunError(f"{name}: neither adapter/ nor model/ there: the run has not finished; go on with --resume auto")


def instruction_of(recipe: Recipe) -> str:
    """What is said after a draft where a recipe's policy revises: SRPO's own, or the default of it."""
    return getattr(recipe.train, "revision_instruction", INSTRUCTION)


def beginning_of(recipe: Recipe) -> Policy:
    """What the training of a recipe begins with."""
    if recipe.start is not None:
        return Policy(recipe.model, str(adapter_folder(recipe.start.adapter)), instruction_of(recipe))
    return Policy(recipe.model, recipe.ref.path if recipe.ref.kind == "adapter" else None, instruction_of(recipe))


def _reference(name: str, recipe: Recipe) -> Policy:
    if recipe.ref.kind == "cached":
        raise RunError(f"{name}: ref.kind=cached has values and no model, which could answer; name a model")
    return reference_of(recipe)


def reference_of(recipe: Recipe) -> Policy:
    """What a recipe is held against, where that is a model and no values of the data."""
    if recipe.ref.kind == "model":
        return Policy(another_model(recipe.model, recipe.ref.path), instruction=instruction_of(recipe))
    return Policy(recipe.model, recipe.ref.path if recipe.ref.kind == "adapter" else None, instruction_of(recipe))


def _is_recipe(name: str) -> bool:
    if Path(name).exists():
        return name.endswith(YAML) and Path(name).is_file()
    try:
        find_recipe(name)
    except RecipeError:
        if name.endswith(YAML):
            raise
        return False
    return True


def _plain(name: str) -> ModelConfig:
    return ModelConfig(model_name_or_path=name, dtype="auto")

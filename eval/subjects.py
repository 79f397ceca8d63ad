"""Loads who is evaluated: the policy of a run (or any model), and the reference it is compared with."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from align.check.rewards import inspect_tools
from align.data import load_data
from align.errors import RunError
from align.files import called, read_json
from align.methods import METHODS
from align.models.dated import date_template, recorded_day
from align.models.identity import different, model_identity
from align.models.loading import another_model, load_tokenizer
from align.models.use import Model, Use, share_weights
from align.recipe.loading import Recipe, load_recipe
from align.run_identity import identity_of_run
from align.runs.checkpoints import MANIFEST, manifest
from align.runs.contents import ENV_FILE, RECIPE_FILE, REFERENCE_FILE
from align.runs.directory import recorded_reference
from align.sampling.policy import Policy, reference_of
from align.tools import owned_rewards

from .identity import identity_of_policy


@dataclass
class Subject:
    """A policy and its reference. `policy()` and `reference()` are context managers that give the model to call."""

    name: str
    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    policy: Use
    reference: Use
    ref_digest: str
    path: str = ""
    """What it was loaded from."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """As `identity_of_policy` says."""
    before: str = ""
    """Of rounds: the name of the policy that this one was made from, or "ref"."""
    base_digest: str = ""
    """Of the reference without its adapters."""
    trained_against: str = "nothing, as far as is known"
    """What its training was held against and began with, in words."""
    other_reference: bool = False
    """Whether it is held against another reference here than in training."""

    @property
    def pad_token_id(self) -> int:
        """The tokenizer's, which `load_tokenizer` has made sure of."""
        pad: Any = self.tokenizer.pad_token_id
        return int(pad)


def load_subjects(names: Sequence[str], recipe_name: str | None, overrides: tuple[str, ...]) -> list[Subject]:
    """As `load_subject` says, each after the other. Weights that several of their models have are in memory once."""
    subjects: list[Subject] = []
    models: list[Model] = []
    for name in names:
        subjects.append(load_subject(name, recipe_name, overrides))
        for use in (subjects[-1].policy, subjects[-1].reference):
            for held in models:
                share_weights(use.model, held)
            models += [] if any(use.model is held for held in models) else [use.model]
    return subjects


def load_subject(name: str, recipe_name: str | None = None, overrides: tuple[str, ...] = ()) -> Subject:
    """The policy and reference of a run directory, or of a model id or folder together with a recipe.

    Args:
        name: A run directory, or a model to be compared with the recipe's reference.
        recipe_name: Recipe whose data, reference and `eval` section apply; a run directory brings its own.
        overrides: `section.key=value` strings.

    Raises:
        RunError: If the run is not finished, its reference is not the one it was trained with (and no override of `ref`
            or `model` says that this is meant), or a recipe is missing.
    """
    run = Path(name)
    is_run = (run / RECIPE_FILE).is_file()
    if not is_run and recipe_name is None:
        raise RunError(f"{name}: no {RECIPE_FILE} there, so not a run directory; for a model, add --recipe RECIPE")
    recipe = load_recipe(recipe_name or run / RECIPE_FILE, overrides, anywhere=True)
    identity = identity_of_policy(name)  # before the weights are read: what is exchanged meanwhile is noticed
    policy, reference = _models(run, recipe) if is_run else _any_model(name, recipe)
    with reference() as model:
        found = model_identity(model)
    recorded = _recorded_reference(run)
    on_purpose = any(override.startswith(("ref.", "model.")) for override in overrides)
    changed = different(recorded, found)
    same_base = recipe_name is not None and not {"weights", "configuration"} & set(changed)
    if changed and not on_purpose and not same_base:
        raise RunError(
            f"{name}: trained against another reference ({recorded['model']}, {recorded['digest'][:12]}) than is loaded now "
            f"({found['digest'][:12]}), which differs in {' and '.join(changed)}; restore it, or name another on purpose "
            "with ref.kind=... ref.path=..."
        )
    tokenizer = load_tokenizer(recipe.model)
    date_template(tokenizer, recorded_day(run / ENV_FILE) if is_run else None)
    digest = "+".join(found.values())
    made = Subject(called(run) if is_run else name, recipe, tokenizer, policy, reference, digest, name, identity)
    made.base_digest = "+".join(found[key] for key in ("digest", "config_digest"))
    if is_run:
        made.trained_against = _in_words(
            recipe if recipe_name is None else load_recipe(run / RECIPE_FILE, anywhere=True)
        )
        made.other_reference = bool(changed)
    return made


def _in_words(recipe: Recipe) -> str:
    ref = recipe.ref
    against = "the base" if ref.kind in ("base", "cached") else f"the {ref.kind} {ref.path}"
    if recipe.rows != "pairs" and not getattr(recipe.train, "needs_reference", lambda: True)():
        against = "no reference"
    return against if recipe.start is None else f"{against}; it began with {recipe.start.adapter}"


def hold_against_base(subjects: Sequence[Subject]) -> str:
    """Where references differ, hold all policies against the base that the references have in common.

    Adapters of adapters have it: a run of preferences whose reference is a supervised adapter, and that adapter's own run.

    Returns:
        What they are held against in place of their references, in words; empty where the references are the same.

    Raises:
        RunError: If the references are of different models.
    """
    first = subjects[0]
    others = [each for each in subjects if each.ref_digest != first.ref_digest]
    if not others:
        return ""
    for other in others:
        if other.base_digest != first.base_digest or not first.base_digest:
            raise RunError(
                f"{other.name}: another reference than {first.name}'s, and of another model; they cannot be compared pair by "
                "pair. Name one for all: ref.kind=model ref.path=BASE"
            )
    base = Use(first.reference.model, first.reference.settings, adapters_off=True)
    for each in subjects:
        each.other_reference |= each.ref_digest != first.base_digest
        each.reference, each.ref_digest = base, first.base_digest
    return f"the base that they have in common, {base.settings.model_name_or_path}"


def _recorded_reference(path: Path) -> dict[str, Any]:
    """The identity of the reference that a run, an adapter or a checkpoint was trained against; empty if it has none."""
    if (path / ENV_FILE).is_file():
        return identity_of_run(path).reference or {}
    if (path / REFERENCE_FILE).is_file():
        return recorded_reference(read_json(path / REFERENCE_FILE), path / REFERENCE_FILE)
    return (manifest(path)["reference"] or {}) if (path / MANIFEST).is_file() else {}


def _models(run: Path, recipe: Recipe) -> tuple[Use, Use]:
    if (run / "adapter").is_dir():
        policy = Policy(recipe.model, str(run / "adapter")).load()
        base_is_ref = recipe.ref.kind == "base"
        return policy, Use(policy.model, recipe.model, adapters_off=True) if base_is_ref else _reference(recipe)
    return Policy(another_model(recipe.model, run / "model")).load(), _reference(recipe)


def _any_model(name: str, recipe: Recipe) -> tuple[Use, Use]:
    if (Path(name) / "adapter_config.json").is_file():
        return Policy(recipe.model, name).load(), _reference(recipe)
    return Policy(another_model(recipe.model, name)).load(), _reference(recipe)


def _reference(recipe: Recipe) -> Use:
    if recipe.ref.kind == "cached":
        raise RunError(
            "ref.kind=cached: the data's values cannot generate answers; name a model with ref.kind=base or model"
        )
    return reference_of(recipe).load()


def check_writes_answers(name: str, recipe: Recipe) -> None:
    """Raise RunError if what a recipe trains is a model that judges answers and writes none."""
    if METHODS[recipe.method].model == "preference":
        raise RunError(
            f"{name}: method {recipe.method!r} trains a model that judges answers and writes none; measure it with `alignkit "
            "reward-bench` or `alignkit judge-agreement`, or load it with "
            "align.models.preference_model.load_preference_model(FOLDER), FOLDER being the run's adapter/ or model/, and call "
            "its prefer(prompt, answers)"
        )


def check_measurable(name: str, recipe: Recipe) -> None:
    """Whether what a recipe trains can be evaluated.

    Raises:
        RunError: If it is a model that judges answers, or learns from prompts and nothing asks for answers, or calls what
            cannot be made.
    """
    check_writes_answers(name, recipe)
    check_calls(name, recipe)
    rows = recipe.rows
    if rows == "prompts" and recipe.eval.generate is None:
        raise RunError(
            f"{name}: method {recipe.method!r} learns from {rows}, so there is nothing held out to score; to evaluate its "
            "answers set eval.generate={prompts: 128}, and eval.gold_reward to score them"
        )


def check_calls(name: str, recipe: Recipe) -> None:
    """Look at the tools of a recipe, and at the rows that its environments are to serve, before a weight is loaded.

    Raises:
        RunError: If something of them cannot be made, or the evaluation asks for what has no calls.
    """
    if not (recipe.tools or recipe.environments) or recipe.eval.generate is None:
        return
    generate = recipe.eval.generate
    sets = [which for which in ("instructions", "refusals") if getattr(recipe.eval, which) is not None]
    if generate.revisions:
        raise RunError(f"{name}: eval.generate.revisions: answers that call tools are not revised; leave it out")
    if sets and recipe.environments:
        raise RunError(f"{name}: eval.{sets[0]}: its prompts are no rows that an environment begins with; leave it out")
    found = load_data(recipe.data, rows="prompts").eval
    where = {f"data.eval.{key}": rows for key, rows in found.items()}
    errors = [each for each in inspect_tools(recipe, where, load_tokenizer(recipe.model)) if each.level == "error"]
    if errors:
        raise RunError("\n".join(f"{name}: {each.where}: {each.message}; {each.remedy}" for each in errors))
    point = recipe.eval.reference_point
    if point is not None and (owned := owned_rewards(recipe)):
        raise RunError(
            f"{name}: eval.reference_point: has no value for {owned[0]}, the reward of an environment; leave it out"
        )


def title(subject: Subject, first: Subject) -> str:
    """What a policy is called in messages."""
    return "the policy" if subject is first else subject.name


def template_digest(subject: Subject) -> str | None:
    """Digest of the chat template that prompts go through."""
    template = subject.tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None

"""Makes the identity of a run from what is loaded, and reads the one that a run directory has: see `align.runs.identity`."""

from pathlib import Path
from typing import Any

import torch

from align.models.identity import model_identity, text_identity, weights_digest
from align.recipe.loading import Recipe, load_recipe
from align.runs.contents import ENV_FILE, RECIPE_FILE
from align.runs.identity import Identity, identity_from, settings_of

from .errors import DataError, RecipeError, RunError
from .files import digest_of, read_json


def identity_now(settings: dict[str, Any], trainer: Any, data: dict[str, Any], weights: str) -> Identity:
    """What a run of a recipe is, before it has an id.

    Args:
        settings: Of the recipe, as they were before the trainer changed its arguments.
        trainer: With its `reference_identity`.
        data: Digest of the training set.
        weights: Digest of what training starts from.
    """
    tokenizer = digest_of(text_identity(trainer.processing_class))
    wins = getattr(trainer, "wins", None)
    judge = None if wins is None else judge_digest(wins.scorer)
    return Identity(None, settings, data, weights, tokenizer, trainer.reference_identity, judge)


def judge_digest(scorer: Any) -> str | None:
    """Digest of the model that a scorer asks, and of what makes tokens for it; None if no model of ours judges."""
    asked = getattr(scorer, "ask", scorer)
    model, tokenizer = getattr(asked, "model", None), getattr(asked, "tokenizer", None)
    if not isinstance(model, torch.nn.Module) or tokenizer is None:
        return None
    return digest_of([model_identity(model), text_identity(tokenizer)])


def starting_weights(policy: Any, ref: dict[str, Any], *, own_reference: bool) -> str:
    """Digest of the weights that training starts from, without a fresh adapter's, whose seed is a setting."""
    return str(ref["digest"]) if own_reference else weights_digest(policy)


def reference_identity(recipe: Recipe, policy: Any, ref_model: Any) -> dict[str, Any]:
    """What the reference is, with digests of what determines its log-probabilities."""
    identity: dict[str, Any] = {
        "kind": recipe.ref.kind,
        "model": recipe.ref.path if recipe.ref.kind == "model" else recipe.model.model_name_or_path,
        **model_identity(policy if ref_model is None else ref_model),
    }
    return identity | ({"adapter": recipe.ref.path} if recipe.ref.kind == "adapter" else {})


def read_env(run: Path) -> dict[str, Any]:
    """What `env.json` says; empty if there is none.

    Raises:
        RunError: If it is damaged.
    """
    path = run / ENV_FILE
    if not path.is_file():
        return {}
    try:
        return read_json(path)
    except UnicodeDecodeError:
        raise RunError(f"{path}: damaged: not UTF-8") from None


def identity_of_run(run: Path) -> Identity:
    """What a run directory says it is; of one that an earlier version wrote, what its recipe and `env.json` tell.

    Raises:
        RunError: If `env.json` is damaged.
    """
    env = read_env(run)
    try:
        if "identity" in env:
            return identity_from({**env["identity"], "reference": env.get("ref")})
        data = env.get("data")
        known = {"data": data.get("train") if isinstance(data, dict) else None, "reference": env.get("ref")}
        found = identity_from(known)
    except (ValueError, AttributeError, TypeError):
        raise RunError(
            f"{run / ENV_FILE}: damaged; it does not say what the run is; restore it, or use --overwrite"
        ) from None
    return Identity(settings=_settings(run)[0], data=found.data, reference=found.reference)


def settings_written(run: Path) -> dict[str, Any]:
    """Settings that a run directory's recipe names itself; what is derived from the machine is left out."""
    settings, raw = _settings(run)
    if raw.get("rounds") is not None:
        return {}
    named = {f"{section}.{key}" for section, values in raw.items() if isinstance(values, dict) for key in values}
    return {key: value for key, value in settings.items() if key in {"method", *named}}


def _settings(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a run directory's recipe, and the recipe as it is written."""
    if not (run / RECIPE_FILE).is_file():
        return {}, {}
    try:
        recipe = load_recipe(run / RECIPE_FILE)
        return settings_of(recipe), recipe.raw
    except (RecipeError, RunError, DataError, OSError, ValueError):  # of another version: nothing to compare with
        return {}, {}

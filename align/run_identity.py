"""Makes the identity of a run from what is loaded, and reads the one that a run directory has: see `align.runs.identity`."""

import contextlib
import json
from pathlib import Path
from typing import Any

import torch
import yaml

from align.models.identity import model_identity, text_identity, weights_digest
from align.recipe.loading import Recipe, load_recipe
from align.runs.contents import ENV_FILE, LEDGERS, RECIPE_FILE
from align.runs.identity import Difference, Identity, identity_from, rewritten, settings_of, written

from .errors import DataError, RecipeError, RunError
from .files import digest_of, read_json

WRITTEN = "written"
"""Where `env.json`, or the newest line of `rounds.jsonl` that has it, keeps what the recipe said when the run was made."""


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
    return Identity(settings=_settings(run), data=found.data, reference=found.reference)


def recipe_as_written(recipe: Recipe) -> dict[str, Any]:
    """What the file of a run of this recipe says of the training, as `rewritten` compares it."""
    return written(yaml.safe_load(recipe.resolved_yaml()))


def recipe_differences(run: Path, now: dict[str, Any] | None = None, *, places: bool = True) -> list[Difference]:
    """What the recipe that made a run says otherwise than another one.

    Args:
        run: The run directory. What its recipe said is on record there; else its file is taken at its word.
        now: The other, from `recipe_as_written`; by default the file that lies there, which may have been edited.
        places: Whether the places of data and models count.

    Raises:
        RunError: If the file is damaged.
    """
    path = run / RECIPE_FILE
    try:
        filed = written(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError):
        raise RunError(f"{path}: damaged; restore it") from None
    return rewritten(_on_record(run) or filed, filed if now is None else now, places=places)


def _on_record(run: Path) -> dict[str, Any]:
    """What the recipe of a run said; empty where an earlier version wrote the run."""
    found = read_env(run).get(WRITTEN)
    for path in (run / name for name in LEDGERS) if found is None else ():
        with contextlib.suppress(ValueError, AttributeError, OSError):
            for line in path.read_text(encoding="utf-8").splitlines():
                found = json.loads(line).get("counts", {}).get(WRITTEN) or found
    return found if isinstance(found, dict) else {}


def _settings(run: Path) -> dict[str, Any]:
    """Settings of a run directory's recipe."""
    if not (run / RECIPE_FILE).is_file():
        return {}
    try:
        return settings_of(load_recipe(run / RECIPE_FILE))
    except (RecipeError, RunError, DataError, OSError, ValueError):  # of another version: nothing to compare with
        return {}

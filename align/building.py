"""Builds the trainer of a recipe over loaded data, for training and for the dry run of `alignkit check`."""

import copy
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from align.data.as_read import AsRead
from align.data.loading import TRAIN, named_sets
from align.judges.from_recipe import MakeScorer, prepare_judge
from align.models import loading as models
from align.models.dated import date_template
from align.models.identity import adapter_digest
from align.models.preference_model import load_preference_base
from align.models.start import adapter_folder, begin_with, made_by, starting_config, trained_on_another
from align.recipe.loading import Recipe
from align.runs.directory import MetricsFile
from align.runs.identity import settings_of
from align.runs.progress import tell_progress
from align.runs.trackers import track

from .files import digest_of
from .methods import METHODS
from .rewards import make_reward
from .run_identity import reference_identity, starting_weights
from .tools import called_by

logger = logging.getLogger(__name__)


def build_trainer(
    recipe: Recipe, train: Any, eval_sets: dict[str, Any], *, allow: Collection[str] = (), day: str | None = None
) -> tuple[Any, dict[str, Any]]:
    """The trainer of a recipe over loaded data, and the identity of its reference; `day` is its template's, if not today."""
    settings = {**settings_of(recipe), "model": Path(str(recipe.model.model_name_or_path)).name}
    tokenizer = models.load_tokenizer(recipe.model)
    template_day = date_template(tokenizer, day)
    further: dict[str, Any] = {}
    begun_with: dict[str, Any] | None = None
    if recipe.rows == "prompts":
        further["reward_funcs"] = [make_reward(name, allow, **options) for name, options in recipe.rewards.items()]
    if recipe.tools or recipe.environments:
        further |= called_by(recipe, tokenizer, train.column_names)
    if recipe.judge is not None:
        further["scorer"] = judge_of(recipe, allow, Path(str(recipe.train.output_dir)))()
    method = METHODS[recipe.method]
    adapter = recipe.ref.path if recipe.ref.kind == "adapter" else None
    start = None if recipe.start is None else adapter_folder(recipe.start.adapter)
    begun = None if start is None else starting_config(start, adapter)
    if method.model == "preference":
        policy = load_preference_base(recipe.model, dimension=recipe.train.dimension, seed=recipe.train.seed)
    else:
        policy = models.load_model(recipe.model, adapter=adapter, trainable=True)
    if method.compares_with_any_reference:
        other = models.another_model(recipe.model, recipe.ref.path) if recipe.ref.kind == "model" else None
        further["ref_model"] = models.load_model(other) if other is not None else None
    ref = reference_identity(recipe, policy, further.get("ref_model"))
    weights = own = starting_weights(policy, ref, own_reference=further.get("ref_model") is None)
    if adapter is not None and start is None:
        _say_reference(Path(adapter), ref)
    as_read = as_read_by(method.trainer, recipe.train) if recipe.data.streaming else None
    if as_read is not None:
        limit: Any = recipe.train.max_length
        train, *others = (
            as_read(tokenizer, limit, name).of(data, trained=name == TRAIN)
            for name, data in named_sets(train, eval_sets).items()
        )
        eval_sets = dict(zip(eval_sets, others, strict=True))
    trainer = method.trainer(
        model=policy,
        args=recipe.train,
        train_dataset=train,
        eval_dataset=eval_sets or None,
        processing_class=tokenizer,
        # PEFT writes into what it is given
        peft_config=copy.deepcopy(recipe.lora if begun is None or adapter is not None else begun),
        callbacks=[MetricsFile(Path(str(recipe.train.output_dir)))],
        **further,
    )
    tell_progress(trainer)
    track(trainer, settings)
    if start is not None:
        begin_with(trainer.model, start)
        begun_with = {"adapter": str(start), "digest": adapter_digest(trainer.model), **made_by(start)}
        logger.warning("training begins with the adapter %s; the reference is the %s", start, _told(recipe))
        other = trained_on_another(start, weights)
        if other is not None:
            logger.warning("%s", other)
        weights = digest_of([weights, begun_with["digest"]])
    beside = getattr(trainer, "weights_beside", {})
    for folder in beside:
        other = trained_on_another(folder, own, "a control")
        if other is not None:
            logger.warning("%s", other)
    weights = digest_of([weights, *beside.values()]) if beside else weights
    trainer.reference_identity, trainer.starting_weights = ref, weights
    trainer.template_day, trainer.begun_with = template_day, begun_with
    return trainer, ref


def as_read_by(trainer: Any, args: Any) -> type[AsRead] | None:
    """What makes tokens as rows are read, if the trainer takes such rows and asks nothing that the tokens of all rows decide."""
    asked = ("precompute_ref_log_probs", "packing", "eval_packing", "shuffle_dataset")
    all_at_once = any(getattr(args, name, None) for name in asked) or args.train_sampling_strategy == "group_by_length"
    learns_prompts = getattr(args, "completion_only_loss", None) is False
    return None if all_at_once or learns_prompts else getattr(trainer, "as_read", None)


def judge_of(recipe: Recipe, allow: Collection[str], run: Path) -> MakeScorer:
    """What makes the judge of a recipe that has one; what an endpoint says is kept in `judges/` of the run.

    Raises:
        RunError: If it cannot be made, or may not be asked.
    """
    assert recipe.judge is not None
    return prepare_judge("judge", recipe.judge, recipe.model, list(allow), run / "judges" / "judge.jsonl")


def _say_reference(adapter: Path, ref: dict[str, Any]) -> None:
    """Training that goes on from an adapter takes it, as it is now, for its reference; say so."""
    logger.warning(
        "training goes on from the adapter %s (%s); the reference is that adapter as it is now, not what it was trained "
        "against", adapter, ref["adapter_digest"][:12],
    )  # fmt: skip


def _told(recipe: Recipe) -> str:
    return {"base": "model without adapters", "cached": "data's"}.get(
        recipe.ref.kind, f"{recipe.ref.kind} {recipe.ref.path}"
    )

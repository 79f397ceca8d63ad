"""Takes a skipped step again, pair by pair, for `alignkit replay`, and says where it stops being finite."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from align.recipe.loading import load_recipe
from align.runs.contents import RECIPE_FILE
from align.runs.identity import differences, settings_of, told
from align.scoring.batching import pick_pairs
from align.trainers.shared.guard import INCIDENT, SKIPPED

from .building import build_trainer
from .data import load_data
from .data.kept import data_digest
from .errors import RunError
from .findings import printable
from .run_identity import identity_now, identity_of_run


class Replayed(NamedTuple):
    """What one pair gave when its step was taken again."""

    row: int | None
    """Row of the trainer's training set, counted from 0."""
    loss: float
    gradient: float
    """Norm over the trainable weights."""
    begins_in: str | None
    """First module whose output is not finite, `backward` if only the gradient is not, None if all is finite."""
    prompt: str


def replay(run: Path, step: int | None = None, *, changed: bool = False) -> list[Replayed]:
    """Load the weights and batches that a skipped step was taken with, and score its pairs one by one.

    With dropout in the policy its masks are not those of the run. Without an adapter (full fine-tuning) the weights are
    those the recipe starts from.

    Args:
        run: A run directory.
        step: Which skipped step; the first by default.
        changed: Go on although the data or the weights are not those of the run.

    Raises:
        RunError: If the run has skipped no step, or not that one, or the data or the weights are not those of the run.
    """
    folders = {int(path.name.partition("-")[2]): path for path in (run / SKIPPED).glob("step-*")}
    if not folders:
        raise RunError(f"{run}: no skipped step there")
    if step is not None and step not in folders:
        raise RunError(f"{run}: step {step} was not skipped; these were: {', '.join(map(str, sorted(folders)))}")
    folder = folders[min(folders) if step is None else step]
    recipe = load_recipe(run / RECIPE_FILE, ["train.save_strategy='no'", "train.report_to=none"])
    if recipe.rows != "pairs":
        raise RunError(f"{run}: steps are taken again pair by pair, and this run learnt from {recipe.rows}")
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    settings = settings_of(recipe)  # before the trainer changes any
    trainer, _ = build_trainer(recipe, data.train, {})
    of_run = identity_of_run(run)
    now = identity_now(settings, trainer, data_digest(data.train), trainer.starting_weights)
    found_otherwise = differences(of_run, now)
    if found_otherwise and not changed:
        raise RunError(
            f"{run}: not what the run was trained with:\n{told(found_otherwise)}\nrestore it; or go on all the same with --changed"
        )
    policy: Any = trainer.model
    if isinstance(policy, PeftModel) and (folder / "adapter").is_dir():
        set_peft_model_state_dict(policy, load_file(folder / "adapter" / "adapter_model.safetensors"))
    policy.train()
    found = []
    for path in sorted(folder.glob("batches-*.safetensors")):
        rank = path.stem.partition("-")[2]
        record = json.loads((folder / f"{rank}-{INCIDENT}").read_text(encoding="utf-8"))
        if record.get("run") and of_run.run and record["run"] != of_run.run:
            raise RunError(f"{folder}: a step of another run ({record['run']}) than the directory's ({of_run.run})")
        for batch, rows in zip(_batches(path), record["rows"], strict=True):
            found += [_one(trainer, pick_pairs(batch, torch.tensor([i])), row) for i, row in enumerate(rows)]
    return found


def _batches(path: Path) -> list[dict[str, Tensor]]:
    batches: dict[int, dict[str, Tensor]] = {}
    for key, tensor in load_file(path).items():
        number, _, name = key.partition(".")
        batches.setdefault(int(number), {})[name] = tensor
    return [batches[number] for number in sorted(batches)]


def _one(trainer: Any, batch: dict[str, Tensor], row: int | None) -> Replayed:
    batch = trainer._prepare_inputs(batch)
    trainer.model.zero_grad()
    with _first_not_finite(trainer.model) as seen, trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    gradients = [p.grad.float().norm() for p in trainer.model.parameters() if p.grad is not None]
    gradient = float(torch.stack(gradients).norm()) if gradients else 0.0
    trainer.sums.take("train")
    begins = seen[0] if seen else None
    if begins is None and not torch.isfinite(loss):
        begins = "the loss"
    if begins is None and not torch.isfinite(torch.tensor(gradient)):
        begins = "backward"
    prompt = batch["input_ids"][0][(batch["attention_mask"] > batch["completion_mask"])[0]]
    return Replayed(row, float(loss.detach()), gradient, begins, trainer.processing_class.decode(prompt))


@contextlib.contextmanager
def _first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    seen: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) and output else output
            if not seen and isinstance(first, Tensor) and first.is_floating_point() and not torch.isfinite(first).all():
                seen.append(name)

        return hook

    handles = [m.register_forward_hook(look(n)) for n, m in model.named_modules() if not list(m.children())]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def table(found: list[Replayed]) -> str:
    """One line a pair."""
    lines = [f"{'row':>6}  {'loss':>10}  {'gradient':>10}  begins in / prompt"]
    for pair in found:
        row = "?" if pair.row is None else str(pair.row)
        where = "all finite" if pair.begins_in is None else pair.begins_in
        lines.append(f"{row:>6}  {pair.loss:>10.4g}  {pair.gradient:>10.4g}  {where}: {printable(pair.prompt)}")
    if all(pair.begins_in is None for pair in found):
        lines.append("Nothing here is infinite or NaN: it came from another device, precision or dropout mask.")
    return "\n".join(lines)

"""Refuses a reference that is not what training starts from, or moves; seen by settings and on the first batch."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from peft import PeftModel
from torch import Tensor, nn

from align.errors import RunError
from align.models.adapters import active_adapter, settings_of, without_reference
from align.runs.parts import read_part

from .dropout import dropout_off

LOOKED_AT = 2
"""Rows, or pairs, of the first batch that are scored once more."""
APART = 1e-4
"""Nats per token between policy and reference that are rounding, where all is computed in single precision."""
APART_ROUNDED = 5e-2
"""The same where it is not."""
MOVED = 1e-3
"""Nats per token by which the reference may differ from itself."""
MOVED_REFERENCE = "moved_reference.pt"
"""In a checkpoint: the weights of a reference that follows the policy."""
ANOTHER = ", or give a reference of its own on purpose (`ref_model`; in a recipe `ref.kind: model`)"
"""A remedy where the trainer takes one."""


def refuse_without_reference(model: Any, peft_config: Any, where: str, remedy: str = "") -> None:
    """Raise if the model without its adapter would not be the reference, by what the adapter's settings say.

    Args:
        model: The policy.
        peft_config: Of a new adapter, or None.
        where: Who asks.
        remedy: What else can be done.

    Raises:
        RunError: With the setting, the reason, and what to do.
    """
    configs = {} if not isinstance(model, PeftModel) else model.peft_config
    problems = [problem for config in configs.values() for problem in without_reference(config, made=True)]
    settings = ("init_lora_weights", "init_weights")  # may yet be given weights; the first step looks
    random = any(getattr(peft_config, name, None) is False for name in settings)
    problems += [] if peft_config is None else list(without_reference(peft_config, made=random))
    for key, reason in problems:
        raise RunError(f"{where}: {key}: {reason}{remedy}")


def refuse_frozen(model: nn.Module, where: str) -> None:
    """Raise if nothing of a model is trained.

    Raises:
        RunError: With the usual cause.
    """
    if any(parameter.requires_grad for parameter in model.parameters()):
        return
    cause = (
        "an adapter that PeftModel.from_pretrained loads is frozen: load it with is_trainable=True"
        if isinstance(model, PeftModel)
        else "give its parameters requires_grad=True, or pass a peft_config"
    )
    raise RunError(f"{where}: no parameter of the model is trainable, so no step would change it; {cause}")


def copy_reference(model: Any) -> None:
    """Make the frozen adapter "ref" of a model the same as the one that is trained, tensor by tensor.

    TRL copies tensors whose name has a further part after the adapter's, which leaves out low-rank embeddings, trained
    tokens, and all that PEFT keeps in a dictionary of parameters.
    """
    if not isinstance(model, PeftModel) or "ref" not in model.peft_config:
        return
    own = dict(model.named_parameters())
    trained = active_adapter(model)
    for name, parameter in own.items():
        copy = own.get(".".join("ref" if part == trained else part for part in name.split(".")))
        if copy is not None and copy is not parameter:
            copy.data.copy_(parameter.data)
            copy.requires_grad_(False)


def settle_reference(trainer: Any) -> None:
    """Once, before anything is learnt or scored: complete the copy that TRL makes of a trained adapter.

    Args:
        trainer: With `copies_reference`, whether that is still to be done.
    """
    if trainer.copies_reference:
        copy_reference(trainer.model)
    trainer.copies_reference = False


@contextlib.contextmanager
def as_reference(model: PeftModel) -> Iterator[None]:
    """The model as it was: with its adapter "ref" if it has one, else with none."""
    if "ref" not in model.peft_config:
        with model.disable_adapter():
            yield
        return
    active: Any = model.active_adapter
    model.set_adapter("ref")
    try:
        yield
    finally:
        model.set_adapter(active)


@contextlib.contextmanager
def moved(model: nn.Module) -> Iterator[None]:
    """The adapter as training might leave it: noise on all that is trained, the same every time; then as it was, to the bit.

    A new adapter adds zero, so that nothing of what it will do shows. A model without an adapter stays as it is.
    """
    trained = [p for p in model.parameters() if p.requires_grad] if isinstance(model, PeftModel) else []
    parts = [own_part(p).detach() for p in trained if p.is_floating_point()]
    kept = [part.clone() for part in parts]
    try:
        for number, part in enumerate(parts):
            noise = torch.Generator(part.device).manual_seed(number)
            size = float(part.float().square().mean().sqrt()) if part.numel() else 0.0
            part.add_(
                torch.randn(part.shape, generator=noise, device=part.device).to(part.dtype), alpha=0.05 * (size or 1)
            )
        _gathered_anew(trained)
        yield
    finally:
        for part, before in zip(parts, kept, strict=True):
            part.copy_(before)
        _gathered_anew(trained)


def _gathered_anew(parameters: list[nn.Parameter]) -> None:
    """Have ZeRO-3 give up what it has gathered of small parameters, and otherwise keeps."""
    for parameter in parameters:
        partition: Any = getattr(parameter, "partition", None)
        if partition is not None and parameter.numel():
            partition()


def own_part(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that FSDP2 or ZeRO-3 has spread over all; else the tensor."""
    return getattr(tensor, "_local_tensor", getattr(tensor, "ds_tensor", tensor))


class FirstStep:
    """Looks, before the first step of a run, whether the policy is its reference, and whether that stays where it is.

    A run that resumes is past its first step. A reference that the user gave may be any model: it is not looked at. Nor
    need a policy be the reference whose weights were changed after the trainer was made: it begins where somebody put it.

    Args:
        remedy: What else can be done.
    """

    def __init__(self, remedy: str = "") -> None:
        self.looked, self.remedy = False, remedy
        self._made: list[int] | None = None
        self._begun: list[int] | None = None

    def made(self, model: nn.Module) -> None:
        """The trainer is constructed."""
        self._made = self._begun = fingerprint(model)

    def begins(self, model: nn.Module) -> None:
        """Training begins."""
        if not self.looked:
            self._begun = fingerprint(model)

    def due(self, trainer: Any) -> bool:
        """Whether this run begins, and was not looked at yet."""
        due = not self.looked and trainer.state.global_step == 0
        self.looked = True
        return due

    def look(
        self,
        trainer: Any,
        policy: Callable[[], Tensor],
        ref: Callable[[], Tensor],
        tokens: Tensor,
        *,
        inside: bool = True,
    ) -> None:
        """Score a few rows under policy and reference.

        Args:
            trainer: Whose first step it is.
            policy: Gives log π(y|x), in nats, summed over the tokens of each row. Shape (rows,).
            ref: Likewise for the reference.
            tokens: Tokens of each row. Shape (rows,).
            inside: Whether the reference is the policy without its adapter, or with a frozen one.

        Raises:
            RunError: With what is wrong, the settings that may be the cause, and what to do.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        each = tokens.to(torch.float64).clamp(min=1)
        with torch.no_grad(), dropout_off(trainer.model):
            before = ref().double()
            apart = float(((policy().double() - before) / each).abs().mean())
            drift = 0.0
            if inside and isinstance(model, PeftModel):
                with moved(model):
                    drift = float(((ref().double() - before) / each).abs().mean())
        allowed = APART if exact(model, trainer.accelerator) else APART_ROUNDED
        where = f"{type(trainer).__name__}: before the first step"
        adapter = settings_of(model) if isinstance(model, PeftModel) else None
        if trainer.anywhere(self._made == self._begun and not apart <= allowed):
            cause = (
                f"the adapter, {adapter}, does not begin at zero, or changes the model beneath it; begin with one that does"
                if adapter
                else "it is not what the reference was loaded from; pass the reference as `ref_model`"
            )
            raise RunError(
                f"{where} the policy is {apart:.3g} nats per token away from its reference, and must be 0: {cause}{self.remedy}"
            )
        if trainer.anywhere(not drift <= MOVED):
            raise RunError(
                f"{where} the reference is seen to move with the policy, by {drift:.3g} nats per token: "
                f"{trained_beside(model)}, and stays when the adapter ({adapter}) is off; freeze it{self.remedy}"
            )


def fingerprint(model: nn.Module) -> list[int]:
    """A number for each tensor that is trained, which changes with any bit of it."""
    return [bits_sum(parameter) for parameter in model.parameters() if parameter.requires_grad]


def bits_sum(parameter: Tensor) -> int:
    """The sum of a tensor's values as integers of their width."""
    part = own_part(parameter).detach().contiguous()
    width = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[part.element_size()]
    return int(part.view(width).sum(dtype=torch.int64)) if part.numel() else 0


def exact(model: nn.Module, accelerator: Any) -> bool:
    """Whether a model computes in single precision."""
    return accelerator.mixed_precision == "no" and all(
        p.dtype in (torch.float32, torch.float64) for p in model.parameters()
    )


def trained_beside(model: PeftModel) -> str:
    """What is trained and is no part of the adapter, in words."""
    name = active_adapter(model)
    beside = [n for n, p in model.named_parameters() if p.requires_grad and name not in n.split(".")]
    return (
        f"{', '.join(beside[:3])}{', ...' if len(beside) > 3 else ''} is trained" if beside else "part of it is trained"
    )


def sharded(accelerator: Accelerator) -> bool:
    """Whether a process may hold a part of the weights only."""
    return accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)


def save_moved(trainer: Any, folder: Path) -> None:
    """Write the weights of a reference that follows the policy (`sync_ref_model`), which no checkpoint of TRL's holds.

    Of a sharded model nothing is written, as no process has it whole: such a run is not resumed.
    """
    if _moves(trainer) and not sharded(trainer.accelerator) and trainer.accelerator.is_main_process:
        torch.save(trainer.accelerator.unwrap_model(trainer.ref_model).state_dict(), folder / MOVED_REFERENCE)


def load_moved(trainer: Any, folder: Path) -> None:
    """Take up what `save_moved` wrote.

    Raises:
        RunError: If it is not there.
    """
    if _moves(trainer):
        state = read_part(folder / MOVED_REFERENCE, "where the reference had moved to is not known")
        trainer.accelerator.unwrap_model(trainer.ref_model).load_state_dict(state)


def _moves(trainer: Any) -> bool:
    return getattr(trainer, "ref_model", None) is not None and trainer.args.moves_reference()

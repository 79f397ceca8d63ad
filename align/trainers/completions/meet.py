"""Trains with control adapters on: MEET's second stage, on top of supervised training."""

from typing import Any, ClassVar

import torch
from datasets import Value
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn

from align.configs.supervised import MEETConfig
from align.data import Rows
from align.errors import RunError
from align.merging.controls import controls_of
from align.trainers.shared.scored import COLUMN

from .supervised import SupervisedTrainer

LABEL = "label"


class MEETTrainer(SupervisedTrainer):
    """Supervised training in which each row is read with the control adapter of its label on.

    The first stage is two supervised runs, one on the rows labelled true and one on those labelled false, each of which
    leaves an adapter. Here both are frozen: W x becomes W x + ΔW_label x, with ΔW_good or ΔW_bad by the row, and what is
    trained is the policy's own adapter (or the model, without one), which all rows share. A result holds that alone; what
    is used in the end is its sum with the good control, which `alignkit merge --sum` makes, exactly.

    Rows are prompt, completion and label, or pairs, which become two rows each. An evaluation takes the controls too. The
    model itself, called outside of training and `evaluate`, has none on.

    Source: Parameter-Efficient Tuning Helps Language Model Alignment (arXiv:2310.00819). Its text could not be read beyond
    the abstract, nor is there code: that controls stay frozen in the second stage, that they are LoRA adapters (it has soft
    prompts, too), and all settings are choices made here.

    Raises:
        RunError: If a control is not there or is no plain LoRA of linear layers of this model.
        TypeError, ValueError: As `SupervisedTrainer`.
    """

    config_class = MEETConfig
    _tag_names: ClassVar[list[str]] = ["trl", "alignkit", "meet"]
    _name = "MEET"
    _paper: ClassVar[dict[str, str]] = {
        "title": "Parameter-Efficient Tuning Helps Language Model Alignment",
        "id": "2310.00819",
    }
    own_rows: ClassVar[Rows] = "labels"
    as_read = None
    further_columns: ClassVar[tuple[str, ...]] = (LABEL,)

    def constructed(self) -> None:
        """Put the controls beside the modules that they change."""
        self.good: Float[Tensor, " rows"] | None = None
        """1 for each row of the batch that is good, 0 for each other; None while no control is on."""
        good, bad = controls_of(self.args)
        self.weights_beside = {control.path: control.digest for control in (good, bad)}
        model: Any = self.model
        base = model.get_base_model() if isinstance(model, PeftModel) else model
        modules = dict(base.named_modules())
        for name in dict.fromkeys([*good.factors, *bad.factors]):
            module = modules.get(name.removeprefix("base_model.model."))
            factors = [each.factors.get(name) for each in (good, bad)]
            if module is None or any(pair is not None and not _fits(module, *pair) for pair in factors):
                raise RunError(
                    f"good_control, bad_control: {name} is no linear layer of this model, or of another size"
                )
            module.register_forward_hook(_Controlled(self, factors))

    def _prepare_dataset(
        self, dataset: Any, processing_class: Any, args: Any, packing: bool, formatting_func: Any, dataset_name: str
    ) -> Any:
        """SFT's, with labels as numbers."""
        if LABEL in (dataset.column_names or next(iter(dataset))):
            dataset = dataset.cast_column(LABEL, Value("float32"))
        return super()._prepare_dataset(dataset, processing_class, args, packing, formatting_func, dataset_name)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """SFT's with the controls on, which in training stay on until the gradient is there: layers may be computed again."""
        self.good = inputs[COLUMN + LABEL]
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            if not self.model.training:
                self.good = None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """SFT's; afterwards no control is on."""
        try:
            return super().training_step(model, inputs, *args, **kwargs)
        finally:
            self.good = None


def _fits(module: nn.Module, a: Tensor, b: Tensor) -> bool:
    weight = getattr(getattr(module, "base_layer", module), "weight", None)
    return isinstance(weight, Tensor) and not isinstance(module, nn.Embedding) and weight.shape == (len(b), a.size(1))


class _Controlled:
    """A hook that adds to a module's output what the control of each row adds: B (A x), of the row's label alone.

    Args:
        trainer: Which says the rows' labels.
        factors: A and B of the good and of the bad control, None where one does not change this module.
    """

    def __init__(self, trainer: MEETTrainer, factors: list[tuple[Tensor, Tensor] | None]) -> None:
        self.trainer = trainer
        some = [pair for pair in factors if pair is not None]
        self.a, self.b = torch.cat([a for a, _ in some]), torch.cat([b for _, b in some], dim=1)
        self.is_good = torch.cat(
            [
                torch.full((len(pair[0]),), good)
                for good, pair in zip((1.0, 0.0), factors, strict=True)
                if pair is not None
            ]
        )

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        good = self.trainer.good
        if good is None:
            return output
        x = args[0]
        if x.dim() != 3 or len(x) != len(good):
            raise ValueError(f"{type(module).__name__}: reads {tuple(x.shape)}, not {len(good)} rows apart")
        if self.a.device != x.device or self.a.dtype != x.dtype:
            self.a, self.b, self.is_good = (each.to(x.device, x.dtype) for each in (self.a, self.b, self.is_good))
        own = (good.to(x)[:, None] == self.is_good).to(x.dtype)
        return output + ((x @ self.a.T) * own[:, None]) @ self.b.T

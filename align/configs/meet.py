"""Configures the second stage of MEET: training with control adapters on."""

from dataclasses import dataclass, field

from .supervised import SupervisedConfig


@dataclass
class MEETConfig(SupervisedConfig):
    """Settings of MEET's second stage (arXiv:2310.00819): those of supervised training, and a control for each label.

    Raises:
        ConfigError: If a control is missing, or a field that it cannot go with is set; all at once.
    """

    good_control: str | None = field(
        default=None, metadata={"help": "A run, or an adapter, that was trained on the rows labelled true alone."}
    )
    bad_control: str | None = field(
        default=None, metadata={"help": "A run, or an adapter, that was trained on the rows labelled false alone."}
    )

    def problems(self) -> list[str]:
        """See `SupervisedConfig.problems`."""
        found = super().problems()
        for name in ("good_control", "bad_control"):
            if not getattr(self, name):
                found.append(f"{name}: missing; name the run of the first stage, trained on rows of that label alone")
        if self.good_control and self.good_control == self.bad_control:
            found.append(f"bad_control: is the good one too, {self.good_control}; each label has its own")
        found += [
            f"{name}: would run rows of both labels together; set it to false"
            for name in ("packing", "eval_packing", "padding_free")
            if getattr(self, name)
        ]
        if isinstance(self.objective, dict) and not self._objective_problems() and self.needs_reference():
            found.append(f"objective: {', '.join(self.objective)} needs a reference, which has no controls; take nll")
        return found

    def weighs_labels(self) -> bool:
        """Whether the loss has weights of the two labels."""
        return False

    def label_weights(self) -> tuple[float, float]:
        """Weights of the two labels."""
        return (1.0, 1.0)

"""Configures supervised training and the second stage of MEET, and refuses fields of TRL that our objectives do not honour."""

import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, cast

from trl import SFTConfig as TRLSFTConfig

from align.losses.token_objectives import OBJECTIVES

from .common import NO_OBJECTIVE, MethodConfig, defaults_of, not_honoured, rebalances_batches, shards_on_cpus

REFUSED = {
    "loss_type": "name the loss in `objective`, with its weight",
    "label_smoothing_factor": "it smooths cross-entropy, which no objective here is",
    "assistant_only_loss": "rows are prompt and completion; `completion_only_loss` says what is learnt",
    "truncation_mode": "TRL has deprecated 'keep_end'; shorten the prompts instead",
    "dataset_kwargs": "rows with `input_ids` and `labels` are taken as they are without it",
    "average_tokens_across_devices": "the loss would depend on the number of processes",
    "parallelism_config": "tokens are counted over processes that each have their own rows",
    "router_aux_loss_coef": "the load-balancing loss of mixture-of-experts models is not added; 0.0 says so explicitly",
}
"""Fields of TRL's SFTConfig that must keep their default, and what to do instead."""

BELONGS = {setting: name for name, objective in OBJECTIVES.items() for setting in objective.reads}
BELONGS["value_learning_rate"] = "awr"
"""Fields of ours, and the objective without which they would be ignored."""


@dataclass
class SupervisedConfig(MethodConfig, TRLSFTConfig):
    """Settings of `align.SupervisedTrainer`. All fields of TRL's SFTConfig apply unless refused.

    Raises:
        ConfigError: If a field that no objective honours is set, or a value is out of range; all at once.
    """

    objective: dict[str, float] | str | None = field(
        default_factory=lambda: {"nll": 1.0},
        metadata={
            "help": f"Objectives and their weights, of {', '.join(OBJECTIVES)}. The loss is their weighted sum; one with "
            "weight 0 is not computed. ASFT is {dft: 1.0, ref_kl: 0.05}."
        },
    )
    rwr_beta: float = field(
        default=1.0, metadata={"help": "Temperature of reward-weighted regression, in units of the reward."}
    )
    rwr_max_weight: float = field(
        default=1000.0, metadata={"help": "Largest weight of a completion in reward-weighted regression."}
    )
    awr_beta: float = field(
        default=1.0, metadata={"help": "Temperature of advantage-weighted regression, in units of the reward."}
    )
    awr_max_weight: float = field(
        default=1000.0, metadata={"help": "Largest weight of a token in advantage-weighted regression."}
    )
    value_learning_rate: float = field(
        default=1e-3, metadata={"help": "Learning rate of the value head, which Adam trains apart; it stays constant."}
    )
    unlikelihood_alpha: float = field(default=1.0, metadata={"help": "Weight of completions that are pushed away."})
    unlikelihood_threshold: float = field(
        default=0.0, metadata={"help": "Completions whose `reward` is below it are pushed away."}
    )
    fsft_beta: float = field(
        default=0.1, metadata={"help": "Strength of the pull of `fsft` towards the reference. Larger stays closer."}
    )
    fsft_divergence: Literal["total_variation", "chi_squared"] = field(
        default="chi_squared",
        metadata={"help": "'total_variation' is plain SFT in a guise; 'chi_squared' keeps the reference in."},
    )

    def columns(self) -> tuple[str, ...]:
        """Further data columns, one finite number per row, that the objectives read."""
        return tuple(dict.fromkeys(name for each in self.active() for name in OBJECTIVES[each].columns))

    def needs_reference(self) -> bool:
        """Whether an objective compares the policy with the reference."""
        return any(OBJECTIVES[name].reference for name in self.active())

    def needs_values(self) -> bool:
        """Whether an objective reads a value head."""
        return any(OBJECTIVES[name].values for name in self.active())

    def active(self) -> dict[str, float]:
        """The objectives whose weight is not 0."""
        return {name: float(weight) for name, weight in cast("dict[str, float]", self.objective).items() if weight != 0}

    def problems(self) -> list[str]:
        """Everything wrong with the fields of this configuration, one line each, the field's name first."""
        found = not_honoured(self, REFUSED, also={"router_aux_loss_coef": 0.0})
        wrong = self._objective_problems()
        return found + wrong + ([] if wrong else self._combinations()) + self._ranges() + super().problems()

    def _objective_problems(self) -> list[str]:
        if not isinstance(self.objective, dict) or not self.objective:
            return [f"objective: {NO_OBJECTIVE}, got {self.objective!r}"]
        found = []
        for name, weight in self.objective.items():
            if name not in OBJECTIVES:
                near = get_close_matches(str(name), OBJECTIVES, n=1)
                remedy = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(OBJECTIVES)}"
                found.append(f"objective.{name}: unknown; {remedy}")
            elif isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < math.inf:
                found.append(f"objective.{name}: must be a finite number and not negative, got {weight!r}")
        if not found and not self.active():
            found.append(f"objective: every weight is 0, got {self.objective}; nothing would be learnt")
        return found

    def _combinations(self) -> list[str]:
        found = []
        active = self.active()
        defaults = defaults_of(self)
        for name, objective in BELONGS.items():
            if objective not in active and getattr(self, name) != defaults[name]:
                found.append(f"{name}: only objective {objective!r} has it, got {getattr(self, name)}; leave it out")
        judging = [name for name in active if OBJECTIVES[name].per == "sequence" or OBJECTIVES[name].columns]
        found += [
            f"{name}: objective {judging[0]!r} judges rows one by one, which {name} would run together; set it to false"
            for name in ("packing", "eval_packing", "padding_free")
            if judging and getattr(self, name)
        ]
        sharded = "fsdp" if self.fsdp else "deepspeed" if self.deepspeed else None
        if sharded and "ref_kl" in active:
            found.append(f"{sharded}: objective 'ref_kl' reads the whole output head; train on replicas (DDP)")
        if sharded and self.needs_values():
            found.append(f"{sharded}: objective 'awr' trains a value head that is not sharded; train on replicas (DDP)")
        return found

    def _ranges(self) -> list[str]:
        found = [
            f"{name}: must be positive and finite, got {getattr(self, name)}"
            for name in (
                "rwr_beta",
                "rwr_max_weight",
                "awr_beta",
                "awr_max_weight",
                "value_learning_rate",
                "fsft_beta",
            )
            if not 0 < getattr(self, name) < math.inf
        ]
        if not 0 <= self.unlikelihood_alpha < math.inf:
            found.append(f"unlikelihood_alpha: must be finite and not negative, got {self.unlikelihood_alpha}")
        if not math.isfinite(self.unlikelihood_threshold):
            found.append(f"unlikelihood_threshold: must be finite, got {self.unlikelihood_threshold}")
        if self.fsft_divergence not in ("total_variation", "chi_squared"):
            found.append(f"fsft_divergence: must be 'total_variation' or 'chi_squared', got {self.fsft_divergence!r}")
        return found + shards_on_cpus(self) + rebalances_batches(self)


PRESETS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "sft": ("Supervised Fine-Tuning: negative log-likelihood, or a weighted sum of objectives", None, {}),
    "dft": ("Dynamic Fine-Tuning (Wu et al. 2025)", "2508.05629", {"objective": {"dft": 1.0}}),
    "asft": (
        "Anchored Supervised Fine-Tuning (Zhu et al. 2025)",
        "2509.23753",
        {"objective": {"dft": 1.0, "ref_kl": 0.05}},
    ),
    "poft": (
        "Preference-Oriented Supervised Fine-Tuning (Fan et al. 2024)",
        "2412.12865",
        {"objective": {"poft": 1.0}},
    ),
    "rwr": ("Reward-Weighted Regression (Korbak et al. 2023)", "2302.08582", {"objective": {"rwr": 1.0}}),
    "awr": (
        "Advantage-Weighted Regression with a value head (Korbak et al. 2023)",
        "2302.08582",
        {"objective": {"awr": 1.0}},
    ),
    "unlikelihood": (
        "Unlikelihood training (Welleck et al. 2019)",
        "1908.04319",
        {"objective": {"unlikelihood": 1.0}},
    ),
    "fsft": (
        "SFT as implicit-reward learning, derived from Wang et al. 2025",
        "2507.00018",
        {"objective": {"fsft": 1.0}},
    ),
}
"""Methods that are this configuration with fields given: name to title, arXiv id and fields."""


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

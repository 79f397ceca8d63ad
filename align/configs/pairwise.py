"""Configures `PairwiseTrainer`: any weighted sum of the pairwise objectives, and the methods that have a name."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from align.losses.objectives import COLUMNS, OBJECTIVES, PairBatch
from align.losses.preference import Pair

from .common import NO_OBJECTIVE, MethodConfig, defaults_of, is_number
from .preference import PreferenceConfig

logger = logging.getLogger(__name__)

_OWN_LOSS = "name it in `objective`"
_ONLINE = "leave it out, so that the reference is scored as training goes"
HONOURED = ("label_smoothing", "use_weighting", "discopop_tau", "ld_alpha")

SETTINGS: dict[str, tuple[Callable[[float], bool], str]] = {
    "label_smoothing": (lambda value: 0.0 <= value < 0.5, "in [0, 0.5)"),
    "discopop_tau": (lambda value: 0.0 < value <= 1.0, "in (0, 1]"),
    "margin_scale": (lambda value: 0.0 < value < math.inf, "positive and finite"),
    "reward_scale": (lambda value: 0.0 < value < math.inf, "positive and finite"),
    "simpo_gamma": (lambda value: 0.0 <= value < math.inf, "finite and not negative"),
    "modpo_weight": (lambda value: 0.05 <= value <= 1.0, "in [0.05, 1]"),
}
"""What objectives read besides β, and its range."""

SMOOTHED = {
    "robust": "the rate of flipped labels, above 0; 0 is sigmoid",
    "exo_pair": "the rejected answer's share of the target, above 0; 1e-3, say",
}
"""Objectives that need `label_smoothing`, and as what."""


@dataclass
class WeighsObjectives(MethodConfig):
    """The settings of a loss that is a weighted sum of pairwise objectives. Mixed in before TRL's configuration.

    `objective` maps names from `align.losses.OBJECTIVES` to weights. A setting that no chosen objective reads is an error.
    """

    objective: dict[str, float | int] | str | None = field(
        default_factory=lambda: {"sigmoid": 1.0},
        metadata={"help": f"Objectives and their weights: {', '.join(OBJECTIVES)}."},
    )
    margin_scale: float = field(
        default=0.05,
        metadata={"help": "Reverse PO's γ: difference of log-ratios, in nats, for one unit of the column `margin`."},
    )
    reward_scale: float = field(
        default=1.0, metadata={"help": "Reward-aware RPO's η: scale of the gap of scores that the margin should have."}
    )
    simpo_gamma: float = field(
        default=0.5, metadata={"help": "SimPO's γ: target margin in nats, β in it. SimPO's β is 2 or more."}
    )
    modpo_weight: float = field(
        default=0.5,
        metadata={"help": "MODPO's weight of the objective that the pairs rank; 1 less it weighs the column `margin`."},
    )

    def objectives(self) -> tuple[str, ...]:
        """Names that `objective` may hold."""
        return tuple(OBJECTIVES)

    def compares(self, name: str) -> bool:
        """Whether an objective compares the two answers."""
        return OBJECTIVES[name].rewards is not None

    def active(self) -> dict[str, float]:
        """The objectives and their weights."""
        return cast("dict[str, float]", self.objective)

    def problems(self) -> list[str]:
        """See `MethodConfig.problems`."""
        found, known = super().problems(), self.objectives()
        if not isinstance(self.objective, dict) or not all(map(is_number, self.objective.values())):
            return [*found, f"objective: {NO_OBJECTIVE}, got {self.objective!r}"]
        unknown = [name for name in self.objective if name not in known]
        found += [f"objective: unknown, got {name!r}; there are {', '.join(known)}" for name in unknown]
        for name, weight in self.objective.items():
            if not 0 < weight < math.inf:
                found.append(f"objective: the weight of {name} must be positive and finite, got {weight}")
        if not unknown and not any(map(self.compares, self.objective)):
            found.append(f"objective: nothing compares the two answers, got {self.objective}; add sigmoid, say")
        return found + self._setting_problems()

    def _setting_problems(self) -> list[str]:
        found = []
        defaults = defaults_of(self)
        for name, (fits, range_) in SETTINGS.items():
            value, readers = getattr(self, name), readers_of(name)
            if not fits(value):
                found.append(f"{name}: must be {range_}, got {value}")
            elif value != defaults[name] and not set(readers) & set(self.active()):
                found.append(f"{name}: no chosen objective reads it, got {value}; {' or '.join(readers)} would")
        for name, why in SMOOTHED.items():
            if name in self.active() and self.settings()["label_smoothing"] == 0.0:
                found.append(f"label_smoothing: objective {name} needs {why}")
        return found

    def settings(self) -> dict[str, float]:
        """What objectives read besides β, by name."""
        return {name: getattr(self, name) for name in SETTINGS}


@dataclass
class PairwiseConfig(WeighsObjectives, PreferenceConfig):
    """Settings of `align.trainers.pairs.pairwise.PairwiseTrainer`.

    `label_smoothing`, `discopop_tau`, `use_weighting` (WPO's weights) and `ld_alpha` (LD-DPO) are TRL's fields.
    """

    pair_weights: bool = field(
        default=False, metadata={"help": "Multiply each pair's loss with the data's column `weight`."}
    )

    def _derive(self) -> None:
        super()._derive()
        if self.use_weighting and self.shared_prefix == "auto":
            logger.warning("shared_prefix: every prompt is computed once per answer, because use_weighting is on")
            self.shared_prefix = "off"

    def problems(self) -> list[str]:
        """See `PreferenceConfig.problems`."""
        found = super().problems()
        if self.use_weighting and self.shared_prefix == "on":
            found.append("shared_prefix: packed rows lack what use_weighting needs; use 'auto' or 'off'")
        known = isinstance(self.objective, dict) and all(name in OBJECTIVES for name in self.objective)
        if known and not self.reads_reference():
            asked = [name for name in ("precompute_ref_log_probs", "sync_ref_model") if getattr(self, name)]
            found += [f"{name}: no chosen objective reads the reference; leave it out" for name in asked]
        return found if self.ld_alpha is None else found + self._ld_problems(self.ld_alpha)

    def reads_reference(self) -> bool:
        """See `PreferenceConfig.reads_reference`."""
        return any(OBJECTIVES[name].reference for name in self.active())

    def _ld_problems(self, alpha: float) -> list[str]:
        found = []
        if not 0.0 <= alpha <= 1.0:
            found.append(f"ld_alpha: must be in [0, 1], got {alpha}")
        if isinstance(self.objective, dict):
            others = [name for name in self.objective if name in OBJECTIVES and not OBJECTIVES[name].of_sums]
            found += [f"ld_alpha: objective {name} reads more than summed log-ratios; leave one out" for name in others]
        if self.precompute_ref_log_probs:
            found.append(f"precompute_ref_log_probs: ld_alpha needs the reference token by token; {_ONLINE}")
        return found

    def _refused(self) -> dict[str, str]:
        refused = super()._refused() | {"loss_type": _OWN_LOSS, "loss_weights": _OWN_LOSS}
        return {name: why for name, why in refused.items() if name not in HONOURED}

    def columns(self) -> tuple[str, ...]:
        """Data columns that the objectives and `pair_weights` read; see `align.losses.COLUMNS`."""
        return tuple(name for name in COLUMNS if self.reader_of(name))

    def implicit_rewards(self, batch: PairBatch) -> Pair:
        """Those of the first objective that has any: a mean over tokens, or without reference, for some."""
        makers = (OBJECTIVES[name].rewards for name in self.active())
        return next(make for make in makers if make is not None)(batch, self.beta)

    def reader_of(self, column: str) -> str:
        """What needs a data column; empty if nothing does."""
        if column == "weight":
            return "pair_weights" if self.pair_weights else ""
        readers = [name for name in self.active() if name in OBJECTIVES and column in OBJECTIVES[name].columns]
        return f"objective {' and '.join(readers)}" if readers else ""


def readers_of(setting: str) -> list[str]:
    """The objectives that read a setting."""
    return [name for name, objective in OBJECTIVES.items() if setting in objective.reads]


class Preset(NamedTuple):
    """A method that is a `PairwiseConfig` with some fields given."""

    title: str
    arxiv: str
    settings: dict[str, Any]


PRESETS: dict[str, Preset] = {
    "robust": Preset("Robust DPO (Chowdhury et al. 2024)", "2403.00409", {"objective": {"robust": 1.0}}),
    "ipo": Preset(
        "Identity Preference Optimization, summed (Azar et al. 2023)", "2310.12036", {"objective": {"ipo": 1.0}}
    ),
    "ipo_mean": Preset(
        "Identity Preference Optimization, length-mean as in TRL (Azar et al. 2023)",
        "2310.12036",
        {"objective": {"ipo_mean": 1.0}},
    ),
    "irpo": Preset(
        "Iterative Reasoning Preference Optimization (Pang et al. 2024)",
        "2404.19733",
        {"objective": {"sigmoid": 1.0, "nll": 1.0}},
    ),
    "discopop": Preset("DiscoPOP (Lu et al. 2024)", "2406.08414", {"objective": {"discopop": 1.0}}),
    "copg": Preset(
        "Contrastive Policy Gradient (Flet-Berliac et al. 2024)", "2406.19185", {"objective": {"copg": 1.0}}
    ),
    "dno": Preset("Direct Nash Optimization (Rosset et al. 2024)", "2404.03715", {"objective": {"dno": 1.0}}),
    "gpo": Preset(
        "General Preference Optimization, paired (Zhang et al. 2024)", "2410.02197", {"objective": {"copg": 1.0}}
    ),
    "reverse_po": Preset(
        "Reverse Preference Optimization (Huang et al. 2025)", "2505.22172", {"objective": {"reverse_po": 1.0}}
    ),
    "reward_aware_rpo": Preset(
        "Reward-aware Preference Optimization, backward KL (Nemotron-4, 2024)",
        "2406.11704",
        {"objective": {"reward_aware_rpo": 1.0}},
    ),
    "simpo": Preset("Simple Preference Optimization (Meng et al. 2024)", "2405.14734", {"objective": {"simpo": 1.0}}),
    "dpo_norm": Preset("Length-normalised DPO (Tülu 3, 2024)", "2411.15124", {"objective": {"sigmoid_norm": 1.0}}),
    "wpo": Preset(
        "Weighted Preference Optimization (Zhou et al. 2024)",
        "2406.11827",
        {"objective": {"sigmoid": 1.0}, "use_weighting": True},
    ),
    "ld_dpo": Preset(
        "Length-Desensitized DPO (Liu et al. 2024)", "2409.06411", {"objective": {"sigmoid": 1.0}, "ld_alpha": 0.5}
    ),
    "hinge": Preset("Hinge on implicit rewards (Liu et al. 2023)", "2309.06657", {"objective": {"hinge": 1.0}}),
    "slic": Preset(
        "SLiC-HF, without a reference (Zhao et al. 2023)", "2305.10425", {"objective": {"slic": 1.0, "nll": 1.0}}
    ),
    "exo": Preset(
        "Efficient Exact Optimization of a pair (Ji et al. 2024)",
        "2402.00856",
        {"objective": {"exo_pair": 1.0}, "label_smoothing": 1e-3},
    ),
    "nca": Preset("Noise Contrastive Alignment (Chen et al. 2024)", "2402.05369", {"objective": {"nca_pair": 1.0}}),
    "sppo": Preset(
        "Self-Play Preference Optimization, hard labels (Wu et al. 2024)",
        "2405.00675",
        {"objective": {"sppo_hard": 1.0}},
    ),
    "apo_zero": Preset(
        "Anchored Preference Optimization, zero (D'Oosterlinck et al. 2024)",
        "2408.06266",
        {"objective": {"apo_zero": 1.0}},
    ),
    "apo_down": Preset(
        "Anchored Preference Optimization, down (D'Oosterlinck et al. 2024)",
        "2408.06266",
        {"objective": {"apo_down": 1.0}},
    ),
    "cal_dpo": Preset("Calibrated DPO (Xiao et al. 2024)", "2412.14516", {"objective": {"cal_dpo": 1.0}}),
    "modpo": Preset("Multi-Objective DPO (Zhou et al. 2023)", "2310.03708", {"objective": {"modpo": 1.0}}),
    "mpo": Preset(
        "Mixed Preference Optimization (Wang et al. 2024)",
        "2411.10442",
        {"objective": {"sigmoid": 0.8, "bco_pair": 0.2, "nll": 1.0}},
    ),
    "orpo": Preset(
        "Odds Ratio Preference Optimization (Hong et al. 2024)",
        "2403.07691",
        {"objective": {"odds_ratio": 1.0, "nll": 1.0}},
    ),
    "cpo": Preset(
        "Contrastive Preference Optimization (Xu et al. 2024)", "2401.08417", {"objective": {"cpo": 1.0, "nll": 1.0}}
    ),
}
"""By the name that a recipe's `method` gives it."""

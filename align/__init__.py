"""Preference optimization for LoRA-adapted language models, built on TRL.

from align import RPOConfig, RPOTrainer      # used exactly like TRL's
import align; align.run("quickstart")        # a recipe, from a notebook
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configs import DPOConfig, FDPOConfig, GRPOConfig, RLOOConfig, RPOConfig
    from .losses import Pair, divergence, dpo_loss, f_dpo_loss, implicit_rewards, rpo_loss, sequence_logps
    from .recipe import Recipe, RecipeError, load_recipe
    from .train import run
    from .trainers import DPOTrainer, FDPOTrainer, PreferenceTrainer, RPOTrainer
    from .trainers.online import GRPOTrainer, RLOOTrainer

_HOME = {
    "configs": ("DPOConfig", "FDPOConfig", "GRPOConfig", "RLOOConfig", "RPOConfig"),
    "losses": ("Pair", "divergence", "dpo_loss", "f_dpo_loss", "implicit_rewards", "rpo_loss", "sequence_logps"),
    "recipe": ("Recipe", "RecipeError", "load_recipe"),
    "train": ("run",),
    "trainers": ("DPOTrainer", "FDPOTrainer", "PreferenceTrainer", "RPOTrainer"),
    "trainers.online": ("GRPOTrainer", "RLOOTrainer"),
}

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "FDPOConfig",
    "FDPOTrainer",
    "GRPOConfig",
    "GRPOTrainer",
    "Pair",
    "PreferenceTrainer",
    "RLOOConfig",
    "RLOOTrainer",
    "RPOConfig",
    "RPOTrainer",
    "Recipe",
    "RecipeError",
    "divergence",
    "dpo_loss",
    "f_dpo_loss",
    "implicit_rewards",
    "load_recipe",
    "rpo_loss",
    "run",
    "sequence_logps",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import align` alone loads neither torch nor TRL."""
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

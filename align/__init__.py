"""Offers preference optimization for LoRA-adapted language models, built on TRL.

from align import RPOConfig, RPOTrainer      # used exactly like TRL's
import align; align.run("quickstart")        # a recipe, from a notebook
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configs import DPOConfig, FDPOConfig, GRPOConfig, RLOOConfig, RPOConfig
    from .configs.bco import BCOConfig
    from .configs.hpt import HPTConfig
    from .configs.kto import KTOConfig
    from .configs.online import DynamicGRPOConfig, DynamicRLOOConfig, ReinforceConfig
    from .configs.online_preference import OnlinePreferenceConfig
    from .configs.own_losses import FDPGConfig, TPPOConfig, TSPMOConfig
    from .configs.pairwise import PairwiseConfig
    from .configs.preference import TDPOConfig
    from .configs.preference_model import PreferenceModelConfig
    from .configs.srpo import SRPOConfig
    from .configs.supervised import SupervisedConfig
    from .configs.whole_step import AOTConfig, BetaDPOConfig
    from .errors import RecipeError
    from .losses import Pair, divergence, dpo_loss, f_dpo_loss, implicit_rewards, rpo_loss, sequence_logps
    from .models.preference_model import load_preference_base, load_preference_model
    from .own_code import allow_file
    from .recipe.loading import Recipe, load_recipe
    from .rewards import make_reward
    from .train import run
    from .trainers.completions.bco import BCOTrainer
    from .trainers.completions.kto import KTOTrainer
    from .trainers.completions.supervised import SupervisedTrainer
    from .trainers.online.hpt import HPTTrainer
    from .trainers.online.matching import FDPGTrainer
    from .trainers.online.multi_objective import DynamicGRPOTrainer, DynamicRLOOTrainer, ReinforceTrainer
    from .trainers.online.preference import OnlinePreferenceTrainer
    from .trainers.online.prefixes import TSPMOTrainer
    from .trainers.online.shared_prompts import GRPOTrainer, RLOOTrainer
    from .trainers.pairs.pairwise import PairwiseTrainer
    from .trainers.pairs.preference import DPOTrainer, FDPOTrainer, PreferenceTrainer, RPOTrainer
    from .trainers.pairs.srpo import SRPOTrainer
    from .trainers.pairs.tdpo import TDPOTrainer
    from .trainers.pairs.whole_step import AOTTrainer, BetaDPOTrainer
    from .trainers.preference_model import PreferenceModelTrainer
    from .trainers.windows.truncated import TPPOTrainer
    from .weighting import make_rule

_HOME = {
    "configs": ("DPOConfig", "FDPOConfig", "GRPOConfig", "RLOOConfig", "RPOConfig"),
    "configs.bco": ("BCOConfig",),
    "configs.hpt": ("HPTConfig",),
    "configs.kto": ("KTOConfig",),
    "configs.online": ("DynamicGRPOConfig", "DynamicRLOOConfig", "ReinforceConfig"),
    "configs.online_preference": ("OnlinePreferenceConfig",),
    "configs.own_losses": ("FDPGConfig", "TPPOConfig", "TSPMOConfig"),
    "configs.pairwise": ("PairwiseConfig",),
    "configs.preference": ("TDPOConfig",),
    "configs.preference_model": ("PreferenceModelConfig",),
    "configs.srpo": ("SRPOConfig",),
    "configs.supervised": ("SupervisedConfig",),
    "configs.whole_step": ("AOTConfig", "BetaDPOConfig"),
    "losses": ("Pair", "divergence", "dpo_loss", "f_dpo_loss", "implicit_rewards", "rpo_loss", "sequence_logps"),
    "models.preference_model": ("load_preference_base", "load_preference_model"),
    "errors": ("RecipeError",),
    "own_code": ("allow_file",),
    "recipe.loading": ("Recipe", "load_recipe"),
    "rewards": ("make_reward",),
    "train": ("run",),
    "trainers.pairs.preference": ("DPOTrainer", "FDPOTrainer", "PreferenceTrainer", "RPOTrainer"),
    "trainers.online.hpt": ("HPTTrainer",),
    "trainers.online.matching": ("FDPGTrainer",),
    "trainers.online.multi_objective": ("DynamicGRPOTrainer", "DynamicRLOOTrainer", "ReinforceTrainer"),
    "trainers.online.prefixes": ("TSPMOTrainer",),
    "trainers.online.preference": ("OnlinePreferenceTrainer",),
    "trainers.online.shared_prompts": ("GRPOTrainer", "RLOOTrainer"),
    "trainers.windows.truncated": ("TPPOTrainer",),
    "trainers.pairs.pairwise": ("PairwiseTrainer",),
    "trainers.preference_model": ("PreferenceModelTrainer",),
    "trainers.pairs.srpo": ("SRPOTrainer",),
    "trainers.pairs.tdpo": ("TDPOTrainer",),
    "trainers.pairs.whole_step": ("AOTTrainer", "BetaDPOTrainer"),
    "trainers.completions.bco": ("BCOTrainer",),
    "trainers.completions.kto": ("KTOTrainer",),
    "trainers.completions.supervised": ("SupervisedTrainer",),
    "weighting": ("make_rule",),
}

__all__ = [
    "AOTConfig",
    "AOTTrainer",
    "BCOConfig",
    "BCOTrainer",
    "BetaDPOConfig",
    "BetaDPOTrainer",
    "DPOConfig",
    "DPOTrainer",
    "DynamicGRPOConfig",
    "DynamicGRPOTrainer",
    "DynamicRLOOConfig",
    "DynamicRLOOTrainer",
    "FDPGConfig",
    "FDPGTrainer",
    "FDPOConfig",
    "FDPOTrainer",
    "GRPOConfig",
    "GRPOTrainer",
    "HPTConfig",
    "HPTTrainer",
    "KTOConfig",
    "KTOTrainer",
    "OnlinePreferenceConfig",
    "OnlinePreferenceTrainer",
    "Pair",
    "PairwiseConfig",
    "PairwiseTrainer",
    "PreferenceModelConfig",
    "PreferenceModelTrainer",
    "PreferenceTrainer",
    "RLOOConfig",
    "RLOOTrainer",
    "RPOConfig",
    "RPOTrainer",
    "Recipe",
    "RecipeError",
    "ReinforceConfig",
    "ReinforceTrainer",
    "SRPOConfig",
    "SRPOTrainer",
    "SupervisedConfig",
    "SupervisedTrainer",
    "TDPOConfig",
    "TDPOTrainer",
    "TPPOConfig",
    "TPPOTrainer",
    "TSPMOConfig",
    "TSPMOTrainer",
    "allow_file",
    "divergence",
    "dpo_loss",
    "f_dpo_loss",
    "implicit_rewards",
    "load_preference_base",
    "load_preference_model",
    "load_recipe",
    "make_reward",
    "make_rule",
    "rpo_loss",
    "run",
    "sequence_logps",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first use: `import align` alone loads neither torch nor TRL."""
    if name == "__version__":
        return version("alignkit")
    for module, names in _HOME.items():
        if name in names:
            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

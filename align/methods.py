"""Names the methods a recipe can name: configuration, trainer, rows, and where the method comes from."""

from importlib import import_module
from typing import Any, Literal, NamedTuple

from align.configs.bco import BCOConfig
from align.configs.hpt import HPTConfig
from align.configs.kto import KTOConfig
from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig, ReinforceConfig
from align.configs.online_preference import PRESETS as ONLINE_PAIRS
from align.configs.online_preference import OnlinePreferenceConfig
from align.configs.own_losses import FDPGConfig, TPPOConfig, TSPMOConfig
from align.configs.pairwise import PRESETS as PAIRWISE
from align.configs.pairwise import PairwiseConfig
from align.configs.preference_model import PreferenceModelConfig
from align.configs.srpo import SRPOConfig
from align.configs.supervised import PRESETS as SUPERVISED
from align.configs.supervised import MEETConfig, SupervisedConfig
from align.configs.whole_step import AOTConfig, BetaDPOConfig

from .configs import DPOConfig, FDPOConfig, RPOConfig
from .configs.preference import TDPOConfig
from .data import Rows


class Method(NamedTuple):
    """One entry of `METHODS`. A method may be a configuration with some fields given (`preset`)."""

    title: str
    arxiv: str | None
    config: type[Any]
    home: str
    """MODULE:CLASS of the trainer, below `align.trainers`; loaded when it is asked for."""
    rows: Rows = "pairs"
    preset: dict[str, Any] = {}  # noqa: RUF012 - of a NamedTuple, and never written to
    model: Literal["language", "preference"] = "language"
    """What is trained: a language model, or one with a head that judges answers."""

    @property
    def trainer(self) -> Any:
        """The trainer's class."""
        module, _, name = self.home.partition(":")
        return getattr(import_module(f".trainers.{module}", __package__), name)

    @property
    def compares_with_any_reference(self) -> bool:
        """Whether the reference may be another model, or cached in the data."""
        return self.rows == "pairs" and self.model == "language"

    @property
    def takes_a_judge(self) -> bool:
        """Whether a judge may compare sampled answers, in the place of rewards."""
        return self.config is OnlinePreferenceConfig

    @property
    def takes_tools(self) -> bool:
        """Whether the policy may call tools while it answers."""
        return issubclass(self.config, DynamicGRPOConfig)


METHODS: dict[str, Method] = {
    "dpo": Method(
        "Direct Preference Optimization (Rafailov et al. 2023)", "2305.18290", DPOConfig, "pairs.preference:DPOTrainer"
    ),
    "rpo": Method(
        "Regularized Preference Optimization (Liu et al. 2024)", "2405.16436", RPOConfig, "pairs.preference:RPOTrainer"
    ),
    "fdpo": Method("f-DPO (Wang et al. 2023)", "2309.16240", FDPOConfig, "pairs.preference:FDPOTrainer"),
    "pairwise": Method("A weighted sum of pairwise objectives", None, PairwiseConfig, "pairs.pairwise:PairwiseTrainer"),
    **{
        name: Method(
            preset.title, preset.arxiv, PairwiseConfig, "pairs.pairwise:PairwiseTrainer", preset=preset.settings
        )
        for name, preset in PAIRWISE.items()
    },
    "aot": Method(
        "Alignment via Optimal Transport, paired (Melnyk et al. 2024)",
        "2406.05882",
        AOTConfig,
        "pairs.whole_step:AOTTrainer",
        preset={"matching": "paired"},
    ),
    "aot_unpaired": Method(
        "Alignment via Optimal Transport, unpaired (Melnyk et al. 2024)",
        "2406.05882",
        AOTConfig,
        "pairs.whole_step:AOTTrainer",
        preset={"matching": "unpaired"},
    ),
    "beta_dpo": Method(
        "DPO with a dynamic beta (Wu et al. 2024)", "2407.08639", BetaDPOConfig, "pairs.whole_step:BetaDPOTrainer"
    ),
    **{
        f"tdpo{version}": Method(
            f"Token-level DPO, TDPO{version} (Zeng et al. 2024)",
            "2404.11999",
            TDPOConfig,
            "pairs.tdpo:TDPOTrainer",
            preset=fields,
        )
        for version, fields in {
            1: {"kl_weight": 1.0, "hold_chosen_kl": False},
            2: {"hold_chosen_kl": True},
        }.items()
    },
    "srpo": Method(
        "Self-Improving Robust Preference Optimization (Choi et al. 2024)",
        "2406.01660",
        SRPOConfig,
        "pairs.srpo:SRPOTrainer",
    ),
    **{
        name: Method(title, arxiv, SupervisedConfig, "completions.supervised:SupervisedTrainer", "completions", fields)
        for name, (title, arxiv, fields) in SUPERVISED.items()
    },
    "meet": Method(
        "MEET's second stage: supervised training with control adapters on (Xue et al. 2023)",
        "2310.00819",
        MEETConfig,
        "completions.meet:MEETTrainer",
        "labels",
    ),
    "kto": Method(
        "Kahneman-Tversky Optimization (Ethayarajh et al. 2024)",
        "2402.01306",
        KTOConfig,
        "completions.kto:KTOTrainer",
        "labels",
    ),
    "bco": Method(
        "Binary Classifier Optimization (Jung et al. 2024)",
        "2404.04656",
        BCOConfig,
        "completions.bco:BCOTrainer",
        "labels",
    ),
    "preference_model": Method(
        "General preference model, or Bradley-Terry at dimension 1 (Zhang et al. 2024)",
        "2410.02197",
        PreferenceModelConfig,
        "preference_model:PreferenceModelTrainer",
        model="preference",
    ),
    "gpm": Method(
        "General Preference Model (Zhang et al. 2024)",
        "2410.02197",
        PreferenceModelConfig,
        "preference_model:PreferenceModelTrainer",
        preset={"dimension": 4, "tau": 0.1},
        model="preference",
    ),
    "reward_model": Method(
        "Bradley-Terry reward model",
        None,
        PreferenceModelConfig,
        "preference_model:PreferenceModelTrainer",
        preset={"dimension": 1, "tau": 1.0},
        model="preference",
    ),
    "polar": Method(
        "Reference-conditioned reward model (POLAR's fine-tuning, Dou et al. 2025)",
        "2507.05197",
        PreferenceModelConfig,
        "preference_model:PreferenceModelTrainer",
        preset={"dimension": 1, "tau": 1.0, "reference_column": "reference"},
        model="preference",
    ),
    "dynamic_grpo": Method(
        "GRPO on several rewards with dynamic weights (Lu et al. 2025)",
        "2509.11452",
        DynamicGRPOConfig,
        "online.multi_objective:DynamicGRPOTrainer",
        "prompts",
    ),
    "dynamic_rloo": Method(
        "RLOO on several rewards with dynamic weights (Lu et al. 2025)",
        "2509.11452",
        DynamicRLOOConfig,
        "online.multi_objective:DynamicRLOOTrainer",
        "prompts",
    ),
    "reinforce": Method(
        "REINFORCE on several rewards, one completion a prompt (Hu et al. 2025)",
        "2501.03262",
        ReinforceConfig,
        "online.multi_objective:ReinforceTrainer",
        "prompts",
    ),
    "fdpg": Method(
        "f-DPG: towards the reference times e^(reward / beta), by an f-divergence (Go et al. 2023)",
        "2302.08215",
        FDPGConfig,
        "online.matching:FDPGTrainer",
        "prompts",
    ),
    "tspmo": Method(
        "Token-Specific Prefix Matching Optimization (Lee and Tong 2025)",
        "2504.20834",
        TSPMOConfig,
        "online.prefixes:TSPMOTrainer",
        "prompts",
    ),
    "tppo": Method(
        "Truncated PPO: windows of answers that go on in the next step, with a value head (Fan et al. 2025)",
        "2506.15050",
        TPPOConfig,
        "windows.truncated:TPPOTrainer",
        "prompts",
    ),
    "hpt": Method(
        "Hybrid Post-Training: GRPO whose unsolved prompts learn a demonstration (Lv et al. 2025)",
        "2509.04419",
        HPTConfig,
        "online.hpt:HPTTrainer",
        "prompts",
    ),
    **{
        name: Method(
            title, arxiv, OnlinePreferenceConfig, "online.preference:OnlinePreferenceTrainer", "prompts", fields
        )
        for name, (title, arxiv, fields) in ONLINE_PAIRS.items()
    },
}

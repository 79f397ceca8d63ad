"""Says of methods of the field that are not here, or are here under another name, what is nearest by meaning."""

ELSEWHERE: dict[str, str] = {
    "kto": "learns from single answers with a label; no method here does: TRL's KTOTrainer does. With pairs, `dpo`",
    "bco": "learns from single answers with a label; no method here does: TRL's BCOTrainer does. With pairs, `dpo`",
    "orpo": "needs no reference and adds an odds ratio to supervised learning; nearest: `simpo` (no reference), `rpo` "
    "(adds the chosen answer's likelihood)",
    "cpo": "needs no reference; nearest: `simpo`, or `pairwise` with objective {sigmoid: 1.0, nll: 1.0}",
    "hinge": "is SLiC's hinge loss on pairs; nearest: `ipo`",
    "slic": "is a hinge loss on pairs; nearest: `ipo`",
    "exo_pair": "is a reverse KL to the preferences; nearest: `reward_aware_rpo`, `dno`",
    "nca_pair": "raises the chosen answer by itself; nearest: `rpo`",
    "sppo_hard": "plays against the last policy; nearest: `dno`, `gpo`",
    "apo_zero": "anchors the chosen answer; nearest: `rpo`",
    "apo_down": "lowers both answers; nearest: `dpo`",
    "sigmoid": "is TRL's loss type of DPO; here: `dpo`",
    "cdpo": "is `dpo` with label_smoothing",
    "chipo": "is `fdpo` with divergence chi_squared_kl",
    "grpo": "on one reward or several is `dynamic_grpo`, with weighting: fixed for constant weights",
    "rloo": "on one reward or several is `dynamic_rloo`, with weighting: fixed for constant weights",
    "ppo": "needs a value model, which is not here; nearest: `dynamic_grpo`, `reinforce`",
    "reward": "is `reward_model`",
    "rm": "is `reward_model`",
    "bradley_terry": "is `reward_model`",
    "iterative_rpo": "is `irpo` in rounds (align/rounds/README.md)",
    "f_dpo": "is `fdpo`",
    "wdpo": "is `wpo` for policy weights, or `pairwise` with a weight column",
}
"""By the name that somebody would type: what it is, and what to use here. Names are TRL's where TRL has them."""

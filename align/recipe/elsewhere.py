"""Says of methods of the field that are not here, or are here under another name, what is nearest by meaning."""

ELSEWHERE: dict[str, str] = {
    "bco_pair": "is `pairwise` with objective {bco_pair: 1.0}, of pairs; of single answers with a label it is `bco`",
    "apo_zero_unpaired": "is `kto` with loss_type: apo_zero_unpaired",
    "exo_pair": "is `exo`",
    "nca_pair": "is `nca`",
    "sppo_hard": "is `sppo`",
    "sigmoid": "is TRL's loss type of DPO; here: `dpo`",
    "cdpo": "is `dpo` with label_smoothing",
    "chipo": "is `fdpo` with divergence chi_squared_kl",
    "grpo": "on one reward or several is `dynamic_grpo`, with weighting: fixed for constant weights",
    "gdpo": "is `dynamic_grpo` with weighting: fixed and estimator_options: {standardise: gdpo}; estimator: group alone leaves out its "
    "last scaling by the batch",
    "rloo": "on one reward or several is `dynamic_rloo`, with weighting: fixed for constant weights",
    "ppo": "is `tppo` with window_length: max_completion_length, whose critic is a linear head; without one: `reinforce`",
    "reward": "is `reward_model`",
    "rm": "is `reward_model`",
    "bradley_terry": "is `reward_model`",
    "iterative_rpo": "is `irpo` in rounds (align/rounds/README.md)",
    "f_dpo": "is `fdpo`",
    "wdpo": "is `wpo` for policy weights, or `pairwise` with a weight column",
}
"""By the name that somebody would type: what it is, and what to use here. Names are TRL's where TRL has them."""

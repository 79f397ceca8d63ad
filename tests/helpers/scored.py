"""The tiny pairs with every data column that an objective can read."""

import tiny
from datasets import Dataset

COLUMNS = {
    "chosen_reward": [3.0, 1.0, 2.5, 0.5, 4.0, 2.0, 1.5, 3.5, 0.0, 2.0],
    "rejected_reward": [1.0, 0.5, 3.0, 0.0, 1.0, 1.0, 1.5, 1.0, -1.0, 0.5],
    "margin": [1.0, 2.0, 0.0, 1.0, 3.0, 1.0, 0.0, 2.0, 1.0, 1.0],
    "preference": [0.9, 0.6, 0.4, 0.7, 1.0, 0.8, 0.5, 0.9, 0.7, 0.6],
    "weight": [1.0, 0.5, 2.0, 1.0, 0.0, 1.5, 1.0, 0.25, 1.0, 3.0],
}

OBJECTIVES = {
    "cdpo": {"objective": {"sigmoid": 1.0}, "label_smoothing": 0.1},
    "sigmoid_norm": {"objective": {"sigmoid_norm": 1.0}, "beta": 2.0},
    "robust": {"objective": {"robust": 1.0}, "label_smoothing": 0.1},
    "soft_sigmoid": {"objective": {"soft_sigmoid": 1.0}},
    "dno": {"objective": {"dno": 1.0}},
    "reverse_po": {"objective": {"reverse_po": 1.0}, "margin_scale": 0.5},
    "reward_aware_rpo": {"objective": {"reward_aware_rpo": 1.0}, "reward_scale": 0.5},
    "ipo": {"objective": {"ipo": 1.0}},
    "ipo_mean": {"objective": {"ipo_mean": 1.0}},
    "copg": {"objective": {"copg": 1.0}, "pair_weights": True},
    "discopop": {"objective": {"discopop": 1.0}},
    "simpo": {"objective": {"simpo": 1.0}, "beta": 2.0},
    "hinge": {"objective": {"hinge": 1.0}},
    "slic": {"objective": {"slic": 1.0, "nll": 1.0}},
    "exo": {"objective": {"exo_pair": 1.0}, "label_smoothing": 1e-3},
    "nca": {"objective": {"nca_pair": 1.0}},
    "sppo": {"objective": {"sppo_hard": 1.0}},
    "apo_zero": {"objective": {"apo_zero": 1.0}},
    "apo_down": {"objective": {"apo_down": 1.0}},
    "cal_dpo": {"objective": {"cal_dpo": 1.0}},
    "modpo": {"objective": {"modpo": 1.0}},
    "mpo": {"objective": {"sigmoid": 0.8, "bco_pair": 0.2, "nll": 1.0}},
    "orpo": {"objective": {"odds_ratio": 1.0, "nll": 1.0}},
    "cpo": {"objective": {"cpo": 1.0, "nll": 1.0}},
    "irpo": {"objective": {"sigmoid": 1.0, "nll": 0.5}},
    "ld_dpo": {"objective": {"sigmoid": 1.0}, "ld_alpha": 0.5},
    "wpo": {"objective": {"sigmoid": 1.0}, "use_weighting": True, "shared_prefix": "off"},
}
"""Settings under which each objective is tried, by a name."""


def pairs(n=10, **columns):
    data: Dataset = tiny.pairs(n)
    for name, values in (COLUMNS | columns).items():
        data = data.add_column(name, values[:n])
    return data

"""What PairwiseConfig refuses, and the methods that are presets of it."""

from typing import get_type_hints

import pytest
import tiny

from align.configs import ConfigError, DPOConfig
from align.configs.pairwise import PRESETS, SETTINGS, PairwiseConfig
from align.losses import OBJECTIVES
from align.strict.fields import _fits


def config(tmp_path, **kw):
    return tiny.arguments(PairwiseConfig, tmp_path, **kw)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": {"igmoid": 1.0}}, "objective: unknown, got 'igmoid'; there are sigmoid, "),
        ({"objective": {"sigmoid": 0.0}}, "objective: the weight of sigmoid must be positive and finite, got 0.0"),
        ({"objective": {"sigmoid": float("inf")}}, "objective: the weight of sigmoid must be positive and finite"),
        ({"objective": {"nll": 1.0}}, "objective: nothing compares the two answers"),
        ({"objective": {}}, "objective: nothing compares the two answers"),
        ({"label_smoothing": 0.5}, r"label_smoothing: must be in \[0, 0.5\), got 0.5"),
        ({"objective": {"robust": 1.0}}, "label_smoothing: objective robust needs the rate of flipped labels"),
        ({"objective": {"exo_pair": 1.0}}, "label_smoothing: objective exo_pair needs the rejected answer's share"),
        ({"modpo_weight": 0.6}, "modpo_weight: no chosen objective reads it, got 0.6; modpo would"),
        ({"objective": {"modpo": 1.0}, "modpo_weight": 0.01}, r"modpo_weight: must be in \[0.05, 1\], got 0.01"),
        ({"objective": {"copg": 1.0}, "label_smoothing": 0.1}, "label_smoothing: no chosen objective reads it, got 0.1; sigmoid or robust or exo_pair or cpo would"),
        ({"simpo_gamma": 1.0}, "simpo_gamma: no chosen objective reads it, got 1.0; simpo would"),
        ({"reward_scale": 2.0}, "reward_scale: no chosen objective reads it"),
        ({"margin_scale": 2.0}, "margin_scale: no chosen objective reads it"),
        ({"discopop_tau": 0.1}, "discopop_tau: no chosen objective reads it"),
        ({"objective": {"discopop": 1.0}, "discopop_tau": 2.0}, r"discopop_tau: must be in \(0, 1\], got 2.0"),
        ({"objective": {"simpo": 1.0}, "simpo_gamma": -1.0}, "simpo_gamma: must be finite and not negative, got -1.0"),
        ({"objective": {"reverse_po": 1.0}, "margin_scale": 0.0}, "margin_scale: must be positive and finite, got 0.0"),
        ({"objective": {"reward_aware_rpo": 1.0}, "reward_scale": 0.0}, "reward_scale: must be positive and finite"),
        ({"loss_type": ["ipo"]}, "loss_type: not honoured here, got \\['ipo'\\]; name it in `objective`"),
        ({"loss_weights": [0.5]}, "loss_weights: not honoured here, got \\[0.5\\]; name it in `objective`"),
        ({"ld_alpha": 1.5}, r"ld_alpha: must be in \[0, 1\], got 1.5"),
        ({"ld_alpha": 0.5, "objective": {"sigmoid": 1.0, "nll": 1.0}}, "ld_alpha: objective nll reads more than summed log-ratios"),
        ({"ld_alpha": 0.5, "objective": {"ipo_mean": 1.0}}, "ld_alpha: objective ipo_mean reads more"),
        ({"ld_alpha": 0.5, "precompute_ref_log_probs": True}, "precompute_ref_log_probs: ld_alpha needs the reference token by token"),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type: not honoured here"),
        ({"use_weighting": True, "shared_prefix": "on"}, "shared_prefix: packed rows lack what use_weighting needs"),
        ({"beta": 0.0}, "beta: must be positive, got 0.0"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, **settings)


def test_all_problems_come_together(tmp_path):
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, objective={"ipo": -1.0}, simpo_gamma=1.0, beta=-1.0)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["beta", "objective", "simpo_gamma"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid_and_name_their_paper(tmp_path, name):
    further = {"label_smoothing": 0.1} if name == "robust" else {}
    made = config(tmp_path, **PRESETS[name].settings, **further)
    assert set(made.objective) <= set(OBJECTIVES)
    assert PRESETS[name].title
    assert len(PRESETS[name].arxiv) == 10
    assert made.use_weighting == (name == "wpo")


def test_every_objective_but_soft_labels_and_one_of_online_pairs_is_in_a_preset():
    named = {objective for preset in PRESETS.values() for objective in preset.settings["objective"]}
    assert set(OBJECTIVES) - named == {"soft_sigmoid", "trajectory_balance"}


@pytest.mark.parametrize(
    ("settings", "columns"),
    [
        ({}, ()),
        ({"objective": {"copg": 1.0}}, ("chosen_reward", "rejected_reward")),
        ({"objective": {"copg": 1.0}, "pair_weights": True}, ("chosen_reward", "rejected_reward", "weight")),
        ({"objective": {"reverse_po": 1.0, "soft_sigmoid": 1.0}}, ("margin", "preference")),
        ({"objective": {"dno": 1.0, "reward_aware_rpo": 0.5, "nll": 1.0}}, ("chosen_reward", "rejected_reward")),
        ({"pair_weights": True}, ("weight",)),
    ],
)
def test_the_columns_that_settings_need(tmp_path, settings, columns):
    assert config(tmp_path, **settings).columns() == columns


def test_other_methods_need_no_columns(tmp_path):
    assert tiny.arguments(DPOConfig, tmp_path).columns() == ()


def test_every_setting_that_is_read_has_a_range():
    assert {name for entry in OBJECTIVES.values() for name in entry.reads} == {*SETTINGS, "beta"}


def test_wpo_computes_every_prompt_once_per_answer_and_says_so(tmp_path, caplog):
    assert config(tmp_path, use_weighting=True).shared_prefix == "off"
    assert "because use_weighting is on" in caplog.text
    assert config(tmp_path).shared_prefix == "auto"


def test_a_recipe_may_write_a_weight_as_an_integer():
    declared = get_type_hints(PairwiseConfig)["objective"]
    assert _fits({"sigmoid": 1, "nll": 0.5}, declared)
    assert not _fits({"sigmoid": "1"}, declared)

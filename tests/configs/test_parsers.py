"""Parsers of command lines read every public configuration, and what they read can be written and read again."""

import json

import pytest
from transformers import HfArgumentParser
from trl import ModelConfig, TrlParser

import align
from align.configs import ConfigError

CONFIGS = sorted(name for name in align.__all__ if name.endswith("Config"))
QUIET = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
FLAGS = ["--output_dir", "unused", "--use_cpu", "--bf16", "false", "--report_to", "none"]
SET = {
    "DPOConfig": ({"label_smoothing": 0.1, "global_batch_size": 16}, ["--label_smoothing", "0.1", "--global_batch_size", "16"]),
    "RPOConfig": (
        {"eta": 0.2, "sft_reduction": "sequence_mean", "scale_by_beta": False, "gradient_checkpointing": False},
        ["--eta", "0.2", "--sft_reduction", "sequence_mean", "--no_scale_by_beta", "--no_gradient_checkpointing"],
    ),
    "FDPOConfig": (
        {"divergence": "alpha", "alpha": 0.3, "gradient_checkpointing": True},
        ["--divergence", "alpha", "--alpha", "0.3", "--gradient_checkpointing"],
    ),
    "PairwiseConfig": (
        {"objective": {"sigmoid": 1.0, "nll": 0.5}, "pair_weights": True},
        ["--objective", '{"sigmoid": 1.0, "nll": 0.5}', "--pair_weights"],
    ),
    "SRPOConfig": ({"alpha": 0.25, "gradient_checkpointing": False}, ["--alpha", "0.25", "--no_gradient_checkpointing"]),
    "SupervisedConfig": (
        {"objective": {"nll": 1.0, "poft": 0.5}, "max_skipped_steps": 3},
        ["--objective", '{"nll": 1.0, "poft": 0.5}', "--max_skipped_steps", "3"],
    ),
    "AOTConfig": ({"matching": "unpaired", "label_smoothing": 0.1}, ["--matching", "unpaired", "--label_smoothing", "0.1"]),
    "BetaDPOConfig": ({"filter_ratio": 0.2, "margin_decay": 0.5}, ["--filter_ratio", "0.2", "--margin_decay", "0.5"]),
    "TDPOConfig": ({"kl_weight": 1.0, "hold_chosen_kl": False}, ["--kl_weight", "1.0", "--no_hold_chosen_kl"]),
    "BCOConfig": (
        {"shuffle_rows": False, "prompt_encoder": "reference"},
        ["--no_shuffle_rows", "--prompt_encoder", "reference"],
    ),
    "KTOConfig": ({"class_weights": "data", "shuffle_rows": False}, ["--class_weights", "data", "--no_shuffle_rows"]),
    "PreferenceModelConfig": (
        {"dimension": 4, "tau": 0.1, "margin_column": "gap"},
        ["--dimension", "4", "--tau", "0.1", "--margin_column", "gap"],
    ),
    "GRPOConfig": ({"shared_prefix": "off"}, ["--shared_prefix", "off"]),
    "OnlinePreferenceConfig": (
        {"objective": {"sigmoid": 1.0, "nll": 0.5}, "label": "likelier"},
        ["--objective", '{"sigmoid": 1.0, "nll": 0.5}', "--label", "likelier"],
    ),
    "RLOOConfig": ({"shared_prefix": "on", "beta": 0.2}, ["--shared_prefix", "on", "--beta", "0.2"]),
    "DynamicGRPOConfig": (
        {"weighting_options": {"ridge": 0.1}, "gradient_layers": "all", "estimator_options": {"scale": "none"}},
        ["--weighting_options", '{"ridge": 0.1}', "--gradient_layers", "all", "--estimator_options", '{"scale": "none"}'],
    ),
    "HPTConfig": ({"gate": 2, "demonstration_weight": 0.3}, ["--gate", "2", "--demonstration_weight", "0.3"]),
    "FDPGConfig": ({"divergence": "reverse_kl", "beta": 0.2}, ["--divergence", "reverse_kl", "--beta", "0.2"]),
    "TPPOConfig": ({"window_length": 64, "critic_warmup": 5}, ["--window_length", "64", "--critic_warmup", "5"]),
    "TSPMOConfig": ({"shared_prefix": "off"}, ["--shared_prefix", "off"]),
    "DynamicRLOOConfig": ({"gradient_layers": 2}, ["--gradient_layers", "2"]),
    "ReinforceConfig": (
        {"weighting": "fixed", "estimator_options": {"baseline": "running"}},
        ["--weighting", "fixed", "--estimator_options", '{"baseline": "running"}'],
    ),
}  # fmt: skip


def test_every_public_configuration_is_tried():
    assert set(CONFIGS) == set(SET)


@pytest.mark.parametrize("name", CONFIGS)
def test_flags_say_what_python_says(name):
    config, (fields, flags) = getattr(align, name), SET[name]
    (parsed,) = HfArgumentParser(config).parse_args_into_dataclasses([*FLAGS, *flags])
    assert parsed == config(**QUIET | fields)
    assert {key: getattr(parsed, key) for key in fields} == fields
    HfArgumentParser(config).format_help()


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_written_is_read_as_the_same(name, tmp_path):
    config = getattr(align, name)
    made = config(**QUIET | SET[name][0])
    written = json.loads(made.to_json_string())
    parser = HfArgumentParser(config)
    (again,) = parser.parse_dict(written)
    assert again.to_dict() == made.to_dict()
    assert again.problems() == []
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps(QUIET | SET[name][0]), encoding="utf-8")
    of_file, _ = TrlParser((config, ModelConfig)).parse_args_and_config(["--config", str(path)])
    assert of_file == made


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("SupervisedConfig", {"objective": "{nll: 1.0}"}, "objective: must name objectives and their weights"),
        ("PairwiseConfig", {"objective": None}, "objective: must name objectives and their weights"),
        ("PairwiseConfig", {"objective": {"ipo": "1"}}, "objective: must name objectives and their weights"),
        ("DynamicGRPOConfig", {"weighting_options": "ridge=1"}, "weighting_options: must be options by name"),
        (
            "DynamicGRPOConfig",
            {"gradient_layers": "most"},
            "gradient_layers: must be a whole number from 1, 'all', or FIRST-LAST",
        ),
        ("RPOConfig", {"beta": "0.1"}, "beta: must be a number, got '0.1'"),
        ("RLOOConfig", {"max_completion_length": 1.5}, "max_completion_length: must be a whole number, got 1.5"),
        ("GRPOConfig", {"beta": -1.0}, "beta: must be finite and not negative, got -1.0"),
        ("GRPOConfig", {"temperature": 0.0}, "temperature: must be positive and finite, got 0.0"),
        ("GRPOConfig", {"num_iterations": 0}, "num_iterations: must be at least 1, got 0"),
        ("RLOOConfig", {"shared_prefix": "of"}, "shared_prefix: must be 'auto', 'on' or 'off', got 'of'"),
        ("GRPOConfig", {"label_smoothing_factor": 0.1}, "label_smoothing_factor: not honoured here, got 0.1"),
        (
            "GRPOConfig",
            {"generation_batch_size": 16, "steps_per_generation": 3},
            "steps_per_generation: generation_batch",
        ),
    ],
)
def test_what_cannot_be_meant_is_said_by_name(name, fields, message):
    with pytest.raises(ConfigError) as error:
        getattr(align, name)(**QUIET | fields)
    assert str(error.value).startswith(message)

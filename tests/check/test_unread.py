"""Settings that a recipe names and nothing reads are said, by check and by training."""

import logging

import pytest

from align.check.machine import Machine
from align.check.refusals import refuse
from align.check.rewards import inspect_rewards
from align.check.sizes import inspect_adapter
from align.check.unread import CONDITIONS, inspect_unread
from align.data import load_data
from align.data.loading import named_sets
from align.errors import RecipeError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe


def unread(*overrides):
    return {finding.where: finding.message for finding in inspect_unread(load_recipe("dpo/tiny", overrides))}


def test_a_shipped_recipe_has_none():
    assert unread() == {}


@pytest.mark.parametrize(
    ("setting", "with_it"),
    [
        ("model.bnb_4bit_quant_type=nf4", "model.load_in_4bit=true"),
        ("train.gradient_checkpointing_kwargs={use_reentrant: false}", "train.gradient_checkpointing=true"),
        ("train.warmup_steps=2", "train.lr_scheduler_type=linear"),
        ("train.lr_scheduler_kwargs={num_cycles: 2}", "train.lr_scheduler_type=cosine_with_restarts"),
        ("train.eval_steps=2", "train.eval_strategy=steps"),
        ("train.eval_delay=1", "train.eval_strategy=steps"),
        ("train.save_total_limit=2", "train.save_strategy=steps"),
        ("train.metric_for_best_model=tiny_loss", "train.save_strategy=best"),
        ("train.adam_beta2=0.9", "train.optim=adamw_torch"),
        ("train.optim_args=rank=4", "train.optim=galore_adamw"),
    ],
)
def test_a_setting_is_read_with_another_and_not_without(setting, with_it):
    without = ("train.lr_scheduler_type=constant", "train.save_strategy='no'", "train.optim=sgd")
    key = setting.partition("=")[0]
    assert key in unread(*without, setting)
    assert key not in unread(*without, setting, with_it)


def test_every_condition_names_fields_that_there_are():
    recipe = load_recipe("dpo/tiny")
    for section, names, *_ in CONDITIONS:
        missing = [name for name in names if not hasattr(getattr(recipe, section), name)]
        assert not missing


def test_training_says_it_too(caplog):
    recipe = load_recipe("dpo/tiny", ["train.optim_args=foo=3"])
    data = load_data(recipe.data)
    with caplog.at_level(logging.WARNING):
        refuse(recipe, named_sets(data.train, data.eval), Machine(installed=lambda name: True))
    assert "train.optim_args: no-effect: foo: adamw_torch_fused does not read it" in caplog.text


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("lora.rank_pattern={nope: 3}", "no adapted layer is called nope"),
        ("lora.alpha_pattern={nope: 3}", "no adapted layer is called nope"),
        ("lora.exclude_modules=[nope]", "the model has no nope"),
        ("lora.layers_to_transform=[0, 9]", "no adapted layer is in block 9"),
    ],
)
def test_patterns_of_an_adapter_that_match_nothing_are_refused(setting, told):
    recipe = load_recipe("dpo/tiny", ["lora.target_modules=[q_proj]", setting])
    found, _ = inspect_adapter(tiny_model(tiny_tokenizer()).config, recipe.lora)
    assert told in [finding.message for finding in found if finding.level == "error"]
    right = (
        setting.replace("nope", "q_proj")
        .replace("exclude_modules=[q_proj]", "exclude_modules=[k_proj]")
        .replace("9", "1")
    )
    found, _ = inspect_adapter(
        tiny_model(tiny_tokenizer()).config, load_recipe("dpo/tiny", ["lora.target_modules=[q_proj]", right]).lora
    )
    assert not [finding for finding in found if finding.level == "error"]


@pytest.mark.parametrize("setting", ["peft_type=IA3", "inference_mode=true", "base_model_name_or_path=x", "revision=x"])
def test_settings_of_a_file_are_none_of_a_recipe_s(setting):
    with pytest.raises(RecipeError, match="not used here"):
        load_recipe("dpo/tiny", [f"lora.{setting}"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train.reward_weights=[1, 2]"], ""),
        (["train.reward_weights=[1]"], "1, and there are 2 rewards (clarity, repetition); give one for each reward"),
        (["train.reward_weights=[1, 2]", "rewards=[clarity, 'os:getcwd']"], ""),  # which may be no objective
        (["train.reward_weights=[1]", "rewards=[clarity, 'os:getcwd']"], ""),
        (["train.reward_weights=null"], ""),
    ],
)
def test_weights_are_one_for_each_reward(words, told):
    recipe = load_recipe("online/tiny-tppo", ["rewards=[clarity, repetition]", *words])
    found = inspect_rewards(recipe, {}, ["os:getcwd"])
    said = [f"{one.message}; {one.remedy}" for one in found if one.rule == "reward-weights"]
    assert "".join(said) == told
    owned = load_recipe("tools/tiny-environment", ["train.reward_weights=[1, 2]"])
    assert "reward-weights" not in {one.rule for one in inspect_rewards(owned, {}, [])}

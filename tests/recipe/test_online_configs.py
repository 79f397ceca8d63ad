"""What configurations and trainers with several objectives refuse, all at once and before training."""

from types import SimpleNamespace

import pytest
from objectives import Told, ToldMeans, dynamic, first, low, vowels

from align.configs import ConfigError
from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig, ReinforceConfig
from align.trainers.online.multi_objective import DynamicGRPOTrainer

QUIET = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}


def problems(config=DynamicGRPOConfig, **settings):
    with pytest.raises(ConfigError) as error:
        config(**QUIET | settings)
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weighting": "upgrat"}, "weighting: unknown, got 'upgrat'; did you mean 'upgrad'?"),
        ({"weighting_options": {"rigde": 1.0}}, "weighting_options: unknown, got 'rigde'; did you mean 'ridge'?"),
        ({"weighting_options": {"ridge": -1.0}, "reward_weights": [1.0, 1.0]}, "weighting_options: ridge: a number in"),
        ({"estimator": "grup"}, "estimator: unknown, got 'grup'; did you mean 'group'?"),
        ({"estimator_options": {"scale": "non"}}, "estimator_options: scale: unknown, got 'non'; did you mean 'none'?"),
        ({"gram": "loss"}, "gram: must be 'gradients' or 'advantages', got 'loss'"),
        ({"gradient_layers": 0}, "gradient_layers: must be a whole number from 1, 'all', or FIRST-LAST, got 0"),
        ({"gradient_layers": True}, "gradient_layers: must be a whole number from 1, 'all', or FIRST-LAST, got True"),
        ({"gradient_every": 0}, "gradient_every: must be at least 1, got 0"),
        ({"weighting_timing": "later"}, "weighting_timing: must be 'same_step' or 'lagged', got 'later'"),
        ({"reward_weights": [0.0, 0.0]}, "reward_weights: must be finite, not negative and not all 0, got [0.0, 0.0]"),
        ({"weighting": "fixed", "reward_weights": [-1.0, 2.0]}, "reward_weights: must be finite, not negative"),
        ({"scale_rewards": "none"}, "scale_rewards: not honoured here, got 'none'; the estimator scales"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "multi_objective_aggregation: not honoured here"),
        (
            {"weighting": "max_min", "gradient_every": 2},
            "gradient_every: MaxMin needs no gradients and would ignore it",
        ),
        ({"weighting": "fixed", "gram": "advantages"}, "gram: Fixed needs no gradients and would ignore it"),
        ({"gram": "advantages", "gradient_layers": 2}, "gradient_layers: gram 'advantages' needs no backward pass"),
        ({"estimator": "pareto_rank"}, "estimator: 'pareto_rank' has one advantage for all objectives; UPGrad needs"),
        ({"use_adaptive_entropy": True}, "use_adaptive_entropy: UPGrad computes the loss more often"),
        ({"gradient_checkpointing_kwargs": {"use_reentrant": True}}, "gradient_checkpointing_kwargs: UPGrad needs"),
        ({"estimator": "single_stream"}, "estimator: 'single_stream' is for one completion of each prompt, got"),
        (
            {"estimator": "single_stream", "num_generations": 1},
            "estimator: 'single_stream' is for one completion of each prompt, got num_generations=1; use method: reinforce",
        ),
        (
            {"estimator": "batch", "num_generations": 1},
            "num_generations: one completion of each prompt is method: reinf",
        ),
        ({"num_generations": 1}, "estimator: 'group' compares completions of a prompt, and num_generations is 1"),
        ({"token_share": 0.0}, "token_share: must be a number in (0, 1], got 0.0"),
        ({"token_prefix": 3}, "token_prefix: must be 0, or positive with a token_share below 1, got 3"),
        ({"learning_rate": -1.0}, "learning_rate: must be finite and not negative, got -1.0"),
        (
            {"generation_kwargs": {"temperature": 0.5}},
            "generation_kwargs: temperature: the trainer goes by temperature",
        ),
        (
            {"generation_kwargs": '{"max_new_tokens": 9}'},
            "generation_kwargs: max_new_tokens: the trainer goes by max_com",
        ),
        (
            {"generation_kwargs": {"min_new_token": 6}},
            "generation_kwargs: min_new_token: no such setting; did you mean 'min_new_tokens'",
        ),
        ({"generation_kwargs": {"num_return_sequences": 2}}, "generation_kwargs: num_return_sequences: answers to a"),
        (
            {"generation_kwargs": {"stop_strings": ["."]}},
            "generation_kwargs: stop_strings: the trainer gives no tokenizer",
        ),
        (
            {"vllm_mode": "server"},
            "vllm_mode: not read without use_vllm, got 'server'; set use_vllm=true or leave it out",
        ),
        ({"vllm_server_port": 9000}, "vllm_server_port: not read without use_vllm, got 9000"),
        (
            {"use_vllm": True, "vllm_mode": "server", "vllm_tensor_parallel_size": 2},
            "vllm_tensor_parallel_size: not read with vllm_mode=server, got 2; leave it out",
        ),
        (
            {"use_vllm": True, "vllm_server_host": "there"},
            "vllm_server_host: not read with vllm_mode=colocate, got 'there'; leave it out",
        ),
        ({"generation_kwargs": "{"}, "generation_kwargs: must be settings by name, in JSON"),
        ({"generation_kwargs": "[1]"}, "generation_kwargs: must be settings by name, got [1]"),
    ],
)
def test_each_setting_that_cannot_be_meant_is_refused(settings, message):
    (line,) = problems(**settings)
    assert line.startswith(message)


def test_all_problems_are_said_at_once():
    found = problems(weighting="upgrat", estimator="grup", gram="loss", token_share=2.0, seed=-1)
    assert [line.split(":")[0] for line in found] == ["weighting", "estimator", "gram", "seed", "token_share"]


def test_what_the_estimator_does_is_refused_of_rloo_too():
    found = problems(DynamicRLOOConfig, normalize_advantages=True, reward_clip_range=(-1.0, 1.0))
    assert [line.split(":")[0] for line in found] == ["normalize_advantages", "reward_clip_range"]


def test_one_completion_of_a_prompt_is_what_reinforce_has_by_default():
    config = ReinforceConfig(**QUIET, per_device_train_batch_size=6)
    assert (config.num_generations, config.num_generations_eval, config.generation_batch_size) == (1, 1, 6)
    assert ReinforceConfig(**QUIET, num_generations=4).num_generations == 4
    drawn = {"estimator": "single_stream", "estimator_options": {"prompts": "uncertain"}, "weighting": "fixed"}
    (line,) = problems(ReinforceConfig, shuffle_dataset=False, **drawn)
    assert line.startswith(
        "shuffle_dataset: false keeps the order of the data, and prompts: 'uncertain' draws them anew"
    )
    (line,) = problems(ReinforceConfig, per_device_train_batch_size=3)
    assert line == "per_device_train_batch_size: an even number of completions must be generated, got 3"
    assert config.columns() == ()


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP"])
def test_gradient_rules_are_refused_where_parameters_are_sharded(monkeypatch, variable):
    DynamicGRPOConfig(**QUIET)
    monkeypatch.setenv(variable, "true")
    (line,) = problems()
    assert line.startswith(
        "weighting: UPGrad needs gradients of whole parameters, which FSDP shards; use DDP or ZeRO-2"
    )
    DynamicGRPOConfig(**QUIET, weighting="fixed")
    DynamicGRPOConfig(**QUIET, gram="advantages")


@pytest.mark.parametrize(("stage", "refused"), [(2, False), (3, True)])
def test_gradient_rules_are_refused_under_zero_3_by_the_trainer(tmp_path, monkeypatch, stage, refused):
    plugin = SimpleNamespace(zero_stage=stage)
    config = DynamicGRPOConfig(**QUIET)
    config.deepspeed_plugin = plugin
    found = config.problems_with(Told([1.0, 1.0]))
    assert ["DeepSpeed ZeRO-3 shards" in line for line in found] == [True] * refused
    monkeypatch.setattr(
        DynamicGRPOConfig, "problems_with", lambda self, rule: ["weighting: no"] * self.max_steps_are(3)
    )
    monkeypatch.setattr(DynamicGRPOConfig, "max_steps_are", lambda self, n: self.max_steps == n, raising=False)
    with pytest.raises(ValueError, match="weighting: no"):
        dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, weighting="fixed")


def test_halves_need_two_prompts(tmp_path):
    split = {"weighting": "gradient_influence", "weighting_options": {"estimator": "split"}}
    with pytest.raises(ValueError, match="GradientInfluence compares two halves of the prompts; there is one prompt"):
        dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, num_generations=8, **split)
    with pytest.raises(ValueError, match="gram: 'advantages' has no halves, which GradientInfluence asks for"):
        dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, gram="advantages", **split)
    trainer = dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, max_steps=1, **split)
    trainer.train()
    assert trainer.weighting.weights.sum().item() == pytest.approx(1.0)


def test_rewards_that_cannot_be_told_apart_or_weighed_are_refused(tmp_path):
    kind = (DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path)
    with pytest.raises(ValueError, match="reward_funcs: 'low' twice; give each function a `__name__` of its own"):
        dynamic(*kind, rewards=[low, first, low])
    with pytest.raises(ValueError, match=r"reward_weights: must be one for each objective \(first, low\), got \[1.0\]"):
        dynamic(*kind, rewards=[first, low], reward_weights=[1.0])
    with pytest.raises(ValueError, match="estimator: 'stratified' needs the column tools; give a reward function that"):
        dynamic(*kind, estimator="stratified", estimator_options={"key": "tools"})
    with pytest.raises(ValueError, match="every one has an attribute `aux`"):
        dynamic(*kind, rewards=[Aside()])


class Aside:
    __name__, aux = "aside", "tools"

    def __call__(self, completions, **_):
        return [0.0] * len(completions)


def infinite(completions, **_):
    return [float("inf")] * len(completions)


def test_an_infinite_reward_ends_the_run_with_its_name(tmp_path):
    trainer = dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, rewards=[vowels, infinite])
    with pytest.raises(ValueError, match="rewards must be finite, or None; infinite gave infinity"):
        trainer.train()


@pytest.mark.parametrize(
    ("settings", "warned"),
    [({"num_iterations": 2}, True), ({"steps_per_generation": 2}, True), ({}, False),
     ({"num_iterations": 2, "weighting": "fixed"}, False)],
)  # fmt: skip
def test_weights_that_go_stale_are_warned_of(tmp_path, caplog, settings, warned):
    dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, per_device_train_batch_size=4, **settings)
    assert any("are stale in later optimizer steps" in r.message for r in caplog.records) == warned


def test_a_rule_of_ones_own_is_held_to_the_settings(tmp_path):
    with pytest.raises(ValueError, match="gradient_layers: ToldMeans needs no gradients and would ignore it"):
        dynamic(DynamicGRPOTrainer, DynamicGRPOConfig, tmp_path, rule=ToldMeans([1.0] * 3), gradient_layers=2)

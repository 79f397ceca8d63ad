"""What settings of online pairs are refused, and recipes with a judge."""

import json

import pytest
import yaml

import align
from align import OnlinePreferenceConfig
from align.configs import ConfigError
from align.errors import RunError
from align.recipe.loading import RecipeError, load_recipe

QUIET = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}
SMALL = ("train.use_cpu=true", "train.bf16=false")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 0.0}, "beta: must be positive, got 0"),
        ({"beta": -1.0}, "beta: must be finite and not negative, got -1.0"),
        ({"objective": {"sigmod": 1.0}}, "objective: unknown, got 'sigmod'"),
        ({"objective": {"nll": 1.0}}, "objective: nothing compares the two answers"),
        ({"objective": {"ipo": 0.0}}, "objective: the weight of ipo must be positive"),
        ({"label_smoothing": 0.6}, "label_smoothing: must be in [0, 0.5)"),
        ({"objective": {"ipo": 1.0}, "label_smoothing": 0.1}, "label_smoothing: no chosen objective reads it"),
        ({"label": "drawn"}, "label: must be one of expected, sampled, likelier, got 'drawn'"),
        ({"second": "other"}, "second: must be one of policy, reference, mixture, got 'other'"),
        ({"reward_temperature": -1.0}, "reward_temperature: must be finite and not negative"),
        ({"second": "reference", "optimism": -1e-3}, "optimism: must be finite and not negative"),
        ({"second": "mixture", "mixture": 1.0}, "mixture: must be in (0, 1), got 1.0"),
        ({"mixture": 0.2}, "mixture: only second: mixture reads it, got 0.2"),
        ({"optimism": 0.2}, "optimism: only second: reference reads it, got 0.2"),
        ({"preferred_by": "front"}, "preferred_by: must be one of sum, dominance, got 'front'"),
        (
            {"preferred_by": "dominance", "reward_temperature": 0.5},
            "reward_temperature: only preferred_by: sum reads it",
        ),
        (
            {"preferred_by": "dominance", "reward_weights": [1.0, 2.0]},
            "reward_weights: only preferred_by: sum reads it",
        ),
        ({"preferred_by": "dominance", "prompt_weights": 1.0}, "prompt_weights: only preferred_by: sum reads it"),
        ({"reward_weights": [0.0, 0.0]}, "reward_weights: must be finite and not all 0"),
        ({"num_generations": 4}, "num_generations: not honoured here, got 4; two answers to a prompt make a pair"),
        ({"num_generations_eval": 4}, "num_generations_eval: two answers to a prompt make a pair, got 4"),
        ({"num_iterations": 2}, "num_iterations: not honoured here, got 2; answers are learnt from once"),
        ({"loss_type": "grpo"}, "loss_type: not honoured here, got 'grpo'; it belongs to GRPO's loss"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions: not honoured here"),
        ({"per_device_train_batch_size": 3}, "per_device_train_batch_size: must be even, for both answers of a pair"),
        ({"steps_per_generation": 2}, "steps_per_generation: one generation batch is one optimizer step"),
        ({"extragradient": True, "second": "reference"}, "extragradient: both answers are the policy's"),
        ({"extragradient": True, "fp16": True}, "fp16: the scale of the loss is not put back"),
        ({"extragradient": True, "use_vllm": True}, "use_vllm: extragradient samples from weights that vLLM"),
        ({"second": "mixture", "use_vllm": True}, "use_vllm: second: mixture samples from weights that vLLM"),
    ],
    ids=str,
)
def test_what_would_be_ignored_or_cannot_be_meant_is_refused(settings, message):
    with pytest.raises(ConfigError) as error:
        OnlinePreferenceConfig(**QUIET | settings)
    assert any(line.startswith(message) for line in str(error.value).splitlines()), str(error.value)


def test_half_steps_are_not_for_shards(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="extragradient: weights and optimizer are kept whole and put back"):
        OnlinePreferenceConfig(**QUIET, extragradient=True)


def test_defaults_are_two_answers_and_the_models_dropout_off():
    config = OnlinePreferenceConfig(**QUIET)
    assert (config.num_generations, config.beta, config.label, config.second) == (2, 0.1, "expected", "policy")
    assert config.keeps_adapter_dropout()
    assert not config.turns_dropout_off()
    assert config.columns() == ()
    assert config.steps_per_generation == config.gradient_accumulation_steps


def written(tmp_path, **sections):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"say {n}", "answer": str(n)}) + "\n" for n in range(8)))
    recipe = {
        "method": "online_dpo",
        "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
        "lora": {"r": 4, "target_modules": "all-linear"},
        "data": {"train": {"path": str(rows)}},
        "train": {
            "output_dir": str(tmp_path / "run"), "per_device_train_batch_size": 4, "max_completion_length": 4, "max_steps": 1,
            "report_to": "none", "gradient_checkpointing": False,
        },
    }  # fmt: skip
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in (recipe | sections).items() if v is not None}))
    return file


OUT = ("train.output_dir=runs/x",)
REWARD = {"kind": "reward", "reward": "correctness"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({}, "rewards: missing section; names of reward functions: .*, or a `judge`"),
        ({"judge": REWARD, "rewards": ["clarity"]}, "judge: `rewards` compare the answers, too; keep one"),
        (
            {"judge": {"kind": "language_model", "path": "policy"}},
            "judge.path: the policy does not judge its own answers",
        ),
        ({"judge": {"kind": "oracle"}}, "judge.kind"),
        ({"judge": {"kind": "preference_model"}}, "path: needed by kind 'preference_model'"),
        ({"judge": REWARD, "method": "dynamic_grpo"}, "judge: not used by this method"),
        (
            {"judge": REWARD, "train": {"output_dir": "x", "objective": {"ipo": 1}}, "method": "egpo"},
            "train.objective: ",
        ),
    ],
    ids=str,
)
def test_recipes_that_do_not_say_who_compares_are_refused(tmp_path, sections, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(written(tmp_path, **sections), (*SMALL, *OUT))


def test_a_judge_is_known_to_work_before_anything_is_loaded(tmp_path):
    file = written(tmp_path, judge={"kind": "preference_model", "path": "nowhere"})
    with pytest.raises(RunError, match="judge: .*nowhere"):
        align.run(file, [*SMALL, f"train.output_dir={tmp_path / 'run'}"])
    file = written(tmp_path, judge={"kind": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "m"})
    with pytest.raises(RunError, match="add --allow 127.0.0.1:9"):
        align.run(file, [*SMALL, f"train.output_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "env.json").exists()


def test_a_judge_of_a_recipe_compares_the_answers_with_the_columns_of_the_data(tmp_path):
    done = align.run(written(tmp_path, judge=REWARD), [*SMALL, f"train.output_dir={tmp_path / 'run'}"])
    assert done.trainer.wins is not None
    assert done.trainer.identity.settings["judge"] == {"kind": "reward", "reward": "correctness"}
    assert done.trainer.state.global_step == 1

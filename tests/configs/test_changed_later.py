"""What was set after a configuration was made is checked by the trainer, and what follows from it is derived anew."""

import copy
import pickle

import pytest
import trl

import align
from align.configs import ConfigError
from align.configs.common import settle_again

TRAINERS = sorted(name for name in align.__all__ if name.endswith("Trainer"))
QUIET = {"output_dir": "unused", "use_cpu": True, "bf16": False, "report_to": "none"}


def config_of(name):
    return "DPOConfig" if name == "PreferenceTrainer" else name.replace("Trainer", "Config")


def construct(name, args):
    trainer = getattr(align, name)
    return (
        trainer("no-model", [len], args)
        if hasattr(trainer, "training_step") and online(name)
        else trainer("no-model", args=args)
    )


def online(name):
    return (
        "GRPO" in name
        or "RLOO" in name
        or name in ("ReinforceTrainer", "HPTTrainer", "TSPMOTrainer", "FDPGTrainer", "TPPOTrainer")
    )


@pytest.mark.parametrize("name", TRAINERS)
def test_a_field_set_later_is_refused_as_one_that_was_given(name):
    args = getattr(align, config_of(name))(**QUIET)
    args.learning_rate = -1.0
    with pytest.raises(ConfigError, match="learning_rate: must be finite and not negative, got -1.0"):
        construct(name, args)


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("DPOTrainer", "loss_type", ["ipo"], "loss_type: not honoured here"),
        ("RPOTrainer", "eta", -1.0, "eta: must not be negative"),
        ("PairwiseTrainer", "objective", {"nll": 1.0}, "objective: nothing compares the two answers"),
        ("SupervisedTrainer", "assistant_only_loss", True, "assistant_only_loss: not honoured here"),
        ("PreferenceModelTrainer", "tau", 0.0, "tau: must be positive"),
        ("DynamicGRPOTrainer", "scale_rewards", "batch", "scale_rewards: not honoured here"),
        ("ReinforceTrainer", "token_share", 2.0, "token_share: must be a number in"),
        ("RLOOTrainer", "beta", -0.1, "beta: must be finite and not negative"),
    ],
)
def test_what_each_method_refuses_is_refused_later(name, field, value, message):
    args = getattr(align, config_of(name))(**QUIET)
    setattr(args, field, value)
    with pytest.raises(ConfigError, match=message):
        construct(name, args)


def test_what_was_changed_inside_a_field_is_seen():
    args = align.SupervisedConfig(**QUIET, objective={"nll": 1.0})
    args.objective["nll"] = -1.0
    with pytest.raises(ConfigError, match="objective.nll: must be a finite number and not negative"):
        construct("SupervisedTrainer", args)


def test_derived_fields_follow():
    args = align.DPOConfig(**QUIET, global_batch_size=16, per_device_train_batch_size=2)
    assert args.gradient_accumulation_steps == 8
    args.per_device_train_batch_size = 4
    settle_again(args)
    assert args.gradient_accumulation_steps == 4
    args.per_device_train_batch_size = 3
    with pytest.raises(ConfigError, match="global_batch_size: must be a multiple"):
        settle_again(args)
    online = align.GRPOConfig(**QUIET)
    online.steps_per_generation, online.num_generations = 2, 4
    settle_again(online)
    assert (online.generation_batch_size, online.num_generations) == (16, 4)
    settled = align.ReinforceConfig(**QUIET, per_device_train_batch_size=6)
    settled.learning_rate = 1e-3
    settle_again(settled)
    assert (settled.num_generations, settled.generation_batch_size) == (1, 6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda args: pickle.loads(pickle.dumps(args))])
def test_copies_remember_and_unchanged_ones_are_left_alone(copied, monkeypatch):
    args = copied(align.DPOConfig(**QUIET))
    monkeypatch.setattr(align.DPOConfig, "problems", lambda self: ["made again"])
    settle_again(args)
    args.beta = 0.3
    with pytest.raises(ConfigError, match="made again"):
        settle_again(args)


@pytest.mark.parametrize("name", TRAINERS)
def test_the_configuration_of_trl_is_named_with_what_to_do(name):
    base = next(cls for cls in getattr(align, config_of(name)).__mro__ if cls.__module__.startswith("trl."))
    wanted = "PreferenceConfig" if name == "PreferenceTrainer" else config_of(name)
    message = rf"{name}: args must be align\.{wanted}, got trl\.{base.__name__}; .* replace the import"
    with pytest.raises(TypeError, match=message):
        construct(name, base(**QUIET))
    assert getattr(trl, base.__name__) is base


class Reached(Exception):
    """TRL's constructor was called."""


@pytest.mark.parametrize("name", [each for each in TRAINERS if online(each)])
def test_online_trainers_have_a_default_too(name, monkeypatch):
    monkeypatch.setattr("transformers.training_args.is_torch_bf16_gpu_available", lambda: True)

    def record(self, model, reward_funcs, args, **kwargs):
        raise Reached(args)

    monkeypatch.setattr("align.trainers.shared.safe_runs.SafeRuns.__init__", record)
    with pytest.raises(Reached) as reached:
        construct(name, None)
    (args,) = reached.value.args
    assert type(args) is getattr(align, config_of(name))
    assert args.output_dir.startswith("no-model-")

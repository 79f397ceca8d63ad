"""Public trainers say what they take: a misspelt argument is refused, and what is given reaches TRL's constructor."""

import inspect

import pytest
import trl
from datasets import Dataset
from peft import LoraConfig
from transformers import BitsAndBytesConfig, PreTrainedTokenizerBase

import align
from align.models.tiny import tiny_tokenizer
from align.trainers.online.objectives import MultiObjective
from align.trainers.shared.safe_runs import SafeRuns

TRAINERS = sorted(name for name in align.__all__ if name.endswith("Trainer"))
ONLINE = (
    "GRPOTrainer", "RLOOTrainer", "DynamicGRPOTrainer", "DynamicRLOOTrainer", "ReinforceTrainer", "OnlinePreferenceTrainer",
    "HPTTrainer", "TSPMOTrainer", "FDPGTrainer", "TPPOTrainer",
)  # fmt: skip
OURS = ("rule", "scorer")
NEEDED = {"model", "args", "train_dataset", "processing_class", "peft_config"}
LEFT_OUT = {
    "SupervisedTrainer": {
        "compute_loss_func", "optimizer_cls_and_kwargs", "preprocess_logits_for_metrics", "formatting_func",
    },
    "OnlinePreferenceTrainer": {"tools", "rollout_func", "environment_factory"},
    "TPPOTrainer": {"tools", "rollout_func", "environment_factory"},
    "PreferenceModelTrainer": {"optimizer_cls_and_kwargs", "preprocess_logits_for_metrics"},
}  # fmt: skip


def parameters(trainer):
    return inspect.signature(trainer).parameters


def trl_base(trainer):
    return next(cls for cls in trainer.__mro__ if cls.__module__.startswith("trl."))


@pytest.mark.parametrize("name", TRAINERS)
def test_the_signature_is_that_of_trl(name):
    trainer = getattr(align, name)
    ours, theirs = parameters(trainer), parameters(trl_base(trainer))
    assert set(ours) >= NEEDED
    kinds = {parameter.kind for parameter in ours.values()}
    assert not kinds & {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}
    expected = [each for each in theirs if each not in LEFT_OUT.get(name, ())]
    assert [each for each in ours if each not in OURS] == expected
    assert ("rule" in ours) == issubclass(trainer, MultiObjective)


@pytest.mark.parametrize("name", TRAINERS)
def test_a_misspelt_argument_is_named(name):
    trainer = getattr(align, name)
    required = {key: None for key, each in parameters(trainer).items() if each.default is inspect.Parameter.empty}
    with pytest.raises(TypeError, match="modle"):
        trainer(**required, modle=1)


class Reached(Exception):
    """The next constructor was called."""


@pytest.mark.parametrize("name", ONLINE)
def test_all_that_is_given_is_passed_on(name, monkeypatch):
    trainer = getattr(align, name)
    inner = MultiObjective if issubclass(trainer, MultiObjective) else SafeRuns
    got = {}

    def record(self, model, reward_funcs, args, **kwargs):
        got.update(kwargs, model=model, reward_funcs=reward_funcs, args=args)
        raise Reached

    monkeypatch.setattr(inner, "__init__", record)
    data, tokenizer = Dataset.from_dict({"prompt": ["a"]}), tiny_tokenizer()
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    config = name.replace("Trainer", "Config")
    given = {
        "model": "a-name",
        "reward_funcs": [len],
        "args": object.__new__(getattr(align, config)),
        "train_dataset": data,
        "eval_dataset": {"one": data},
        "processing_class": tokenizer,
        "reward_processing_classes": [tokenizer],
        "callbacks": [],
        "optimizers": (None, None),
        "quantization_config": BitsAndBytesConfig(),
        "peft_config": LoraConfig(),
        "tools": [len],
        "rollout_func": len,
        "environment_factory": dict,
        "rule": align.make_rule("fixed", base=[1.0]),
    }
    given = {key: value for key, value in given.items() if key in parameters(trainer)}
    assert set(given) == set(parameters(trainer)) - {"scorer"}  # which takes the place of reward_funcs
    with pytest.raises(Reached):
        trainer(**given)
    assert {key for key in got if got[key] is not None} == set(given)
    assert all(got[key] is value for key, value in given.items() if key != "eval_dataset")
    assert got["eval_dataset"] == given["eval_dataset"]


@pytest.mark.parametrize("name", ["GRPOTrainer", "RLOOTrainer"])
def test_the_configuration_of_trl_is_refused(name):
    args = object.__new__(getattr(trl, name.replace("Trainer", "Config")))
    with pytest.raises(TypeError, match=rf"{name}: args must be align\.{name.replace('Trainer', 'Config')}, got trl"):
        getattr(align, name)("a-name", [len], args)

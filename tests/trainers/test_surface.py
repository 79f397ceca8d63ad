"""What TRL's trainers have besides `train`: evaluation before training, predictions, metrics and ways to load."""

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset
from objectives import PROMPTS, REWARDS
from peft import LoraConfig
from transformers import BitsAndBytesConfig

import align
from align.configs import ConfigError
from align.configs.preference_model import PreferenceModelConfig
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.preference_model import PreferenceModelTrainer

TRAINERS = sorted({name for name in align.__all__ if name.endswith("Trainer")} - {"PreferenceTrainer"})
QUIET = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "per_device_train_batch_size": 2}


def build(name, tmp_path, **kw):
    """A trainer on data that it takes."""
    settings, rewards, data = {}, {}, tiny.pairs()
    if (
        "GRPO" in name
        or "RLOO" in name
        or name
        in ("ReinforceTrainer", "OnlinePreferenceTrainer", "HPTTrainer", "TSPMOTrainer", "FDPGTrainer", "TPPOTrainer")
    ):
        settings = {"max_completion_length": 2, "per_device_eval_batch_size": 2}
        settings |= {} if name in ("ReinforceTrainer", "TPPOTrainer") else {"num_generations": 2}
        rewards, data = (
            {"reward_funcs": REWARDS},
            Dataset.from_dict({"prompt": PROMPTS[:4], "demonstration": ["so"] * 4}),
        )
    if name == "SupervisedTrainer":
        data = data.rename_column("chosen", "completion").remove_columns("rejected")
    model = "tiny-random" if name == "PreferenceModelTrainer" else tiny_model(tiny_tokenizer())
    args = getattr(align, name.replace("Trainer", "Config"))(
        str(tmp_path), **QUIET, **settings, **kw.pop("settings", {})
    )
    more = {"peft_config": LoraConfig(**tiny.LORA)} | rewards | kw
    return getattr(align, name)(
        model, args=args, train_dataset=data, eval_dataset=data, processing_class=tiny_tokenizer(), **more
    )


@pytest.mark.parametrize("name", TRAINERS)
def test_evaluation_needs_no_training_and_predict_works_or_says_why_not(name, tmp_path):
    trainer = build(name, tmp_path)
    measured = trainer.evaluate()
    assert np.isfinite(measured["eval_loss"])
    if name == "PreferenceModelTrainer":
        return
    with pytest.raises(ValueError, match=rf"{name}: predict would return logits, which are never built; measure with"):
        trainer.predict(trainer.eval_dataset)


OWN = {"SupervisedTrainer": ("objective", {"dft": 1.0}), "PreferenceModelTrainer": ("tau", 2.0)}


@pytest.mark.parametrize("name", TRAINERS)
def test_settings_hold_from_construction_on(name, tmp_path):
    trainer = build(name, tmp_path)
    field, value = OWN.get(name, ("beta", 0.7))
    for changed in ((field, value), ("learning_rate", 0.5), ("per_device_train_batch_size", 1)):
        before = getattr(trainer.args, changed[0])
        setattr(trainer.args, *changed)
        message = rf"args\.{changed[0]}: .* -> .* after {name} was constructed, .* construct another with it"
        with pytest.raises(ConfigError, match=message):
            trainer.train()
        with pytest.raises(ConfigError, match=message):
            trainer.evaluate()
        setattr(trainer.args, changed[0], before)
    trainer.args.max_steps = 0.5
    with pytest.raises(ConfigError, match="max_steps"):
        trainer.train()


def test_what_is_read_at_use_may_be_set_later(tmp_path):
    trainer = build("DPOTrainer", tmp_path / "first", settings={"save_strategy": "no"})
    trainer.args.max_steps, trainer.args.logging_steps, trainer.args.output_dir = 2, 1, str(tmp_path / "second")
    trainer.train()
    assert trainer.state.global_step == 2
    assert [r["step"] for r in trainer.state.log_history if "loss" in r] == [1, 2]
    trainer.args.beta = 0.7
    with pytest.raises(ConfigError, match="args.beta: 0.1 -> 0.7"):
        trainer.evaluate()


def test_a_field_changed_in_place_is_seen(tmp_path):
    trainer = build("SupervisedTrainer", tmp_path, settings={"objective": {"nll": 1.0}})
    trainer.args.objective["nll"] = 2.0
    with pytest.raises(ConfigError, match="args.objective: .* after SupervisedTrainer was constructed"):
        trainer.train()


def test_predictions_hold_to_the_settings_too(tmp_path):
    trainer = build("PreferenceModelTrainer", tmp_path)
    trainer.args.max_length = 4
    with pytest.raises(ConfigError, match="args.max_length"):
        trainer.predict(trainer.eval_dataset)


@pytest.mark.parametrize("dimension", [1, 2])
def test_predictions_of_a_preference_model_are_one_row_a_pair(dimension, tmp_path):
    seen = []

    def count(found):
        seen.append(found.predictions)
        return {"pairs": float(len(found.predictions))}

    settings = {"dimension": dimension, "per_device_eval_batch_size": 4}
    trainer = build("PreferenceModelTrainer", tmp_path, settings=settings, compute_metrics=count)
    measured = trainer.evaluate()
    made = trainer.predict(tiny.pairs())
    assert measured["eval_pairs"] == made.metrics["test_pairs"] == 10.0
    assert made.metrics["test_accuracy"] == measured["eval_accuracy"]
    assert made.predictions.shape == ((10, 2) if dimension == 1 else (10, 2, 2))
    np.testing.assert_array_equal(seen[0], made.predictions)
    if dimension == 1:
        chosen, rejected = made.predictions.T
        assert chosen.mean() == pytest.approx(made.metrics["test_rewards/chosen"])
        assert rejected.mean() == pytest.approx(made.metrics["test_rewards/rejected"])


def test_a_named_preference_model_is_loaded_as_its_arguments_say(tmp_path):
    trainer = build("PreferenceModelTrainer", tmp_path, settings={"model_init_kwargs": {"dtype": torch.bfloat16}})
    assert trainer.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert trainer.args.model_init_kwargs == {"dtype": torch.bfloat16}
    for wrong, told in (
        ({"trust_remote_code": True}, "code of a model is never run"),
        ({"num_labels": 3}, "`dimension`"),
    ):
        with pytest.raises(ValueError, match=told):
            build("PreferenceModelTrainer", tmp_path, settings={"model_init_kwargs": wrong})


def test_a_named_preference_model_is_quantised_as_asked(tmp_path, monkeypatch):
    got = {}

    def loads(*args, **kw):
        got.update(kw)
        raise OSError("seen enough")

    monkeypatch.setattr("transformers.AutoModelForSequenceClassification.from_pretrained", loads)
    given = BitsAndBytesConfig(load_in_4bit=True)
    args = PreferenceModelConfig(str(tmp_path), **QUIET)
    with pytest.raises(OSError, match="seen enough"):
        PreferenceModelTrainer("tiny-random", args, train_dataset=tiny.pairs(), quantization_config=given)
    assert got["quantization_config"] is given
    args.model_init_kwargs = {"quantization_config": given}
    with pytest.raises(ValueError, match="quantization_config: given in model_init_kwargs too"):
        PreferenceModelTrainer("tiny-random", args, train_dataset=tiny.pairs(), quantization_config=given)

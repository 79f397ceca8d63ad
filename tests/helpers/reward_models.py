"""Preference models trained on the tiny pairs."""

import tiny
from peft import LoraConfig
from trl import ModelConfig

from align.configs.preference_model import PreferenceModelConfig
from align.models.preference_model import load_preference_base
from align.models.tiny import tiny_tokenizer
from align.trainers.preference_model import PreferenceModelTrainer

NOT_THE_SAME = ("runtime", "per_second", "preparation_time")


SEQ_CLS = tiny.LORA | {"task_type": "SEQ_CLS"}


def base(dimension, seed=0):
    return load_preference_base(ModelConfig(model_name_or_path="tiny-random"), dimension=dimension, seed=seed)


def arguments(config, tmp_path, **kw):
    quiet = {
        "output_dir": str(tmp_path), "max_steps": 5, "per_device_train_batch_size": 2, "learning_rate": 0.01,
        "use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1, "seed": 3, "save_strategy": "no",
        "gradient_checkpointing": False, "disable_tqdm": True,
    }  # fmt: skip
    return config(**quiet | kw)


def build(tmp_path, *, data=None, eval_data=None, model=None, lora=tiny.LORA, **kw):
    args = arguments(PreferenceModelConfig, tmp_path, **kw)
    return PreferenceModelTrainer(
        base(args.dimension) if model is None else model,
        args,
        train_dataset=tiny.pairs() if data is None else data,
        eval_dataset=eval_data,
        processing_class=tiny_tokenizer(),
        peft_config=None if lora is None else LoraConfig(**lora),
    )


def trained(tmp_path, **kw):
    trainer = build(tmp_path, **kw)
    trainer.train()
    return trainer


def with_margins(data, name="margin"):
    return data.add_column(name, [0.1 * i for i in range(len(data))])


def plain(data):
    """The same pairs as text."""
    return data.map(lambda row: {name: row[name][0]["content"] for name in ("prompt", "chosen", "rejected")})

"""A small GRPO or RLOO run for tests."""

import tiny
from datasets import Dataset
from peft import LoraConfig

from align.models.tiny import tiny_model, tiny_tokenizer

PROMPTS = [[{"role": "user", "content": text}] for text in ("say hi", "count to three please", "up", "name a colour")]


def vowels(completions, **_):
    """A reward that random answers differ in."""
    return [float(sum(letter in "aeiou" for letter in answer[0]["content"])) for answer in completions]


def group_trainer(cls, config, tmp_path, callbacks=None, **kw):
    tokenizer = tiny_tokenizer()
    settings = {
        "output_dir": str(tmp_path), "max_steps": 3, "per_device_train_batch_size": 8, "num_generations": 4,
        "max_completion_length": 8, "learning_rate": 0.01, "use_cpu": True, "bf16": False, "report_to": "none",
        "logging_steps": 1, "save_strategy": "no", "gradient_checkpointing": False, "beta": 0.1, "num_iterations": 2,
        "disable_tqdm": True,
    }  # fmt: skip
    return cls(
        model=tiny_model(tokenizer),
        reward_funcs=vowels,
        args=config(**settings | kw),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tokenizer,
        peft_config=LoraConfig(**tiny.LORA),
        callbacks=callbacks,
    )


def trained(*args, **kw):
    trainer = group_trainer(*args, **kw)
    trainer.train()
    return trainer

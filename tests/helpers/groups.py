"""Small runs of GRPO, RLOO and on online pairs, and answers that are known, for tests."""

import tiny
import torch
from datasets import Dataset
from peft import LoraConfig

from align import OnlinePreferenceConfig, OnlinePreferenceTrainer
from align.configs.online_preference import PRESETS
from align.judges.scorers import RewardScorer
from align.models.tiny import tiny_model, tiny_tokenizer

PROMPTS = [[{"role": "user", "content": text}] for text in ("say hi", "count to three please", "up", "name a colour")]


def vowels(completions, **_):
    """A reward that random answers differ in."""
    return [float(sum(letter in "aeiou" for letter in answer[0]["content"])) for answer in completions]


def group_trainer(cls, config, tmp_path, callbacks=None, *, reward_funcs=vowels, eval_dataset=None, **kw):
    """A trainer on a group of completions; a class of rewards is called anew for each."""
    tokenizer = tiny_tokenizer()
    settings = {
        "output_dir": str(tmp_path), "max_steps": 3, "per_device_train_batch_size": 8, "num_generations": 4,
        "max_completion_length": 8, "learning_rate": 0.01, "use_cpu": True, "bf16": False, "report_to": "none",
        "logging_steps": 1, "save_strategy": "no", "gradient_checkpointing": False, "beta": 0.1, "num_iterations": 2,
        "disable_tqdm": True,
    }  # fmt: skip
    return cls(
        model=tiny_model(tokenizer),
        reward_funcs=reward_funcs() if isinstance(reward_funcs, type) else reward_funcs,
        args=config(**settings | kw),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        eval_dataset=eval_dataset,
        processing_class=tokenizer,
        peft_config=LoraConfig(**tiny.LORA),
        callbacks=callbacks,
    )


def trained(*args, **kw):
    trainer = group_trainer(*args, **kw)
    trainer.train()
    return trainer


LETTER_A = 69  # of the tiny tokenizer
VOWELS = RewardScorer(lambda completions, **_: [float(v) for v in vowels(completions)], temperature=2.0)


def pair_arguments(tmp_path, method="online_dpo", **kw):
    settings = {
        "max_steps": 3, "per_device_train_batch_size": 8, "max_completion_length": 8, "learning_rate": 0.01,
        "use_cpu": True, "bf16": False, "report_to": "none", "logging_steps": 1, "save_strategy": "no",
        "gradient_checkpointing": False, "disable_tqdm": True, "max_grad_norm": 0.0,
    }  # fmt: skip
    return OnlinePreferenceConfig(str(tmp_path), **settings | PRESETS[method].settings | kw)


def pair_trainer(tmp_path, *, method="online_dpo", answers=None, callbacks=None, prompts=PROMPTS, **kw):
    """A trainer, on a scorer unless `reward_funcs` are given; `answers` gives tokens by (prompt's tokens, place)."""
    tokenizer = tiny_tokenizer()
    judged = {name: kw.pop(name) for name in ("reward_funcs", "scorer", "model", "eval_dataset") if name in kw}
    if not judged.keys() & {"reward_funcs", "scorer"}:
        judged["scorer"] = VOWELS
    lora = None if "model" in judged else LoraConfig(**tiny.LORA)
    trainer = OnlinePreferenceTrainer(
        **{"model": tiny_model(tokenizer)} | judged,
        args=pair_arguments(tmp_path, method, **kw),
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=tokenizer,
        peft_config=lora,
        callbacks=callbacks,
    )
    if answers is not None:
        trainer._generate_single_turn = lambda ids, *a, **k: (
            [answers(one, place % 2) for place, one in enumerate(ids)],
            None,
        )
    return trainer


def pair_run(*args, **kw):
    trainer = pair_trainer(*args, **kw)
    trainer.train()
    return trainer


def known(ids, place):
    """Two answers that differ, by the prompt alone, in the tokens of letters; without an end."""
    seed = sum(ids) + 31 * place
    return [LETTER_A + (seed * (n + 3) + n * n) % 26 for n in range(4 + 2 * ((sum(ids) + place) % 2))]


def records(trainer):
    """What is logged, without times."""
    untimed = ("runtime", "per_second", "step_time", "flos", "train_loss")
    logged = [r for r in trainer.state.log_history if "loss" in r]
    return [{k: v for k, v in r.items() if not any(part in k for part in untimed)} for r in logged]


def equal_weights(one, other):
    """Whether two trainers hold the same weights, to the bit."""
    theirs = tiny.weights(other)
    return all(torch.equal(weight, theirs[name]) for name, weight in tiny.weights(one).items())


class Counting:
    """Remembers how many training completions it saw."""

    __name__ = "counting"

    def __init__(self):
        self.training, self.count, self.modes = True, 0, []

    def __call__(self, completion_ids, **_):
        self.modes.append(self.training)
        self.count += len(completion_ids) * self.training
        return [float(self.count % 7 + ids[0] / 261) for ids in completion_ids]

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]

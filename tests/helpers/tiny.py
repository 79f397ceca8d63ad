"""Small data, models and trainers for tests; the model itself is `align.models.tiny`."""

import json

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model

from align.models.tiny import tiny_model, tiny_tokenizer

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}

REFERENCE = {"kind": "base", "model": "tiny", "digest": "0" * 64}
"""What `reference.json` of an adapter says."""

QWEN = (
    "{% if tools %}<|system|>{{ tools | tojson }}<|end|>{% endif %}"
    "{% for m in messages %}<|{{ m.role }}|>{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{% if m.role == 'assistant' and enable_thinking is defined and not enable_thinking %}()()(){% endif %}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}()()()"
    "{% endif %}{% endif %}"
)
"""A template that renders tools, their calls, reasoning, and whether to think."""

ROWS = [
    ("what is two plus two", "four", "it is five, I believe"),
    ("what is the sky", "the sky is blue", "green"),
    ("two plus two is", "four it says", "five"),
    ("the sky is", "blue", "green, mostly green"),
    ("name a colour", "red is one", "seven"),
    ("count to three", "one two three", "three"),
    ("is water wet", "yes", "no, it is not wet at all"),
    ("say hello", "hello there", "goodbye"),
    ("what is up", "not much, and you", "the sky"),
    ("name a number", "nine", "blue"),
]


def sparing(cases, *kept):
    """Cases of a parametrization, of which those kept run in `make test`; the others are slow.

    Cases of several arguments are tuples, and kept by their places.
    """
    several = isinstance(cases, list) and isinstance(cases[0], tuple)
    known = range(len(cases)) if several else cases
    assert all(one in known for one in kept), "a case that is kept has to be one"
    return [
        case if name in kept else pytest.param(*(case if several else [case]), marks=pytest.mark.slow)
        for name, case in zip(known, cases, strict=True)
    ]


def pairs(n=10):
    return Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
            for prompt, chosen, rejected in ROWS[:n]
        ]
    )


def arguments(config, tmp_path, **kw):
    """A configuration of ours or TRL's with quiet, fast, CPU settings."""
    settings = {
        "output_dir": str(tmp_path),
        "max_steps": 5,
        "per_device_train_batch_size": 2,
        "learning_rate": 0.01,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "logging_steps": 1,
        "seed": 3,
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "beta": 0.3,
        "disable_tqdm": True,
    }
    return config(**settings | kw)


def trainer(cls, config, tmp_path, *, data=None, eval_data=None, lora=None, model=None, callbacks=None, **kw):
    tokenizer = tiny_tokenizer()
    return cls(
        model=tiny_model(tokenizer) if model is None else model,
        args=arguments(config, tmp_path, **kw),
        train_dataset=pairs() if data is None else data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        peft_config=None if model is not None else LoraConfig(**LORA | (lora or {})),
        callbacks=callbacks,
    )


def losses(trained, key="loss"):
    return [record[key] for record in trained.state.log_history if key in record]


def weights(trained):
    return {n: p.detach().clone() for n, p in trained.model.named_parameters() if p.requires_grad}


def adapter(folder, seed, *, reference=REFERENCE, base="tiny", **settings):
    """A random adapter whose both factors differ from 0, as a run leaves it."""
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**LORA | settings))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(str(folder), save_embedding_layers=False)
    tiny_tokenizer().save_pretrained(folder)
    if reference is not None:
        (folder / "reference.json").write_text(json.dumps(reference))
    return folder


def deltas(folder):
    """ΔW of each module as PEFT itself makes it."""
    model = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(folder))
    return {name: m.get_delta_weight("default").double() for name, m in model.named_modules() if hasattr(m, "get_delta_weight") and "default" in (*m.lora_A, *m.lora_embedding_A)}  # fmt: skip

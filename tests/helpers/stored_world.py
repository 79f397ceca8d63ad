"""A recipe, its prompts and a policy that differs from its reference, for tests of the evaluation; nothing is trained."""

import json
from pathlib import Path

import torch
import yaml

from align.models.tiny import tiny_model, tiny_tokenizer

PROMPTS = ["what is up", "is the sky blue", "two plus two is", "say hello", "name a colour", "name a number"]


def make_world(folder):
    """`recipe.yaml` (of an online method, so that there are no pairs), `prompts.jsonl`, and the models `policy` and `other`."""
    rows = [json.dumps({"prompt": prompt, "answer": str(i)}) + "\n" for i, prompt in enumerate(PROMPTS)]
    (folder / "prompts.jsonl").write_text("".join(rows))
    data = {"path": str(folder / "prompts.jsonl")}
    recipe = {
        "method": "dynamic_grpo",
        "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
        "data": {"train": dict(data), "eval": {"test": dict(data)}},
        "rewards": ["conciseness", "clarity"],
        "train": {"output_dir": "unused", "use_cpu": True, "bf16": False},
        "eval": {"generate": {"prompts": 6, "max_new_tokens": 6, "seed": 1, "batch_size": 2}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    tokenizer = tiny_tokenizer()
    for seed, name in enumerate(("policy", "other"), start=1):
        model = tiny_model(tokenizer).eval()
        noise = torch.randn(model.lm_head.weight.shape, generator=torch.Generator().manual_seed(seed))
        model.lm_head.weight.data += 0.5 * noise
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def responses(path, texts, prompts=None, **further):
    """A file of responses: the i-th text, or texts, to the i-th prompt."""
    prompts = prompts or [f"question {i}" for i in range(len(texts))]
    rows = [
        {"prompt": prompt, "response": text, **{key: values[i] for key, values in further.items()}}
        for i, (prompt, texts_) in enumerate(zip(prompts, texts, strict=True))
        for text in ([texts_] if isinstance(texts_, str) else texts_)
    ]
    return write_lines(path, rows)


def made(folder):
    """The files of a run with rounds that must be the same, however often it was stopped."""
    named = [
        *folder.glob("round-*/*.jsonl"),
        *folder.glob("round-*/answers/*.jsonl"),
        *folder.glob("**/adapter/*.safetensors"),
    ]
    return {str(path.relative_to(folder)): path.read_bytes() for path in named}

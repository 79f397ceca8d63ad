"""A front whose policies are made without training: adapters drawn by name, answers that follow from their names."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from stored_world import write_lines

from align.fronts import run as running
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe

REFERENCE = {"kind": "base", "model": "tiny", "digest": "0" * 64}


class Trained:
    """Stands for a run that `align.train.run` gives back."""

    def __init__(self):
        self.trainer = self
        self.state = self
        self.global_step = 2


@pytest.fixture
def world(tmp_path, monkeypatch):
    """`load(*overrides)`, `train`, and the lists of what was trained and who answered."""
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA))
    trained, answered = [], []

    def train(recipe, resume=None, allow=()):
        path = Path(str(recipe.train.output_dir))
        trained.append((path.parent.name, resume))
        generator = torch.Generator().manual_seed(sum(map(ord, path.parent.name)))
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.data = torch.randn(weight.shape, generator=generator)
        model.save_pretrained(str(path / "adapter"), save_embedding_layers=False)
        (path / "adapter" / "reference.json").write_text(json.dumps(REFERENCE))
        (path / "recipe.resolved.yaml").write_text(recipe.resolved_yaml())
        return Trained()

    def sample(policy, rows, how, out, *, who, replace):
        """A word that sounds good or bad, good in all of a soup's, and one that is said up to three times."""
        answered.append(who)
        code, said = sum(map(ord, who)) % 7, ("good", "great", "bad", "awful")
        said = ("great",) * 4 if who.startswith("soup") else said
        texts = [
            f"this {said[(code + k) % 4]} morning we saw a{' river' * (1 + code * k % 3)}" for k in range(len(rows))
        ]
        write_lines(out, [{**row, "completions": [text]} for row, text in zip(rows, texts, strict=True)])
        return len(rows)

    monkeypatch.setattr(running, "sample_to_file", sample)

    def load(*words, name="fronts/tiny", folder="run"):
        (tmp_path / folder).mkdir(exist_ok=True)
        rewards = "rewards={repetition: {n: 1}, positive_sentiment: null}"
        return load_recipe(name, [f"train.output_dir={tmp_path / folder}", rewards, *words])

    return type("World", (), {"load": staticmethod(load), "train": staticmethod(train), "trained": trained, "answered": answered})  # fmt: skip

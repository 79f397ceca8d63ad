"""Rewards an answer by a trained reward model, such as that of a group of annotators."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from align.models.preference_model import PreferenceModel, check_preference_model, load_preference_model
from align.models.use import share_weights

from .texts import Text, needed, text_of

_held: list[PreferenceModel] = []


@dataclass
class RewardModel:
    """The reward of a model that `reward_model` trained, r / τ in nats, less a constant.

    A Bradley-Terry reward is known up to a constant. A rule that compares the means of several, such as `max_min`, compares
    these constants, too: give each as `less` what the reference reaches, so that 0 is the reference's worth to every group.

    Where it can be fooled: it was trained on few answers, and a policy finds others that it likes; look at a judge that it was not
    trained with.
    """

    path: str
    """The folder that `PreferenceModelTrainer` saved."""
    less: float = 0.0
    """Taken away from every reward, in nats."""

    __name__ = "reward_model"

    def __post_init__(self) -> None:
        if check_preference_model(self.path, rewards=True)["reference_column"] is not None:
            raise ValueError(f"path: {self.path} compares answers with a reference and gives no reward without")
        if not np.isfinite(self.less):
            raise ValueError(f"less: must be finite, got {self.less}")

    def __call__(self, completions: Sequence[Text], prompts: Sequence[Text] | None = None, **_: Any) -> list[float]:
        """One reward per completion, in nats.

        Raises:
            ValueError: If the prompts are missing.
        """
        model, rewards = _loaded(self.path), [0.0] * len(completions)
        by_prompt: dict[str, list[int]] = {}
        for place, prompt in enumerate(needed("reward_model", "prompts", prompts, completions)):
            by_prompt.setdefault(json.dumps(prompt), []).append(place)
        for prompt, places in by_prompt.items():
            scores = model.score(json.loads(prompt), [text_of(completions[place]) for place in places])
            for place, score in zip(places, scores / model.tau, strict=True):
                rewards[place] = float(score) - self.less
        return rewards


@cache
def _loaded(path: str) -> PreferenceModel:
    """Once for the process; a base that several have in common is held once."""
    made = load_preference_model(path)
    made.model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    for other in _held[:1]:
        share_weights(made.model, other.model)
    _held.append(made)
    return made

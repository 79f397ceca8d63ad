"""Combines reward models of several capabilities into one reward by a small network for each category of prompts: DMoERM.

Source: Quan 2024, "DMoERM: Recipes of mixture-of-experts for effective reward modeling" (arXiv:2403.01197), its inner layer and
last phase. The capability models are ordinary runs of `reward_model`, adapters on one base. Deviations: the router is the data's
column or, where a prompt has none, a linear layer on the first capability model's states of the prompt; all categories share the
capability models; training takes a number of steps on all pairs, where the authors stop by held-out accuracy; no reward is
drawn from an LLM's points.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.random import fork_rng

from align.data.prompts import Prompt, prompt_of
from align.data.rows.scored import text_of
from align.errors import RunError
from align.files import read_json, write_text
from align.losses import Pair, dpo_loss
from align.models.preference_model import PreferenceModel, check_preference_model, load_preference_model
from align.models.use import share_weights

from .scorers import of_margins

SETTINGS, WEIGHTS = "experts.json", "experts.safetensors"
CATEGORY, ROUTER = "category", "router."


class Combined(nn.Module):
    """Hidden states of all experts, one after the other, through a linear layer, PReLU and a second one to a reward."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.PReLU(), nn.Linear(width, 1))

    def forward(self, states: Float[Tensor, "answers inputs"]) -> Float[Tensor, " answers"]:
        """Rewards, in nats."""
        return self.layers(states).squeeze(1)


class Experts:
    """Reward models of several capabilities, combined for each category; a scorer in the sense of `align.judges.scorers`.

    Args:
        members: Reward models with one base; their order belongs to the weights.
        combined: By category, what makes one reward of their states.
        router: From the states of a prompt to log-odds of the categories, in their order, for prompts without one.

    Raises:
        ValueError: If there is no member or no category.
    """

    dimension, tau = 1, 1.0

    def __init__(
        self, members: Sequence[PreferenceModel], combined: Mapping[str, Combined], router: nn.Linear | None = None
    ) -> None:
        if not members or not combined:
            raise ValueError("experts: at least one reward model and one category are needed")
        self.members, self.combined, self.router = list(members), dict(combined), router

    def category_of(self, prompt: Prompt, **columns: Any) -> str:
        """The row's column `category` or, where there is none, what the router says.

        Raises:
            ValueError: If the category is none that was learnt, or there is none and no router.
        """
        category = columns.get(CATEGORY)
        if category is None and self.router is not None:
            with torch.inference_mode():
                return list(self.combined)[int(self.router(of_prompt(self.members, prompt)).argmax())]
        if category not in self.combined:
            raise ValueError(f"{CATEGORY}: must be one of {', '.join(self.combined)}, got {category!r}")
        return category

    def score(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Float[np.ndarray, " answers"]:
        """Rewards of the answers, in nats, by the category of the prompt.

        Raises:
            ValueError: As `category_of`.
        """
        category = self.category_of(prompt, **columns)
        with torch.inference_mode():
            return self.combined[category](states(self.members, prompt, answers)).double().numpy()

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Float[np.ndarray, "answers answers"]:
        """Probability that the answer of the row is preferred to the answer of the column."""
        rewards = self.score(prompt, answers, **columns)
        return of_margins(np.subtract.outer(rewards, rewards), 1.0)


def states(
    members: Sequence[PreferenceModel], prompt: Prompt, answers: Sequence[str]
) -> Float[Tensor, "answers inputs"]:
    """Last hidden states of each answer, of all members side by side, at the token that their heads read."""
    found = []
    for member in members:
        pad, of_member = member.model.config.get_text_config().pad_token_id, []
        for answer in answers:
            ids = member.token_ids(prompt, answer)
            last = max(place for place, token in enumerate(ids) if token != pad)
            of_member.append(member.states(ids)[last].cpu())
        found.append(torch.stack(of_member))
    return torch.cat(found, dim=1)


def of_prompt(members: Sequence[PreferenceModel], prompt: Prompt) -> Float[Tensor, " d"]:
    """What the router reads: the first member's hidden states of the prompt with an empty answer, their mean."""
    return members[0].states(members[0].token_ids(prompt, "")).mean(dim=0).cpu()


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse pairs without a category; loads nothing.

    Raises:
        RunError: If there are no rows, or one has no category.
    """
    lacking = [number for number, row in enumerate(rows, start=1) if not isinstance(row.get(CATEGORY), str)]
    if not rows or lacking:
        raise RunError(f"{CATEGORY}: every pair needs one, a text, and row {lacking[0] if lacking else 1} has none")


def train_experts(
    folders: Sequence[str | Path],
    rows: Sequence[Mapping[str, Any]],
    out: str | Path,
    *,
    width: int | None = None,
    steps: int = 200,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> Experts:
    """Learn, for each category, one reward from the states of frozen reward models, by Bradley-Terry; written to `out`.

    Args:
        folders: Of the reward models, adapters on one base.
        rows: Pairs with `prompt`, `chosen`, `rejected` and `category`.
        out: Folder for the networks and the names of the reward models.
        width: Of the hidden layer; that of one model's states by default, as published.
        steps: Of AdamW, each on all pairs of a category.
        learning_rate: Of these.
        seed: Of the first weights.

    Raises:
        RunError: If there are no rows, or one has no category.
    """
    check_rows(rows)
    members = _members(folders)
    seen: dict[str, list[Tensor]] = {}
    for row in rows:
        both = states(members, prompt_of(row), [text_of(row["chosen"]), text_of(row["rejected"])])
        seen.setdefault(row[CATEGORY], []).append(both)
    width = width or seen[rows[0][CATEGORY]][0].shape[1] // len(members)
    combined = {}
    for category, pairs in seen.items():
        table = torch.stack(pairs).clone()
        with fork_rng():
            torch.default_generator.manual_seed(seed)
            network = Combined(table.shape[2], width)
        optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate)
        for _ in range(steps):
            optimizer.zero_grad()
            rewards = network(table.flatten(0, 1)).unflatten(0, (-1, 2))
            dpo_loss(Pair(*rewards.unbind(1))).mean().backward()
            optimizer.step()
        combined[category] = network.eval()
    router = _router(members, rows, list(combined), steps=steps, learning_rate=learning_rate)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    told = {
        "experts": [str(Path(folder).resolve()) for folder in folders],
        "width": width,
        "categories": list(combined),
    }
    weights = {
        f"{number}.{name}": value.detach() for number, network in enumerate(combined.values()) for name, value in network.state_dict().items()
    }  # fmt: skip
    weights |= {} if router is None else {f"{ROUTER}{name}": value for name, value in router.state_dict().items()}
    save_file(weights, out / WEIGHTS)
    write_text(out / SETTINGS, json.dumps(told, indent=1) + "\n")
    return Experts(members, combined, router)


def _router(
    members: Sequence[PreferenceModel],
    rows: Sequence[Mapping[str, Any]],
    categories: list[str],
    *,
    steps: int,
    learning_rate: float,
) -> nn.Linear | None:
    """Learns the category from the prompt, by cross-entropy on each prompt of the rows; None where there is one category."""
    if len(categories) < 2:
        return None
    seen = {json.dumps([prompt_of(row), row[CATEGORY]]): row for row in rows}
    table = torch.stack([of_prompt(members, prompt_of(row)) for row in seen.values()]).clone()
    labels = torch.tensor([categories.index(row[CATEGORY]) for row in seen.values()])
    mean, scale = table.mean(dim=0), table.std(dim=0, correction=0) + 1e-6
    router = nn.Linear(table.shape[1], len(categories))
    nn.init.zeros_(router.weight)
    nn.init.zeros_(router.bias)
    optimizer = torch.optim.AdamW(router.parameters(), lr=learning_rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(router((table - mean) / scale), labels).backward()
        optimizer.step()
    with torch.no_grad():  # of states as they are
        router.weight.div_(scale)
        router.bias.sub_(router.weight @ mean)
    return router.requires_grad_(False)


def check_experts(folder: str | Path) -> dict[str, Any]:
    """What a folder says of its experts; loads nothing.

    Raises:
        RunError: If it holds none, or one of their reward models is not where it was.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file() or not path.with_name(WEIGHTS).is_file():
        raise RunError(
            f"{folder}: no {SETTINGS} there, with its {WEIGHTS}; name a folder that `alignkit experts` wrote"
        )
    told = read_json(path)
    for member in told["experts"]:
        check_preference_model(member, rewards=True)
    return told


def load_experts(folder: str | Path) -> Experts:
    """What `train_experts` wrote.

    Raises:
        RunError: As `check_experts`.
    """
    told, weights = check_experts(folder), load_file(Path(folder) / WEIGHTS)
    combined = {}
    for number, category in enumerate(told["categories"]):
        mine = {k.partition(".")[2]: v for k, v in weights.items() if k.startswith(f"{number}.")}
        network = Combined(mine["layers.0.weight"].shape[1], told["width"])
        network.load_state_dict(mine)
        combined[category] = network.eval()
    router = None
    if f"{ROUTER}weight" in weights:
        router = nn.Linear(weights[f"{ROUTER}weight"].shape[1], len(combined))
        router.load_state_dict({name: weights[f"{ROUTER}{name}"] for name in ("weight", "bias")})
    return Experts(_members(told["experts"]), combined, router)


def _members(folders: Sequence[str | Path]) -> list[PreferenceModel]:
    """Reward models; a base that they have in common is held once."""
    members = [load_preference_model(folder) for folder in folders]
    for member in members[1:]:
        share_weights(member.model, members[0].model)
    return members

"""Chooses the coefficients of adapters by what they are worth on rows: greedy soup and Frank-Wolfe; and Fisher merging.

All adapters are on one base in memory, each with a coefficient: the model of coefficients c has ΔW = Σ c_k ΔW_k, so no mix is
written before it is chosen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from align.data.loading import load_source
from align.data.prompts import Prompt, prompt_of
from align.data.sources import DataConfig, DataSource
from align.errors import RunError
from align.losses.preference import Pair, dpo_loss
from align.models.loading import load_model, load_tokenizer
from align.models.mixing import put_on, set_coefficients
from align.sampling.generate import Decoding, generate
from align.sampling.policy import policy_of
from align.scoring.completions import Sequences, batch_logps, completion_ids, pair_ids

from .adapters import Adapter, Factors, changes_of, soup
from .choosing import fisher_merge, frank_wolfe, greedy_soup
from .pruned import low_rank

OPTIONS = {"most": "rows", "batch": "batch-size"}
"""What a field of `How` is called on the command line, where that is another name."""


@dataclass(frozen=True)
class How:
    """What mixes are measured with; RunError where a number is out of its range."""

    rows: Path
    """Pairs, or prompts with completions."""
    most: int = 256
    """Rows that are used, drawn by a fixed seed."""
    batch: int = 4
    """Rows of a forward pass."""
    beta: float = 0.1
    """Of pairs: the DPO loss's β."""
    steps: int = 10
    """Of Frank-Wolfe."""
    max_new_tokens: int = 64
    """Of an answer that Fisher information is of."""
    rank: int | None = None
    """Of what Fisher merging writes; by default the largest of a module's factors."""

    def __post_init__(self) -> None:
        for name in ("most", "batch", "steps", "max_new_tokens", "rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise RunError(f"--{OPTIONS.get(name, name.replace('_', '-'))}: must be at least 1, got {value}")
        if not 0 < self.beta < math.inf:
            raise RunError(f"--beta: must be positive and finite, got {self.beta}")


class Rows(NamedTuple):
    """Rows as token ids."""

    sequences: Sequences
    """(prompt ids, completion ids); of pairs the chosen and the rejected answer in turns."""
    pairs: bool
    prompts: list[Prompt]


def read_rows(how: How, tokenizer: PreTrainedTokenizerBase) -> Rows:
    """Rows to measure by.

    Raises:
        DataError: If they cannot be read as pairs, nor as prompts with completions.
    """
    source = DataSource(str(how.rows), max_rows=how.most)
    data = load_source(
        source, "rows", DataConfig(source), keep=(), texts=(), rows="completions", told=[], whole_pairs=True
    )
    pairs = "chosen" in data.column_names
    data = data.shuffle(seed=0).select(range(min(how.most, len(data)))).to_list()
    prompts = [prompt_of(row) for row in data]
    sequences: list[tuple[list[int], list[int]]] = []
    for prompt, row in zip(prompts, data, strict=True):
        if pairs:
            sequences += pair_ids(tokenizer, prompt, row["chosen"], row["rejected"])
        else:
            ids, begin = completion_ids(tokenizer, prompt, row["completion"])
            sequences.append((ids[:begin], ids[begin:]))
    return Rows(sequences, pairs, prompts)


class Measured:
    """Adapters on one base, and the loss of their mixes on rows: the mean DPO loss of pairs, or nats a token."""

    def __init__(self, adapters: Sequence[Adapter], how: How) -> None:
        """Load the base once, with all adapters on it.

        Raises:
            DataError: If the rows cannot be read; before any weight is loaded.
        """
        self.adapters, self.how = adapters, how
        settings = policy_of(str(adapters[0].path)).settings
        self.tokenizer = load_tokenizer(settings)
        self.rows = read_rows(how, self.tokenizer)
        self.model: PeftModel = put_on(load_model(settings), [adapter.path for adapter in adapters]).eval()
        width = 2 if self.rows.pairs else 1
        every = range(0, len(self.rows.sequences), width)
        self.batches = [
            [i + side for i in every[k : k + how.batch] for side in range(width)]
            for k in range(0, len(every), how.batch)
        ]
        self.reference: list[Tensor] = []
        if self.rows.pairs:
            with torch.no_grad(), self.model.disable_adapter():
                self.reference = [self._sums(batch) for batch in self.batches]
        self.tokens = sum(len(completion) for _, completion in self.rows.sequences)

    def loss(self, coefficients: Sequence[float]) -> float:
        """Of the mix of coefficients, in nats."""
        set_coefficients(self.model, coefficients)
        with torch.no_grad():
            return sum(float(self._part(number)) for number in range(len(self.batches)))

    def gradient(self, coefficients: Sequence[float]) -> list[float]:
        """Its derivative by each coefficient, for all adapters by one backward pass."""
        leaf = torch.tensor(coefficients, device=self.model.device, requires_grad=True)
        for number in range(len(self.batches)):
            set_coefficients(self.model, leaf)  # anew: a backward pass frees what a layer's scale is made of
            self._part(number).backward()
        assert leaf.grad is not None
        set_coefficients(self.model, coefficients)
        return leaf.grad.tolist()

    def fisher(self, member: int) -> dict[str, Float[Tensor, "outputs inputs"]]:
        """The diagonal of the Fisher information of ΔW by module: E (∂ log π(y)/∂W)², y an answer of the member's.

        The square is of an answer's whole gradient, not of each token's: a sum of squares of tokens is another number.

        Raises:
            RunError: If an adapter is on something else than linear layers, or on quantised weights.
        """
        set_coefficients(self.model, [float(k == member) for k in range(len(self.adapters))])
        decoding = Decoding(max_new_tokens=self.how.max_new_tokens)
        answers = generate(
            self.model,
            self.tokenizer,
            self.rows.prompts,
            decoding,
            batch_size=self.how.batch,
            desc="Fisher information",
        )
        weights = self._weights()
        found = {module: torch.zeros_like(weight, dtype=torch.float32) for module, weight in weights.items()}
        for weight in weights.values():
            weight.requires_grad_(True)
        for (answer,) in answers:
            [logps] = self._logps([(answer.prompt_ids, answer.completion_ids)])
            grads = torch.autograd.grad(logps.sum(), list(weights.values()))
            for module, grad in zip(weights, grads, strict=True):
                found[module] += grad.float() ** 2 / len(answers)
        for weight in weights.values():
            weight.requires_grad_(False)
        return {module: one.cpu() for module, one in found.items()}

    def _part(self, number: int) -> Tensor:
        """The share of the loss that a batch has."""
        batch = self.batches[number]
        if not self.rows.pairs:
            return -self._sums(batch).sum() / self.tokens
        rewards = self.how.beta * (self._sums(batch) - self.reference[number]).view(-1, 2)
        return dpo_loss(Pair(rewards[:, 0], rewards[:, 1])).sum() / len(self.rows.prompts)

    def _sums(self, batch: Sequence[int]) -> Float[Tensor, " rows"]:
        return torch.stack([logps.sum() for logps in self._logps([self.rows.sequences[i] for i in batch])])

    def _logps(self, sequences: Sequences) -> list[Tensor]:
        pad: Any = self.tokenizer.pad_token_id
        return batch_logps(self.model, sequences, pad_token_id=0 if pad is None else pad)

    def _weights(self) -> dict[str, Tensor]:
        """The base's weights that the adapters change, by module."""
        modules: dict[str, Any] = dict(self.model.named_modules())
        found = {}
        for module, (a, b) in self.adapters[0].factors.items():
            layer: Any = modules[module].get_base_layer()
            if not isinstance(layer, nn.Linear) or layer.weight.shape != (len(b), a.shape[1]):
                raise RunError(
                    f"--fisher: {module} is no plain linear layer of the base ({type(layer).__name__}), so its Fisher "
                    "information is not known; use --greedy"
                )
            found[module] = layer.weight
        return found


def greedy(adapters: Sequence[Adapter], how: How) -> tuple[Factors, dict[str, Any]]:
    """The greedy soup by the loss on rows; see `greedy_soup`."""
    measured = Measured(adapters, how)
    found = greedy_soup(len(adapters), lambda weights: -measured.loss(weights))
    return soup(adapters, found.weights), {"greedy": found.weights, "loss": -found.score}


def by_frank_wolfe(adapters: Sequence[Adapter], how: How) -> tuple[Factors, dict[str, Any]]:
    """The soup of the coefficients that Frank-Wolfe finds; see `frank_wolfe`.

    It begins with the member of the least loss. `gap` is Σ_k c_k ∂_k - min_k ∂_k: where the loss is convex in the coefficients,
    no mix is better by more.
    """
    measured, count = Measured(adapters, how), len(adapters)
    alone = [measured.loss([float(i == k) for i in range(count)]) for k in range(count)]
    start = min(range(count), key=alone.__getitem__)
    weights = frank_wolfe(count, measured.gradient, steps=how.steps, start=start)
    slopes = measured.gradient(weights)
    gap = sum(w * slope for w, slope in zip(weights, slopes, strict=True)) - min(slopes)
    record = {"frank_wolfe": weights, "loss": measured.loss(weights), "alone": alone, "gap": gap}
    return soup(adapters, weights), record


def by_fisher(adapters: Sequence[Adapter], how: How) -> tuple[Factors, dict[str, Any]]:
    """Fisher-weighted mean of ΔW, all adapters of weight 1, cut to a rank; see `fisher_merge` and `low_rank`."""
    measured = Measured(adapters, how)
    fishers = [measured.fisher(member) for member in range(len(adapters))]
    changes = {}
    for module in adapters[0].factors:
        members = changes_of(adapters, module)
        changes[module] = fisher_merge(members, [one[module] for one in fishers], [1.0] * len(adapters))
    factors, lost = low_rank(changes, adapters, how.rank)
    return factors, {"fisher": [1.0] * len(adapters), "answers": len(measured.rows.prompts)} | lost


MEASURED = {"greedy": greedy, "frank-wolfe": by_frank_wolfe, "fisher": by_fisher}
"""By the option of `alignkit merge`."""

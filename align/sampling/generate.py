"""Samples answers with one seed per prompt, so that neither batching nor other prompts change an answer.

`align.sampling.store` keeps them in a file as they come.
"""

import contextlib
import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
)
from transformers.generation import BaseStreamer

from align.data.prompts import Prompt
from align.models.stopping import stop_ids
from align.models.use import Model, head_in_one_product
from align.scoring.completions import prompt_ids

from .merged import adapters_merged
from .prompt_cache import prompts_once


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled. With `temperature` 0 the most likely token is taken.

    With `top_p` below 1 only the nucleus is drawn from: the fewest most likely tokens whose probabilities, at this
    temperature, sum to `top_p` or more (Holtzman et al. 2020, arXiv:1904.09751, section 3.1); of tokens that are equally
    likely, those of lower id. Log-probabilities of such answers under the model are not those they were drawn with.
    """

    max_new_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.top_p < 1 and self.temperature == 0:
            raise ValueError(
                f"top_p must be 1 where temperature is 0, which takes the most likely token; got {self.top_p}"
            )


@dataclass(frozen=True)
class Answer:
    """One sampled completion: its token ids (the one that ended it included) and its text."""

    prompt_ids: list[int]
    completion_ids: list[int]
    text: str
    finished: bool
    """Whether it ended by itself, at one of `align.models.stopping.stop_ids`; else it was cut, or calls what is not answered."""
    turns: "Turns | None" = None
    """Of an answer that may call tools. Its text is what the policy says, without calls and results."""

    @property
    def own(self) -> list[bool]:
        """Whether the policy wrote each token, and no tool."""
        lengths = [len(self.completion_ids)] if self.turns is None else self.turns.lengths
        return [part % 2 == 0 for part, length in enumerate(lengths) for _ in range(length)]

    @property
    def own_ids(self) -> list[int]:
        """The tokens that the policy wrote."""
        return [token for token, own in zip(self.completion_ids, self.own, strict=True) if own]


class Turns(NamedTuple):
    """What an answer is made of where tools may be called."""

    prompt: list[dict[str, Any]]
    """What was asked, with what an environment said at the beginning."""
    messages: list[dict[str, Any]]
    """What the policy wrote, its calls and their results, as rewards are given them in training."""
    lengths: list[int]
    """Tokens of the policy and of tools in turn, the policy's first."""
    calls: int
    """How many calls it makes, those that failed, and that there was no turn or no room for, among them."""
    failed: int
    """How many of them failed."""
    rewards: dict[str, float | None]
    """What its environment says that it is worth, by the name of its class; empty where it says nothing."""


class Job(NamedTuple):
    """The `sample`-th answer to the `prompt`-th prompt."""

    prompt: int
    sample: int


class Engine(NamedTuple):
    """What samples in place of the model's own `generate`."""

    identity: dict[str, str]
    """Its name and version: whose draws the answers are."""
    batches: Callable[[Sequence[list[int]], Sequence[Job]], Iterator[dict[Job, Answer]]]
    """Given the token ids of all prompts, the answers to some jobs as they come; every job once."""


def generate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    samples: int = 1,
    batch_size: int = 32,
    desc: str = "generating",
    engine: Engine | None = None,
) -> list[list[Answer]]:
    """Sample `samples` answers to each prompt, which is run through the model once for those of a batch.

    Sampling is by the Gumbel-max trick with a generator of its own per (prompt, sample, seed): adding prompts or
    changing the batch size draws the same noise for the others, and two models asked the same thing share their noise,
    which makes paired comparisons sharper. The model's own generation settings (a repetition penalty, say) do not
    apply: answers are draws from the softmax (or its nucleus), whose log-probabilities `completion_logps` gives.

    Args:
        model: Any causal language model; put adapters on or off before the call.
        tokenizer: Its tokenizer, with a chat template if prompts are messages.
        prompts: Strings or lists of messages.
        decoding: Length, temperature and seed.
        samples: Answers per prompt.
        batch_size: Answers sampled together.
        desc: Title of the progress bar.
        engine: Samples in the model's place; its noise is its own.

    Returns:
        For each prompt, `samples` answers.
    """
    encoded = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    jobs = [Job(i, k) for i in range(len(prompts)) for k in range(samples)]
    found = {}
    for batch in sampled_batches(
        model, tokenizer, encoded, jobs, decoding, batch_size=batch_size, desc=desc, engine=engine
    ):
        found |= batch
    return [[found[Job(i, k)] for k in range(samples)] for i in range(len(prompts))]


def sampled_batches(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    encoded: Sequence[list[int]],
    jobs: Sequence[Job],
    decoding: Decoding,
    *,
    batch_size: int,
    desc: str,
    engine: Engine | None = None,
) -> Iterator[dict[Job, Answer]]:
    """The answers of `generate` to `jobs`, batch by batch as they come; `encoded` are the token ids of all prompts."""
    if engine is not None:
        yield from engine.batches(encoded, jobs)
        return
    stops = stop_ids(tokenizer, model)
    ordered = sorted(jobs, key=lambda job: len(encoded[job.prompt]))  # alike lengths together: less padding
    with tqdm(total=len(jobs), desc=desc, unit="answer") as bar:
        for start in range(0, len(ordered), batch_size):
            batch = ordered[start : start + batch_size]
            seeds = [seed_of(encoded[job.prompt], job.sample, decoding.seed) for job in batch]
            completions = sampled_ids(model, tokenizer, stops, [encoded[job.prompt] for job in batch], seeds, decoding)
            yield {
                job: answer_of(tokenizer, stops, encoded[job.prompt], ids)
                for job, ids in zip(batch, completions, strict=True)
            }
            bar.update(len(batch))


def streamed(
    model: Model, tokenizer: PreTrainedTokenizerBase, prompt: Prompt, decoding: Decoding, streamer: BaseStreamer
) -> Answer:
    """The first answer that `generate` gives to a prompt; a streamer of transformers gets each token as it is drawn."""
    stops, ids = stop_ids(tokenizer, model), prompt_ids(tokenizer, prompt)
    [made] = sampled_ids(model, tokenizer, stops, [ids], [seed_of(ids, 0, decoding.seed)], decoding, streamer)
    return answer_of(tokenizer, stops, ids, made)


def answer_of(
    tokenizer: PreTrainedTokenizerBase, stops: Collection[int], prompt: list[int], completion: list[int]
) -> Answer:
    """The answer that these token ids are."""
    text = str(tokenizer.decode(completion, skip_special_tokens=True))
    return Answer(prompt, completion, text, not set(stops).isdisjoint(completion))


@torch.inference_mode()
def sampled_ids(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    stops: list[int],
    prompts: list[list[int]],
    seeds: list[int],
    decoding: Decoding,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """The token ids that follow each prompt, one of `stops` the last if it came to that; each with the noise of its seed."""
    width = max(map(len, prompts))
    pad: Any = tokenizer.pad_token_id
    pad = 0 if pad is None else pad  # what it is changes nothing: the mask hides it, and rows are cut where they end
    inputs = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts], device=model.device)
    attention = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    processors = LogitsProcessorList()
    if decoding.temperature > 0:
        processors.append(_GumbelNoise(seeds, decoding))
    with _own_settings_off(model), adapters_merged(model), head_in_one_product(model), prompts_once(model):
        output = model.generate(  # type: ignore[operator]
            input_ids=inputs,
            attention_mask=attention,
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,  # the noise makes the arg max a sample
            logits_processor=processors,
            pad_token_id=pad,
            eos_token_id=stops or None,
            streamer=streamer,
        )
    rows = output[:, width:].tolist()
    ends = [next((place for place, token in enumerate(ids) if token in stops), len(ids)) for ids in rows]
    return [ids[: end + 1] for ids, end in zip(rows, ends, strict=True)]


@contextlib.contextmanager
def _own_settings_off(model: Model) -> Iterator[None]:
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    own = base.generation_config
    base.generation_config = GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


class _GumbelNoise(LogitsProcessor):
    """Adds Gumbel noise to logits / temperature: the arg max is then a draw from the softmax, or from its nucleus."""

    def __init__(self, seeds: list[int], decoding: Decoding) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.decoding = decoding

    def __call__(
        self, input_ids: Int[Tensor, "batch time"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        width = scores.size(1)
        uniform = torch.stack([torch.empty(width).exponential_(generator=g) for g in self.generators])
        logits = scores.float() / self.decoding.temperature
        if self.decoding.top_p < 1:
            logits = nucleus(logits, self.decoding.top_p)
        return logits - uniform.log().to(scores.device)


def nucleus(logits: Float[Tensor, "batch vocab"], top_p: float) -> Float[Tensor, "batch vocab"]:
    """The logits with -inf outside the nucleus: a token is in it if the likelier ones sum to less than `top_p`."""
    ordered, index = logits.sort(dim=-1, descending=True, stable=True)
    p = ordered.double().softmax(-1)
    outside = p.cumsum(-1) - p >= top_p
    return logits.masked_fill(torch.zeros_like(outside).scatter(-1, index, outside), -torch.inf)


def seed_of(ids: list[int], sample: int, seed: int) -> int:
    """The seed of one answer, from its prompt's token ids, its number and the seed of the decoding."""
    digest = hashlib.sha256(f"{seed}|{sample}|{ids}".encode()).digest()
    return int.from_bytes(digest[:7], "big")

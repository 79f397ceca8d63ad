"""Answers from a model: one seed per prompt, so that neither batching nor other prompts change an answer."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from tqdm.auto import tqdm
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

Model = PreTrainedModel | PeftModel
Prompt = str | list[dict[str, str]]


@dataclass(frozen=True)
class Decoding:
    """How answers are sampled. With `temperature` 0 the most likely token is taken."""

    max_new_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")


@dataclass(frozen=True)
class Answer:
    """One sampled completion: its token ids (end of sequence included, if it was reached) and its text."""

    prompt_ids: list[int]
    completion_ids: list[int]
    text: str
    finished: bool


def prompt_ids(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids of a prompt: a string as it is, messages through the chat template with a generation prompt."""
    encoded: Any = (
        tokenizer(prompt)
        if isinstance(prompt, str)
        else tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)
    )
    return list(encoded["input_ids"])


def generate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    samples: int = 1,
    batch_size: int = 32,
    desc: str = "generating",
) -> list[list[Answer]]:
    """Sample `samples` answers to each prompt.

    Sampling is by the Gumbel-max trick with a generator of its own per (prompt, sample, seed): adding prompts or
    changing the batch size draws the same noise for the others, and two models asked the same thing share their noise,
    which makes paired comparisons sharper. The model's own generation settings (a repetition penalty, say) do not
    apply: answers are draws from the softmax, whose log-probabilities `completion_logps` gives.

    Args:
        model: Any causal language model; put adapters on or off before the call.
        tokenizer: Its tokenizer, with a chat template if prompts are messages.
        prompts: Strings or lists of messages.
        decoding: Length, temperature and seed.
        samples: Answers per prompt.
        batch_size: Answers sampled together.
        desc: Title of the progress bar.

    Returns:
        For each prompt, `samples` answers.
    """
    encoded = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    jobs = [(i, k) for i in range(len(prompts)) for k in range(samples)]
    jobs.sort(key=lambda job: len(encoded[job[0]]))  # alike lengths together: less padding
    answers: list[list[Answer | None]] = [[None] * samples for _ in prompts]
    with tqdm(total=len(jobs), desc=desc, unit="answer") as bar, torch.inference_mode():
        for start in range(0, len(jobs), batch_size):
            batch = jobs[start : start + batch_size]
            seeds = [_seed(encoded[i], k, decoding.seed) for i, k in batch]
            completions = _sample(model, tokenizer, [encoded[i] for i, _ in batch], seeds, decoding)
            for (i, k), ids in zip(batch, completions, strict=True):
                finished = tokenizer.eos_token_id in ids
                text = str(tokenizer.decode(ids, skip_special_tokens=True))
                answers[i][k] = Answer(encoded[i], ids, text, finished)
            bar.update(len(batch))
    return [[answer for answer in row if answer is not None] for row in answers]


def _sample(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    seeds: list[int],
    decoding: Decoding,
) -> list[list[int]]:
    width = max(map(len, prompts))
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    inputs = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts], device=model.device)
    attention = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    processors = LogitsProcessorList()
    if decoding.temperature > 0:
        processors.append(_GumbelNoise(seeds, decoding.temperature))
    with _own_settings_off(model):
        output = model.generate(  # type: ignore[operator]
            input_ids=inputs,
            attention_mask=attention,
            max_new_tokens=decoding.max_new_tokens,
            do_sample=False,  # the noise makes the arg max a sample
            logits_processor=processors,
            pad_token_id=pad,
            eos_token_id=eos,
        )
    rows = output[:, width:].tolist()
    return [ids[: ids.index(eos) + 1] if eos in ids else ids for ids in rows]


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
    """Adds Gumbel noise to logits / temperature: the arg max is then a draw from the softmax."""

    def __init__(self, seeds: list[int], temperature: float) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.temperature = temperature

    def __call__(
        self, input_ids: Int[Tensor, "batch time"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        width = scores.size(1)
        uniform = torch.stack([torch.empty(width).exponential_(generator=g) for g in self.generators])
        return scores.float() / self.temperature - uniform.log().to(scores.device)


def _seed(ids: list[int], sample: int, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}|{sample}|{ids}".encode()).digest()
    return int.from_bytes(digest[:7], "big")

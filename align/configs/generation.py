"""Refuses settings of generation that the trainers' own fields have, or under which there is not one answer to each prompt."""

import json
from typing import Any

from transformers import GenerationConfig

from align.strict.fields import nearest

from .common import defaults_of

FIELDS = {"max_new_tokens": "max_completion_length", "max_length": "max_completion_length", "max_tokens": "max_completion_length"} | {
    name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
}  # fmt: skip
"""What a key of `generation_kwargs` would say otherwise than the field by which log-probabilities and masks are made."""
BROKEN = {
    "num_return_sequences": "answers to a prompt are num_generations",
    "n": "answers to a prompt are num_generations",
    "return_dict_in_generate": "the trainer reads tokens alone",
}
OF_TRANSFORMERS = {"stop_strings": "the trainer gives no tokenizer; name tokens by eos_token_id"}

OF_MODE = {
    "server": (
        "vllm_server_base_url",
        "vllm_server_host",
        "vllm_server_port",
        "vllm_server_timeout",
        "vllm_group_port",
    ),
    "colocate": (
        "vllm_gpu_memory_utilization",
        "vllm_tensor_parallel_size",
        "vllm_enable_sleep_mode",
    ),
}
"""What only one way of running vLLM reads."""


def generated_otherwise(trl: Any, config: Any) -> list[str]:
    """One line for each key of `generation_kwargs` that cannot be meant.

    Args:
        trl: A configuration with TRL's fields of sampling.
        config: The configuration of the method, which may hold as `not_generated` why further keys cannot.
    """
    given = trl.generation_kwargs or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            return ["generation_kwargs: must be settings by name, in JSON if from a command line"]
    if not isinstance(given, dict):
        return [f"generation_kwargs: must be settings by name, got {given!r}"]
    refused = {name: f"the trainer goes by {field}; set that" for name, field in FIELDS.items()} | BROKEN
    if not trl.use_vllm:
        known = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
        unknown = [name for name in given if name not in (*known, *refused)]
        refused |= OF_TRANSFORMERS | {name: f"no such setting; {nearest(name, known)}" for name in unknown}
    refused |= getattr(config, "not_generated", {})
    return [f"generation_kwargs: {name}: {refused[name]}, got {given[name]!r}" for name in given if name in refused]


def unread_by_vllm(config: Any) -> list[str]:
    """One line for each setting of vLLM that nothing reads: without `use_vllm`, or of the other mode."""
    defaults = defaults_of(config)
    settings = {name: getattr(config, name) for name in defaults if name.startswith("vllm_")}
    given = {name: value for name, value in settings.items() if value != defaults[name]}
    if not config.use_vllm:
        return [
            f"{name}: not read without use_vllm, got {value!r}; set use_vllm=true or leave it out"
            for name, value in given.items()
        ]
    other = [name for name in OF_MODE["colocate" if config.vllm_mode == "server" else "server"] if name in given]
    return [f"{name}: not read with vllm_mode={config.vllm_mode}, got {given[name]!r}; leave it out" for name in other]

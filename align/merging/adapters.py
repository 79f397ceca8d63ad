"""Reads LoRA adapters as factors from disk, and writes their exact weighted sums.

A soup of policies is the weighted sum of their weight changes, sum_k w_k ΔW_k, with ΔW = scale · B A. The sum of products
is not the product of sums, so A and B are concatenated (PEFT's combination "cat"): the merged adapter has the sum of the
ranks and is the soup to rounding. PEFT's "linear" adds A and B on their own, "svd" cuts the rank; both are another model.

Only the adapters are read, never the base, so merging takes seconds for a model of any size.
"""

import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import LoraConfig
from peft.utils.other import get_pattern_key
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from align.errors import RunError
from align.files import read_json, sha256
from align.findings import printable
from align.models.folders import adapter_settings, write_in_order
from align.models.patterns import refuse_endless
from align.runs.checkpoints import MANIFEST, check
from align.runs.contents import REFERENCE_FILE

from .choosing import slerp_weights

logger = logging.getLogger(__name__)

Factors = dict[str, tuple[Tensor, Tensor]]
"""Module name to (A, B), of shapes (rank, inputs) and (outputs, rank): ΔW = B A."""
WEIGHTS_FILE = "adapter_model.safetensors"
TRAVELS = ("tokenizer*", "chat_template*", "special_tokens_map.json", "vocab*", "merges.txt", REFERENCE_FILE)


@dataclass
class Adapter:
    """A LoRA adapter on disk: for each module its factors, of which B holds the scale: ΔW = B A."""

    path: Path
    config: LoraConfig
    factors: Factors
    """In float32."""
    names: dict[str, tuple[str, str]]
    """Module name to the names of A and B in the file."""
    reference: dict[str, Any] | None
    """What `reference.json` says it was trained against."""
    digest: str
    run: str | None = None
    """Id of the run it was made by, where it says so."""
    step: int | None = None


def load_adapter_factors(path: str | Path) -> Adapter:
    """Read a LoRA adapter.

    Raises:
        RunError: If the folder holds no adapter, would run code, or holds more than the two factors of linear layers
            and embeddings (saved modules or embeddings, biases, DoRA, tied or expert parameters), which cannot be merged exactly,
            or is not what its run wrote.
    """
    path = Path(path)
    if not (path / WEIGHTS_FILE).is_file() or not (path / "adapter_config.json").is_file():
        raise RunError(
            f"{path}: no adapter there (adapter_config.json and {WEIGHTS_FILE}); name a run's adapter/ folder"
        )
    config = adapter_settings(path)
    if not isinstance(config, LoraConfig):
        raise RunError(f"{path}: only LoRA adapters can be merged, got {config.peft_type}")
    try:
        tensors = load_file(path / WEIGHTS_FILE)
    except SafetensorError as error:
        raise RunError(
            f"{path}: {WEIGHTS_FILE} cannot be read ({printable(str(error), 200)}); fetch it again"
        ) from None
    refuse_endless(config, [key.partition(".lora_")[0].removeprefix("base_model.model.") for key in tensors], str(path))
    factors, names = {}, {}
    for key in [key for key in tensors if "lora_A" in key or "lora_embedding_A" in key]:
        other = key.replace("lora_A", "lora_B").replace("lora_embedding_A", "lora_embedding_B")
        module = key.partition(".lora_")[0]
        if other not in tensors or tensors[key].dim() != 2 or tensors[other].dim() != 2:
            raise RunError(f"{path}: {module} has no pair of two-dimensional factors; it cannot be merged exactly")
        names[module] = (key, other)
        rank, scale = _rank_and_scale(config, module)
        if not len(tensors[key]) == tensors[other].size(1) == rank:
            raise RunError(
                f"{path}: {printable(module, 200)} is not of the rank that adapter_config.json says ({rank}); fetch it again"
            )
        factors[module] = (tensors[key].float(), tensors[other].float() * scale)
    left = sorted(set(tensors) - {name for pair in names.values() for name in pair})
    unsound = [name for name, tensor in tensors.items() if not tensor.float().isfinite().all()]
    if unsound:
        raise RunError(
            f"{path}: {printable(unsound[0], 200)} holds values that are not finite; fetch or train it again"
        )
    if left or not factors or config.use_dora or config.target_parameters:
        raise RunError(
            f"{path}: holds more than the factors of linear layers ({(left or ['DoRA or target_parameters'])[0]}), which "
            "cannot be merged exactly; train and save without modules_to_save, embeddings, lora bias, DoRA or target_parameters"
        )
    file = path / REFERENCE_FILE
    reference = read_json(file) if file.is_file() else None
    adapter = Adapter(path, config, factors, names, reference, sha256(path / WEIGHTS_FILE))
    if (path / MANIFEST).is_file():
        found = check(path)  # damaged ones are refused
        adapter.run, adapter.step = found["identity"].run, found["step"]
    return adapter


def soup(adapters: Sequence[Adapter], weights: Sequence[float]) -> Factors:
    """Factors (A, B) of sum_k w_k ΔW_k for each module. An adapter of weight 0 adds no rank.

    Source: Ramé et al. 2023, "Rewarded soups" (arXiv:2306.04488), equation 1, on LoRA adapters.
    """
    return {module: _joined(adapters, module, weights) for module in adapters[0].factors}


def changes_of(adapters: Sequence[Adapter], module: str) -> list[Float[Tensor, "outputs inputs"]]:
    """ΔW of a module, of each adapter."""
    return [b @ a for a, b in (adapter.factors[module] for adapter in adapters)]


def stock(adapters: Sequence[Adapter]) -> tuple[Factors, dict[str, float]]:
    """Factors of t · mean_k ΔW_k for each module, and its t = N cos / (1 + (N - 1) cos).

    cos is the mean cosine of all pairs of ΔW of that module. Where it is negative, the adapters say nothing in common,
    and t is 0: the base is kept.

    Source: Jang et al. 2024, "Model stock" (arXiv:2403.19522), equation 4, on LoRA modules instead of layers.
    """
    count = len(adapters)
    ratios = {}
    for module in adapters[0].factors:
        cosine = max(0.0, mean_cosine([adapter.factors[module] for adapter in adapters]))
        ratios[module] = count * cosine / (1 + (count - 1) * cosine)
    merged = {module: _joined(adapters, module, [ratio / count] * count) for module, ratio in ratios.items()}
    return merged, ratios


def slerp(first: Adapter, second: Adapter, share: float) -> Factors:
    """Factors (A, B) of the arc between two adapters' ΔW at `share` of it, module by module; exact. See `slerp_weights`."""
    found = {}
    for module in first.factors:
        cosine = mean_cosine([adapter.factors[module] for adapter in (first, second)])
        found[module] = _joined([first, second], module, slerp_weights(cosine, share))
    return found


def mean_cosine(factors: Sequence[tuple[Tensor, Tensor]]) -> float:
    """Mean cosine over all pairs of ΔW = B A, from r × r products: no ΔW is made. A ΔW of 0 has cosine 0 to all."""
    wide = [(a.double(), b.double()) for a, b in factors]
    inner = [[float(((b.T @ d) * (a @ c.T)).sum()) for c, d in wide] for a, b in wide]
    norms = [math.sqrt(max(0.0, inner[i][i])) for i in range(len(wide))]
    pairs = [(i, j) for i in range(len(wide)) for j in range(i)]
    cosines = [inner[i][j] / (norms[i] * norms[j]) if norms[i] * norms[j] > 0 else 0.0 for i, j in pairs]
    return sum(cosines) / len(cosines)


def save_merged(folder: Path, like: Adapter, factors: Factors) -> str:
    """Write an adapter that PEFT loads, in float32; tokenizer and reference of `like` go with it.

    Returns:
        The sha256 of its weights.
    """
    folder.mkdir(parents=True)
    tensors = {}
    for module, pair in factors.items():
        tensors |= {name: tensor.contiguous() for name, tensor in zip(like.names[module], pair, strict=True)}
    ranks = {module.removeprefix("base_model.model."): len(a) for module, (a, _) in factors.items()}
    most = max(ranks.values())
    config = LoraConfig.from_pretrained(str(like.path))
    assert isinstance(config, LoraConfig)
    config.r = config.lora_alpha = most
    config.rank_pattern = config.alpha_pattern = {module: rank for module, rank in ranks.items() if rank != most}
    config.use_rslora, config.inference_mode, config.init_lora_weights = False, True, True
    config.save_pretrained(str(folder))
    write_in_order(folder)
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    copy_along(like.path, folder)
    return sha256(folder / WEIGHTS_FILE)


def copy_along(adapter: Path, folder: Path) -> None:
    """Copy tokenizer and reference of an adapter, but nothing that a link in it points to outside of it.

    A stranger's adapter could otherwise have any file of this machine copied into what is then shared.
    """
    for pattern in TRAVELS:
        for file in sorted(adapter.glob(pattern)):
            if file.is_file() and file.resolve().is_relative_to(adapter.resolve()):
                shutil.copyfile(file, folder / file.name)
            else:
                logger.warning("%s: a link to a file outside of the adapter, or no file; it is not copied", file)


def _joined(adapters: Sequence[Adapter], module: str, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    used = [(adapter.factors[module], w) for adapter, w in zip(adapters, weights, strict=True) if w != 0]
    if not used:  # model stock without agreement: an adapter of rank 1 that changes nothing
        a, b = adapters[0].factors[module]
        return torch.zeros(1, a.shape[1]), torch.zeros(b.shape[0], 1)
    return torch.cat([a for (a, _), _ in used]), torch.cat([b * w for (_, b), w in used], dim=1)


def _rank_and_scale(config: LoraConfig, module: str) -> tuple[int, float]:
    """The rank, and what PEFT multiplies B A with: alpha / r, or alpha / √r for rank-stabilised LoRA."""
    name = module.removeprefix("base_model.model.")
    rank_pattern, alpha_pattern = config.rank_pattern or {}, config.alpha_pattern or {}
    rank = rank_pattern.get(get_pattern_key(list(rank_pattern), name), config.r)
    alpha = alpha_pattern.get(get_pattern_key(list(alpha_pattern), name), config.lora_alpha)
    return rank, alpha / (math.sqrt(rank) if config.use_rslora else rank)

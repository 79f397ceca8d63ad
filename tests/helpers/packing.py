"""Models and batches for tests of packed rows."""

import torch
from peft import LoraConfig, get_peft_model
from torch.random import fork_rng
from torch.testing import assert_close
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from align.scoring import attention
from align.scoring.shared_prefix import FIELDS, SharedPrefixModel
from align.trainers.shared.trl_contract import fast_head

SIZES = {
    "vocab_size": 48, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
OTHER_NAMES = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "hidden_dim": 16, "d_model": 16, "n_layers": 2, "n_heads": 4}  # fmt: skip


def random(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def built(family="llama", *, lora=False, scale=3.0, **settings):
    """A tiny random model with TRL's head, its weights scaled up so that attention matters."""
    default = AutoConfig.for_model(family)
    known = {name: value for name, value in (SIZES | OTHER_NAMES).items() if hasattr(default, name)}
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **known | settings))
        add_fused_lm_head(model, outputs=FIELDS)
        if lora:
            model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(scale if weight.dim() > 1 and "lora" not in name else 1.0)
    return model.eval()


def padded(rows, *, left=False, max_length=None):
    """A batch of (prompt, answer) rows as a collator makes it, cut at `max_length`."""
    width = min(max(len(p) + len(a) for p, a in rows), max_length or 1000)
    out = {name: [] for name in ("input_ids", "attention_mask", "labels")}
    for prompt, answer in rows:
        tokens, labels = (prompt + answer)[:width], ([-100] * len(prompt) + answer)[:width]
        fill = width - len(tokens)
        for name, real, pad in zip(out, (tokens, [1] * len(tokens), labels), (0, 0, -100), strict=True):
            out[name].append([pad] * fill + real if left else real + [pad] * fill)
    return {name: torch.tensor(value) for name, value in out.items()}


LEFT = padded(
    [([5, 6, 7, 8], [9, 10, 11]), ([12], [13, 14]), ([5, 6, 7, 8], [15, 16, 17, 18, 19]), ([12], [20])], left=True
)


RIGHT = padded([([5, 6, 7, 8], [9, 10, 11]), ([12], [13, 14]), ([5, 6, 7, 8], [15, 16, 17]), ([12], [20])])


def gradients(model, outputs):
    weights = [p for p in model.parameters() if p.requires_grad]
    loss = (outputs.log_probs * random(*outputs.log_probs.shape, seed=1)).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, weights)])


def compare(model, batch, kernel=None, *, gradient=True, tolerance=1e-5):
    with torch.set_grad_enabled(gradient), fast_head():
        packed = SharedPrefixModel(model, kernel)(**batch, fused_lm_head=True)
    with torch.set_grad_enabled(gradient):
        plain = model(**batch, use_cache=False, fused_lm_head=True)
    assert torch.equal(packed.label_mask, plain.label_mask)
    for name in FIELDS[:3]:
        atol = tolerance if name == "log_probs" else 5 * tolerance
        assert_close(getattr(packed, name), getattr(plain, name), rtol=0, atol=atol)
    assert torch.equal(packed.is_top1, plain.is_top1)
    if gradient:
        one, other = gradients(model, packed), gradients(model, plain)
        assert (one - other).norm() <= 1e-4 * other.norm() + 1e-6


def skip_the_prefix(monkeypatch):
    """Answers of cascades no longer see their prompt; returns the name of that kernel."""
    spans = attention._spans
    monkeypatch.setattr(attention, "_spans", lambda group: (*spans(group)[:2], None))
    return "cascade"

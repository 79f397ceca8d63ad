"""Token-level DPO: by hand, its slopes, and the trainer against full logits of both models."""

import math

import pytest
import scored
import tiny
import torch
from pairwise_worker import OWN
from torch.testing import assert_close

from align.configs import ConfigError
from align.configs.preference import TDPOConfig
from align.losses import Pair, dpo_loss, tdpo_loss
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.pairs.tdpo import TDPOTrainer

TDPO1, TDPO2 = {"kl_weight": 1.0, "hold_chosen": False}, {"kl_weight": 0.5, "hold_chosen": True}
DOUBLE = torch.float64


def log(*shares):
    return torch.tensor(shares, dtype=DOUBLE).log()


def kl(ref, policy):
    return (ref.exp() * (ref - policy)).sum(-1)


def by_hand():
    """Two positions of three tokens: ρ and S of the chosen answer (tokens 0, 2) and the rejected one (1, 0)."""
    first, after_w, after_l = (
        log(*row).requires_grad_() for row in ((0.5, 0.3, 0.2), (0.2, 0.2, 0.6), (0.1, 0.8, 0.1))
    )
    ref, ref_w, ref_l = log(0.4, 0.4, 0.2), log(0.3, 0.3, 0.4), log(0.2, 0.6, 0.2)
    ratio = Pair(first[0] - ref[0] + after_w[2] - ref_w[2], first[1] - ref[1] + after_l[0] - ref_l[0])
    sums = Pair(kl(ref, first) + kl(ref_w, after_w), kl(ref, first) + kl(ref_l, after_l))
    return Pair(*(v[None] for v in ratio)), Pair(*(v[None] for v in sums)), (first, after_w, after_l)


def test_by_hand():
    ratio, sums, _ = by_hand()
    assert [v.item() for v in sums] == pytest.approx([0.106908, 0.130465], abs=1e-6)
    one, two = (tdpo_loss(ratio, sums, beta=0.5, **kind) for kind in (TDPO1, TDPO2))
    assert [one.losses.item(), two.losses.item()] == pytest.approx([0.373295, 0.371464], abs=1e-6)
    assert two.rewards.chosen.item() == pytest.approx(0.5 * (ratio.chosen + sums.chosen).item())
    none = tdpo_loss(ratio, sums, beta=0.5, kl_weight=0.0, hold_chosen=True)
    assert_close(none.losses, dpo_loss(Pair(0.5 * ratio.chosen, 0.5 * ratio.rejected)))


def test_what_has_a_slope():
    """σ(-margin) β α times the KL's own; TDPO2 has none by the chosen answer's, though its value counts."""
    for kind in (TDPO1, TDPO2):
        ratio = Pair(torch.tensor([1.2]).double(), torch.tensor([-0.7]).double())
        sums = Pair(*(torch.tensor([v], dtype=DOUBLE, requires_grad=True) for v in (0.3, 0.8)))
        losses = tdpo_loss(ratio, sums, beta=0.1, **kind).losses
        losses.sum().backward()
        margin = 0.1 * (1.9 + kind["kl_weight"] * (0.3 - 0.8))
        pull = 0.1 * kind["kl_weight"] / (1 + math.exp(margin))
        assert losses.item() == pytest.approx(math.log1p(math.exp(-margin)))
        assert sums.rejected.grad.item() == pytest.approx(pull)
        assert sums.chosen.grad is None if kind is TDPO2 else sums.chosen.grad.item() == pytest.approx(-pull)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_finite_and_rightly_signed_at_ten_thousand_nats(far, dtype):
    sides = [torch.tensor([v], dtype=dtype, requires_grad=True) for v in (far, 0.0, 1e4, 1e4)]
    result = tdpo_loss(Pair(*sides[:2]), Pair(*sides[2:]), beta=0.5, **TDPO1)
    slopes = torch.autograd.grad(result.losses.sum(), sides)
    assert result.losses.isfinite().all()
    assert all(slope.isfinite() for slope in slopes)
    assert (slopes[0] < 0) == (far < 0)


def made(folder, **kw):
    """A policy that differs from its reference."""
    cls, config, settings = OWN["tdpo2"]
    trainer = tiny.trainer(cls, config, folder, **{"data": scored.pairs(8)} | settings | kw)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=g))
    return trainer


def from_logits(trainer, rows, reference=None):
    """ρ and S of both sides from the logits of one row at a time."""
    found = []
    for row in rows:
        for side in ("chosen_ids", "rejected_ids"):
            ids, start = torch.tensor([row["prompt_ids"] + row[side]]), len(row["prompt_ids"]) - 1
            policy = trainer.model(ids).logits[0, start:-1].log_softmax(-1)
            with torch.no_grad(), trainer.model.disable_adapter():
                ref = (reference or trainer.model)(ids).logits[0, start:-1].log_softmax(-1)
            target = ids[0, start + 1 :, None]
            ratio = (policy - ref).gather(1, target).sum()
            found.append(torch.stack([ratio, kl(ref, policy).sum()]))
    both = torch.stack(found).unflatten(0, (-1, 2))
    return Pair(*both[..., 0].unbind(1)), Pair(*both[..., 1].unbind(1))


@pytest.mark.parametrize("kind", [TDPO1, TDPO2])
@pytest.mark.parametrize("shared", ["on", "off"])
def test_loss_and_gradient_are_those_of_the_full_logits(tmp_path, kind, shared):
    settings = {"kl_weight": kind["kl_weight"], "hold_chosen_kl": kind["hold_chosen"], "shared_prefix": shared}
    trainer = made(tmp_path, **settings)
    rows = [trainer.train_dataset[i] for i in range(4)]
    trainer.model.eval()
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(trainer.data_collator(rows)))
    weights = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    slopes = torch.autograd.grad(loss, list(weights.values()))
    ratio, sums = from_logits(trainer, rows)
    expected = tdpo_loss(ratio, sums, beta=0.3, **kind).losses.mean()
    by_logits = torch.autograd.grad(expected, list(weights.values()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert sums.chosen.min() > 0.01
    for ours, theirs in zip(slopes, by_logits, strict=True):
        assert (ours - theirs).norm() < 1e-4 * theirs.norm() + 1e-7
    found = trainer.sums.take("eval")
    assert found["kl/chosen"] == pytest.approx(sums.chosen.mean().item(), rel=1e-4)
    assert found["rewards/rejected"] == pytest.approx(0.3 * (ratio.rejected + sums.rejected).mean().item(), rel=1e-4)


def other_model():
    model = tiny_model(tiny_tokenizer())
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layers.1" in name and weight.dim() == 2:
                weight.mul_(1.5)
    return model


def with_reference(folder, reference):
    tokenizer = tiny_tokenizer()
    return TDPOTrainer(
        model=tiny_model(tokenizer), ref_model=reference, args=tiny.arguments(TDPOConfig, folder),
        train_dataset=scored.pairs(8), processing_class=tokenizer, peft_config=tiny.LoraConfig(**tiny.LORA),
    )  # fmt: skip


def test_another_model_may_be_the_reference_if_it_has_the_same_head(tmp_path):
    reference = other_model().eval()
    trainer = with_reference(tmp_path, reference)
    rows = [trainer.train_dataset[i] for i in range(4)]
    loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(trainer.data_collator(rows)))
    expected = tdpo_loss(*from_logits(trainer, rows, reference), beta=0.3, **TDPO2).losses.mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    foreign = other_model()
    with torch.no_grad():
        foreign.get_output_embeddings().weight.mul_(2)
    with pytest.raises(ValueError, match="TDPOTrainer: the reference has another output head"):
        with_reference(tmp_path / "b", foreign)


def test_stored_sums_of_the_reference_are_refused(tmp_path):
    data = scored.pairs(8).add_column("ref_chosen_logps", [-5.0] * 8).add_column("ref_rejected_logps", [-5.0] * 8)
    with pytest.raises(ValueError, match="the data have the reference's sums"):
        made(tmp_path, data=data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_weight": -0.1}, "kl_weight: must be finite and not negative, got -0.1"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs: the reference's whole distributions"),
        ({"label_smoothing": 0.1}, "label_smoothing: not honoured here"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny.arguments(TDPOConfig, tmp_path, **settings)

"""The density ratio of prompts: its optimum, shares of a table, its limits, and embeddings in any order."""

import pytest
import torch
from torch.testing import assert_close

from align.models.tiny import tiny_model, tiny_tokenizer
from align.scoring.density_ratio import fitted, prompt_embeddings

G = torch.Generator().manual_seed(0)


def test_the_gradient_is_zero_at_the_optimum():
    """Balanced classes of 12 and 28 rows, a penalty on the weights and none on the bias, by autograd."""
    x = torch.randn(40, 5, generator=G)
    label = torch.arange(40) < 12
    x[label] += 0.7
    found = fitted(x, label)
    weight, bias = found.weight.clone().requires_grad_(), found.bias.clone().requires_grad_()
    signed = (x.double() @ weight + bias) * torch.where(label, 1.0, -1.0)
    each = torch.where(label, 40 / 24, 40 / 56).double()
    loss = (each * torch.log1p(torch.exp(-signed))).sum() + (weight * weight).sum() / 2
    for slope in torch.autograd.grad(loss, [weight, bias]):
        assert slope.abs().max() < 1e-6
    assert found.weight.norm() > 0.5


def test_on_a_table_it_is_the_ratio_of_shares():
    """Long one-hot embeddings make the penalty small; 300 desirable and 100 undesirable rows do not tilt it."""
    good, bad = torch.tensor([150, 120, 30]), torch.tensor([20, 30, 50])
    prompts = torch.cat([torch.arange(3).repeat_interleave(n) for n in (good, bad)])
    table = 1e4 * torch.eye(3)
    ratio = fitted(table[prompts], torch.arange(400) < 300)(table, least=0.0, most=1e9)
    assert ratio.tolist() == pytest.approx(((good / 300) / (bad / 100)).tolist(), rel=1e-4)
    # weighed by it, the undesirable rows have the prompts of the desirable ones
    assert (ratio * bad / 100).tolist() == pytest.approx((good / 300).tolist(), rel=1e-4)


@pytest.mark.parametrize("far", [-1e4, 1e4])
def test_it_is_held_between_its_limits_at_any_odds(far):
    found = fitted(torch.eye(2), torch.tensor([True, False]))._replace(weight=torch.tensor([far, 0.0]).double())
    ratio = found(torch.tensor([[1.0, 0.0]]), least=0.5, most=10.0)
    assert ratio.tolist() == [10.0 if far > 0 else 0.5]


@pytest.mark.parametrize("label", [True, False])
def test_one_label_alone_is_refused(label):
    with pytest.raises(ValueError, match="prompt_encoder: rows of both labels are needed"):
        fitted(torch.eye(3), torch.full((3,), label))


def test_embeddings_do_not_depend_on_the_batch():
    backbone = tiny_model(tiny_tokenizer()).eval().base_model
    prompts = [[5, 9, 11, 4], [7, 8], list(range(3, 20))]
    together = prompt_embeddings(backbone, prompts)
    alone = torch.cat([prompt_embeddings(backbone, [ids]) for ids in prompts])
    assert_close(together, alone, rtol=1e-4, atol=1e-5)
    assert together.norm(dim=1).tolist() == pytest.approx([1.0] * 3)

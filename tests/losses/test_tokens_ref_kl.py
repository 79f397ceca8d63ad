"""The KL over the whole vocabulary: its value and gradient, ASFT's limits, and what it keeps in memory."""

import weakref

import pytest
import torch
from jaxtyping import TypeCheckError
from tiny import sparing
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from align.losses.tokens import dft, ref_kl

DOUBLE = torch.float64


def draws(*shape, seed=0, dtype=DOUBLE, scale=1.0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)) * scale


def naive(hidden, ref_hidden, weight):
    logp, ref = (hidden @ weight.T).log_softmax(-1), (ref_hidden @ weight.T).log_softmax(-1)
    return (ref.exp() * (ref - logp)).sum(-1)


@pytest.mark.parametrize("chunk", [1, 3, 7, 128])
@pytest.mark.parametrize(("dtype", "bound"), [(DOUBLE, 1e-12), (torch.float32, 1e-6)])
def test_equals_the_naive_value_and_gradient(chunk, dtype, bound):
    weight, ref = draws(50, 8, dtype=dtype), draws(7, 8, seed=1, dtype=dtype, scale=0.5)
    ours, other = (draws(7, 8, seed=2, dtype=dtype, scale=0.5).requires_grad_() for _ in range(2))
    each = draws(7, seed=3, dtype=dtype)
    value, expected = ref_kl(ours, ref, weight, chunk=chunk), naive(other, ref, weight)
    assert_close(value, expected, rtol=0, atol=bound)
    (value * each).sum().backward()
    (expected * each).sum().backward()
    assert_close(ours.grad, other.grad, rtol=bound, atol=bound)
    assert (value > 0).all()


def test_gradients_are_those_of_the_values():
    weight, ref = draws(9, 4), draws(5, 4, seed=1)
    assert torch.autograd.gradcheck(lambda h: ref_kl(h, ref, weight, chunk=2), draws(5, 4, seed=2).requires_grad_())


def test_is_zero_with_no_gradient_where_policy_and_reference_agree_to_the_bit():
    weight, hidden = draws(50, 8, dtype=torch.float32), draws(7, 8, seed=2, dtype=torch.float32)
    moving = hidden.clone().requires_grad_()
    value = ref_kl(moving, hidden, weight)
    value.sum().backward()
    assert (value == 0).all()
    assert (moving.grad == 0).all()


def test_is_taken_from_the_reference_to_the_policy():
    """By hand: KL((1/2, 1/2) ‖ (1/4, 3/4)) = log(2/√3); the other way round it is 0.1308."""
    weight = torch.eye(2, dtype=DOUBLE)
    policy, ref = torch.tensor([[1.0, 3.0]], dtype=DOUBLE).log(), torch.zeros(1, 2, dtype=DOUBLE)
    assert ref_kl(policy, ref, weight).item() == pytest.approx(0.1438410362)


@pytest.mark.parametrize("size", [1e2, 1e4])
def test_is_finite_with_extreme_logits(size):
    weight = torch.eye(3)
    policy = torch.tensor([[size, 0.0, -size]], requires_grad=True)
    value = ref_kl(policy, torch.tensor([[-size, 0.0, size]]), weight)
    value.sum().backward()
    assert value.item() == pytest.approx(2 * size, rel=1e-5)
    assert policy.grad[0].tolist() == pytest.approx([1.0, 0.0, -1.0], abs=1e-5)


def test_under_autocast_it_is_the_value_in_single_precision_within_the_rounding_of_the_product():
    weight = draws(50, 16, dtype=torch.float32)
    policy, ref = (draws(9, 16, seed=s, dtype=torch.float32, scale=0.3) for s in (1, 2))
    with torch.autocast("cpu", torch.bfloat16):
        half = ref_kl(policy, ref, weight)
    assert half.dtype == torch.float32
    assert_close(half, ref_kl(policy, ref, weight), rtol=0.05, atol=0.02)


def test_a_weight_or_reference_that_learns_is_refused():
    hidden, weight = draws(2, 4), draws(5, 4)
    for wrong in ((hidden, hidden.clone().requires_grad_(), weight), (hidden, hidden, weight.clone().requires_grad_())):
        with pytest.raises(ValueError, match="must not require a gradient"):
            ref_kl(*wrong)
    with pytest.raises(TypeCheckError):
        ref_kl(hidden, draws(3, 4), weight)


# --- ASFT ----------------------------------------------------------------------------------------


def asft(logits, ref_logits, lam):
    """DFT plus λ KL on one token, the head being the identity."""
    logp = logits.log_softmax(-1)[2].reshape(1, 1)
    anchor = ref_kl(logits[None], ref_logits[None], torch.eye(len(logits), dtype=logits.dtype))
    return dft(logp, torch.ones(1, 1, dtype=torch.bool)).sum() + lam * anchor.sum()


@pytest.mark.parametrize("lam", [0.0, 0.05, 3.0])
def test_the_gradient_of_asft_is_the_closed_form(lam):
    logits, ref = draws(7).requires_grad_(), draws(7, seed=1)
    asft(logits, ref, lam).backward()
    p, p_ref = logits.detach().softmax(-1), ref.softmax(-1)
    e = torch.nn.functional.one_hot(torch.tensor(2), 7)
    assert_close(logits.grad, -p[2] * (e - p) + lam * (p - p_ref), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lam", sparing([0.0, 1e6], 1e6))
def test_asft_without_an_anchor_is_dft_and_with_all_of_it_the_reference(lam):
    ref = draws(7, seed=1)
    expected = torch.nn.functional.one_hot(torch.tensor(2), 7).double() if lam == 0 else ref.softmax(-1)
    logits = draws(7).requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=1.0 / (1 + lam))
    for _ in range(6000 if lam == 0 else 300):
        optimizer.zero_grad()
        asft(logits, ref, lam).backward()
        optimizer.step()
    assert_close(logits.detach().softmax(-1), expected, rtol=0, atol=1e-3)


# --- memory --------------------------------------------------------------------------------------

VOCABULARY, WIDTH = 4000, 16


class Allocations(TorchDispatchMode):
    """The most elements of float tensors alive at once that were made under it, views aside."""

    def __init__(self):
        super().__init__()
        self.alive, self.most, self.largest = {}, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(each, torch.Tensor) and each.is_floating_point():
                storage = each.untyped_storage()
                key = storage._cdata
                if key not in self.alive:
                    self.alive[key] = storage.nbytes() // each.element_size()
                    weakref.finalize(storage, self.alive.pop, key, None)
                self.largest = max(self.largest, self.alive[key])
        self.most = max(self.most, sum(self.alive.values()))
        return made


def saved_bytes(positions, chunk):
    saved = []
    hidden = draws(positions, WIDTH, dtype=torch.float32).requires_grad_()
    ref, weight = draws(positions, WIDTH, seed=1, dtype=torch.float32), draws(VOCABULARY, WIDTH, dtype=torch.float32)
    given = {each.untyped_storage().data_ptr() for each in (hidden, ref, weight)}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in given:
            saved.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = ref_kl(hidden, ref, weight, chunk=chunk)
    value.sum().backward()
    return sum(saved)


def test_what_is_kept_for_backward_does_not_grow_with_the_vocabulary():
    """One vector of the model's width per position, where logits would be 4000 numbers."""
    assert [saved_bytes(n, chunk=8) for n in (16, 64, 256)] == [4 * WIDTH * n for n in (16, 64, 256)]


@pytest.mark.parametrize("positions", [64, 512])
def test_logits_exist_for_one_chunk_at_a_time_forward_and_backward(positions):
    chunk = 16
    hidden = draws(positions, WIDTH, dtype=torch.float32).requires_grad_()
    ref, weight = draws(positions, WIDTH, seed=1, dtype=torch.float32), draws(VOCABULARY, WIDTH, dtype=torch.float32)
    with Allocations() as seen:
        ref_kl(hidden, ref, weight, chunk=chunk).sum().backward()
    assert seen.largest == chunk * VOCABULARY
    assert seen.most < 8 * chunk * VOCABULARY + 8 * positions * WIDTH

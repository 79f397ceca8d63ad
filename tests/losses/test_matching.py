"""f-DPG on laws of four answers: pseudo-rewards, gradients against differences, Z, and where it comes to rest."""

import math

import pytest
import torch
from torch.testing import assert_close

from align.losses.matching import MATCHED, Normalisers, fdpg_loss, pseudo_reward

P, Q = (torch.tensor(law, dtype=torch.float64) for law in ((0.4, 0.3, 0.2, 0.1), (0.1, 0.2, 0.3, 0.4)))
LOGITS = (0.3, -0.2, 0.5, -0.7)
F = {
    "forward_kl": lambda t: -t.log(),
    "reverse_kl": lambda t: t * t.log(),
    "jensen_shannon": lambda t: t * (2 * t / (t + 1)).log() + (2 / (t + 1)).log(),
    "total_variation": lambda t: (t - 1).abs() / 2,
}


def expected(logits, name, baseline, law=Q):
    """Each answer's loss, weighted by the law that samples it."""
    policy = logits.log_softmax(0)
    return (
        law * fdpg_loss(policy, law.log(), P.log(), torch.full((4,), baseline, dtype=torch.float64), name=name)
    ).sum()


@pytest.mark.parametrize("baseline", [0.0, 1.7])
@pytest.mark.parametrize("name", MATCHED)
def test_the_gradient_is_that_of_the_divergence_whatever_samples_and_whatever_constant(name, baseline):
    logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
    (ours,) = torch.autograd.grad(expected(logits, name, baseline), logits)
    (wanted,) = torch.autograd.grad((P * F[name](logits.softmax(0) / P)).sum(), logits)
    assert_close(ours, wanted, rtol=0, atol=1e-12)
    assert float(wanted.abs().max()) > 0.01


def test_pseudo_rewards_by_hand():
    r = torch.tensor([0.5, -0.5], dtype=torch.float64)
    wanted = {
        "forward_kl": [math.exp(-0.5) - 1, math.exp(0.5) - 1],
        "reverse_kl": [-0.5, 0.5],
        "jensen_shannon": [math.log1p(math.exp(-0.5)) - math.log(2), math.log1p(math.exp(0.5)) - math.log(2)],
        "total_variation": [-0.5, 0.5],
    }
    for name, values in wanted.items():
        assert pseudo_reward(r, name=name).tolist() == pytest.approx(values)
    assert pseudo_reward(torch.zeros(1), name="total_variation").item() == 0.0


def test_gradient_steps_come_to_rest_at_the_target():
    """The three that are smooth; at the target total variation has a kink."""
    for name, tolerance in (
        ("forward_kl", 1e-6),
        ("reverse_kl", 1e-6),
        ("jensen_shannon", 1e-6),
        ("total_variation", 0.02),
    ):
        logits = torch.tensor(LOGITS, dtype=torch.float64, requires_grad=True)
        for step in range(600):
            rate = 2.0 if name != "total_variation" else 4.0 / (1 + step) ** 0.5
            (gradient,) = torch.autograd.grad(expected(logits, name, 0.3), logits)
            logits = (logits - rate * gradient).detach().requires_grad_()
        assert_close(logits.softmax(0).detach(), P, rtol=0, atol=tolerance)


def test_a_wrong_z_is_felt_by_all_but_reverse_kl():
    policy, score = Q.log(), P.log() + 0.2
    for name in MATCHED:
        of = [pseudo_reward(policy - score + shift, name=name) for shift in (0.0, 0.7)]
        moved = float((of[0] - of[0].mean() - of[1] + of[1].mean()).abs().max())
        assert moved < 1e-12 if name == "reverse_kl" else moved > 0.05


def test_z_is_the_mean_over_all_samples_of_a_prompt():
    known = Normalisers()
    assert known.of(["a"]).tolist() == [0.0]
    known.add(["a", "a", "b"], torch.tensor([0.0, 2.0, -1e4]))
    known.add(["a"], torch.tensor([1.0]))
    want = math.log((1 + math.exp(2) + math.exp(1)) / 3)
    assert known.of(["b", "a"]).tolist() == pytest.approx([-1e4, want])
    known.add(["b"], torch.tensor([1e4]))
    assert known.of(["b"]).tolist() == pytest.approx([1e4 - math.log(2)])
    exact = Normalisers()  # in expectation: each answer as often as the law has it
    rows = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
    exact.add(["x"] * 10, (P.log() + 0.7 - Q.log())[rows])
    assert exact.of(["x"]).item() == pytest.approx(0.7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", MATCHED)
def test_extremes_are_finite(name, dtype):
    ends = torch.tensor([-1e4, -100.0, 0.0], dtype=dtype)
    policy, sampled, target = (
        x.flatten() for x in torch.meshgrid(ends, ends, torch.cat([ends, -ends[:1]]), indexing="ij")
    )
    policy = policy.clone().requires_grad_()
    loss = fdpg_loss(policy, sampled, target, torch.zeros_like(target), name=name)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert policy.grad.isfinite().all()
    low = (policy.detach() == sampled) & (policy.detach() < target - 1)
    assert (policy.grad[low] < 0).all()  # too little of the target: upwards

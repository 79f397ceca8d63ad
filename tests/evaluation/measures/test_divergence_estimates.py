"""Divergences of two known distributions, from samples of each: the exact value lies in the interval."""

import numpy as np
import pytest
import torch

from eval.measures.divergence import (
    alpha_divergence,
    forward_kl,
    jensen_shannon,
    per_token,
    reverse_kl,
    sampled_kl,
)

P = np.array([0.5, 0.2, 0.2, 0.1])
Q = np.array([0.1, 0.2, 0.3, 0.4])
N = 20_000
RNG = np.random.default_rng(0)
FROM_P = np.log(P / Q)[RNG.choice(4, size=N, p=P)]
FROM_Q = np.log(P / Q)[RNG.choice(4, size=N, p=Q)]


def f_divergence(f):
    return float((Q * f(P / Q)).sum())


EXACT = {
    "reverse": (lambda: reverse_kl(FROM_P, FROM_Q), float((P * np.log(P / Q)).sum())),
    "forward": (lambda: forward_kl(FROM_P, FROM_Q), float((Q * np.log(Q / P)).sum())),
    "Jensen-Shannon": (
        lambda: jensen_shannon(FROM_P, FROM_Q),
        f_divergence(lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2)) / 2,
    ),
    **{
        f"alpha {a}": (
            lambda a=a: alpha_divergence(FROM_P, FROM_Q, alpha=a),
            f_divergence(lambda u, a=a: (u ** (1 - a) - (1 - a) * u - a) / (a * (a - 1))),
        )
        for a in (0.1, 0.3, 0.5, 0.7)
    },
}


@pytest.mark.parametrize("name", EXACT)
def test_the_exact_value_is_in_the_interval_and_the_interval_is_narrow(name):
    estimate, exact = EXACT[name][0](), EXACT[name][1]
    assert estimate.low - 1e-3 <= exact <= estimate.high + 1e-3
    assert estimate.high - estimate.low < 0.2 * exact + 0.01
    assert estimate.n == N


def test_near_policies_err_little_and_no_divergence_is_negative():
    near = np.array([0.26, 0.25, 0.25, 0.24])
    at = np.log(near / 0.25)
    exact = float((near * at).sum())
    errors = []
    for _ in range(200):
        own, theirs = at[RNG.choice(4, size=20, p=near)], at[RNG.choice(4, size=20)]
        found = reverse_kl(own, theirs), forward_kl(own, theirs), jensen_shannon(own, theirs), sampled(own)
        assert all(0 <= e.low <= e.value <= e.high for e in found)
        errors.append([found[0].value - exact, own.mean() - exact])
    ours, plain = np.sqrt((np.array(errors) ** 2).mean(axis=0))
    assert ours < 0.2 * plain


def sampled(r):
    return sampled_kl([torch.tensor([x]) for x in r], [torch.zeros(1)] * len(r))


def test_terms_of_the_kl_by_hand():
    """2 σ(r) r - 2 tanh(r / 2) at r = -1, 0, 1."""
    for r, term in ((-1.0, 0.386351), (0.0, 0.0), (1.0, 0.537883)):
        assert reverse_kl(np.full(3, r), np.full(3, r)).value == pytest.approx(term, abs=1e-6)
        assert forward_kl(np.full(3, -r), np.full(3, -r)).value == pytest.approx(term, abs=1e-6)


@pytest.mark.parametrize("r", [-1e4, 1e4])
def test_answers_that_lie_worlds_apart_give_bounded_terms(r):
    far = np.full(10, r)
    assert 0 <= abs(jensen_shannon(far, -far).value) < 1e5
    assert np.isfinite(alpha_divergence(far, far, alpha=0.5).value)
    separate = jensen_shannon(np.full(10, 1e4), np.full(10, -1e4))  # no answer in common
    assert separate.value == pytest.approx(np.log(2))
    assert alpha_divergence(np.full(10, 1e4), np.full(10, -1e4), alpha=0.5).value == pytest.approx(4.0)


def test_equal_distributions_have_no_divergence():
    same = np.zeros(5)
    assert jensen_shannon(same, same).value == 0
    assert alpha_divergence(same, same, alpha=0.3).value == pytest.approx(0, abs=1e-12)


def test_alpha_outside_of_its_range_is_refused():
    for alpha in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
            alpha_divergence(FROM_P, FROM_Q, alpha=alpha)


def test_the_curve_over_positions_adds_up_to_the_whole():
    policy = [torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -1.0, -3.0])]
    ref = [torch.tensor([-1.5, -2.0, -1.0]), torch.tensor([-2.0, -3.0]), torch.tensor([-2.0, -1.5, -1.0])]
    curve = per_token(policy, ref)
    assert [round(e.value * e.n, 5) for e in curve] == [1.5, 2.5, 0.0]
    assert [e.n for e in curve] == [3, 3, 2]
    assert len(per_token(policy[:2], ref[:2])) == 2  # one answer alone has no interval

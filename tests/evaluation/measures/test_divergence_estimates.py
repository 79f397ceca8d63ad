"""Divergences of two known distributions, from samples of each: the exact value lies in the interval."""

import numpy as np
import pytest
import torch

from eval.measures.divergence import (
    alpha_divergence,
    forward_kl,
    jensen_shannon,
    low_variance_kl,
    per_token,
    reverse_kl,
)

P = np.array([0.5, 0.2, 0.2, 0.1])
Q = np.array([0.1, 0.2, 0.3, 0.4])
N = 20_000
RNG = np.random.default_rng(0)
FROM_P = np.log(P / Q)[RNG.choice(4, size=N, p=P)]
FROM_Q = np.log(P / Q)[RNG.choice(4, size=N, p=Q)]


def rng():
    return np.random.default_rng(1)


def f_divergence(f):
    return float((Q * f(P / Q)).sum())


EXACT = {
    "reverse": (lambda: reverse_kl(FROM_P, rng=rng()), float((P * np.log(P / Q)).sum())),
    "forward": (lambda: forward_kl(FROM_Q, rng=rng()), float((Q * np.log(Q / P)).sum())),
    "reverse, low variance": (lambda: low_variance_kl(FROM_P, rng=rng()), float((P * np.log(P / Q)).sum())),
    "Jensen-Shannon": (
        lambda: jensen_shannon(FROM_P, FROM_Q, rng=rng()),
        f_divergence(lambda u: u * np.log(u) - (u + 1) * np.log((u + 1) / 2)) / 2,
    ),
    **{
        f"alpha {a}": (
            lambda a=a: alpha_divergence(FROM_P, FROM_Q, alpha=a, rng=rng()),
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


def test_the_low_variance_estimator_has_less_variance_nearby_and_is_never_negative():
    close = np.log(np.array([0.26, 0.25, 0.25, 0.24]) / 0.25)[RNG.choice(4, size=N, p=[0.26, 0.25, 0.25, 0.24])]
    terms = np.expm1(-close) + close
    assert (terms >= 0).all()
    assert terms.std() < 0.1 * close.std()
    assert low_variance_kl(close, rng=rng()).value == pytest.approx(terms.mean())


@pytest.mark.parametrize("r", [-1e4, 1e4])
def test_answers_that_lie_worlds_apart_give_bounded_terms(r):
    far = np.full(10, r)
    assert 0 <= abs(jensen_shannon(far, -far, rng=rng()).value) < 1e5
    assert np.isfinite(alpha_divergence(far, far, alpha=0.5, rng=rng()).value)
    separate = jensen_shannon(np.full(10, 1e4), np.full(10, -1e4), rng=rng())  # no answer in common
    assert separate.value == pytest.approx(np.log(2))
    assert alpha_divergence(np.full(10, 1e4), np.full(10, -1e4), alpha=0.5, rng=rng()).value == pytest.approx(4.0)


def test_equal_distributions_have_no_divergence():
    same = np.zeros(5)
    assert jensen_shannon(same, same, rng=rng()).value == 0
    assert alpha_divergence(same, same, alpha=0.3, rng=rng()).value == pytest.approx(0, abs=1e-12)


def test_alpha_outside_of_its_range_is_refused():
    for alpha in (0.0, 1.0, -1.0):
        with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
            alpha_divergence(FROM_P, FROM_Q, alpha=alpha, rng=rng())


def test_the_curve_over_positions_adds_up_to_the_whole():
    policy = [torch.tensor([-1.0, -2.0, -0.5]), torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -1.0, -3.0])]
    ref = [torch.tensor([-1.5, -2.0, -1.0]), torch.tensor([-2.0, -3.0]), torch.tensor([-2.0, -1.5, -1.0])]
    curve = per_token(policy, ref, rng=rng())
    assert [round(e.value * e.n, 5) for e in curve] == [1.5, 2.5, -1.5]
    assert [e.n for e in curve] == [3, 3, 2]
    assert len(per_token(policy[:2], ref[:2], rng=rng())) == 2  # one answer alone has no interval

"""The laws of answers that selectors keep: the best of k, and rejection sampling."""

import itertools
import math

import numpy as np
import pytest
from tiny import sparing

from align.data.commands.pairs import build
from align.data.rows.kinds import KINDS
from align.errors import DataError

LOGITS = np.array([0.0, 1.0, 0.3, 0.5, -0.5])
POLICY, REWARD = np.exp(LOGITS) / np.exp(LOGITS).sum(), np.array([1.0, 0.2, 0.6, -0.5, 0.0])


def best_of(k):
    """The law of what rejection sampling learns from, over all draws of k answers to the first prompt."""
    policy = POLICY
    draws = list(itertools.product(range(5), repeat=k))
    rows = [{"prompt": "q", "completions": list(map(str, d)), "rewards": [float(REWARD[i]) for i in d]} for d in draws]
    kept = list(KINDS["chosen"](build(rows, "best").pairs))
    assert len(kept) == len(draws)
    return np.bincount([int(row["completion"]) for row in kept], [policy[list(d)].prod() for d in draws], 5), policy


@pytest.mark.parametrize(("k", "reward", "kl"), [(2, 0.472985, 0.173512), (4, 0.689492, 0.586968)])
def test_best_of_k_is_less_far_from_the_policy_than_its_bound(k, reward, kl):
    law, policy = best_of(k)
    assert law @ REWARD == pytest.approx(reward, abs=1e-6)
    assert law @ np.log(law / policy) == pytest.approx(kl, abs=1e-6)
    assert kl < np.log(k) - (k - 1) / k


@pytest.mark.slow
def test_best_of_sixteen_over_all_multisets():
    """The order of answers does not matter where no two rewards are equal."""
    policy, rewards = POLICY, REWARD
    draws = list(itertools.combinations_with_replacement(range(5), 16))
    counts = np.array([[d.count(i) for i in range(5)] for d in draws])
    weights = np.exp(math.lgamma(17) - np.vectorize(math.lgamma)(counts + 1).sum(1) + counts @ np.log(policy))
    assert weights.sum() == pytest.approx(1)
    rows = [{"prompt": "q", "completions": list(map(str, d)), "rewards": [float(rewards[i]) for i in d]} for d in draws]
    kept = list(KINDS["chosen"](build(rows, "best").pairs))
    law = np.bincount([int(row["completion"]) for row in kept], weights, 5)
    assert law @ rewards == pytest.approx(0.960998, abs=1e-6)
    assert law @ np.log(law / policy) == pytest.approx(1.636127, abs=1e-6)


@pytest.mark.parametrize("n", sparing([1000, 3000], 1000))
def test_accepted_answers_have_the_law_of_the_tilted_policy(n):
    """Acceptance is drawn: with n prompts for each answer, within four standard errors. A maximum too small is refused."""
    policy, rewards = POLICY, REWARD
    rows = [
        {"prompt": f"q {i} {k}", "completions": [str(i)], "rewards": [float(rewards[i])]}
        for i in range(5)
        for k in range(n)
    ]
    kept = list(KINDS["chosen"](build(rows, "accepted", beta=0.5, most_reward=1.0).pairs))
    share = np.bincount([int(row["completion"]) for row in kept], minlength=5) / n
    expected = np.exp((rewards - 1.0) / 0.5)
    assert (abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)).all()
    assert 1 / (policy @ share) == pytest.approx(3.157298, abs=0.1)
    law = policy * share / (policy @ share)
    assert law @ rewards == pytest.approx(0.617646, abs=0.02)
    assert law @ np.log(law / policy) == pytest.approx(0.385009, abs=0.02)
    with pytest.raises(DataError, match=r"accepted: a reward of 1 is greater than most_reward=0\.26; raise it"):
        build(rows, "accepted", beta=0.5, most_reward=0.26)
    with pytest.raises(DataError, match="accepted: beta must be positive, got 0"):
        build(rows[:1], "accepted", beta=0)


def test_best_of_four_by_answer():
    assert best_of(4)[0] == pytest.approx((0.444158, 0.203728, 0.343121, 0.002569, 0.006425), abs=1e-6)

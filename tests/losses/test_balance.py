"""Trajectory balance reaches R^β/Z on nine strings, for all preferences at once too, and is CoPG where samples are uniform."""

import pytest
import torch

from align.configs.online_preference import PRESETS
from align.losses import copg_group_loss, copg_loss, trajectory_balance_loss
from align.losses.objectives import PairBatch
from align.losses.online import online_pair_loss
from align.losses.preference import Pair

TOKENS = torch.tensor([[2.0, 1.0, 0.5], [0.5, 3.0, 1.0], [1.0, 0.25, 4.0]], dtype=torch.float64)
"""R of the nine strings of two tokens."""
ARMS = torch.tensor([[1, 0], [0.75, 0.42], [0.45, 0.45], [0.42, 0.75], [0, 1], [0.1, 0.1]], dtype=torch.float64)
UNIFORM, SKEWED = torch.full((9,), 1 / 9, dtype=torch.float64), torch.arange(1.0, 10.0, dtype=torch.float64) / 45


def minimised(parameters, loss, steps=200):
    optimizer = torch.optim.LBFGS(parameters, lr=1, max_iter=20, tolerance_grad=1e-14, tolerance_change=0, line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    for _ in range(steps // 20):
        optimizer.step(closure)


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize("law", [UNIFORM, SKEWED])
def test_strings_are_sampled_in_proportion_whatever_law_taught_it(beta, law):
    first, second = (torch.zeros(shape, dtype=torch.float64, requires_grad=True) for shape in ((3, 1), (3, 3)))

    def logps():
        return (first.log_softmax(0) + second.log_softmax(1)).reshape(1, 9)

    minimised([first, second], lambda: trajectory_balance_loss(logps(), beta * TOKENS.log().reshape(1, 9), law[None]).sum())  # fmt: skip
    want = TOKENS**beta / (TOKENS**beta).sum()
    torch.testing.assert_close(logps().exp().detach().reshape(3, 3), want, atol=1e-6, rtol=0)


def test_one_policy_learns_all_preferences_at_once():
    shares = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64)
    scores = 8 * (ARMS @ torch.stack([shares, 1 - shares]) + 1e-12).log().T
    logits = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    # arms of reward 1e-12 have probabilities of 1e-96, which no float64 tells from 0: compare what is reached
    minimised([logits], lambda: trajectory_balance_loss(logits.log_softmax(1), scores).sum())
    reached = (logits.softmax(1) @ ARMS).detach()
    expected = [
        [0.039473864, 0.97595615],
        [0.14022912, 0.90948474],
        [0.56086954, 0.56086954],
        [0.97595615, 0.039473864],
    ]
    torch.testing.assert_close(reached, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_the_method_on_pairs_reaches_the_tilted_reference_for_all_weights_at_once():
    """All pairs of six answers under three weights through the loss of `trajectory_balance`; π_ref e^(R/β)/Z each."""
    generator, beta = torch.Generator().manual_seed(0), 0.3
    shares = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    rewards = (ARMS @ torch.stack([shares, 1 - shares])).T
    ref = torch.randn(6, dtype=torch.float64, generator=generator).log_softmax(0).expand(3, 6)
    logits = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    i, j = torch.triu_indices(6, 6, 1)

    def pair(table):
        return Pair(table[:, i].flatten(), table[:, j].flatten())

    def loss():
        sides = pair(rewards)
        columns = {"chosen_reward": sides.chosen, "rejected_reward": sides.rejected}
        ones = torch.ones_like(sides.chosen)
        batch = PairBatch(pair(logits.log_softmax(1)), pair(ref), Pair(ones, ones), columns)
        made = online_pair_loss(batch, PRESETS["trajectory_balance"].settings["objective"], 0.5 * ones, beta=beta)
        quarter = copg_loss(made.rewards, sides) / 4
        torch.testing.assert_close(made.losses, quarter)
        return made.losses.sum()

    minimised([logits], loss)
    want = (ref + rewards / beta).log_softmax(1).exp()
    torch.testing.assert_close(logits.softmax(1).detach(), want, atol=1e-6, rtol=0)


def test_four_samples_by_hand():
    logps = torch.full((1, 4), 1 / 9, dtype=torch.float64).log()
    scores = TOKENS[[0, 1, 2, 0], [0, 1, 2, 1]].log()[None]
    assert float(trajectory_balance_loss(logps, scores)) == pytest.approx(0.27105187, abs=1e-8)


def test_with_uniform_samples_it_is_copg_but_for_a_factor():
    generator = torch.Generator().manual_seed(0)
    rewards, scores = (torch.randn(5, 4, dtype=torch.float64, generator=generator) for _ in range(2))
    torch.testing.assert_close(trajectory_balance_loss(rewards, scores), copg_group_loss(rewards, scores) * 3 / 16)
    pair = copg_loss(Pair(rewards[:, 0], rewards[:, 1]), Pair(scores[:, 0], scores[:, 1]))
    torch.testing.assert_close(trajectory_balance_loss(rewards[:, :2], scores[:, :2]), pair / 4)
    skewed = torch.tensor([[0.7, 0.1, 0.1, 0.1]], dtype=torch.float64).expand(5, 4)
    even = torch.full((5, 4), 0.25, dtype=torch.float64)
    torch.testing.assert_close(trajectory_balance_loss(rewards, scores, even), trajectory_balance_loss(rewards, scores))
    ratio = trajectory_balance_loss(rewards, scores, skewed) / copg_group_loss(rewards, scores)
    assert float(ratio.std()) > 0.01  # no one factor
    with pytest.raises(ValueError, match="at least two samples"):
        trajectory_balance_loss(rewards[:, :1], scores[:, :1])

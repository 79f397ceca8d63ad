"""Trajectory balance reaches R^β/Z on nine strings, for all preferences at once, and is CoPG for uniform samples; the target
that keeps the order of several rewards is that of four points by hand.
"""

from itertools import combinations

import pytest
import torch

from align.configs.online_preference import PRESETS
from align.losses import copg_group_loss, copg_loss, order_preserving_loss, trajectory_balance_loss
from align.losses.objectives import PairBatch
from align.losses.online import online_pair_loss
from align.losses.preference import Pair
from align.trainers.online.verdicts import of_dominance
from align.weighting.ranks import undominated

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


POINTS = torch.tensor([[1.0, 0.0], [0.6, 0.6], [0.0, 1.0], [0.5, 0.5]], dtype=torch.float64)


def ordered(rewards, points):
    """The loss of one prompt's answers with these rewards in several objectives."""
    everybody = torch.ones(1, len(points), dtype=torch.bool)
    return order_preserving_loss(rewards[None], undominated(points[None], everybody))


def test_the_order_of_three_answers_by_hand():
    points = torch.tensor([[1.0, 0.0], [0.5, -0.1], [0.0, 1.0]], dtype=torch.float64)
    rewards = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64, requires_grad=True)
    loss = ordered(rewards, points)
    loss.sum().backward()
    assert float(loss) == pytest.approx(1.4076059644443804, abs=1e-12)
    assert rewards.grad.tolist() == pytest.approx([0.165241, 0.244728, -0.409969], abs=1e-6)
    with pytest.raises(ValueError, match="at least two answers"):
        ordered(rewards[:1], points[:1])


def test_the_target_is_the_front_of_those_at_hand_and_knows_no_scale():
    assert undominated(POINTS[None], torch.ones(1, 4, dtype=torch.bool)).tolist() == [
        pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    ]
    absent = torch.tensor([[True, False, False, True]])
    assert undominated(POINTS[None], absent).tolist() == [[0.5, 0.0, 0.0, 0.5]]
    assert undominated(POINTS[None], absent & False).sum() == 0
    rewards = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    batches = [list(batch) for size in (2, 3) for batch in combinations(range(4), size)]
    sum(ordered(rewards[batch], POINTS[batch]) for batch in batches).sum().backward()
    assert (rewards.grad / len(batches)).tolist() == pytest.approx(
        [-0.016667, -0.083333, -0.016667, 0.116667], abs=1e-6
    )
    bent = torch.stack([POINTS[:, 0].exp(), 5 * POINTS[:, 1] ** 3], dim=1)
    assert all(float(ordered(rewards[b], POINTS[b]) - ordered(rewards[b], bent[b])) == 0 for b in batches)


def test_the_method_on_pairs_is_that_target_and_rests_where_decay_holds_it():
    """All pairs of four answers, decay 0.01; an answer that dominates another ends above others that nothing dominates."""
    i, j = torch.triu_indices(4, 4, 1)
    preset = PRESETS["order_preserving"].settings
    assert preset["preferred_by"] == "dominance"
    verdicts = of_dominance(torch.stack([POINTS[i], POINTS[j]], dim=1).flatten(0, 1))
    logps, zeros, ones = torch.zeros(4, dtype=torch.float64, requires_grad=True), torch.zeros(6).double(), torch.ones(6)

    def loss():
        columns = {"chosen_reward": zeros, "rejected_reward": zeros}
        batch = PairBatch(Pair(logps[i], logps[j]), Pair(zeros, zeros), Pair(ones, ones), columns)
        made = online_pair_loss(batch, preset["objective"], verdicts.preference, beta=1.0, label_smoothing=0.0)
        target = torch.stack([verdicts.preference, 1 - verdicts.preference], dim=1)
        torch.testing.assert_close(made.losses, order_preserving_loss(torch.stack([logps[i], logps[j]], dim=1), target))
        return made.losses.mean() + 0.005 * (logps**2).sum()

    minimised([logps], loss)
    assert logps.tolist() == pytest.approx([0.0, 0.493537, 0.0, -0.493537], abs=1e-5)

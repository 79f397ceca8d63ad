"""Win rates: both orders, ties, bias of position, length baseline, length control in a simulated world."""

import numpy as np
import pytest
import torch
from judged import wilson_estimate
from numpy.testing import assert_allclose, assert_array_equal

from align.judges.protocol import both_orders
from eval.statistics import length_control
from eval.statistics.length_control import instruction_difficulty, length_controlled_win_rate
from eval.statistics.win_rate import longer_wins, mean_preferences, position_bias, win_rate


def rng(seed=0):
    return np.random.default_rng(seed)


def two_orders(shown_first, shown_second):
    """Judgements on two answers: how often the first of them wins, shown first and shown second."""
    orders = np.full((len(shown_first), 2, 2), np.nan)
    orders[:, 0, 1] = shown_first
    orders[:, 1, 0] = 1 - np.array(shown_second)
    return orders


def test_both_orders_by_hand():
    """Wins both, wins only when shown first (a tie), a tie and a loss (a quarter), probabilities."""
    got = both_orders(two_orders([1, 1, 0.5, 0.8], [1, 0, 0, 0.4]))
    assert_allclose(got[:, 0, 1], [1, 0.5, 0.25, 0.6])
    assert_allclose(got + got.transpose(0, 2, 1), 1)


def test_preferences_of_many_models_have_no_side():
    orders = rng(1).random((5, 4, 4))
    orders[:, range(4), range(4)] = np.nan
    got = both_orders(orders)
    assert_allclose(got + got.transpose(0, 2, 1), 1)
    assert_array_equal(got[:, range(4), range(4)], 0.5)
    assert got[3, 1, 2] == pytest.approx((orders[3, 1, 2] + 1 - orders[3, 2, 1]) / 2)


def test_a_missing_order_leaves_no_preference_for_either_side():
    orders = two_orders([1.0, 1.0], [1.0, np.nan])
    got = both_orders(orders)
    assert np.isnan(got[1, 0, 1])
    assert np.isnan(got[1, 1, 0])
    assert got[0, 0, 1] == 1


@pytest.mark.parametrize("bad", [-0.1, 1.5])
def test_judgements_are_probabilities(bad):
    with pytest.raises(ValueError, match=r"orders: every judgement must be a probability"):
        both_orders(two_orders([bad, 1], [1, 1]))
    with pytest.raises(ValueError, match=r"wins must be probabilities in \[0, 1\]"):
        win_rate(np.array([bad, 0.5]))


def test_win_rate_by_hand():
    """0.9 0.6 0.5 0.2 and a failure: mean 0.55, two wins, one tie, one loss."""
    got = win_rate(np.array([0.9, 0.6, np.nan, 0.5, 0.2]))
    assert got.win_rate.value == pytest.approx(0.55)
    assert got.discrete_win_rate.value == pytest.approx(2.5 / 4)
    assert got.standard_error == pytest.approx(np.std([0.9, 0.6, 0.5, 0.2], ddof=1) / 2)
    assert (got.wins, got.ties, got.losses, got.failed) == (2, 1, 1, 1)
    assert got.win_rate.n == 4


def test_the_standard_error_of_clusters_is_that_of_their_means():
    """Clusters of one size: the standard error of the mean of their means."""
    wins = rng(2).random(60)
    got = win_rate(wins, clusters=np.repeat(np.arange(20), 3))
    assert got.standard_error == pytest.approx(wins.reshape(20, 3).mean(axis=1).std(ddof=1) / np.sqrt(20))
    assert got.win_rate.n == 20


def test_failed_games_take_their_cluster_labels_with_them():
    wins = np.array([1.0, np.nan, 0.0, 1.0, 0.0])
    got = win_rate(wins, clusters=np.array([0, 0, 1, 1, 2]))
    assert got.win_rate.n == 3


def test_all_wins_leave_the_doubt_that_wilson_leaves():
    got = win_rate(np.ones(20))
    assert got.win_rate == got.discrete_win_rate == wilson_estimate(20, 20)
    assert win_rate(np.ones(20), clusters=np.arange(20) // 2).win_rate.n == 10


def test_a_simulated_judge_is_covered():
    """400 data sets of 80 prompts from a Bradley-Terry world with 60% wins; the judge likes the first position."""
    source, hits = rng(3), 0
    for _ in range(400):
        quality = source.normal(size=80)
        first, second = (1 / (1 + np.exp(-(quality + lean + 0.5))) for lean in (0.4, -0.4))
        orders = two_orders((source.random(80) < first) * 1.0, (source.random(80) < second) * 1.0)
        got = win_rate(both_orders(orders)[:, 0, 1])
        hits += got.win_rate.low <= TRUE_RATE <= got.win_rate.high
    assert 0.92 <= hits / 400 <= 0.98


def _true_rate():
    quality = np.linspace(-8, 8, 20_001)
    law = np.exp(-(quality**2) / 2)
    rates = sum(1 / (1 + np.exp(-(quality + lean + 0.5))) for lean in (0.4, -0.4)) / 2
    return float((law * rates).sum() / law.sum())


TRUE_RATE = _true_rate()


def test_position_bias_by_hand():
    """Win-win, win-loss (flips), loss-win (flips), tie-win (flips); first wins: 1/2, 1, 0, 1/4."""
    got = position_bias(two_orders([1, 1, 0, 0.5], [1, 0, 1, 1]))
    assert got.flips.value == 0.75
    assert got.first_preference.value == pytest.approx((0.5 + 1 + 0 + 0.25) / 4)


def test_a_judge_who_always_takes_the_first_is_found_out():
    got = position_bias(two_orders(np.ones(10), np.zeros(10)))
    assert got.flips.value == got.first_preference.value == 1
    assert win_rate(both_orders(two_orders(np.ones(10), np.zeros(10)))[:, 0, 1]).ties == 10


def test_position_bias_counts_prompts_not_pairs_and_leaves_out_what_failed():
    orders = rng(4).random((6, 3, 3))
    orders[:, range(3), range(3)] = np.nan
    orders[2] = np.nan
    orders[3, 1, 0] = orders[4, 0, 2] = np.nan
    got = position_bias(orders)
    assert got.flips.n == got.first_preference.n == 5
    pairs = [(p, i, j) for p in range(6) for i in range(3) for j in range(i + 1, 3)]
    both = [(orders[p, i, j], orders[p, j, i]) for p, i, j in pairs]
    judged = [(a, b) for a, b in both if not np.isnan(a + b)]
    assert len(judged) == 13
    assert got.first_preference.value == pytest.approx(np.mean([(a + b) / 2 for a, b in judged]))
    assert got.flips.value == pytest.approx(np.mean([(a > 0.5) == (b > 0.5) for a, b in judged]))


def test_mean_preferences_are_over_the_judged_prompts():
    preferences = np.full((3, 2, 2), 0.5)
    preferences[:, 0, 1], preferences[:, 1, 0] = [1, 0.5, np.nan], [0, 0.5, np.nan]
    assert_allclose(mean_preferences(preferences), [[0.5, 0.75], [0.25, 0.5]])
    with pytest.raises(ValueError, match="no verdict between models 0 and 1"):
        mean_preferences(preferences[2:])


def test_the_longer_answer_wins_by_hand():
    """Longer, shorter, equal, longer; verdicts win, win, loss, failed."""
    got = longer_wins(np.array([0.8, 1.0, 0.0, np.nan]), np.array([9.0, 1, 5, 9]), np.array([3.0, 2, 5, 1]))
    assert got["longer_wins/win_rate"].value == pytest.approx((1 + 0 + 0.5) / 3)
    assert got["longer_wins/agreement"].value == pytest.approx((1 + 0 + 0.5) / 3)
    other = longer_wins(np.array([0.2, 0.5]), np.array([3.0, 9]), np.array([9.0, 3]))
    assert other["longer_wins/agreement"].value == 0.75


def world(source, n=250, model=-0.8, length=1.5, difficulty=0.7):
    lengths, ref_lengths = source.gamma(4, 100, size=n), source.gamma(4, 80, size=n)
    gamma = source.normal(size=n)
    spread = 100 * np.sqrt(4 + 4 * 0.64)
    odds = model + length * np.tanh((lengths - ref_lengths) / spread) + difficulty * gamma
    wins = (source.random(n) < 1 / (1 + np.exp(-odds))) * 1.0
    return wins, lengths, ref_lengths, gamma


def true_controlled(model=-0.8, difficulty=0.7):
    gamma = np.linspace(-8, 8, 20_001)
    law = np.exp(-(gamma**2) / 2)
    return float((law / (1 + np.exp(-(model + difficulty * gamma)))).sum() / law.sum())


def test_the_logistic_model_is_fitted_as_by_torch():
    """An independent optimiser of the same likelihood, with probabilities as verdicts."""
    wins, lengths, ref_lengths, gamma = world(rng(5))
    wins = 0.9 * wins + 0.05
    got = length_controlled_win_rate(wins, lengths, ref_lengths, difficulty=gamma)
    delta = torch.tensor(lengths - ref_lengths)
    features = torch.stack([torch.ones(250).double(), torch.tanh(delta / delta.std()), torch.tensor(gamma)], dim=1)
    weights = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(
            features @ weights, torch.tensor(wins), reduction="sum"
        )
        value = value + 0.5e-3 * (weights**2).sum()
        value.backward()
        return value

    optimiser.step(loss)
    assert_allclose([got.model, got.length, got.difficulty], weights.detach().numpy(), atol=1e-6)
    equal = features.clone()
    equal[:, 1] = 0
    assert got.win_rate.value == pytest.approx(float(torch.sigmoid(equal @ weights).mean()), abs=1e-7)


def test_length_control_finds_the_rate_at_equal_length_and_covers_it():
    source, hits, values, raw = rng(6), 0, [], []
    for _ in range(400):
        wins, lengths, ref_lengths, gamma = world(source)
        got = length_controlled_win_rate(wins, lengths, ref_lengths, difficulty=gamma)
        hits += got.win_rate.low <= true_controlled() <= got.win_rate.high
        values.append(got.win_rate.value)
        raw.append(wins.mean())
    assert np.mean(values) == pytest.approx(true_controlled(), abs=0.006)
    assert np.mean(raw) > true_controlled() + 0.05
    assert 0.92 <= hits / 400 <= 0.98


def test_length_control_is_covered_where_prompts_have_several_games():
    source, hits, naive = rng(7), 0, 0
    labels = np.repeat(np.arange(100), 5)
    for _ in range(200):
        lengths, ref_lengths = source.gamma(4, 100, size=500), source.gamma(4, 80, size=500)
        gamma = source.normal(size=100)[labels]
        wins = (source.random(500) < 1 / (1 + np.exp(0.8 - 2 * gamma))) * 1.0
        truth = true_controlled(difficulty=2.0)
        both = [length_controlled_win_rate(wins, lengths, ref_lengths, clusters=c) for c in (labels, None)]
        hits += both[0].win_rate.low <= truth <= both[0].win_rate.high
        naive += both[1].win_rate.low <= truth <= both[1].win_rate.high
    assert 0.92 <= hits / 200 <= 0.98
    assert naive / 200 < 0.88


def test_the_doubt_about_the_rate_is_that_of_refitting_resampled_prompts():
    """Difficulty matters much here, so that which prompts were asked is a large part of the doubt."""
    source = rng(10)
    wins, lengths, ref_lengths, gamma = world(source, n=600, difficulty=2.5)
    got = length_controlled_win_rate(wins, lengths, ref_lengths, difficulty=gamma).win_rate
    refits = []
    for _ in range(400):
        rows = source.integers(600, size=600)
        again = length_controlled_win_rate(wins[rows], lengths[rows], ref_lengths[rows], difficulty=gamma[rows])
        refits.append(again.win_rate.value)
    assert got.high - got.low == pytest.approx(2 * 1.96 * np.std(refits), rel=0.1)


def test_without_a_difference_in_length_it_is_the_win_rate():
    wins = (rng(8).random(100) < 0.3) * 1.0
    got = length_controlled_win_rate(wins, np.full(100, 7.0), np.full(100, 7.0))
    assert got.win_rate.value == pytest.approx(wins.mean(), abs=1e-4)
    assert got.length == got.difficulty == 0
    error = wins.std(ddof=1) / 10
    assert got.win_rate.high - got.win_rate.low == pytest.approx(2 * 1.984 * error, rel=0.03)


def test_swapping_the_models_swaps_the_rate():
    wins, lengths, ref_lengths, gamma = world(rng(9))
    one = length_controlled_win_rate(wins, lengths, ref_lengths, difficulty=gamma)
    other = length_controlled_win_rate(1 - wins, ref_lengths, lengths, difficulty=-gamma)
    assert one.win_rate.value + other.win_rate.value == pytest.approx(1)
    assert one.length == pytest.approx(other.length)
    assert one.win_rate.low + other.win_rate.high == pytest.approx(1)


def test_length_control_says_what_it_cannot_do():
    lengths, refs = np.arange(40.0) - 20, np.zeros(40)
    with pytest.raises(ValueError, match="not all the same, got 1.0 to 1.0"):
        length_controlled_win_rate(np.ones(40), lengths, refs)
    with pytest.raises(ValueError, match="all answers differ by 3"):
        length_controlled_win_rate((lengths > 0) * 1.0, refs + 4, refs + 1)
    with pytest.raises(ValueError, match="alone decide every game"):
        length_controlled_win_rate((lengths > -0.5) * 1.0, 100.0 * np.sign(lengths + 0.5), refs)
    with pytest.raises(ValueError, match="must be finite, got 1"):
        length_controlled_win_rate((lengths > 0) * 1.0, lengths, refs, difficulty=np.array([np.nan, *refs[1:]]))
    with pytest.raises(ValueError, match=r"probabilities that are not all the same, got 0.0 to 2.0"):
        length_controlled_win_rate(np.where(lengths > 0, 2.0, 0.0), lengths, refs)


def test_a_fit_that_does_not_converge_says_so(monkeypatch):
    monkeypatch.setattr(length_control, "STEPS", 2)
    wins, lengths, ref_lengths, _ = world(rng(1))
    with pytest.raises(ValueError, match="not converged in 2 steps"):
        length_controlled_win_rate(wins, lengths, ref_lengths)


def test_difficulty_is_standardised_and_rises_with_wins():
    got = instruction_difficulty(np.array([[0.1, 0.5, 0.9, 1.0], [0.2, 0.5, 0.8, 1.0]]))
    assert (np.diff(got) > 0).all()
    assert got.mean() == pytest.approx(0, abs=1e-12)
    assert got.std() == pytest.approx(1)
    assert_array_equal(instruction_difficulty(np.full((2, 3), 0.4)), np.zeros(3))
    odds = np.log([0.1 / 0.9, 1.0])
    cut = instruction_difficulty(np.array([[0.1, 0.5, 0.0]]))
    assert (cut[1] - cut[0]) / (cut[0] - cut[2]) == pytest.approx((odds[1] - odds[0]) / (odds[0] + 6))

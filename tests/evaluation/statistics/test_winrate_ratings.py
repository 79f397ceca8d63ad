"""Bradley-Terry ratings in a simulated world, cyclic preferences, exploitability, Nash mixtures, and best-of-k."""

import itertools
import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from eval.measures.best_of import best_of_k, best_of_k_kl
from eval.statistics.intervals import Estimate
from eval.statistics.ratings import Games, bradley_terry, elo, exploitability, games_of, nash_mixture

ROCK = np.array([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
STRENGTHS = np.array([1.2, 0.4, 0.0, -0.5, -1.1])


def rng(seed=0):
    return np.random.default_rng(seed)


def tournament(source, prompts=60, strengths=STRENGTHS):
    """Every pair on every prompt."""
    odds = strengths[:, None] - strengths[None, :]
    wins = (source.random((prompts, *odds.shape)) < 1 / (1 + np.exp(-odds))) * 1.0
    upper = np.triu(wins, 1)
    return upper + np.tril(1 - upper.transpose(0, 2, 1), -1) + 0.5 * np.eye(len(strengths))


def played(*rows):
    """Games from (first, second, wins); each on a prompt of its own."""
    first, second, wins = zip(*rows, strict=True)
    return Games(np.array(first), np.array(second), np.array(wins, dtype=float), np.arange(len(rows)))


def test_games_are_each_judged_pair_once():
    preferences = tournament(rng(1), prompts=2, strengths=STRENGTHS[:3])
    preferences[1, 0, 2] = preferences[1, 2, 0] = np.nan
    games = games_of(preferences)
    got = list(zip(games.clusters.tolist(), games.first.tolist(), games.second.tolist(), strict=True))
    assert got == [(0, 0, 1), (0, 0, 2), (0, 1, 2), (1, 0, 1), (1, 1, 2)]
    assert games.wins.tolist() == [preferences[place] for place in got]


def test_two_models_by_hand():
    """Three wins of four: odds of three, so ln 3 apart."""
    ratings = bradley_terry(played((0, 1, 1), (0, 1, 1), (1, 0, 0), (1, 0, 1)), 2)
    assert ratings[0].value - ratings[1].value == pytest.approx(math.log(3))
    assert ratings[0].value + ratings[1].value == pytest.approx(0)
    assert ratings[0].n == 4


def test_ratings_are_those_of_an_independent_optimiser():
    """torch on the likelihood of each game, against Newton on the table of results; fractional wins, uneven schedule."""
    source = rng(2)
    first = source.integers(5, size=400)
    second = (first + source.integers(1, 5, size=400)) % 5
    wins = source.choice([0.0, 0.25, 0.5, 1.0], size=400)
    games = Games(first, second, wins, np.arange(400))
    weights = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([weights], max_iter=300, tolerance_grad=1e-12, tolerance_change=1e-15)

    def loss():
        optimiser.zero_grad()
        value = torch.nn.functional.binary_cross_entropy_with_logits(
            weights[first] - weights[second], torch.tensor(wins), reduction="sum"
        )
        value.backward()
        return value

    optimiser.step(loss)
    expected = (weights - weights.mean()).detach().numpy()
    assert_allclose([r.value for r in bradley_terry(games, 5)], expected, atol=1e-6)


@pytest.mark.slow
def test_ratings_recover_a_simulated_world_and_cover_it():
    source, hits, values = rng(3), np.zeros(5), []
    for _ in range(100):
        ratings = bradley_terry(games_of(tournament(source)), 5)
        hits += [r.low <= s <= r.high for r, s in zip(ratings, STRENGTHS, strict=True)]
        values.append([r.value for r in ratings])
    assert_allclose(np.mean(values, axis=0), STRENGTHS, atol=0.06)
    assert (hits / 100 >= 0.88).all()
    assert 0.92 <= hits.mean() / 100 <= 0.985


def test_games_of_one_prompt_are_not_independent():
    """Every game is played five times with the same result: labels of prompts keep that from counting."""
    games = games_of(tournament(rng(4)))
    repeated = Games(*(np.tile(column, 5) for column in games))
    one_by_one = repeated._replace(clusters=np.arange(len(repeated.wins)))
    widths = [r[0].high - r[0].low for r in (bradley_terry(g, 5) for g in (games, repeated, one_by_one))]
    assert widths[1] == pytest.approx(widths[0], rel=0.02)
    assert widths[2] == pytest.approx(widths[0] / math.sqrt(5), rel=0.25)


def test_a_rating_counts_the_prompts_of_its_model():
    games = Games(
        np.array([0, 0, 1, 0, 1]), np.array([1, 1, 2, 1, 2]), np.array([1, 0, 1, 0.5, 0]), np.array([0, 0, 1, 2, 2])
    )
    assert [r.n for r in bradley_terry(games, 3)] == [2, 3, 2]


def test_groups_that_never_met_share_no_scale():
    games = played((0, 1, 1), (0, 1, 0), (2, 3, 1), (2, 3, 0))
    for prior in (0.0, 1.0):
        with pytest.raises(ValueError, match=r"models \[0, 1\] never played the others"):
            bradley_terry(games, 4, prior=prior)


def test_a_model_that_never_lost_needs_a_prior():
    """A prior of one drawn game: 3.5 wins to half a win, so ln 7 apart."""
    games = played((0, 1, 1), (0, 1, 1), (1, 0, 0))
    with pytest.raises(ValueError, match=r"models \[0\] never lost to any other"):
        bradley_terry(games, 2)
    ratings = bradley_terry(games, 2, prior=1.0)
    assert ratings[0].value - ratings[1].value == pytest.approx(math.log(7))


def test_a_group_that_never_lost_is_named():
    games = played((0, 1, 1), (0, 1, 0), (2, 0, 0), (2, 3, 1), (2, 3, 0), (1, 3, 1))
    with pytest.raises(ValueError, match=r"models \[0, 1\] never lost to any other"):
        bradley_terry(games, 4)


def test_a_prior_is_drawn_games_between_those_who_have_played():
    """Of a chain 0 - 1 - 2: the same strengths as with two drawn games added to each of its two pairs."""
    chain = [(0, 1, 1), (0, 1, 1), (1, 2, 1), (1, 2, 0), (1, 2, 1)]
    draws = [(0, 1, 0.5)] * 2 + [(1, 2, 0.5)] * 2
    with_prior, with_draws = bradley_terry(played(*chain), 3, prior=2.0), bradley_terry(played(*chain, *draws), 3)
    assert_allclose([r.value for r in with_prior], [r.value for r in with_draws], atol=1e-9)


def test_a_prior_pulls_ratings_together():
    games = games_of(tournament(rng(5)))
    spread = [np.ptp([r.value for r in bradley_terry(games, 5, prior=p)]) for p in (0.0, 5.0, 50.0)]
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize(
    ("row", "message"),
    [((0, 0, 1), "two different models"), ((0, 7, 1), "two different models"), ((-1, 0, 1), "two different models"),
     ((0, 1, 1.5), r"wins must be in \[0, 1\]"), ((0, 1, float("nan")), "must be finite")],
)  # fmt: skip
def test_games_that_are_none_are_refused(row, message):
    with pytest.raises(ValueError, match=message):
        bradley_terry(played((0, 1, 1), (0, 1, 0), row), 2)


def test_a_prior_is_not_negative():
    with pytest.raises(ValueError, match="prior: must not be negative"):
        bradley_terry(played((0, 1, 1), (0, 1, 0)), 2, prior=-1.0)


def test_elo_by_hand():
    """Odds of ten to one are 400 points."""
    got = elo(Estimate(math.log(10) / 2, 0.0, math.log(10), 3))
    assert_allclose(got, [1200, 1000, 1400, 3])


def test_a_cycle_has_equal_ratings_but_every_model_is_exploitable():
    ratings = bradley_terry(games_of(np.stack([ROCK] * 10)), 3)
    assert_allclose([r.value for r in ratings], 0, atol=1e-12)
    for model in np.eye(3):
        assert exploitability(ROCK, model) == 0.5
    assert exploitability(ROCK, np.ones(3) / 3) == pytest.approx(0)
    assert exploitability(ROCK, np.array([0.5, 0.5, 0.0])) == pytest.approx(0.25)


def test_the_nash_mixture_of_a_cycle_is_even_and_of_an_order_is_its_top():
    assert_allclose(nash_mixture(ROCK), 1 / 3)
    transitive = 1 / (1 + np.exp(STRENGTHS[None, :] - STRENGTHS[:, None]))
    assert_allclose(nash_mixture(transitive[::-1, ::-1]), [0, 0, 0, 0, 1], atol=1e-12)


def test_the_nash_mixture_of_an_uneven_cycle_by_hand():
    """a, b, c above one half around the circle: the mixture is (b, c, a) / sum."""
    a, b, c = 0.4, 0.1, 0.3  # of 0 over 1, 1 over 2, 2 over 0
    payoffs = np.array([[0, a, -c], [-a, 0, b], [c, -b, 0]])
    assert_allclose(nash_mixture(0.5 + payoffs), np.array([b, c, a]) / 0.8)


@pytest.mark.parametrize("seed", range(30))
def test_no_model_beats_the_nash_mixture(seed):
    """Of random matrices, dense and with ties, of 2 to 12 models; other mixtures are never less exploitable."""
    source = rng(seed)
    k = int(source.integers(2, 13))
    upper = np.triu(source.choice([0, 0.25, 0.5, 1], (k, k)) if seed % 2 else source.random((k, k)), 1)
    preferences = upper + np.tril(1 - upper.T, -1) + 0.5 * np.eye(k)
    mixture = nash_mixture(preferences)
    assert mixture.sum() == pytest.approx(1)
    assert (mixture >= 0).all()
    assert 0 <= exploitability(preferences, mixture) + 1e-9 < 2e-9


def test_exploitability_is_never_negative():
    for seed in range(20):
        mixture = rng(seed).dirichlet(np.ones(3))
        assert exploitability(ROCK, mixture) >= 0


def test_matrices_and_mixtures_are_checked():
    with pytest.raises(ValueError, match=r"P \+ P\^T = 1"):
        nash_mixture(np.full((2, 2), 0.6))
    with pytest.raises(ValueError, match=r"P \+ P\^T = 1"):
        exploitability(np.array([[0.5, 1.2], [-0.2, 0.5]]), np.array([1.0, 0.0]))
    for bad in ([0.7, 0.7, 0.0], [1.5, -0.5, 0.0]):
        with pytest.raises(ValueError, match="mixture: must be probabilities"):
            exploitability(ROCK, np.array(bad))


def test_best_of_k_is_the_mean_over_all_sets_of_k():
    """Every subset counted one by one; equal judge scores share."""
    source = rng(6)
    gold, judge = source.normal(size=(4, 6)), source.integers(0, 3, size=(4, 6)).astype(float)
    got = best_of_k(gold, judge, [1, 2, 4, 6])
    for k, estimate in got.items():
        each = []
        for row in range(4):
            for drawn in itertools.combinations(range(6), k):
                top = [i for i in drawn if judge[row, i] == max(judge[row, j] for j in drawn)]
                tied = [i for i in range(6) if judge[row, i] == judge[row, top[0]]]
                each.append(np.mean([gold[row, i] for i in tied]))
        assert estimate.value == pytest.approx(np.mean(each))
        assert estimate.n == 4


def test_the_error_of_best_of_k_falls_as_the_law_says():
    """Right judge, target z from the mean of N(0, s^2): k^2 times the error goes to π s^2 exp(z^2 / s^2)."""
    s, z = 1.3, 0.8
    error = (s * rng(7).normal(size=(400, 2000)) - z) ** 2
    law = math.pi * s**2 * math.exp(z**2 / s**2)
    got = best_of_k(-error, -error, [50, 100, 200])
    for k in (100, 200):
        assert -(k**2) * got[k].value == pytest.approx(law, rel=0.06)
    assert -(50**2) * got[50].value == pytest.approx(law, rel=0.12)


def test_a_judge_with_another_target_has_a_best_k():
    """Gold target 0.5, judge's target 1.5: at first both rise, then the judge's optimum is worse than a few draws."""
    draws = rng(8).normal(size=(400, 256))
    got = best_of_k(-((draws - 0.5) ** 2), -((draws - 1.5) ** 2), [1, 2, 4, 16, 256])
    values = [got[k].value for k in (1, 2, 4, 16, 256)]
    assert values[1] > values[0]
    assert values[1] > values[3]
    assert values[-1] == pytest.approx(-1.0, abs=0.02)


def test_the_divergence_of_best_of_k_is_its_closed_form():
    """The best of k has rank density k u^(k-1) on [0, 1]: its KL from uniform, by quadrature."""
    for k in (1, 2, 16):
        u = (np.arange(2_000_000) + 0.5) / 2_000_000
        law = k * u ** (k - 1)
        assert best_of_k_kl(k) == pytest.approx(float((law * np.log(law)).mean()), abs=1e-5)


@pytest.mark.parametrize("ks", [[0], [7], []])
def test_ks_are_numbers_of_samples(ks):
    with pytest.raises(ValueError, match=r"ks: must be from 1 to the number of samples, 6"):
        best_of_k(np.zeros((2, 6)), np.zeros((2, 6)), ks)


def test_the_judge_scores_every_sample():
    with pytest.raises(ValueError, match=r"one finite score for each of \(2, 6\) samples"):
        best_of_k(np.zeros((2, 6)), np.full((2, 6), np.nan), [1])

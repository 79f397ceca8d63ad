"""Bootstrap (BCa, clustered), paired and Wilson intervals: by hand, restated, and by their coverage."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from eval.statistics import intervals as stats
from eval.statistics.intervals import bca_estimate, bca_interval, cluster_sums, paired_difference, wilson_estimate

DATA_SETS = 400


def rng(seed=0):
    return np.random.default_rng(seed)


def coverage(make, truth, estimate):
    source, hits = rng(7), 0
    for _ in range(DATA_SETS):
        got = estimate(make(source), source)
        hits += got.low <= truth <= got.high
    return hits / DATA_SETS


def student(q, v):
    """Quantile of Student's t: its density summed until the share is q."""
    t = np.linspace(-60, 60, 1_200_001)
    law = (1 + t * t / v) ** (-(v + 1) / 2)
    return float(t[np.searchsorted(np.cumsum(law) / law.sum(), q)])


def plain_bca(values, draws, level):
    """Efron's interval in plain floats, with the jackknife by leaving out."""
    n, normal, value = len(values), NormalDist(), sum(values) / len(values)
    bias = normal.inv_cdf(sum(d < value for d in draws) / len(draws))
    jack = [(sum(values) - v) / (n - 1) for v in values]
    middle = sum(jack) / n
    a = sum((middle - j) ** 3 for j in jack) / (6 * sum((middle - j) ** 2 for j in jack) ** 1.5)
    ends = []
    for q in ((1 - level) / 2, (1 + level) / 2):
        z = math.sqrt(n / (n - 1)) * student(q, n - 1)
        ends.append(normal.cdf(bias + (bias + z) / (1 - a * (bias + z))))
    return np.quantile(draws, ends), a, bias


def test_the_interval_is_efrons_formula():
    values = rng(1).exponential(size=25)
    draws = rng(2).choice(values, size=(1500, 25)).mean(axis=1)
    left_out = (values.sum() - values) / 24
    expected, a, bias = plain_bca(values.tolist(), draws.tolist(), 0.9)
    assert a > 0.02
    assert bias != 0
    assert_allclose(bca_interval(float(values.mean()), draws, left_out, level=0.9), expected, atol=2e-4)


def test_without_skew_or_bias_it_is_the_percentile_interval():
    draws = np.linspace(-1.0, 1.0, 2001)
    low, high = bca_interval(0.0, draws, np.tile([-1.0, 0.0, 1.0], 10_000), level=0.9)
    assert (low, high) == pytest.approx((-0.9, 0.9), abs=1e-4)


@pytest.mark.parametrize("v", [6, 20, 200])
@pytest.mark.parametrize("q", [0.005, 0.2, 0.975])
def test_the_normal_quantile_is_expanded_to_students(q, v):
    got = stats._expanded(NormalDist().inv_cdf(q), v + 1)
    assert got == pytest.approx(math.sqrt((v + 1) / v) * student(q, v), rel=0.004)


def test_draws_equal_to_the_value_count_half_below_even_after_rounding():
    """Otherwise the few values that a win rate can take look like a bias."""
    draws = np.array([0.2, 0.3, 0.3, 0.4])  # 0.1 + 0.2 is above 0.3 by one rounding
    narrow = bca_interval(0.1 + 0.2, draws, np.tile([-1.0, 0.0, 1.0], 10_000), level=0.5)
    assert_allclose(narrow, np.quantile(draws, [0.25, 0.75]), atol=1e-4)


def test_a_value_outside_all_draws_gives_an_end_and_not_a_nan():
    draws = np.linspace(0.0, 1.0, 100)
    for value in (-5.0, 5.0):
        ends = bca_interval(value, draws, np.array([0.0, 0.0, 0.0, 9.0]), level=0.99)
        assert np.isfinite(ends).all()
        assert ends[0] <= ends[1]


def test_an_extreme_skew_gives_an_end_and_not_a_nan():
    """An acceleration of 0.13 and a bias of 2.7 turn the stretch negative: the upper end is then the largest draw."""
    left_out = np.concatenate([np.zeros(6), [-1.0]])
    draws = np.concatenate([np.linspace(-1, 0, 996), np.linspace(1, 2, 4)])
    assert bca_interval(0.5, draws, left_out, level=0.999)[1] == 2.0


def test_a_skewed_sample_gets_a_skewed_interval():
    """Exponential data: the upper arm is the longer one, more than a percentile interval makes it."""
    values = rng(3).exponential(size=40)
    got, plain = bca_estimate(values, rng=rng(), resamples=8000), stats.mean_estimate(values, rng=rng())
    assert got.value == pytest.approx(values.mean())
    assert got.high - got.value > 1.2 * (got.value - got.low)
    assert got.high > plain.high
    assert got.low > plain.low


def test_a_bca_interval_covers_95_percent():
    def skewed(source):
        return source.gamma(3.0, size=60)

    got = coverage(skewed, 3.0, lambda x, source: bca_estimate(x, rng=source, resamples=600))
    assert 0.92 <= got <= 0.98


def test_a_bca_interval_of_twelve_items_covers_95_percent():
    got = coverage(
        lambda source: source.normal(size=12), 0.0, lambda x, source: bca_estimate(x, rng=source, resamples=600)
    )
    assert 0.92 <= got <= 0.98


def test_a_bca_interval_of_wins_and_ties_covers_95_percent():
    def wins(source):
        return source.choice([0.0, 0.5, 1.0], p=[0.3, 0.2, 0.5], size=80)

    got = coverage(wins, 0.6, lambda x, source: bca_estimate(x, rng=source, resamples=600))
    assert 0.92 <= got <= 0.98


def prompts_of_five(source):
    """60 prompts with 5 answers each, which agree more within a prompt than between prompts."""
    return (source.normal(size=(60, 1)) + 0.5 * source.normal(size=(60, 5))).ravel()


def test_a_clustered_interval_covers_95_percent_where_single_items_mislead():
    labels = np.repeat(np.arange(60), 5)
    honest = coverage(
        prompts_of_five, 0.0, lambda x, source: bca_estimate(x, rng=source, clusters=labels, resamples=600)
    )
    naive = coverage(prompts_of_five, 0.0, lambda x, source: bca_estimate(x, rng=source, resamples=600))
    assert 0.92 <= honest <= 0.98
    assert naive < 0.75


def test_clusters_of_many_sizes_cover_95_percent():
    sizes = np.tile([1, 2, 6], 25)
    labels = np.repeat(np.arange(75), sizes)

    def uneven(source):
        return 3 + source.normal(size=75)[labels] + source.normal(size=len(labels))

    got = coverage(uneven, 3.0, lambda x, source: bca_estimate(x, rng=source, clusters=labels, resamples=600))
    assert 0.92 <= got <= 0.98


def test_the_jackknife_leaves_out_a_cluster_with_its_items(monkeypatch):
    seen = []
    monkeypatch.setattr(
        stats, "bca_interval", lambda value, draws, left_out, level: seen.append(left_out) or (0.0, 0.0)
    )
    bca_estimate(np.array([1.0, 2.0, 4.0, 9.0]), rng=rng(), clusters=np.array([0, 1, 1, 2]))
    assert_allclose(seen[0], [(2 + 4 + 9) / 3, (1 + 9) / 2, (1 + 2 + 4) / 3])


def test_a_paired_interval_covers_95_percent_and_is_narrower_than_an_unpaired_one():
    def both(source):
        shared = source.normal(size=60)
        return np.stack([shared + 0.3 * source.normal(size=60) + 0.1, shared + 0.3 * source.normal(size=60)])

    got = coverage(both, 0.1, lambda x, source: paired_difference(x[0], x[1], rng=source, resamples=600))
    assert 0.92 <= got <= 0.98
    first, second = both(rng(4))
    paired = paired_difference(first, second, rng=rng())
    alone = bca_estimate(first, rng=rng())
    assert paired.value == pytest.approx(first.mean() - second.mean())
    assert paired.high - paired.low < 0.6 * (alone.high - alone.low)


def test_a_cluster_of_each_item_changes_nothing_and_labels_may_be_text():
    values = rng(5).normal(size=70)
    labels = np.array([f"prompt {i:02d}" for i in range(70)])
    assert bca_estimate(values, rng=rng(), clusters=labels) == bca_estimate(values, rng=rng())


def test_repeating_every_item_within_its_cluster_adds_no_certainty():
    values = rng(6).normal(size=70)
    labels = np.arange(70)
    once = bca_estimate(values, rng=rng())
    five_times = bca_estimate(np.tile(values, 5), rng=rng(), clusters=np.tile(labels, 5))
    assert five_times.n == once.n == 70
    assert_allclose(five_times, once, rtol=1e-9)


def test_cluster_sums_by_hand():
    sums, sizes = cluster_sums(np.array([1.0, 2.0, 4.0]), np.array(["b", "a", "b"]))
    assert_array_equal(sums, [2, 5])
    assert_array_equal(sizes, [1, 2])


def test_drawing_kinds_is_drawing_items(monkeypatch):
    """Three kinds of items: the multinomial's interval is that of drawing the items one by one."""
    values = np.repeat([0.0, 0.5, 1.0], [120, 60, 220])
    by_kind = bca_estimate(values, rng=rng(), resamples=20_000)
    monkeypatch.setattr(stats, "FEW_KINDS", 0)
    one_by_one = bca_estimate(values, rng=rng(), resamples=20_000)
    assert by_kind.value == one_by_one.value == 0.625
    assert_allclose(by_kind[1:3], one_by_one[1:3], atol=0.003)


def test_draws_come_in_pieces_without_changing_their_number(monkeypatch):
    monkeypatch.setattr(stats, "DRAWS_AT_ONCE", 1000)
    drawn = stats._resampled_means(rng(1).normal(size=300), np.ones(300), rng(), 32)
    assert drawn.shape == (32,)
    assert len(set(drawn)) == 32


def test_equal_values_have_an_interval_without_width():
    assert bca_estimate(np.full(9, 0.1), rng=rng()) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1), 9)


def test_two_clusters_are_needed():
    with pytest.raises(ValueError, match="at least 2 items, got 1"):
        bca_estimate(np.array([1.0, 2.0]), rng=rng(), clusters=np.array([7, 7]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_must_be_finite(bad):
    with pytest.raises(ValueError, match="finite, got 1 that are not"):
        bca_estimate(np.array([0.0, bad, 1.0]), rng=rng())


def test_a_level_is_a_share():
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        bca_estimate(np.array([0.0, 1.0]), rng=rng(), level=95.0)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\)"):
        wilson_estimate(1, 2, level=1.0)


def test_wilsons_ends_are_where_the_score_test_just_accepts():
    """Each end p solves (share - p)^2 = z^2 p (1 - p) / n."""
    got, z = wilson_estimate(13, 40), NormalDist().inv_cdf(0.975)
    for end in got[1:3]:
        assert (got.value - end) ** 2 == pytest.approx(z * z * end * (1 - end) / 40)
    assert got.low < got.value == 13 / 40 < got.high
    assert got.n == 40


def test_wilson_has_a_width_where_all_items_agree():
    """At 0 of n the upper end is z^2 / (n + z^2)."""
    z = NormalDist().inv_cdf(0.975)
    assert_allclose(wilson_estimate(0, 10), [0.0, 0.0, z * z / (10 + z * z), 10], atol=1e-15)
    assert_allclose(wilson_estimate(10, 10), [1.0, 10 / (10 + z * z), 1.0, 10], atol=1e-15)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_wilsons_interval_covers_95_percent(share):
    """By simulation, and exactly by summing the binomial law."""
    n = 120
    covered = [wilson_estimate(k, n).low <= share <= wilson_estimate(k, n).high for k in range(n + 1)]
    wins = rng(8).binomial(n, share, size=DATA_SETS)
    assert 0.92 <= np.mean([covered[k] for k in wins]) <= 0.98
    law = [math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    assert 0.93 <= sum(p for p, hit in zip(law, covered, strict=True) if hit) <= 0.97


@pytest.mark.parametrize(("wins", "n"), [(-1, 5), (6, 5), (0, 0), (float("nan"), 3)])
def test_wilson_refuses_what_is_no_share(wins, n):
    with pytest.raises(ValueError, match=r"wins must be in \[0, n\]"):
        wilson_estimate(wins, n)

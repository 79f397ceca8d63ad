"""Measures of a report against closed forms, and the tables and pictures they end in."""

import itertools
import json
import math
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from align.errors import RunError
from align.recipe.loading import load_recipe
from eval.evaluate import Report
from eval.measures import diversity
from eval.measures.divergence import divergence_estimates
from eval.measures.diversity import bleu_groups, distinct, diversity_estimates, self_bleu
from eval.pairs.implicit_reward import implicit_margin, pair_estimates
from eval.pairs.ranking import PairScores, idealised_margin
from eval.report.assemble import settle
from eval.report.plots import pictures
from eval.report.write import comparison_table, to_html, to_json, to_markdown
from eval.statistics.comparisons import compared as of_pairs
from eval.statistics.comparisons import corrected, prompt_labels
from eval.statistics.intervals import Estimate, left_out
from eval.subjects import check_measurable

SCORES = PairScores(
    chosen=np.array([-4.0, -6.0, -30.0]),
    rejected=np.array([-5.0, -6.5, -9.0]),
    ref_chosen=np.array([-6.0, -7.0, -5.0]),
    ref_rejected=np.array([-4.0, -6.0, -9.5]),
    chosen_tokens=np.array([2.0, 3.0, 4.0]),
    rejected_tokens=np.array([5.0, 2.0, 3.0]),
)
CHOSEN, REJECTED = np.array([2.0, 1.0, -25.0]), np.array([-1.0, -0.5, 0.5])  # log-ratios
SETTINGS = ("train.beta=0.5", "train.output_dir=runs/x")


# --- the implicit reward -----------------------------------------------------------------------


def log_mean(r):
    """log(2u / (1 + u)) of r = log u."""
    return math.log(2) + r - np.log1p(np.exp(r))


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("dpo/tiny", (), 0.5 * (CHOSEN - REJECTED)),
        ("rpo/tiny", (), 0.5 * (CHOSEN - REJECTED)),
        ("fdpo/tiny", ("train.divergence=reverse_kl",), 0.5 * (CHOSEN - REJECTED)),
        ("pairwise/tiny", (), 0.5 * (CHOSEN - REJECTED)),
        ("pairwise/tiny", ("train.objective={nll: 1.0, ipo_mean: 1.0}",),
            0.5 * (CHOSEN / SCORES.chosen_tokens - REJECTED / SCORES.rejected_tokens)),
        ("pairwise/tiny", ("train.objective={simpo: 1.0}",),
            0.5 * (SCORES.chosen / SCORES.chosen_tokens - SCORES.rejected / SCORES.rejected_tokens)),
    ],
)  # fmt: skip
def test_the_margin_is_what_the_methods_loss_is_a_function_of(recipe, overrides, expected):
    got = implicit_margin(load_recipe(recipe, (*SETTINGS, *overrides)), SCORES)
    assert got is not None
    assert_allclose(got, expected)


def test_the_margin_of_f_dpo_goes_through_the_divergence():
    """Jensen-Shannon, f''(1) = 1/2; the third chosen answer is in the tail, where f' goes on along its tangent."""
    raw, scaled = (
        implicit_margin(load_recipe("fdpo/tiny", (*SETTINGS, f"train.beta_scaling={how}")), SCORES)
        for how in ("raw", "curvature")
    )
    assert raw is not None
    assert scaled is not None
    assert_allclose(raw[:2], 0.5 * (log_mean(CHOSEN[:2]) - log_mean(REJECTED[:2])))
    assert_allclose(scaled, 2 * raw)
    assert raw[2] < -10


def test_a_method_without_pairs_has_no_implicit_reward():
    recipe = load_recipe("supervised/tiny", ["train.output_dir=runs/x"])
    assert implicit_margin(recipe, SCORES) is None
    assert pair_estimates(recipe, SCORES, None, None) == {}


def test_calibration_is_of_the_implicit_reward():
    recipe = load_recipe("dpo/tiny", SETTINGS)
    margin = np.array([0.8, -0.3, 2.0])
    got = pair_estimates(recipe, SCORES, margin, None)
    assert set(got) == {f"calibration/{k}" for k in ("ece", "brier", "nll", "temperature")}
    p = 1 / (1 + np.exp(-margin))
    assert got["calibration/nll"].value == pytest.approx(-np.log(p).mean())
    assert got["calibration/brier"].value == pytest.approx(((1 - p) ** 2).mean())
    assert got["calibration/ece"].n == 3


# --- what DPO could reach ----------------------------------------------------------------------


def test_the_idealised_margin_is_that_of_the_optimum():
    """Two answers: the margin that minimises -a log σ(β(m - c)) - (1 - a) log σ(-β(m - c)), c the reference's own."""
    beta, share, own = 0.2, 0.8, -4.0
    m = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [m], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=1e-14
    )

    def loss():
        optimizer.zero_grad()
        h = beta * (m - own)
        value = -(share * torch.nn.functional.logsigmoid(h) + (1 - share) * torch.nn.functional.logsigmoid(-h)).sum()
        value.backward()
        return value

    optimizer.step(loss)
    scores = PairScores(*(np.array([v]) for v in (0.0, 0.0, -6.0, -2.0, 1.0, 1.0)))
    got = idealised_margin(scores, np.array([share]), beta=beta)
    assert got[0] == pytest.approx(m.item(), abs=1e-4)
    assert got[0] == pytest.approx(2.9315, abs=1e-4)


def test_idealised_accuracy_and_gap_by_hand():
    """β = 0.5: all agree (right at any reference), nobody knows (the reference decides, wrong), one in four (wrong)."""
    got = pair_estimates(load_recipe("dpo/tiny", SETTINGS), SCORES, np.ones(3), np.array([1.0, 0.5, 0.25]))
    assert_array_equal(idealised_margin(SCORES, np.array([1.0, 0.5, 0.0]), beta=0.5), [math.inf, -1.0, -math.inf])
    assert got["ranking_accuracy/idealised"].value == pytest.approx(2 / 3)  # third: 4.5 - 2 log 3 > 0
    assert got["alignment_gap"].value == pytest.approx(0.0)  # the policy has the first and the second right
    other = pair_estimates(load_recipe("dpo/tiny", (*SETTINGS, "train.beta=0.1")), SCORES, np.ones(3), np.full(3, 0.25))
    assert other["ranking_accuracy/idealised"].value == 0.0  # 4.5 - 10 log 3 < 0
    assert other["alignment_gap"].value == pytest.approx(-2 / 3)


def test_the_gap_is_to_the_policys_own_ranking_whatever_its_reference_thinks():
    """Right by log-probability, wrong by implicit reward: nothing is missing to the best that DPO could reach."""
    two = PairScores(*(np.full(2, value) for value in (-4.0, -5.0, -2.0, -6.0, 3.0, 3.0)))
    got = pair_estimates(load_recipe("dpo/tiny", SETTINGS), two, np.full(2, -1.5), np.ones(2))
    assert got["ranking_accuracy/idealised"].value == 1.0
    assert got["alignment_gap"].value == 0.0


# --- divergences and diversity -----------------------------------------------------------------


def test_divergences_find_the_exact_ones_from_answers_of_both_sides():
    """Four answers of one token each; 20,000 draws of each side."""
    p, q = np.array([0.5, 0.25, 0.15, 0.1]), np.array([0.1, 0.2, 0.3, 0.4])
    m, rng = (p + q) / 2, np.random.default_rng(0)
    ours, theirs = (rng.choice(4, size=20_000, p=side) for side in (p, q))

    def under(side, answers):
        return list(torch.from_numpy(np.log(side[answers])).unsqueeze(1))

    got = divergence_estimates((under(p, ours), under(q, ours)), (under(p, theirs), under(q, theirs)))
    exact = {
        "kl": (p * np.log(p / q)).sum(),
        "forward_kl": (q * np.log(q / p)).sum(),
        "jensen_shannon": ((p * np.log(p / m)).sum() + (q * np.log(q / m)).sum()) / 2,
        "entropy/policy": -(p * np.log(p)).sum(),
        "entropy/ref": -(q * np.log(q)).sum(),
    }
    assert set(got) == set(exact)
    for name, value in exact.items():
        width = got[name].high - got[name].low
        assert got[name].value == pytest.approx(value, abs=1.2 * width), name
        assert width < 0.05


TEXTS = [f"{a} {b} {b if i % 3 else a}" for i, (a, b) in enumerate(itertools.product("abcdefgh", "vwxyz"))]


def test_diversity_is_of_all_answers_and_self_bleu_of_groups():
    got = diversity_estimates(TEXTS)
    for n in (1, 2):
        estimate = got[f"distinct_{n}"]
        assert estimate.value == distinct(TEXTS, n=n)
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.n == len(TEXTS)
    if find_spec("sacrebleu") is not None:
        means = [self_bleu(TEXTS[start : start + 8]) for start in range(0, 40, 8)]
        assert got["self_bleu"].value == pytest.approx(np.mean(means))
        assert got["self_bleu"].n == 5


def test_self_bleu_has_a_bounded_cost_and_a_least_number_of_answers(monkeypatch):
    assert [len(group) for group in bleu_groups(["x"] * 1000)] == [8] * 16
    assert [text for group in bleu_groups(TEXTS) for text in group] == TEXTS
    assert "self_bleu" not in diversity_estimates(TEXTS[:15])
    monkeypatch.setattr(diversity, "find_spec", lambda name: None)
    assert set(diversity_estimates(TEXTS)) == {"distinct_1", "distinct_2"}


def test_answers_without_n_grams_have_no_share_of_distinct_ones():
    assert set(diversity_estimates(["yes", "no", ""])) == {"distinct_1"}
    assert set(diversity_estimates(["yes", "no", "not so"])) == {"distinct_1", "distinct_2"}
    assert diversity_estimates(["", " "]) == {}


def test_leaving_out_single_texts_gives_a_means_own_standard_error():
    texts = ["x" * length for length in (1, 5, 2, 9, 4, 4, 7)]
    values = np.array([len(text) for text in texts]) / 100
    got = left_out(texts, lambda some: sum(map(len, some)) / len(some) / 100)
    half = 1.959964 * values.std(ddof=1) / math.sqrt(len(values))
    assert got.value == pytest.approx(values.mean())
    assert (got.high - got.value, got.value - got.low) == pytest.approx((half, half))
    with pytest.raises(ValueError, match="at least 2 texts, got 1"):
        left_out(texts[:1], len)


@pytest.mark.slow
def test_leaving_out_groups_covers():
    """Shares of distinct words in 60 answers of 5 words, frequent and rare ones, 300 times."""
    rng, odds = np.random.default_rng(3), 1 / np.arange(1, 2001)
    drawn = [
        [" ".join(map(str, row)) for row in rng.choice(2000, size=(60, 5), p=odds / odds.sum())] for _ in range(300)
    ]
    found = [left_out(texts, lambda some: distinct(some, n=1)) for texts in drawn]
    mean = np.mean([estimate.value for estimate in found])
    assert 0.92 < np.mean([estimate.low <= mean <= estimate.high for estimate in found]) < 0.99


# --- runs compared -----------------------------------------------------------------------------


def test_items_of_one_prompt_belong_together():
    prompts = [[{"role": "user", "content": str(i // 3)}] for i in range(12)]
    runs = {"a": np.tile([1.0, 0.0, 1.0, 1.0], 3), "b": np.zeros(12), "c": np.zeros(12)}
    rows = corrected({"accuracy": of_pairs(runs, prompt_labels(prompts))}, rng=np.random.default_rng(0))["accuracy"]
    assert [(row.first, row.second, row.difference.n) for row in rows] == [("a", "b", 4), ("a", "c", 4), ("b", "c", 4)]
    assert rows[0].difference.value == 0.75
    assert rows[2].p_value == 1.0


def compared():
    rng = np.random.default_rng(0)
    runs = {name: rng.normal(loc, size=30) for name, loc in (("a<b", 0.0), ("c|d", 1.5), ("e", 0.0))}
    report = Report("a<b", settings={"method": "dpo"})
    report.compared["gold_reward"] = of_pairs(runs, np.arange(30))
    settle(report)
    report.estimates["t"] = Estimate(math.inf, 1.0, math.inf, 3)
    return report


def test_comparisons_are_in_every_form_of_the_report():
    report = compared()
    read = json.loads(to_json(report), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    first = report.comparisons["gold_reward"][0]
    assert len(read["comparisons"]["gold_reward"]) == 3
    assert read["comparisons"]["gold_reward"][0]["p_value"] == first.p_value
    assert read["comparisons"]["gold_reward"][0]["difference"]["value"] == first.difference.value
    assert read["estimates"]["t"] == {"value": "inf", "low": 1.0, "high": "inf", "n": 3}
    lines = comparison_table(report).splitlines()
    assert len(lines) == 5
    assert len({len(line) for line in lines}) == 1
    assert f"{first.difference.value:+.3f}" in lines[2]
    assert f"{first.p_value:.4f}" in lines[2]
    assert comparison_table(report) in to_markdown(report)
    page = to_html(report, {})
    assert "Runs compared" in page
    assert "a&lt;b - c|d" in page
    assert "a<b" not in page


def test_a_report_of_one_run_speaks_of_no_comparison():
    report = Report("one")
    assert comparison_table(report) == ""
    assert "comparisons" not in json.loads(to_json(report))
    assert "Runs compared" not in to_markdown(report) + to_html(report, {})


@pytest.mark.parametrize("others", [(), ("dpo", "costs $x$")])
def test_reliability_is_drawn_where_there_are_margins(others):
    rng = np.random.default_rng(0)
    report = Report("mine", margins={"test": {who: rng.normal(1, 2, size=40) for who in ("mine", *others)}})
    assert list(pictures(report, {})) == ["Reliability of the implicit reward"]
    report.margins = {"test": {"mine": np.zeros(2)}, "hard": {"mine": np.array([1e4, -1e4])}}
    assert list(pictures(report, {})) == ["Reliability of the implicit reward"]
    report.margins = {"test": {}}
    assert pictures(report, {}) == {}


# --- methods -----------------------------------------------------------------------------------


def test_a_model_that_judges_is_not_evaluated():
    recipe = load_recipe("preference_model/tiny", ["train.output_dir=runs/x", "eval.generate={prompts: 3}"])
    with pytest.raises(RunError, match=r"judge: method '\w+' trains a model that judges .*load_preference_model"):
        check_measurable("judge", recipe)


def test_a_method_that_learns_from_prompts_needs_answers():
    nothing = ["eval.generate=null", "eval.gold_reward=null"]
    with pytest.raises(RunError, match=r"nothing held out to score; to evaluate its answers set eval.generate="):
        check_measurable("run", load_recipe("online/tiny-grpo", nothing))
    check_measurable("run", load_recipe("online/tiny-grpo", ["eval.generate={prompts: 3}"]))
    check_measurable("run", load_recipe("supervised/tiny", nothing))

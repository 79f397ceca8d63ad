"""What all weighting rules have in common, and the rules on rewards."""

import copy
import math

import pytest
import torch

from align.weighting import REQUIRED, RULES, Statistics, make_rule, rule_options
from align.weighting.hypervolume_rules import meta_factor

BASE = [0.5, 0.2, 0.3]
BOUNDS = [[0.0, 1.0], [0.0, 2.0], [-1.0, 1.0]]
OPTIONS = {
    "schedule": {"points": [[4, [0.1, 0.1, 0.8]], [8, [1.0, 0.0, 0.0]]]},
    "hypervolume": {"bounds": BOUNDS},
    "hypervolume_gradient": {"bounds": BOUNDS},
    "max_min": {"soft": True, "floor": 0.1},
    "barrier": {"target": 1},
    "gradient_influence": {"floor": 0.1},
    "gram": {"function": lambda gram: gram.diagonal()},
}


def rule(name, base=BASE, **options):
    return make_rule(name, base=base, **(OPTIONS.get(name, {}) | options))


def statistics(step, missing=(), objectives=3):
    generator = torch.Generator().manual_seed(step)
    jacobian = torch.randn(objectives, 5, generator=generator)
    means = torch.rand(objectives, generator=generator) + 0.02 * step
    means[list(missing)] = torch.nan
    return Statistics(means, step, jacobian @ jacobian.T, jacobian @ jacobian.T)


def means(*values, step=0, **further):
    return Statistics(torch.tensor(values), step, **further)


def weights_of(answer):
    return answer.weights.tolist()


@pytest.mark.parametrize("name", RULES)
def test_a_restored_rule_goes_on_as_if_nothing_had_happened(name, tmp_path):
    going, restored = rule(name), rule(name)
    for step in range(6):
        going.update(statistics(step))
    torch.save(going.state_dict(), tmp_path / "state.pt")
    saved = copy.deepcopy(going.state_dict())
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for step in range(6, 12):
        one, other = going.update(statistics(step)), restored.update(statistics(step))
        assert one.weights.equal(other.weights)
        assert one[1:] == other[1:]
    restored.load_state_dict(saved)
    assert restored.update(statistics(6)).weights.equal(_at_six(name))


def _at_six(name):
    again = rule(name)
    for step in range(6):
        again.update(statistics(step))
    return again.update(statistics(6)).weights


@pytest.mark.parametrize("name", RULES)
def test_weights_are_finite_whatever_the_rewards(name):
    """Missing, infinite, constant and huge means; Gram matrices that are not finite, zero, tiny and huge."""
    one, gram = rule(name), torch.tensor([[4.0, -1, 0], [-1, 1, 0.5], [0, 0.5, 9]])
    for step, (value, scale) in enumerate(
        [(torch.nan, 0.0), (0.5, torch.nan), (torch.inf, 1.0), (0.0, 1e-10), (1e6, 1e15), (-1e6, torch.inf), (0.5, 1.0)]
    ):
        answer = one.update(Statistics(torch.tensor([value, 0.3, value]), step, gram * scale, gram * scale))
        assert answer.weights.isfinite().all()
        assert answer.weights.dtype == torch.float32
        assert math.isfinite(answer.scale)
    assert (answer.weights >= 0).all()
    assert answer.weights.any()


@pytest.mark.parametrize("name", [name for name in RULES if name != "dirichlet"])
def test_weights_follow_their_objectives(name):
    order = [2, 0, 1]
    moved = {
        "schedule": {"points": [[s, [w[k] for k in order]] for s, w in OPTIONS["schedule"]["points"]]},
        "hypervolume": {"bounds": [BOUNDS[k] for k in order]},
        "hypervolume_gradient": {"bounds": [BOUNDS[k] for k in order]},
        "barrier": {"target": order.index(1)},
    }
    one, other = rule(name), rule(name, [BASE[k] for k in order], **moved.get(name, {}))
    for step in range(6):
        told = statistics(step)
        shuffled = told._replace(means=told.means[order], gram=told.gram[order][:, order])
        answer, again = one.update(told), other.update(shuffled)
        assert weights_of(again) == pytest.approx(answer.weights[order].tolist(), abs=1e-6)
        assert again.scale == pytest.approx(answer.scale)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"schedule", "upgrad", "barrier", "gram"}))
def test_rules_keep_the_sum_of_the_base_weights(name):
    one = rule(name, [1.0, 2.0, 4.0])
    for step in range(4):
        assert sum(weights_of(one.update(statistics(step)))) == pytest.approx(7.0, abs=1e-5)


@pytest.mark.parametrize("name", sorted(set(RULES) - {"barrier", "schedule", "gram", "pama"}))
def test_one_objective_gets_all_the_weight(name):
    one = rule(name, [1.0], **({"bounds": [[0.0, 1.0]]} if "hypervolume" in name else {}))
    for step in range(3):
        assert weights_of(one.update(statistics(step, objectives=1))) == pytest.approx([1.0])


def test_advantages_are_combined_linearly():
    advantages = torch.tensor([[1.0, 2.0, -1.0], [0.0, -4.0, 2.0]])
    assert rule("fixed").combine(advantages, torch.tensor([0.5, 0.25, 1.0])).tolist() == [0.0, 1.0]


def test_fixed_weights_stay():
    one = rule("fixed", [1.0, 2.0, 0.0])
    assert [weights_of(one.update(statistics(step))) for step in (0, 9)] == [[1.0, 2.0, 0.0]] * 2


@pytest.mark.parametrize(
    ("step", "weights"),
    [
        (0, BASE),
        (1, [0.4, 0.175, 0.425]),
        (4, [0.1, 0.1, 0.8]),
        (6, [0.55, 0.05, 0.4]),
        (8, [1, 0, 0]),
        (99, [1, 0, 0]),
    ],
)
def test_a_schedule_runs_along_straight_lines(step, weights):
    assert weights_of(rule("schedule").update(statistics(step))) == pytest.approx(weights, abs=1e-6)


def test_a_point_at_step_0_of_a_schedule_counts():
    one = rule("schedule", points=[[0, [0.0, 0.0, 1.0]], [2, [1.0, 0.0, 0.0]]])
    assert weights_of(one.update(statistics(1))) == [0.5, 0.0, 0.5]


def test_dirichlet_weights_depend_on_seed_and_step_alone():
    drawn = [weights_of(rule("dirichlet").update(statistics(step))) for step in range(3)]
    one = rule("dirichlet")
    assert [weights_of(one.update(statistics(step, missing=[0]))) for step in (2, 1, 0)] == drawn[::-1]
    assert drawn[0] != drawn[1]
    assert weights_of(rule("dirichlet", seed=1).update(statistics(0))) != drawn[0]


@pytest.mark.parametrize("concentration", [1.0, 5.0])
def test_dirichlet_weights_have_the_base_as_mean_and_the_variance_of_their_concentration(concentration):
    one = rule("dirichlet", concentration=concentration)
    drawn = torch.stack([one.update(means(0.0, 0.0, 0.0, step=step)).weights for step in range(3000)])
    mean = torch.tensor(BASE)
    assert drawn.mean(0).tolist() == pytest.approx(BASE, abs=0.02)
    assert drawn.var(0).tolist() == pytest.approx((mean * (1 - mean) / (3 * concentration + 1)).tolist(), rel=0.15)


@pytest.mark.parametrize(
    ("values", "weights"),
    [((0.3, 0.1, 0.2), [0, 1, 0]), ((0.1, 0.1, 0.2), [0.5, 0.5, 0]), ((-5.0, 0.1, 0.2), [1, 0, 0])],
)
def test_hard_max_min_takes_the_lowest_mean(values, weights):
    answer = rule("max_min", soft=False, floor=0.0).update(means(*values))
    assert weights_of(answer) == pytest.approx(weights)
    assert answer.metrics["lowest_objective"] == pytest.approx(min(values))
    floored = rule("max_min", soft=False, floor=0.3).update(means(*values))
    assert weights_of(floored) == pytest.approx([0.7 * w + 0.1 for w in weights])


def test_soft_max_min_is_mirror_ascent():
    one = rule("max_min", step=0.5, floor=0.0)
    for _ in range(3):
        answer = one.update(means(0.3, 0.1, 0.2))
    shares = [w * math.exp(-0.5 * 3 * v) for w, v in zip(BASE, (0.3, 0.1, 0.2), strict=True)]
    assert weights_of(answer) == pytest.approx([share / sum(shares) for share in shares], abs=1e-6)


def test_the_floor_of_soft_max_min_is_not_taken_over_into_its_state():
    one = rule("max_min", step=0.0, floor=0.5)
    for _ in range(5):
        answer = one.update(means(0.3, 0.1, 0.2))
    assert weights_of(answer) == pytest.approx([0.5 * w + 0.5 / 3 for w in BASE])


def test_a_missing_mean_keeps_its_last_value_and_before_there_is_one_the_base_counts():
    one = rule("max_min", soft=False, floor=0.0)
    assert weights_of(one.update(means(0.3, torch.nan, 0.2))) == pytest.approx(BASE)
    assert weights_of(one.update(means(torch.nan, 0.1, 0.2))) == [0, 1, 0]
    assert weights_of(one.update(means(0.3, torch.nan, 0.2))) == [0, 1, 0]


def test_barrier_weights_by_hand():
    """w_l = 1, w_k = 1/(t (v_k - d_k)): 1/(20 · 0.1) and 1/(20 · 0.5); a violated threshold counts as slack 0.001."""
    one = rule("barrier", thresholds=[0.2, None, 0.0])
    answer = one.update(means(0.3, 0.9, 0.5))
    assert weights_of(answer) == pytest.approx([0.5, 1.0, 0.1])
    assert answer.metrics["least_slack"] == pytest.approx(0.1)
    answer = one.update(means(0.1, 0.9, 0.0005))
    assert weights_of(answer) == pytest.approx([50.0, 1.0, 50.0])
    assert answer.metrics["least_slack"] == pytest.approx(-0.1)


def test_barrier_thresholds_relative_to_the_start_lie_below_it_for_either_sign():
    """0.4 - 0.1 · 0.4 and -2 - 0.1 · 2, whatever comes later."""
    one = rule("barrier", retain=0.9)
    assert weights_of(one.update(means(0.4, 0.0, -2.0))) == pytest.approx([1 / (20 * 0.04), 1.0, 1 / (20 * 0.2)])
    assert weights_of(one.update(means(0.5, 0.0, -1.0))) == pytest.approx([1 / (20 * 0.14), 1.0, 1 / (20 * 1.2)])


@pytest.mark.parametrize(("noon", "combined"), [(False, [1.0, -1.0, 0.0, 0.0, 2.0]), (True, [1.0, 0.0, 0.0, 0.0, 2.0])])
def test_pama_is_minmod(noon, combined):
    advantages = torch.tensor([[1.0, 2.0], [-1.0, -2.0], [-3.0, 2.0], [0.0, 4.0], [4.0, 2.0]])
    one = make_rule("pama", base=[1.0, 1.0], noon=noon)
    assert one.combine(advantages, one.update(means(0.0, 0.0)).weights).tolist() == combined


def test_pama_compares_weighted_objectives():
    one = make_rule("pama", base=[1.0, 0.25])
    assert one.combine(torch.tensor([[1.0, 2.0]]), torch.tensor([1.0, 0.25])).tolist() == [0.5]


@pytest.mark.parametrize(("gain", "factor"), [(0.0, 0.5), (0.5, 1.193176), (1.0, 1.642391), (50.0, 2.0)])
def test_the_meta_factor_by_hand(gain, factor):
    assert meta_factor(gain) == pytest.approx(factor, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("upgard", "did you mean 'upgrad'"),
        ("zzz", "known: fixed, schedule"),
    ],
)
def test_an_unknown_rule_is_named_with_its_nearest(name, message):
    with pytest.raises(ValueError, match=message):
        make_rule(name, base=BASE)


@pytest.mark.parametrize(
    ("name", "base", "options", "message"),
    [
        ("upgrad", BASE, {"rigde": 1.0}, "unknown option 'rigde'; did you mean 'ridge'"),
        ("fixed", BASE, {"floor": 0.1}, "it has no options"),
        ("hypervolume", BASE, {}, "needs bounds"),
        ("fixed", [], {}, "one for each objective"),
        ("fixed", [1.0, -1.0], {}, "at least 0"),
        ("fixed", [1.0, math.nan], {}, "finite"),
        ("fixed", [0.0, 0.0], {}, "all are 0"),
        ("pama", [1.0, 0.0], {}, "must be positive"),
        ("dirichlet", [1.0, 0.0], {}, "must be positive"),
        ("dirichlet", BASE, {"concentration": 0.0}, r"concentration: a number in \(0, "),
        ("dirichlet", BASE, {"seed": -1}, "seed"),
        ("schedule", BASE, {"points": []}, "at least one pair"),
        ("schedule", BASE, {"points": [[4, BASE], [2, BASE]]}, "increase"),
        ("schedule", BASE, {"points": [[4, [1.0]]]}, "3 weights at each step"),
        ("schedule", BASE, {"points": [[4, [1.0, -1.0, 1.0]]]}, "at least 0"),
        ("max_min", BASE, {"floor": 1.0}, r"floor: a number in \[0, 1\)"),
        ("max_min", BASE, {"step": -0.1}, "step"),
        ("barrier", BASE, {"target": 3}, "0 to 2"),
        ("barrier", BASE, {"target": 0, "thresholds": [None, 1.0]}, "one for each"),
        ("barrier", BASE, {"target": 0, "thresholds": [None, None, 1.0]}, r"thresholds\[1\]"),
        ("barrier", BASE, {"target": 0, "thresholds": [None, 0.0, 1.0], "retain": 0.5}, "give one of them"),
        ("barrier", BASE, {"target": 0, "sharpness": 0.0}, "sharpness"),
        ("gradient_influence", BASE, {"normalisation": "l2"}, "one of none, clip, unit"),
        ("gradient_influence", BASE, {"estimator": "both"}, "one of plugin, split"),
        ("mgda", BASE, {"normalisation": "l2"}, "one of none, clip, unit"),
        ("upgrad", BASE, {"ridge": 0.0}, "ridge"),
    ],
)
def test_settings_out_of_range_are_refused(name, base, options, message):
    with pytest.raises(ValueError, match=message):
        make_rule(name, base=base, **options)


def test_a_state_of_another_rule_or_size_is_refused():
    with pytest.raises(ValueError, match="weighting rule of the checkpoint"):
        rule("fixed").load_state_dict(rule("gradient_influence").state_dict())
    with pytest.raises(ValueError, match="3 objectives, this run has 2"):
        rule("gradient_influence", [1.0, 1.0]).load_state_dict(rule("gradient_influence").state_dict())


def test_options_and_defaults_are_listed():
    assert rule_options("upgrad") == {"ridge": 1e-6}
    assert rule_options("fixed") == {}
    assert rule_options("hypervolume")["bounds"] is REQUIRED
    assert {name for name, kind in RULES.items() if kind.needs == "gradients"} == {
        "gradient_influence",
        "mgda",
        "upgrad",
        "gram",
    }

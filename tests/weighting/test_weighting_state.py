"""Rules that look at the hypervolume or at gradients."""

import math

import pytest
import torch

from align.weighting import Statistics, make_rule
from align.weighting import hypervolume_rules as rules
from align.weighting.hypervolume_rules import meta_factor

EQUAL = [0.5, 0.5]
UNIT = [[0.0, 1.0], [0.0, 1.0]]
NOT_FINITE = torch.full((2, 2), torch.nan)


def seen(*values, evaluation=None):
    return Statistics(torch.tensor(values), 0, evaluation=None if evaluation is None else torch.tensor(evaluation))


def hypervolume(name="hypervolume", base=EQUAL, **options):
    return make_rule(name, base=base, **({"bounds": UNIT, "smoothing": 0.0} | options))


def gradients(*rows):
    jacobian = torch.tensor(rows)
    return Statistics(torch.zeros(len(rows)), 0, jacobian @ jacobian.T)


def test_the_hypervolume_scales_advantages_by_what_the_latest_vector_adds():
    """(0.5, 0.5) opens the archive; (0.6, 0.6) adds 0.11; (0.4, 0.4) nothing; weights stay."""
    one = hypervolume(gain=2.0)
    answers = [one.update(seen(x, x)) for x in (0.5, 0.6, 0.4)]
    assert [a.scale for a in answers] == pytest.approx([1.0, 0.5 + 1.5 * math.tanh(0.22), 0.5])
    assert [a.weights.tolist() for a in answers] == [EQUAL] * 3
    assert [a.metrics["hypervolume"] for a in answers] == pytest.approx([0.25, 0.36, 0.36])
    assert [a.metrics["hypervolume_gain"] for a in answers] == pytest.approx([0.25, 0.11, 0.0])
    assert [a.reward_factor for a in answers] == [1.0] * 3
    assert answers[1].metrics["meta_factor"] == answers[1].scale


def test_the_bounds_of_the_factor_can_be_set():
    one = hypervolume(low=1.0, high=5.0)
    one.update(seen(0.5, 0.5))
    assert one.update(seen(0.6, 0.6)).scale == pytest.approx(1 + 4 * math.tanh(0.11))


def test_the_literal_form_goes_to_the_rewards():
    one = hypervolume(literal=True)
    one.update(seen(0.5, 0.5))
    answer = one.update(seen(0.6, 0.6))
    assert (answer.scale, answer.reward_factor) == (1.0, pytest.approx(meta_factor(0.11)))


def test_the_first_vector_as_reference():
    """Then (0.7, 0.4), worse in one objective, adds nothing, and (0.6, 0.7) adds 0.1 · 0.2."""
    one = hypervolume(reference="first")
    assert [one.update(seen(*v)).scale for v in [(0.5, 0.5), (0.7, 0.4), (0.6, 0.7)]] == pytest.approx(
        [1.0, 0.5, meta_factor(0.02)]
    )


def test_reference_and_bounds_are_in_units_of_the_rewards():
    """Tokens from 2000 (worse) to 0: (0.5, 500) is (0.5, 0.75), of which the reference (0.25, 1000) leaves 0.25²."""
    one = hypervolume(bounds=[[0.0, 1.0], [2000.0, 0.0]], reference=[0.25, 1000.0])
    assert one.update(seen(0.5, 500.0)).metrics["hypervolume"] == pytest.approx(0.0625)


def test_vectors_of_training_batches_are_smoothed():
    one = hypervolume(smoothing=0.75)
    one.update(seen(0.4, 0.4))
    assert one.update(seen(0.8, 0.8)).metrics["hypervolume"] == pytest.approx(0.25)
    assert one.update(seen(math.nan, 0.9)).metrics["hypervolume"] == pytest.approx(0.5 * 0.6)
    assert make_rule("hypervolume", base=EQUAL, bounds=UNIT).smoothing == 0.9


def test_a_batch_without_rewards_changes_nothing():
    one = hypervolume()
    one.update(seen(0.5, 0.5))
    before = one.update(seen(0.6, 0.6))
    assert one.update(seen(math.nan, math.nan)).scale == before.scale


@pytest.mark.parametrize("name", ["hypervolume", "hypervolume_gradient"])
def test_between_evaluations_the_answer_stays(name):
    one = hypervolume(name, source="evaluation", smoothing=None)
    assert one.update(seen(0.9, 0.9)).scale == 1.0
    one.update(seen(0.9, 0.1, evaluation=[0.5, 0.5]))
    first = one.update(seen(0.1, 0.9, evaluation=[0.6, 0.7]))
    again = one.update(seen(0.2, 0.2, evaluation=[0.6, 0.7]))
    assert (first.metrics["hypervolume"], again.metrics["hypervolume"]) == (pytest.approx(0.42),) * 2
    assert (again.scale, again.weights.tolist()) == (first.scale, first.weights.tolist())
    partial = one.update(seen(0.2, 0.2, evaluation=[0.8, math.nan]))
    assert partial.metrics["hypervolume"] == pytest.approx(0.56)
    assert one.update(seen(0.2, 0.2, evaluation=[0.8, math.nan])).scale == partial.scale


def test_hypervolume_gradient_weights_by_hand():
    """Alone, (0.2, 0.6) has the slopes 0.6 and 0.2. Beside it, (0.5, 0.3) exclusively holds 0.3 x 0.3: equal slopes."""
    one = hypervolume("hypervolume_gradient")
    assert one.update(seen(0.2, 0.6)).weights.tolist() == pytest.approx([0.75, 0.25], abs=1e-4)
    assert one.update(seen(0.5, 0.3)).weights.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert one.update(seen(0.3, 0.5)).weights.tolist() == pytest.approx([2 / 3, 1 / 3], abs=1e-3)


def test_a_dominated_vector_gets_the_base_weights():
    one = hypervolume("hypervolume_gradient", base=[0.9, 0.1])
    one.update(seen(0.6, 0.6))
    assert one.update(seen(0.5, 0.5)).weights.tolist() == pytest.approx([0.9, 0.1])


def test_the_unit_of_a_reward_does_not_change_where_the_hypervolume_gradient_points():
    """A reward counted in hundreds needs a weight a hundred times smaller: w_k ∝ ∂HV/∂v_k in raw units."""
    plain = hypervolume("hypervolume_gradient").update(seen(0.2, 0.6)).weights
    scaled = hypervolume("hypervolume_gradient", bounds=[[0.0, 1.0], [0.0, 100.0]]).update(seen(0.2, 60.0)).weights
    assert float(scaled[0] / scaled[1]) == pytest.approx(100 * float(plain[0] / plain[1]), rel=1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hypervolume", {"bounds": [[0.0, 1.0]]}, "for each of 2"),
        ("hypervolume", {"bounds": [[0.0, 1.0], [1.0, 1.0]]}, "different"),
        ("hypervolume", {"bounds": [[0.0, 1.0], [0.0, math.inf]]}, "finite"),
        ("hypervolume", {"reference": "frist"}, "reference: one of first"),
        ("hypervolume", {"reference": [0.0]}, "or first"),
        ("hypervolume", {"source": "test"}, "one of rewards, evaluation"),
        ("hypervolume", {"source": "evaluation", "smoothing": 0.5}, "source rewards only"),
        ("hypervolume", {"low": 2.0, "high": 1.0}, "high: a number in"),
        ("hypervolume", {"gain": 0.0}, "gain"),
        ("hypervolume", {"smoothing": 1.0}, r"smoothing: a number in \[0, 1\)"),
        ("hypervolume_gradient", {"bounds": [[0.0, 1.0], [1.0, 0.0]]}, "negate the reward"),
    ],
)
def test_settings_out_of_range_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        hypervolume(name, **options)


def test_many_objectives_need_moocore(monkeypatch):
    monkeypatch.setattr(rules, "has_moocore", lambda: False)
    with pytest.raises(ValueError, match=r"pip install 'alignkit\[pareto\]'"):
        make_rule("hypervolume", base=[1.0] * 4, bounds=[[0.0, 1.0]] * 4)
    make_rule("hypervolume", base=[1.0] * 3, bounds=[[0.0, 1.0]] * 3)


def test_a_resumed_run_with_another_reference_is_refused():
    one = hypervolume()
    one.update(seen(0.5, 0.5))
    with pytest.raises(ValueError, match="one reference"):
        hypervolume(reference=[0.1, 0.1]).load_state_dict(one.state_dict())


def influence(**options):
    return make_rule("gradient_influence", base=[0.2, 0.3, 0.5], **({"normalisation": "none"} | options))


def with_rows(*sums):
    """A Gram matrix with the given influences (diagonal, so that they are the squared norms)."""
    return Statistics(torch.zeros(len(sums)), 0, torch.diag(torch.tensor(sums)))


def test_constant_influences_give_exponentials():
    """50 steps with c = 0.1 on I = (.0260728, .0322681, -.0195861), as on the four-armed bandit."""
    gram = torch.zeros(3, 3)
    gram[:, 0] = torch.tensor([0.02607277, 0.03226812, -0.01958608])
    one = make_rule("gradient_influence", base=[1 / 3] * 3, normalisation="none", step=0.1)
    for _ in range(50):
        answer = one.update(Statistics(torch.zeros(3), 0, gram))
    assert answer.weights.tolist() == pytest.approx([0.35368788, 0.36481545, 0.28149667], abs=1e-6)


def test_equal_influences_a_common_constant_and_a_step_of_0_change_nothing():
    assert influence().update(with_rows(2.0, 2.0, 2.0)).weights.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert influence(step=0.0).update(with_rows(1.0, 5.0, 2.0)).weights.tolist() == pytest.approx([0.2, 0.3, 0.5])
    shifted = influence().update(with_rows(4.0, 8.0, 5.0)).weights
    assert shifted.tolist() == pytest.approx(influence().update(with_rows(1.0, 5.0, 2.0)).weights.tolist())


def test_opposite_gradients_influence_nobody_and_a_clone_adds_its_own_square():
    opposite = make_rule("gradient_influence", base=EQUAL, step=1.0).update(gradients([0.3, 0.4], [-0.3, -0.4]))
    assert opposite.weights.tolist() == pytest.approx(EQUAL)
    assert opposite.metrics["lowest_cosine"] == pytest.approx(-1.0)
    rows = ([0.6, 0.0], [0.0, 0.5])
    alone = make_rule("gradient_influence", base=EQUAL, step=1.0).update(gradients(*rows)).weights
    cloned = make_rule("gradient_influence", base=[1.0] * 3, step=1.0).update(gradients(*rows, rows[0])).weights
    assert float((cloned[0] / cloned[1]).log() - (alone[0] / alone[1]).log()) == pytest.approx(0.36, abs=1e-6)


def test_gradients_are_normalised_before_influences_are_taken():
    """Norms 2 and 0.5, orthogonal: squares 4 and 0.25; clipped 1 and 0.25; unit 1 and 1; a dead one has none."""
    for normalisation, difference in (("none", 3.75), ("clip", 0.75), ("unit", 0.0)):
        one = make_rule("gradient_influence", base=[1.0] * 3, step=1.0, normalisation=normalisation)
        w = one.update(gradients([2.0, 0.0], [0.0, 0.5], [0.0, 0.0])).weights
        assert float((w[0] / w[1]).log()) == pytest.approx(difference, abs=1e-5)


def test_the_own_square_can_be_left_out():
    one = make_rule("gradient_influence", base=EQUAL, step=1.0, include_self=False)
    assert one.update(gradients([0.9, 0.0], [0.1, 0.2])).weights.tolist() == pytest.approx(EQUAL)


def test_the_floor_is_kept_and_lets_an_objective_come_back():
    one = influence(floor=0.03, step=1.0)
    for _ in range(300):
        low = one.update(with_rows(9.0, 1.0, 1.0)).weights
    assert low.tolist() == pytest.approx([0.98, 0.01, 0.01], abs=1e-4)
    for _ in range(3):
        back = one.update(with_rows(1.0, 9.0, 1.0)).weights
    assert back[1] > 0.9


def test_without_a_floor_weights_come_back_from_far_below_rounding():
    one = influence(step=1.0)
    for _ in range(300):
        one.update(with_rows(9.0, 1.0, 1.0))
    for _ in range(600):
        back = one.update(with_rows(1.0, 9.0, 1.0)).weights
    assert back.tolist() == pytest.approx([0.0, 1.0, 0.0])


def test_the_split_estimator_reads_halves_and_wants_them():
    halves = torch.diag(torch.tensor([1.0, 2.0, 3.0]))
    told = with_rows(9.0, 9.0, 1.0)
    split = influence(estimator="split", step=1.0).update(told._replace(halves=halves)).weights
    plain = influence(step=1.0).update(told._replace(gram=halves)).weights
    assert split.tolist() == pytest.approx(plain.tolist())
    with pytest.raises(ValueError, match=r"needs Statistics\.halves"):
        influence(estimator="split").update(told)


def test_gradient_rules_want_a_gram_matrix_of_their_size():
    with pytest.raises(ValueError, match=r"needs Statistics\.gram"):
        make_rule("upgrad", base=EQUAL).update(seen(0.1, 0.2))
    with pytest.raises(ValueError, match="2 by 2"):
        make_rule("upgrad", base=EQUAL).update(with_rows(1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["upgrad", "mgda", "gradient_influence"])
def test_a_gram_matrix_that_is_not_finite_leaves_the_weights(name):
    one = make_rule(name, base=[0.3, 0.7])
    before = one.update(gradients([1.0, 0.0], [0.0, 0.5])).weights
    answer = one.update(Statistics(torch.zeros(2), 0, NOT_FINITE))
    expected = before.tolist() if name == "gradient_influence" else [0.3, 0.7]
    assert answer.weights.tolist() == pytest.approx(expected)
    assert answer.metrics == {"gram_is_finite": 0.0}


def test_upgrad_prefers_by_the_base_weights():
    """Without conflict the weights are the preference; the example of torchjd with p = 1/2."""
    assert make_rule("upgrad", base=[1.0, 3.0]).update(gradients([1.0, 0.0], [1.0, 1.0])).weights.tolist() == [1.0, 3.0]
    answer = make_rule("upgrad", base=EQUAL).update(gradients([-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]))
    assert answer.weights.tolist() == pytest.approx([1.1109, 0.7894], abs=3e-4)
    assert answer.metrics["lowest_cosine"] == pytest.approx(-22 / math.sqrt(18 * 38))


def test_mgda_is_a_rule():
    rows = [-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]
    assert make_rule("mgda", base=[1.0, 3.0]).update(gradients(*rows)).weights.tolist() == pytest.approx([2.4, 1.6])
    unit = make_rule("mgda", base=EQUAL, normalisation="unit").update(gradients(*rows)).weights
    assert float(unit[0] / unit[1]) == pytest.approx(math.sqrt(38 / 18))
    dead = make_rule("mgda", base=EQUAL, normalisation="unit").update(gradients([1.0, 0.0], [1e-8, 1e-8])).weights
    assert dead.tolist() == [1.0, 0.0]
    assert make_rule("mgda", base=[0.3, 0.7]).update(gradients([0.0], [0.0])).weights.tolist() == pytest.approx(
        [0.3, 0.7]
    )


def test_any_function_of_the_gram_matrix_is_a_rule():
    told = gradients([1.0, 0.0], [0.0, 2.0])
    assert make_rule("gram", base=EQUAL, function=lambda gram: gram.diagonal()).update(told).weights.tolist() == [1, 4]
    for bad in (lambda gram: gram, lambda gram: gram.diagonal() / 0):
        with pytest.raises(ValueError, match="2 finite weights"):
            make_rule("gram", base=EQUAL, function=bad).update(told)

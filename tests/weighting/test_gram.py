"""MGDA and UPGrad on the Gram matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from weighting_oracles import lattice, projected

from align.weighting.gram import divisors, mgda_weights, normalised, upgrad_weights

TORCHJD = torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]], dtype=torch.float64)


def uniform(count):
    return torch.full((count,), 1 / count, dtype=torch.float64)


def gram(jacobian):
    return jacobian @ jacobian.T


@st.composite
def jacobians(draw):
    """K gradients in d dimensions; clones, opposite ones and norms over four orders of magnitude among them."""
    count, size = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    jacobian = torch.randn(count, size, dtype=torch.float64, generator=generator)
    relation = draw(st.sampled_from(["independent", "clones", "opposite"]))
    if relation != "independent":
        jacobian[0] = jacobian[-1] if relation == "clones" else -jacobian[-1]
    exponents = draw(st.lists(st.integers(-2, 2), min_size=count, max_size=count))
    return jacobian * 10.0 ** torch.tensor(exponents, dtype=torch.float64)[:, None]


def test_upgrad_on_the_example_of_its_library():
    """p = 1/2 and u = p e_i give v = (1/2, 11/38) and (11/18, 1/2); torchjd, which regularises, prints 1.1109, 0.7894."""
    weights = upgrad_weights(gram(TORCHJD), uniform(2))
    assert weights.tolist() == pytest.approx([10 / 9, 15 / 19], abs=1e-9)
    assert (weights @ TORCHJD).tolist() == pytest.approx([0.2929, 1.9004, 1.9004], abs=1e-3)


@given(jacobians())
def test_upgrad_is_the_mean_of_projections_onto_the_dual_cone(jacobian):
    rows = jacobian.numpy()
    expected = np.mean([projected(rows, row) for row in rows], axis=0)
    direction = upgrad_weights(gram(jacobian), uniform(len(rows))) @ jacobian
    assert np.linalg.norm(direction.numpy() - expected) < 1e-4 * np.linalg.norm(rows)


@given(jacobians(), st.sampled_from([1e-10, 1e-6]))
def test_upgrad_hurts_no_objective_and_gives_each_its_preference(jacobian, ridge):
    preference = torch.arange(1, len(jacobian) + 1, dtype=torch.float64)
    weights = upgrad_weights(gram(jacobian), preference, ridge)
    change = jacobian @ (weights @ jacobian)
    norms = jacobian.norm(dim=1)
    assert (change >= -5e-5 * norms * norms.max() * preference.sum()).all()
    assert (weights >= preference * (1 - 1e-12)).all()


@given(jacobians())
def test_upgrad_is_linear_in_the_length_of_each_gradient(jacobian):
    lengths = torch.arange(1, len(jacobian) + 1, dtype=torch.float64)
    direction = upgrad_weights(gram(jacobian * lengths[:, None]), uniform(len(jacobian))) @ (
        jacobian * lengths[:, None]
    )
    expected = upgrad_weights(gram(jacobian), uniform(len(jacobian)) * lengths) @ jacobian
    assert direction.tolist() == pytest.approx(expected.tolist(), abs=1e-6 * float(jacobian.norm()))


@given(jacobians())
def test_mgda_is_the_shortest_vector_of_the_hull(jacobian):
    """KKT: w is on the simplex, and no gradient has a smaller product with the direction than it has with itself."""
    weights = mgda_weights(gram(jacobian))
    direction = weights @ jacobian
    scale = float((jacobian**2).sum(1).max())
    assert float(weights.sum()) == pytest.approx(1.0)
    assert (weights >= 0).all()
    assert float((jacobian @ direction - direction @ direction).min()) > -1e-7 * scale


@given(jacobians())
def test_mgda_is_not_longer_than_any_other_convex_combination(jacobian):
    directions = lattice(len(jacobian), 8) @ jacobian.numpy()
    shortest = float((mgda_weights(gram(jacobian)) @ jacobian).norm())
    assert shortest <= np.linalg.norm(directions, axis=1).min() + 1e-6 * float(jacobian.norm())


def test_mgda_of_two_objectives_in_closed_form():
    """w_1 = ⟨g_2 - g_1, g_2⟩ / |g_1 - g_2|² = (38 + 22) / 100."""
    assert mgda_weights(gram(TORCHJD)).tolist() == pytest.approx([0.6, 0.4], abs=1e-8)


def test_opposite_gradients_leave_no_direction():
    opposite = torch.tensor([[1.0, -2.0], [-1.0, 2.0]], dtype=torch.float64)
    for weights in (upgrad_weights(gram(opposite), uniform(2)), mgda_weights(gram(opposite))):
        assert (weights > 0).all()
        assert (weights @ opposite).tolist() == pytest.approx([0.0, 0.0], abs=1e-8)


@pytest.mark.parametrize("noise", [0.0, 1e-7])
def test_a_dead_objective_does_not_stop_the_others(noise):
    jacobian = torch.tensor([[3.0, 1.0], [0.0, noise], [-1.0, 1.0]], dtype=torch.float64)
    alone = mgda_weights(gram(jacobian[[0, 2]]))
    assert mgda_weights(gram(jacobian)).tolist() == pytest.approx([float(alone[0]), 0.0, float(alone[1])])
    preference = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    alone = upgrad_weights(gram(jacobian[[0, 2]]), preference[[0, 2]])
    weights = upgrad_weights(gram(jacobian), preference)
    assert weights.tolist() == pytest.approx([float(alone[0]), 0.3, float(alone[1])])


def test_without_any_gradient_mgda_is_even_and_upgrad_the_preference():
    nothing = torch.zeros(3, 3)
    assert mgda_weights(nothing).tolist() == pytest.approx([1 / 3] * 3)
    assert upgrad_weights(nothing, torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0, 2.0, 3.0]


def test_clones_share_their_weight():
    clones = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert mgda_weights(clones).tolist() == pytest.approx([0.25, 0.25, 0.5], abs=1e-6)


@pytest.mark.parametrize("scale", [1e-10, 1e-3, 1.0, 1e15])
def test_the_common_scale_of_gradients_does_not_matter(scale):
    matrix = gram(TORCHJD) * scale
    assert mgda_weights(matrix).tolist() == pytest.approx([0.6, 0.4], abs=1e-8)
    assert upgrad_weights(matrix, uniform(2)).tolist() == pytest.approx([10 / 9, 15 / 19], abs=1e-8)


@given(jacobians(), st.randoms(use_true_random=False))
def test_weights_follow_their_objectives(jacobian, random):
    order = list(range(len(jacobian)))
    random.shuffle(order)
    matrix, preference = gram(jacobian), torch.arange(1, len(jacobian) + 1, dtype=torch.float64)
    shuffled = matrix[order][:, order]
    assert mgda_weights(shuffled).tolist() == pytest.approx(mgda_weights(matrix)[order].tolist(), abs=1e-5)
    expected = upgrad_weights(matrix, preference, 1e-6)[order]
    assert upgrad_weights(shuffled, preference[order], 1e-6).tolist() == pytest.approx(expected.tolist(), rel=1e-3)


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-9, 1e-6])
def test_nearly_opposite_gradients_give_bounded_weights(gap):
    """Without a ridge a thin cone is reached by weights of 1/gap."""
    jacobian = torch.tensor([[1.0, gap], [-1.0, gap], [0.3, -1.0]], dtype=torch.float64)
    weights = upgrad_weights(gram(jacobian), uniform(3), 1e-6)
    assert weights.isfinite().all()
    assert float(weights.max()) < 1000
    assert float((jacobian @ (weights @ jacobian)).min()) > -1e-3


def test_many_objectives_are_solved():
    jacobian = torch.randn(14, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    direction = mgda_weights(gram(jacobian)) @ jacobian
    assert float((jacobian @ direction - direction @ direction).min()) > -1e-6
    assert float((jacobian @ (upgrad_weights(gram(jacobian), uniform(14)) @ jacobian)).min()) > -1e-6


def test_gradients_are_clipped_or_brought_to_norm_one():
    jacobian = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    matrix = gram(jacobian)
    assert normalised(matrix, divisors(matrix, "none")).equal(matrix)
    for how, lengths in (("clip", [5.0, 1.0, 1.0]), ("unit", [5.0, 0.5, 1.0])):
        assert divisors(matrix, how).tolist() == pytest.approx(lengths)
        assert torch.allclose(
            normalised(matrix, divisors(matrix, how)), gram(jacobian / torch.tensor(lengths)[:, None])
        )

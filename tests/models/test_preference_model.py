"""General preference scores against complex numbers, known worlds and matrices; settings; the template of POLAR."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.configs.common import ConfigError
from align.configs.preference_model import PreferenceModelConfig
from align.data.prompts.polar import polar_answer, polar_prompt, polar_row
from align.losses.general_preference import general_preference_loss, general_preference_scores, preference_probability

numbers = st.floats(-50, 50, allow_subnormal=False)
CYCLE = ((0, 1), (1, 2), (2, 0))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def vectors(d):
    return st.lists(numbers, min_size=d, max_size=d)


def matrix(v, scales=None):
    return general_preference_scores(v[:, None], v[None, :], scales=scales)


@given(st.integers(1, 4).flatmap(lambda k: st.tuples(vectors(2 * k), vectors(2 * k), vectors(k))))
def test_a_score_is_the_area_between_complex_numbers(case):
    """A block is a plane; there the score is Im(conj(a) b), which shares no code with the products of coordinates."""
    a, b, scales = case
    areas = [
        (complex(*a[2 * k : 2 * k + 2]).conjugate() * complex(*b[2 * k : 2 * k + 2])).imag for k in range(len(scales))
    ]
    expected = math.fsum(scale * area for scale, area in zip(scales, areas, strict=True))
    first, second, weights = (torch.tensor(x, dtype=torch.float64) for x in (a, b, scales))
    assert float(general_preference_scores(first, second, scales=weights)) == pytest.approx(
        expected, rel=1e-9, abs=1e-8
    )
    plain = float(general_preference_scores(first, second))
    assert plain == pytest.approx(math.fsum(areas), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("d", [1, 2, 4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swapping_the_answers_changes_the_sign_to_the_bit(d, dtype):
    a, b = (1e3 * normal(64, d, seed=seed).to(dtype) for seed in (1, 2))
    assert torch.equal(general_preference_scores(a, b), -general_preference_scores(b, a))
    assert torch.equal(general_preference_scores(a, a), torch.zeros(64, dtype=dtype))


def test_one_dimension_is_a_difference_of_rewards():
    assert general_preference_scores(torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0], [4.0]])).tolist() == [2.0, -3.0]


def test_scales_belong_to_blocks_of_each_prompt():
    # blocks: 1*1 - 0*0 = 1 and 2*1 - 0*0 = 2; prompt one keeps the first, prompt two weighs them 3 and 1/2
    a, b = torch.tensor([[1.0, 0.0, 2.0, 0.0]] * 2), torch.tensor([[0.0, 1.0, 0.0, 1.0]] * 2)
    scales = torch.tensor([[1.0, 0.0], [3.0, 0.5]])
    assert general_preference_scores(a, b, scales=scales).tolist() == [1.0, 4.0]


@pytest.mark.parametrize("d", [0, 3, 5])
def test_dimensions_without_a_score_are_refused(d):
    with pytest.raises(ValueError, match=f"dimension: must be 1 .* or even, got {d}"):
        general_preference_scores(torch.zeros(2, d), torch.zeros(2, d))


def test_scales_that_fit_no_blocks_are_refused():
    with pytest.raises(ValueError, match="no blocks to scale at d = 1"):
        general_preference_scores(torch.zeros(2, 1), torch.zeros(2, 1), scales=torch.ones(1))
    with pytest.raises(ValueError, match="one for each of the 2 blocks, got 1"):
        general_preference_scores(torch.zeros(2, 4), torch.zeros(2, 4), scales=torch.ones(1))


@given(numbers, numbers, st.floats(0.05, 5))
def test_the_loss_is_the_log_of_one_plus_the_odds(score, margin, tau):
    scores = torch.tensor([score], dtype=torch.float64, requires_grad=True)
    loss = general_preference_loss(scores, tau=tau, margin=margin)
    odds = (margin - score) / tau
    assert float(loss.detach()) == pytest.approx(np.logaddexp(0.0, odds), rel=1e-9, abs=1e-12)
    loss.sum().backward()
    assert float(scores.grad) == pytest.approx(-1 / (tau * (1 + math.exp(min(-odds, 700)))), rel=1e-9, abs=1e-12)


def test_probability_is_what_the_loss_without_margin_is_the_log_of():
    scores = torch.tensor([-0.3, 0.0, 0.2])
    assert_close(-preference_probability(scores, tau=0.1).log(), general_preference_loss(scores, tau=0.1))
    assert float(preference_probability(torch.tensor(0.0), tau=0.1)) == 0.5
    assert float(preference_probability(torch.tensor(0.1), tau=0.1)) == pytest.approx(1 / (1 + math.exp(-1)))


@pytest.mark.parametrize("tau", [0.0, -1.0, math.nan])
def test_a_temperature_that_is_not_positive_is_refused(tau):
    for call in (general_preference_loss, preference_probability):
        with pytest.raises(ValueError, match="tau must be positive"):
            call(torch.zeros(1), tau=tau)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_scores_have_a_finite_loss_and_a_gradient_where_they_are_wrong(dtype):
    scores = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4], dtype=dtype, requires_grad=True)
    losses = general_preference_loss(scores, tau=0.1)
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert torch.isfinite(scores.grad).all()
    assert (scores.grad[:3] < 0).all()


def test_gradients_are_those_of_finite_differences():
    a, b, scales = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_(), normal(3, 2, seed=2)
    assert torch.autograd.gradcheck(
        lambda x, y: general_preference_loss(general_preference_scores(x, y, scales=scales), tau=0.7), (a, b)
    )


def fitted(v, pairs, weights=None, tau=1.0):
    """Embeddings that minimise the mean loss of pairs of items, (chosen, rejected)."""
    v = v.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [v], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12, tolerance_change=0
    )
    chosen, rejected = (torch.tensor(side) for side in zip(*pairs, strict=True))

    def closure():
        optimizer.zero_grad()
        losses = general_preference_loss(general_preference_scores(v[chosen], v[rejected]), tau=tau)
        loss = losses.mean() if weights is None else (weights * losses).sum()
        (loss + 1e-6 * v.square().sum() * (weights is None)).backward()
        return loss

    for _ in range(5):
        optimizer.step(closure)
    return v.detach()


def share_right(v, pairs):
    scores = matrix(v)
    return sum(float(scores[i, j] > 0) for i, j in pairs) / len(pairs)


def test_a_cycle_is_fitted_by_two_dimensions_and_by_no_ranking():
    assert share_right(fitted(0.1 * normal(3, 2), CYCLE, tau=0.1), CYCLE) == 1.0
    rankings = [torch.tensor(order, dtype=torch.float64)[:, None] for order in itertools.permutations(range(3))]
    assert max(share_right(v, CYCLE) for v in rankings) == pytest.approx(2 / 3)
    best = fitted(0.1 * normal(3, 1), CYCLE)
    losses = general_preference_loss(torch.stack([matrix(best)[i, j] for i, j in CYCLE]))
    assert float(losses.mean()) == pytest.approx(math.log(2), abs=1e-6)  # convex, and symmetric: nothing is gained


@pytest.mark.parametrize(("n", "seed"), [(3, 0), (4, 1), (6, 2), (7, 3)])
def test_any_skew_matrix_needs_as_many_dimensions_as_its_rank(n, seed):
    """From the eigenvectors x + iy of the Hermitian iS, with eigenvalue λ > 0: one block for each."""
    a = normal(n, n, seed=seed)
    skew = a - a.T
    values, columns = torch.linalg.eigh(1j * skew)
    rank = int(torch.linalg.matrix_rank(skew))
    assert rank == n - n % 2
    kept = [k for k in range(n) if values[k] > 1e-9]
    assert 2 * len(kept) == rank
    blocks = [part * (2 * values[k]).sqrt() for k in kept for part in (columns[:, k].imag, columns[:, k].real)]
    v = torch.stack(blocks, dim=1)
    assert v.shape == (n, rank)
    assert_close(matrix(v), skew, rtol=0, atol=1e-10)
    fewer = matrix(normal(n, rank - 2, seed=9)) if rank > 2 else torch.zeros(n, n)
    assert int(torch.linalg.matrix_rank(fewer)) <= rank - 2  # so no embedding of fewer dimensions has this matrix


@pytest.mark.parametrize("tau", [1.0, 0.25])
def test_bradley_terry_recovers_the_scores_of_a_simulated_world(tau):
    true = normal(6, seed=4)
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    share = torch.stack([torch.sigmoid(true[i] - true[j]) for i, j in pairs])  # of endless comparisons
    found = fitted(torch.zeros(6, 1, dtype=torch.float64), pairs, weights=share, tau=tau).squeeze(1) / tau
    assert_close(found - found.mean(), true - true.mean(), rtol=0, atol=1e-5)


def settings(tmp_path, **kw):
    return PreferenceModelConfig(**{"output_dir": str(tmp_path), "use_cpu": True, "bf16": False} | kw)


@pytest.mark.parametrize(
    ("kw", "told"),
    [
        ({"dimension": 3}, "dimension: must be 1 .* or even, got 3"),
        ({"dimension": 0}, "dimension: .* got 0"),
        ({"tau": 0.0}, "tau: must be positive and finite, got 0.0"),
        ({"tau": math.inf}, "tau: must be positive and finite"),
        ({"center_rewards_coefficient": 0.01, "dimension": 2}, "center_rewards_coefficient: there are no rewards"),
        ({"center_rewards_coefficient": -1.0}, "center_rewards_coefficient: must be finite and not negative"),
        ({"margin_column": "chosen"}, "margin_column: must name a column other than"),
        ({"reference_column": ""}, "reference_column: must name a column other than"),
        ({"margin_column": "gap", "reference_column": "gap"}, "reference_column: 'gap' is the margin's column"),
        ({"trust_remote_code": True}, "trust_remote_code: not honoured here"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor: not honoured here"),
        ({"pad_token": "x"}, "pad_token: not honoured here"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy: 'group_by_length' needs lengths"),
        ({"chat_template_path": "another/tokenizer"}, "chat_template_path: must be a .jinja file"),
        ({"fsdp": "full_shard"}, "fsdp: accelerate does not shard on CPUs"),
        ({"max_skipped_steps": 0}, "max_skipped_steps: must be at least 1"),
    ],
)  # fmt: skip
def test_settings_that_would_not_be_honoured_are_refused(tmp_path, kw, told):
    with pytest.raises(ConfigError, match=told):
        settings(tmp_path, **kw)


def test_all_problems_are_told_at_once_and_good_settings_pass(tmp_path):
    with pytest.raises(ConfigError) as error:
        settings(tmp_path, dimension=3, tau=-1.0, seed=-1)
    assert [line.split(":")[0] for line in str(error.value).splitlines()] == ["dimension", "tau", "seed"]
    good = settings(tmp_path, dimension=4, tau=0.1, margin_column="gap", reference_column="gold")
    assert (good.columns(), good.text_columns()) == (("gap",), ("gold",))
    assert (settings(tmp_path).columns(), settings(tmp_path).text_columns()) == ((), ())
    assert settings(tmp_path, center_rewards_coefficient=0.01).center_rewards_coefficient == 0.01


def test_the_template_is_prompt_and_reference_then_prompt_and_answer():
    row = polar_row("What is 2+2?", "Four.", "4", "5")
    whole = "What is 2+2?\nFour.\n<split>\nWhat is 2+2?\n{}\n<reward>"
    assert row["prompt"] + row["chosen"] == whole.format("4")
    assert row["prompt"] + row["rejected"] == whole.format("5")


def test_messages_are_read_as_their_text():
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert polar_prompt(chat, [{"role": "assistant", "content": "d"}]) == "a\nb\nc\nd\n<split>\na\nb\nc\n"
    assert polar_answer([{"role": "assistant", "content": "e"}]) == "e\n<reward>"


@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize(("text", "told"), [(" ", "empty"), ("a <split> b", "holds '<split>'"), ("<reward>", "marker")])
def test_texts_that_break_the_template_are_refused(at, text, told):
    texts = ["p", "q", "r", "s"]
    texts[at] = text
    with pytest.raises(ValueError, match=f"^{('prompt', 'reference', 'chosen', 'rejected')[at]}: .*{told}"):
        polar_row(*texts)

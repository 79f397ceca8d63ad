"""Diversity of answers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from eval.measures.diversity import distinct, matched, predictive_entropy, self_bleu, vendi_score

RNG = np.random.default_rng(0)


def test_entropy_is_that_of_the_distribution_sampled_from():
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    draws = np.random.default_rng(1).choice(4, size=(4000, 3), p=p.numpy() / p.numpy().sum())
    answers = [p[torch.as_tensor(row)].log() for row in draws]
    exact = -float((p * p.log()).sum())
    whole = predictive_entropy(answers)
    token = predictive_entropy(answers, per_token=True)
    assert whole.low < 3 * exact < whole.high
    assert token.low < exact < token.high
    assert whole.n == 4000


def test_distinct_counts_n_grams_over_the_whole_set():
    texts = ["a b a b", "A b c"]
    assert distinct(texts, n=1) == 3 / 7  # a, b, c of seven words
    assert distinct(texts, n=2) == 3 / 5  # ab, ba, bc of five pairs
    assert distinct(["x"], n=2) == 0.0
    with pytest.raises(ValueError, match="n must be at least 1"):
        distinct(texts, n=0)


def test_self_bleu_is_sacrebleus_sentence_score_against_the_others():
    sacrebleu = pytest.importorskip("sacrebleu")
    texts = ["the film was good and long", "the film was bad and long", "nobody knows why it rains today"]
    expected = [
        sacrebleu.sentence_bleu(
            text, [t for t in texts if t is not text], smooth_method="exp", use_effective_order=True
        ).score
        for text in texts
    ]
    assert self_bleu(texts) == pytest.approx(np.mean(expected) / 100, abs=1e-12)
    assert self_bleu(["one and the same words here"] * 3) == pytest.approx(1.0)
    assert self_bleu(texts) < 0.6
    with pytest.raises(ValueError, match="needs at least 2"):
        self_bleu(["alone"])


def test_the_vendi_score_counts_what_is_different():
    assert vendi_score(np.ones((5, 3))) == pytest.approx(1.0)
    assert vendi_score(np.eye(6)) == pytest.approx(6.0)
    assert vendi_score(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3.0)  # twelve answers, three kinds


def test_the_vendi_score_is_its_definition_whichever_gram_matrix_is_smaller():
    for shape in ((7, 3), (3, 7)):
        x = RNG.normal(size=shape)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        shares = np.linalg.eigvalsh(unit @ unit.T / len(x))
        shares = shares[shares > 1e-9]
        assert vendi_score(x) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-9)


@given(arrays(float, (5, 4), elements=st.floats(-100, 100)).filter(lambda x: (np.linalg.norm(x, axis=1) > 1e-3).all()))
def test_the_vendi_score_is_between_one_and_the_number_of_answers(x):
    assert 1 - 1e-6 <= vendi_score(x) <= 5 + 1e-6
    assert vendi_score(x) == pytest.approx(vendi_score(7 * x), rel=1e-6)


def test_embeddings_that_have_no_direction_are_refused():
    for bad in (np.zeros((2, 3)), np.array([[np.nan, 1.0]])):
        with pytest.raises(ValueError, match="finite and not zero"):
            vendi_score(bad)


def test_a_measure_at_the_same_kl_is_between_its_neighbours():
    kl, entropy = np.array([4.0, 1.0, 2.0]), np.array([10.0, 40.0, 30.0])
    assert matched(kl, entropy, at=1.0) == 40.0
    assert matched(kl, entropy, at=3.0) == 20.0
    assert matched(kl, entropy, at=0.5) is None
    assert matched(kl, entropy, at=4.1) is None

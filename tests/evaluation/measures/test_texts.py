"""Measures of texts by hand."""

import pytest

from eval.answers.table import Sampled
from eval.measures.texts import diversity_found, length_estimates
from eval.statistics.names import REF

SAMPLED = Sampled(
    [{"prompt": str(i)} for i in range(4)],
    {"a": [["one two three"], ["one two"], ["one two three four"], ["one"]], REF: [["one"], ["one"], ["two"], ["two"]]},
)


def test_lengths_of_both_sides_and_their_difference():
    found = length_estimates(SAMPLED)["a"]
    assert found["length_words/policy"].value == pytest.approx(10 / 4)
    assert found["length_words/ref"].value == pytest.approx(1)
    assert found["length_words/difference"].value == pytest.approx(6 / 4)


def test_diversity_of_each_side_is_its_own():
    found = diversity_found(SAMPLED)["a"]
    assert found["distinct_1/policy"].value == pytest.approx(4 / 10)
    assert found["distinct_1/ref"].value == pytest.approx(2 / 4)

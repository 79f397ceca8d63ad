"""On two processes all weights are equal, and gradients are the weighted sum of the objectives', averaged over both."""

import json

import objectives_worker
import pytest
from launching import WORKERS, finished

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    out = tmp_path_factory.mktemp("objectives")
    finished(2, WORKERS / "objectives_worker.py", out)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", objectives_worker.CASES)
def test_weights_are_the_same_on_both_processes(both, name):
    one, other = (results[name] for results in both)
    assert one["weights"] == other["weights"]
    assert one["advantages"] == other["advantages"]
    assert one["trained"] == other["trained"]
    assert len({tuple(w) for w in one["weights"]}) > 1
    assert len(set(one["advantages"])) > 2


def test_the_gradient_of_both_is_the_weighted_sum(both):
    assert both[0]["upgrad"]["largest"] > 1e-3
    assert both[0]["upgrad"]["gap"] < 1e-6


def test_the_gram_matrix_is_of_gradients_averaged_over_both(both):
    assert both[0]["upgrad"]["gram_gap"] < 1e-4

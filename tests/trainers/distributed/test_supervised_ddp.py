"""Two gloo processes equal one, for every objective: losses, evaluation and weights."""

import json

import pytest
import supervised_worker as small
from launching import WORKERS, finished
from tiny import sparing

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "results.json"
    finished(2, WORKERS / "supervised_worker.py", out)
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", sparing(small.OBJECTIVES, "nll", "awr", "mixed"))
def test_two_processes_equal_one(two, tmp_path, name):
    one, both = small.outcome(name, tmp_path, processes=1), two[name]
    assert both["loss"] == pytest.approx(one["loss"], rel=1e-5, abs=1e-5)
    assert both["tokens"] == one["tokens"]
    assert both["eval"] == pytest.approx(one["eval"], rel=1e-3, abs=1e-5)
    assert {"eval_a_nll", "eval_b_nll"} <= set(both["eval"])
    for key, weight in one["weights"].items():  # gradients are summed in another order, and Adam divides by small ones
        assert both["weights"][key] == pytest.approx(weight, rel=1e-3, abs=5e-5), key

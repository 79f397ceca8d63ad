"""Two gloo processes equal one on the same answers, a group that lies on both included."""

import json

import answers_worker as small
import pytest
from launching import WORKERS, finished

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "results.json"
    finished(2, WORKERS / "answers_worker.py", out)
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", small.CASES)
def test_two_processes_equal_one(two, tmp_path, name):
    one, both = small.outcome(name, tmp_path, processes=1), two[name]
    for key in one.keys() - {"weights"}:
        assert both[key] == pytest.approx(one[key], rel=1e-4, abs=1e-6), key
    for key, weight in one["weights"].items():
        assert both["weights"][key] == pytest.approx(weight, rel=1e-3, abs=1e-6), key
    assert max(abs(v) for key, weight in one["weights"].items() if "lora_B" in key for v in weight) > 1e-3

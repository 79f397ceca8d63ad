"""KTO and BCO by two processes are those by one: baseline, loss, weights and evaluation."""

import json

import kto_worker
import pytest
import torch
from launching import WORKERS, finished


@pytest.mark.ddp
@pytest.mark.parametrize("method", kto_worker.METHODS)
def test_two_processes_equal_one(tmp_path, method):
    out = tmp_path / "two.json"
    finished(2, WORKERS / "kto_worker.py", out, method)
    both, one = json.loads(out.read_text()), kto_worker.outcome(tmp_path / "one", processes=1, method=method)
    assert max(map(abs, one["train"][kto_worker.METHODS[method][2]])) > 0
    for key in one["train"]:
        assert both["train"][key] == pytest.approx(one["train"][key], rel=1e-4, abs=1e-5), key
        assert both["eval"][key] == pytest.approx(one["eval"][key], rel=1e-3, abs=1e-5), key
    for key, weight in one["weights"].items():
        difference = torch.tensor(both["weights"][key]) - torch.tensor(weight)
        assert difference.norm() < 2e-3 * torch.tensor(weight).norm(), key

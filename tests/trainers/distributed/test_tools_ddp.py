"""A policy that calls tools on two processes learns what it learns on one, and goes on from a checkpoint to the bit."""

import json

import numpy as np
import pytest
import tiny
from launching import WORKERS, finished
from tools_worker import outcome, trainer_of

pytestmark = [pytest.mark.ddp, pytest.mark.slow]


def test_two_processes_learn_what_one_learns(tmp_path, learnt_caller):
    finished(2, WORKERS / "tools_worker.py", learnt_caller, tmp_path, 4)
    both = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    (tmp_path / "one").mkdir()
    one = outcome(learnt_caller, tmp_path / "one", rows=8)
    assert both[0]["trained"] == both[1]["trained"]
    assert both[0]["calls"] == both[1]["calls"] == one["calls"]
    assert min(one["calls"]) > 0
    assert max(one["failed"]) > 0
    np.testing.assert_allclose(both[0]["rewards"], one["rewards"], rtol=1e-6)
    for name, weights in one["trained"].items():
        np.testing.assert_allclose(both[0]["trained"][name], weights, rtol=0, atol=1e-7, err_msg=name)
    assert max(abs(w) for name, weights in one["trained"].items() if "lora_B" in name for w in weights) > 1e-4


def test_a_run_that_calls_tools_goes_on_to_the_bit(tmp_path, learnt_caller):
    settings = {
        "rows": 4, "generation_batch_size": 4, "max_steps": 4, "save_strategy": "steps", "save_steps": 1, "num_iterations": 2,
        "optim": "adamw_torch", "learning_rate": 1e-3,
    }  # fmt: skip
    (tmp_path / "again").mkdir()
    whole = trainer_of(learnt_caller, tmp_path, **settings)
    whole.train()
    for at in (1, 2):  # within a batch of completions, and between two
        again = trainer_of(learnt_caller, tmp_path / "again", **settings)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
        theirs, ours = tiny.weights(whole), tiny.weights(again)
        assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert any(r.get("tools/call_frequency") for r in whole.state.log_history)

"""A front made by two processes is the front of one: the same policies, mixtures, extensions, answers and figures."""

import json

import numpy as np
import pytest
from launching import WORKERS, commands
from safetensors.torch import load_file

from align.fronts.run import MEMBERS

pytestmark = [pytest.mark.slow, pytest.mark.ddp]


def made(folder, name, processes):
    """The directory of a front; all its processes end without an error."""
    run = folder / f"{name}-{processes}"
    words = [f"fronts/{name}", f"train.output_dir={run}", f"train.per_device_train_batch_size={8 // processes}"]
    code, said, *_ = commands().run(WORKERS / "front_worker.py", *words, ranks=processes)
    assert code == 0, said[-3000:]
    return run


@pytest.mark.parametrize("name", ["tiny", "manifold-tiny", "c-morl-tiny"])
def test_a_front_of_two_processes_is_that_of_one(tmp_path, name):
    """Answers in training are the same by construction; sums over processes differ in rounding, and what they round is small."""
    one, two = (made(tmp_path, name, processes) for processes in (1, 2))
    told = [json.loads((run / MEMBERS).read_text()) for run in (one, two)]
    assert told[0] == told[1]
    learnt = 0
    for member in told[0]["members"]:
        ours, theirs = (load_file(run / member["adapter"] / "adapter_model.safetensors") for run in (one, two))
        learnt += any(float(weight.abs().max()) > 1e-3 for key, weight in ours.items() if "lora_B" in key)
        for key, weight in ours.items():
            np.testing.assert_allclose(weight.numpy(), theirs[key].numpy(), atol=1e-4, err_msg=key)
        assert (one / member["scores"]).read_bytes() == (two / member["scores"]).read_bytes()
    assert learnt >= len(told[0]["members"]) - 1  # the two rewards nearly sum to one: equal weights of them hardly pull
    fronts = [json.loads((run / "front.json").read_text()) for run in (one, two)]
    assert fronts[0] == fronts[1]
    points = {tuple(member["values"].values()) for member in fronts[0]["members"]}
    assert len(points) > 1
    lines = [
        [json.loads(line)["stage"] for line in (run / "fronts.jsonl").read_text().splitlines()] for run in (one, two)
    ]
    assert lines[0] == lines[1]  # no stage twice

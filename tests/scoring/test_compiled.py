"""Trainers under `torch_compile: true`: the same numbers, and graphs that serve batches of every length.

The backend is `eager`: what is traced, and traced again, does not depend on what the graphs are compiled to.
"""

import pytest
import tiny
import torch
from torch._dynamo.utils import counters
from transformers import TrainerCallback

from align import DPOConfig, DPOTrainer

COMPILED = {"torch_compile": True, "torch_compile_backend": "eager"}


class Graphs(TrainerCallback):
    """How many graphs there are after each step."""

    def __init__(self):
        self.after = []

    def on_step_end(self, args, state, control, **_):
        self.after.append(counters["stats"]["unique_graphs"])


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def trained(tmp_path, *callbacks, **kw):
    result = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, shared_prefix="on", callbacks=[*callbacks], **kw)
    result.train()
    return result


@pytest.mark.slow
def test_packed_rows_of_other_lengths_are_not_compiled_again(tmp_path):
    graphs = Graphs()
    compiled = trained(tmp_path / "a", graphs, **COMPILED)
    assert tiny.losses(compiled) == pytest.approx(tiny.losses(trained(tmp_path / "b")), abs=1e-5)
    assert max(tiny.losses(compiled, "computed_per_token")) < 0.8
    assert graphs.after[0] > 0
    assert graphs.after[1:] == [graphs.after[1]] * 4  # the second batch makes the lengths dynamic

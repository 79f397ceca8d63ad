"""Two gloo processes equal one: losses, metrics, evaluation and weights."""

import json

import ddp_worker
import pytest
from launching import WORKERS, finished, torchrun

import align
from align.runs.directory import read_metrics

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "results.json"
    finished(2, WORKERS / "ddp_worker.py", out)
    return json.loads(out.read_text())


@pytest.mark.parametrize("name", ["dpo", "rpo", "stored", "half"])
def test_two_processes_equal_one(two, tmp_path, name):
    one, both = ddp_worker.outcome(name, tmp_path, processes=1), two[name]
    assert both["loss"] == pytest.approx(one["loss"], rel=2**-22, abs=1e-6)  # of a loss above 4, its last two bits
    assert both["margins"] == pytest.approx(one["margins"], abs=1e-5)
    assert both["tokens"] == one["tokens"]
    assert both["eval"] == pytest.approx(one["eval"], rel=1e-4, abs=1e-5)
    assert {"eval_a_rewards/accuracies", "eval_b_rewards/accuracies"} <= set(both["eval"])
    for key, weight in one["weights"].items():  # gradients are summed in another order, and Adam divides by small ones
        assert both["weights"][key] == pytest.approx(weight, rel=1e-4, abs=2e-5), key


def test_two_processes_of_ours_equal_two_of_trls(two):
    ours, theirs = two["dpo"], two["trl"]
    assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    for key, weight in theirs["weights"].items():
        assert ours["weights"][key] == pytest.approx(weight, rel=1e-5, abs=1e-6), key


@pytest.mark.slow
def test_a_recipe_under_torchrun_equals_one_process(tmp_path):
    shared = ["train.global_batch_size=4", "train.max_steps=3", "data.holdout=0.4", "data.eval={}"]
    one = align.run("fdpo/tiny", [*shared, f"train.output_dir={tmp_path / 'one'}"])
    of_two = [f"train.output_dir={tmp_path / 'two'}", "train.per_device_train_batch_size=1"]
    done = torchrun(2, "-m", "align.train", "fdpo/tiny", *shared, *of_two)
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [
        [r["loss"] for r in read_metrics(tmp_path / run / "metrics.jsonl") if "loss" in r] for run in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    envs = [json.loads((tmp_path / run / "env.json").read_text()) for run in ("one", "two")]
    assert [env["processes"] for env in envs] == [1, 2]
    assert envs[0]["data"] == envs[1]["data"]
    assert one.trainer.args.gradient_accumulation_steps == 2

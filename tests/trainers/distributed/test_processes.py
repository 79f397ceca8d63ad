"""Several processes: a skipped step is skipped by all, four equal one, and one that dies ends them all."""

import json
import subprocess
import sys

import ddp_worker
import pytest
import tiny
from launching import ENV, WORKERS, finished, torchrun

from align import DPOConfig, DPOTrainer

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    out = tmp_path_factory.mktemp("four") / "results.json"
    finished(4, WORKERS / "ddp_worker.py", out, "rpo", "skips")
    return json.loads(out.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rpo", "skips"])
def test_four_processes_equal_one(four, tmp_path, name):
    one, all_four = ddp_worker.outcome(name, tmp_path, processes=1), four[name]
    assert all_four["loss"] == pytest.approx(one["loss"], rel=1e-6)
    assert all_four["margins"] == pytest.approx(one["margins"], abs=1e-5)
    assert all_four["eval"] == pytest.approx(one["eval"], rel=1e-4, abs=1e-5)
    assert all_four["skipped"] == one["skipped"] == (name == "skips")
    for key, weight in one["weights"].items():
        assert all_four["weights"][key] == pytest.approx(weight, rel=1e-4, abs=5e-5), key


@pytest.mark.slow
def test_a_process_that_dies_ends_all_and_says_why(tmp_path):
    done = torchrun(2, WORKERS / "ddp_worker.py", tmp_path / "results.json", "dies")
    assert done.returncode != 0
    assert "Signal 9 (SIGKILL) received by PID" in done.stderr
    assert not (tmp_path / "results.json").exists()


def test_packed_rows_of_a_sharded_model_are_those_of_the_whole_one(tmp_path):
    finished(2, WORKERS / "fsdp_worker.py", tmp_path / "found.json")
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["logps"] < 1e-6
    assert len(found["gradients"]) == 28
    assert max(found["gradients"]) < 1e-6


def test_the_order_of_the_data_does_not_depend_on_the_number_of_workers(tmp_path):
    def trained(workers):
        made = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / str(workers), dataloader_num_workers=workers)
        made.train()
        return tiny.weights(made)

    none, two = trained(0), trained(2)
    assert all((none[name] == two[name]).all() for name in none)


SPLIT = """
import json, sys
from datasets import Dataset, DatasetDict
rows = [{"prompt": f"question {i} ", "chosen": "a", "rejected": "b"} for i in range(40)]
path = sys.argv[1]
open(path, "w").write("".join(json.dumps(row) + "\\n" for row in rows))
if sys.argv[2] == "ours":
    from align.data import DataConfig, DataSource, load_preferences
    data = load_preferences(DataConfig(train=DataSource(path), holdout=0.5))
    train, test = data.train, data.eval["holdout"]
else:
    from trl import DatasetMixtureConfig, get_dataset
    from trl.scripts.utils import DatasetConfig
    both = get_dataset(DatasetMixtureConfig(datasets=[DatasetConfig(path="json", data_files=path)], test_split_size=0.5))
    train, test = both["train"], both["test"]
print(json.dumps([train["prompt"][:], test["prompt"][:]]))
"""


@pytest.mark.parametrize(("whose", "leaks"), [("ours", False), ("trl", True)])
def test_rows_held_out_by_one_process_are_not_trained_on_by_another(tmp_path, whose, leaks):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPLIT, str(tmp_path / f"{rank}.jsonl"), whose],
            env=ENV | {"HF_DATASETS_CACHE": str(tmp_path / f"cache-{rank}")}, stdout=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    splits = [json.loads(process.communicate(timeout=600)[0].splitlines()[-1]) for process in processes]
    leaked = set(splits[0][0]) & set(splits[1][1])
    assert bool(leaked) == leaks

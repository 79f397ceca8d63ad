"""Two CPU processes under FSDP2 and ZeRO equal one process, and go on as if nothing had been after one of them died."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from launching import ROOT, WORKERS, commands, finished, torchrun
from safetensors.torch import load_file
from tiny import sparing

import align
from align.runs.directory import read_metrics

pytestmark = pytest.mark.ddp
WORKER = WORKERS / "engine_worker.py"
DEEPSPEED = Path(sys.prefix) / "deepspeed"  # where `make test` has it, for these processes alone
MISSING = pytest.mark.skipif(
    find_spec("deepspeed") is None and not (DEEPSPEED / "deepspeed").is_dir(),
    reason="DeepSpeed is not installed: `make test` does it",
)
ENGINES = [
    "fsdp2",
    pytest.param("zero2", marks=[MISSING, pytest.mark.slow]),
    pytest.param("zero3", marks=MISSING),
]
CASES = {
    "dpo": ("dpo/tiny", ["train.shared_prefix=off"]),
    "rpo": ("rpo/tiny", ["train.shared_prefix=on"]),
    "fdpo": ("fdpo/tiny", []),
    "kto": ("kto/tiny", ["train.gradient_accumulation_steps=1"]),
    "full": ("dpo/tiny", ["lora=null", "train.learning_rate=1e-3"]),
    "stored": ("rpo/tiny", ["train.precompute_ref_log_probs=true"]),
    "online": ("online/tiny-rloo", ["train.shared_prefix=off"]),  # engines sample by TRL's own draws
}
SETTINGS = [
    "train.use_cpu=false", "train.bf16=false", "train.max_steps=2", "train.save_steps=1", "train.logging_steps=1",
    "train.disable_tqdm=true",
]  # fmt: skip


def words(case, folder, processes):
    recipe, own = CASES[case]
    batch = (8 if case == "online" else 4) // processes
    return [recipe, *SETTINGS, *own, f"train.output_dir={folder}", f"train.per_device_train_batch_size={batch}"]


def under(engine, *words, dies="-"):
    """Exit code of two processes, and what they said."""
    if engine.startswith("zero"):  # accelerate looks for DeepSpeed when it is imported
        done = torchrun(2, WORKER, engine, dies, *words, PYTHONPATH=f"{ROOT}:{DEEPSPEED}")
        return done.returncode, done.stdout + done.stderr
    return commands().run(WORKER, engine, dies, *words, ranks=2)[:2]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What one process makes of each case; of what processes sample each for itself, what two make that share no weights."""
    made = {}

    def of(case):
        if case not in made:
            made[case] = tmp_path_factory.mktemp(case) / "plain"
            if case == "online":
                finished(2, WORKER, "ddp", "-", *words(case, made[case], processes=2), "train.use_cpu=true")
            else:
                recipe, *overrides = words(case, made[case], processes=1)
                align.run(recipe, overrides)
        return made[case]

    return of


def losses(run: Path):
    return [record["loss"] for record in read_metrics(run / "metrics.jsonl") if "loss" in record]


def trained(run: Path):
    [path] = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    return load_file(path)


def equal(run, other, **how):
    assert losses(run) == pytest.approx(losses(other), rel=2e-6, abs=1e-6)
    found, wanted = trained(run), trained(other)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        assert found[name].flatten().tolist() == pytest.approx(weight.flatten().tolist(), **how), name


@pytest.mark.parametrize("case", sparing(CASES, "rpo"))
@pytest.mark.parametrize("engine", ENGINES)
def test_two_processes_under_an_engine_equal_one(plain, tmp_path, engine, case):
    run = tmp_path / "run"
    code, said = under(engine, *words(case, run, processes=2))
    assert code == 0, said[-3000:]
    equal(run, plain(case), rel=1e-4, abs=2e-4)  # sums of another order, which Adam divides by
    envs = [json.loads((path / "env.json").read_text()) for path in (run, plain(case))]
    assert envs[0]["processes"] == 2
    assert envs[0]["identity"]["reference"] == envs[1]["identity"]["reference"], "one digest of the same weights"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_under_an_engine_goes_on_after_a_process_died(plain, tmp_path, engine):
    run = tmp_path / "run"
    assert under(engine, *words("rpo", run, processes=2), dies=1)[0] != 0
    assert (run / "checkpoint-1" / "alignkit.json").is_file()
    assert not (run / "adapter").exists()
    code, said = under(engine, *words("rpo", run, processes=2), "--resume", "auto")
    assert code == 0, said[-3000:]
    assert "resuming from" in said
    assert [path.name for path in sorted(run.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2"]
    equal(run, plain("rpo"), rel=1e-4, abs=2e-4)
    assert commands().run("eval", run, "eval.generate=null")[0] == 0

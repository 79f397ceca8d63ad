"""Killed or interrupted at a random moment, then done again: every command gets to where it would have got, and leaves nothing."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from launching import ENV, ROOT
from safetensors.torch import load_file

from align.files import sha256

SHORT = ("train.max_steps=6", "train.save_steps=2", "train.disable_tqdm=true")
RECIPES = ("dpo/tiny", "fdpo/tiny", "online/tiny-grpo", "online/tiny-rloo", "supervised/tiny", "srpo/tiny")
KILLS, INTERRUPTS = int(os.environ.get("ALIGNKIT_KILLS", "8")), int(os.environ.get("ALIGNKIT_INTERRUPTS", "4"))


def command(*words):
    return [sys.executable, "-m", "align.cli", *map(str, words)]


def done(*words):
    finished = subprocess.run(command(*words), env=ENV, capture_output=True, text=True, timeout=600, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished


def ended_early(after, number, *words):
    """Send a signal after some seconds; the exit code and what was said, or None if the command was faster."""
    with subprocess.Popen(
        command(*words), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            process.wait(timeout=after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _, said = process.communicate(timeout=600)
    assert "Traceback" not in said, said[-3000:]
    return process.returncode, said


def check_code(code, number):
    assert code in ((0, -number) if number == signal.SIGKILL else (0, 130, -number))  # -2: Python itself was not up yet


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished run of each recipe, the seconds it took, and what else commands read."""
    home = tmp_path_factory.mktemp("kills")
    seconds = {}
    for recipe in RECIPES:
        begun = time.monotonic()
        done("train", recipe, *SHORT, f"train.output_dir={home / recipe.replace('/', '-')}")
        seconds[recipe] = time.monotonic() - begun
    done("train", "dpo/tiny", *SHORT, "train.seed=5", f"train.output_dir={home / 'other'}")
    return home, seconds


def moments(count, seed):
    """Signals and shares of the time that a command takes."""
    draw = random.Random(seed)
    numbers = [signal.SIGKILL] * count + [signal.SIGINT] * (count * INTERRUPTS // KILLS)
    return [(number, draw.uniform(0.2, 1.0)) for number in numbers]


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_goes_on_to_the_same_bits(world, tmp_path, recipe):
    home, seconds = world
    for index, (number, share) in enumerate(moments(max(1, KILLS // len(RECIPES)), recipe)):
        run = tmp_path / str(index)
        words = ("train", recipe, *SHORT, f"train.output_dir={run}")
        code, _ = ended_early(share * seconds[recipe], number, *words)
        check_code(code, number)
        done(*words, *(("--resume", "auto") if run.is_dir() else ()))
        (theirs,) = (home / recipe.replace("/", "-")).glob("adapter/adapter_model.safetensors")
        ours, theirs = load_file(run / "adapter" / theirs.name), load_file(theirs)
        assert all((ours[name] == theirs[name]).all() for name in theirs)
        assert not [path for path in run.rglob(".*") if path.name != ".lock"]


@pytest.mark.slow
@pytest.mark.parametrize("what", ["eval", "compare", "verify", "data", "merge"])
def test_other_commands_are_done_again(world, tmp_path, what):
    home, _ = world
    run, other = tmp_path / "dpo-tiny", tmp_path / "other"
    for source in (run, other):
        shutil.copytree(home / source.name, source)
    out = tmp_path / "out"
    expect = "expect={tiny/calibration/nll: {value: 0, tol: 0, direction: at_least}}"
    words = {
        "eval": ("eval", run),
        "compare": ("compare", run, other),
        "verify": ("verify", run, expect),
        "data": ("data", "fix", ROOT / "recipes" / "data" / "quickstart-train.jsonl", "--out", tmp_path / "out.jsonl"),
        "merge": ("merge", run / "adapter", other / "adapter", "--sweep", "21", "--out", out),
    }[what]
    begun = time.monotonic()
    done(*words)
    took = time.monotonic() - begun
    result = {"data": tmp_path / "out.jsonl", "merge": out / "merge.json"}.get(what, run / "report.json")
    whole = sha256(result)
    for number, share in moments(max(1, KILLS // 4), what):
        for made in (out, tmp_path / "out.jsonl", tmp_path / "out.log.jsonl"):
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
        result.unlink(missing_ok=True)
        code, _ = ended_early(share * took, number, *words)
        check_code(code, number)
        if code != 0:
            assert what not in ("data", "merge") or not result.exists() or number == signal.SIGKILL
        for made in (out, tmp_path / "out.jsonl", tmp_path / "out.log.jsonl"):
            shutil.rmtree(made) if made.is_dir() else made.unlink(missing_ok=True)
        done(*words)
        assert sha256(result) == whole
        assert not list(tmp_path.glob(".alignkit-*"))

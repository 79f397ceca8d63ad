"""Killed or interrupted at a random moment, then done again: every command gets to where it would have got, and leaves nothing."""

import json
import os
import random
import shutil
import signal
import sys
import uuid

import pytest
from endpoint_server import Server, says
from forks import Commands
from launching import ROOT
from safetensors.torch import load_file

from align.files import scratch_folder, sha256

SHORT = ("train.max_steps=6", "train.save_steps=2", "train.disable_tqdm=true")
RECIPES = (
    "dpo/tiny", "rpo/tiny", "fdpo/tiny", "pairwise/tiny", "srpo/tiny", "supervised/tiny", "preference_model/tiny",
    "online/tiny-grpo", "online/tiny-rloo", "online/tiny-reinforce", "rounds/tiny", "kto/tiny", "online/tiny-online-dpo",
    "fronts/tiny", "fronts/manifold-tiny", "fronts/c-morl-tiny", "preference_model/groups-tiny", "bco/tiny", "beta_dpo/tiny",
)  # fmt: skip
COMMANDS = ("eval", "judge", "compare", "verify", "data", "merge", "sample", "score")
EXPECT = "expect={tiny/calibration/nll: {value: 0, tol: 0, direction: at_least}}"
EACH = {  # of one recipe or command; given for long runs
    signal.SIGKILL: int(os.environ.get("ALIGNKIT_KILLS", "1")),
    signal.SIGINT: int(os.environ.get("ALIGNKIT_INTERRUPTS", "1")),
}


def note(*words):
    """Shown where a test fails, and by `-rP`."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    started = Commands(tmp_path_factory.mktemp("said"))
    yield started
    started.close()


def done(commands, *words, watched=None):
    """Run a command to its end; the seconds it took until `watched` appeared, and in all."""
    code, said, seen, took = commands.run(*words, watched=watched)
    assert code == 0, said[-3000:]
    return seen, took


def ended_early(commands, number, after, *words, watched=None):
    """Send a signal some seconds after the start, or after `watched` appeared."""
    code, said, *_ = commands.run(*words, watched=watched, number=number, after=after)
    assert "Traceback" not in said, said[-3000:]
    assert code in ((0, -number) if number == signal.SIGKILL else (0, 130)), said[-3000:]  # 0: it was faster
    note(number.name, f"{after:.2f} s", "after the first file" if watched else "", "->", code)


def signals(name):
    """Signals to send, each with a share of the time; the seed is printed where it was not given."""
    seed = os.environ.get("ALIGNKIT_SEED") or uuid.uuid4().hex[:8]
    draw = random.Random(f"{seed} {name}")
    note(f"{name}: ALIGNKIT_SEED={seed}")
    return [(number, draw.random(), draw.random() < 0.5) for number, count in EACH.items() for _ in range(count)]


def results(run):
    return {path.relative_to(run): load_file(path) for path in run.rglob("adapter/*.safetensors")}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_training_goes_on_to_the_same_bits(commands, tmp_path, recipe):
    whole = tmp_path / "whole"
    command = "groups" if "groups" in recipe else "front" if recipe.startswith("fronts/") else "train"
    seen, took = done(
        commands, command, recipe, *SHORT, f"train.output_dir={whole}", watched=whole / "recipe.resolved.yaml"
    )
    theirs = results(whole)
    assert theirs
    for index, (number, share, late) in enumerate(signals(recipe)):
        run = tmp_path / str(index)
        words = (command, recipe, *SHORT, f"train.output_dir={run}")
        if late:
            ended_early(commands, number, share * (took - seen), *words, watched=run / "recipe.resolved.yaml")
        else:
            ended_early(commands, number, share * took, *words)
        note("there:", sorted(path.name for path in run.glob("*")))
        done(commands, *words, *(("--resume", "auto") if run.is_dir() else ()))
        ours = results(run)
        assert ours.keys() == theirs.keys()
        assert all((ours[file][name] == theirs[file][name]).all() for file in theirs for name in theirs[file])
        assert not [path for path in run.rglob(".*") if path.name != ".lock"]


@pytest.fixture(scope="module")
def world(commands, tmp_path_factory):
    """Two finished runs, and answers to score."""
    home = tmp_path_factory.mktemp("kills")
    for name, seed in (("run", 0), ("other", 5)):
        done(commands, "train", "dpo/tiny", *SHORT, f"train.seed={seed}", f"train.output_dir={home / name}")
    prompts = ROOT / "recipes" / "data" / "tiny-prompts.jsonl"
    done(commands, "sample", "tiny-random", "--prompts", prompts, "--samples", "3", "--out", home / "answers.jsonl")
    return home


def words_of(what, folder, server):
    """What is run, and the file that it makes."""
    run, other, out, data = folder / "run", folder / "other", folder / "out", ROOT / "recipes" / "data"
    judge = f"eval.judges={{j: {{kind: endpoint, url: '{server.url}', model: m, timeout_seconds: 60, attempts: 2}}}}"
    host = server.url.removeprefix("http://").removesuffix("/v1")
    made = folder / "out.jsonl"
    return {
        "eval": (("eval", run), run / "report.json"),
        "judge": (("eval", run, judge, "--allow", host), run / "report.json"),
        "compare": (("compare", run, other, "-o", out), out / "report.json"),
        "verify": (("verify", run, EXPECT), run / "report.json"),
        "data": (("data", "fix", data / "quickstart-train.jsonl", "--out", made), made),
        "merge": (("merge", run / "adapter", other / "adapter", "--sweep", "21", "--out", out), out / "merge.json"),
        "sample": (
            ("sample", "tiny-random", "--prompts", data / "tiny-prompts.jsonl", "--samples", "6", "--out", made),
            made,
        ),
        "score": (
            ("score", folder / "answers.jsonl", "--by", "j={kind: language_model, path: tiny-random}", "--out", made),
            made,
        ),
    }[what]


def content(result):
    """Of a file; of a report, all but its date."""
    if result.name != "report.json":
        return sha256(result)
    return {name: value for name, value in json.loads(result.read_text()).items() if name != "date"}


def shape(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_other_commands_are_done_again(commands, world, tmp_path, what):
    fresh, whole = tmp_path / "fresh", None
    fresh.mkdir()
    for name in ("run", "other"):
        shutil.copytree(world / name, fresh / name)
    shutil.copy(world / "answers.jsonl", fresh)
    place = tmp_path / "place"  # always the same one, since reports name it

    with Server(lambda text, number: says("AB"[len(text) % 2])) as server:
        words, result = words_of(what, place, server)
        for number, share, _ in [(None, 0.0, False), *signals(what)]:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(fresh, place)
            if number is None:
                _, took = done(commands, *words)
                whole, files, paid = content(result), shape(place), len(server.requests)
                assert (paid > 0) == (what == "judge")
            else:
                server.requests.clear()
                ended_early(commands, number, share * took, *words)
                there = {path.name for path in place.glob("*")} - {path.name for path in fresh.glob("*")}
                note("there:", sorted(there), len(server.requests), "asked")
                again = result.exists() and what in ("data", "merge", "sample", "score")  # its whole result stays
                if again:
                    with scratch_folder(place / "next"):  # which a kill may have left, and the next command takes away
                        pass
                else:
                    done(commands, *words)
                assert content(result) == whole
                assert shape(place) == files
                assert len(server.requests) <= paid + 8  # those under way when it was killed

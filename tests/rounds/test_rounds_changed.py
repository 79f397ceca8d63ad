"""Rounds that are gone on with in other numbers or at another place, and reports on rounds of which something is gone."""

import shutil

import pytest
from launching import torchrun
from stored_world import read_lines, write_lines

from align.errors import RunError
from align.rounds.ledger import FILE
from align.rounds.plan import Place, load_training, words_here
from align.rounds.run import other_rounds
from align.runs.identity import Difference
from align.train import run
from eval.rounds import trained_rounds


def weights(folder):
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def copied(done, tmp_path):
    """The run of two rounds at another place."""
    return shutil.copytree(done, tmp_path / "copied")


def test_more_rounds_go_on_with_their_own_numbers(done, tmp_path):
    folder = tmp_path / "run"
    words = ["rounds/tiny", f"train.output_dir={folder}"]
    run(words[0], [words[1], "rounds.count=1", "train.learning_rate=0.01"])
    with pytest.raises(RunError, match=r"made by another recipe:\n  train.learning_rate: 0.01 -> \[0.02, 0.005\]"):
        run(words[0], [words[1], "train.learning_rate=[0.02,0.005]"], resume="auto")
    run(words[0], words[1:], resume="auto")  # the recipe's two rounds, with 0.01 and 0.005
    assert weights(folder) == weights(done)


def test_fewer_rounds_are_those_alone(done, copied):
    run("rounds/tiny", [f"train.output_dir={copied}", "rounds.count=1", "train.learning_rate=0.01"], resume="auto")
    assert weights(copied) == weights(done / "round-1" / "train")
    assert trained_rounds(copied) == [str(copied / "round-1" / "train")]
    assert len(trained_rounds(done)) == 2


@pytest.mark.parametrize(
    ("key", "old", "new", "counts", "goes_on"),
    [
        ("train.learning_rate", [1, 2], [1, 2, 3], (2, 3), True),
        ("train.learning_rate", [1, 2, 3], [1, 2], (3, 2), True),
        ("train.learning_rate", 1, [1, 1, 3], (2, 3), True),
        ("train.learning_rate", 1, [1, 2, 3], (2, 3), False),
        ("train.learning_rate", 1, [1, 1], None, True),
        ("train.learning_rate", 1, [1, 2], None, False),
        ("train.learning_rate", [1, 2], [1, 3], None, False),
        ("train.learning_rate", [1, 2], [2, 2, 2], (2, 3), False),
        ("train.learning_rate", 1, 2, (1, 2), False),
        ("rounds.sample.temperature", 1.0, [1.0, 0.5], (1, 2), True),
        ("train.report_to", ["a"], ["a", "b"], (1, 2), False),
        ("lora.target_modules", ["q"], ["q", "v"], (1, 2), False),
        ("rounds.sample.samples", 2, 3, (1, 2), False),
        ("rounds.keep.earlier", [0.1], [0.1, 0.2], (1, 2), False),
    ],
)
def test_numbers_by_round_may_become_more_and_nothing_else(key, old, new, counts, goes_on):
    said = Difference(key, old, new)
    more = [Difference("rounds.count", *counts), Difference("rounds.take", "last", "best")] if counts else []
    assert other_rounds([*more, said]) == ([] if goes_on else [said])


def test_a_report_names_the_round_whose_adapter_is_gone(copied):
    shutil.rmtree(copied / "round-1" / "train" / "adapter")
    with pytest.raises(
        RunError, match=r"round-1/train: neither adapter/ nor model/ there, although round 1 was trained"
    ):
        trained_rounds(copied)
    run("rounds/tiny", [f"train.output_dir={copied}"], resume="auto")
    assert len(trained_rounds(copied)) == 2


def test_a_run_that_was_moved_goes_on_with_its_own_files(done, copied):
    place = Place(copied, 2)
    assert words_here(Place(done, 2)) == [f"train.output_dir={done / 'round-2' / 'train'}"]
    recipe = load_training(place)
    before = str(copied / "round-1" / "train")
    assert recipe.data.train_sources()[0].path == str(place.pairs)
    assert (recipe.start.adapter, recipe.ref.path) == (before, f"{before}/adapter")
    lines = (copied / FILE).read_text().splitlines(keepends=True)
    (copied / FILE).write_text("".join(lines[:-2]))  # as if killed before round 2 was trained
    shutil.rmtree(place.trained)
    run("rounds/tiny", [f"train.output_dir={copied}"], resume="auto")
    assert weights(copied) == weights(done)
    text = (place.trained / "recipe.resolved.yaml").read_text()
    assert str(copied) in text
    assert str(done) not in text


@pytest.mark.slow
@pytest.mark.ddp
def test_processes_of_a_cpu_sample_one_file_together(tmp_path):
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": f"question {n}"} for n in range(5)])
    words = ["-m", "align", "sample", "tiny-random", "--prompts", prompts, "--max-new-tokens", "4", "--out"]
    done = torchrun(2, *words, tmp_path / "two.jsonl")
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("5 answers to 5 prompts") == 1
    assert len(list((tmp_path / "kept").glob("two-*-of-2-*.jsonl"))) == 2
    assert torchrun(1, *words, tmp_path / "one.jsonl").returncode == 0
    assert read_lines(tmp_path / "two.jsonl") == read_lines(tmp_path / "one.jsonl")

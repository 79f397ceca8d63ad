"""Rounds that are gone on with in other numbers or at another place, and reports on rounds of which something is gone."""

import json
import shutil

import pytest
from launching import torchrun
from stored_world import read_lines, write_lines

from align import cli
from align.errors import RunError
from align.going_on import finished_run, taken_round
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
    assert other_rounds([*more, said], [(1, "scores"), (1, "pairs")]) == ([] if goes_on else [said])


@pytest.mark.parametrize(
    ("done", "refused"),
    [
        ([], []),
        ([(1, "prompts"), (1, "answers-policy")], []),
        ([(1, "scores")], ["own_code.mine.py", "rounds.score.weights.a"]),
        ([(1, "scores"), (1, "pairs")], ["own_code.mine.py", "rounds.score.weights.a", "rounds.select.rule"]),
    ],
)
def test_how_answers_are_scored_and_chosen_may_change_until_some_are(done, refused):
    keys = ("own_code.mine.py", "rounds.score.weights.a", "rounds.select.rule")
    said = [Difference(key, "a", "b") for key in keys]
    assert [one.key for one in other_rounds(said, done)] == refused


def test_rounds_that_are_not_asked_for_keep_their_numbers_on_record(done, copied):
    words = [f"train.output_dir={copied}", "train.save_strategy='no'"]
    run("rounds/tiny", [words[0], "rounds.count=1", "train.learning_rate=0.01"], resume="auto")
    with pytest.raises(RunError, match=r"train.learning_rate: \[0.01, 0.005\] -> \[0.01, 0.001\]"):
        run("rounds/tiny", [words[0], "train.learning_rate=[0.01,0.001]"], resume="auto")
    run("rounds/tiny", [words[0]], resume="auto")
    assert weights(copied) == weights(done)


def test_other_prompts_are_other_rounds(done, copied, tmp_path):
    rows = [
        *read_lines(copied / "round-1" / "prompts.jsonl"),
        *({"prompt": [{"role": "user", "content": f"Is {n} far?"}]} for n in range(8)),
    ]
    other = write_lines(tmp_path / "other.jsonl", rows)
    with pytest.raises(RunError, match="data.train: [0-9a-f]{12} -> [0-9a-f]{12}"):
        run("rounds/tiny", [f"train.output_dir={copied}", f"data.train.path={other}"], resume="auto")
    assert weights(copied) == weights(done)


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


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of one training."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    run("dpo/tiny", [f"train.output_dir={folder}", "train.max_steps=1"])
    return folder


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


COMMANDS = {
    "one training": ["train", "dpo/tiny"],
    "rounds": ["train", "rounds/tiny"],
    "a front": ["front", "fronts/tiny"],
    "a sweep": ["sweep", "dpo/tiny", "train.seed=0,1"],
}


@pytest.mark.parametrize("made", COMMANDS)
@pytest.mark.parametrize("there", COMMANDS)
def test_a_run_of_one_kind_is_not_gone_on_with_as_another(made, there, done, plain, tmp_path, capsys):
    if made == there:
        return
    folder = shutil.copytree(plain if there == "one training" else done, tmp_path / "run")
    if there in ("a front", "a sweep"):
        (folder / FILE).rename(folder / {"a front": "fronts.jsonl", "a sweep": "sweep.jsonl"}[there])
    before = files_of(folder)
    where = ["-o", str(folder)] if made == "a sweep" else [f"train.output_dir={folder}", "--resume", "auto"]
    assert cli.main([*COMMANDS[made], *where]) == 2
    assert f"{folder}: holds {there}, and the recipe makes {made}, whose files would mix" in capsys.readouterr().err
    assert files_of(folder) == before


@pytest.mark.parametrize("ledger", ["fronts.jsonl", "sweep.jsonl"])
def test_several_policies_are_not_taken_for_one(ledger, plain, tmp_path, capsys):
    folder = shutil.copytree(plain, tmp_path / "run")
    shutil.rmtree(folder / "adapter")
    (folder / ledger).touch()
    commands = [["eval"], ["compare", str(plain)], ["chat"], ["export", str(tmp_path / "out")]]
    for command, *more in commands:
        words = [*more, str(folder)] if command == "compare" else [str(folder), *more]
        assert cli.main([command, *words]) == 2
        assert "which is several policies; " in capsys.readouterr().err


def test_rounds_beside_other_runs_stand_for_what_they_took(done, copied, plain, tmp_path, capsys):
    assert taken_round(done) == 2
    assert finished_run(done) == finished_run(done / "round-2" / "train")
    assert cli.main(["compare", str(done), str(plain), "-o", str(tmp_path / "page.html")]) == 0, capsys.readouterr().err
    shutil.rmtree(copied / "adapter")
    shutil.copytree(copied / "round-1" / "train" / "adapter", copied / "adapter")
    assert taken_round(copied) == 1
    shutil.copytree(plain / "adapter", copied / "adapter", dirs_exist_ok=True)
    with pytest.raises(RunError, match="of none of the rounds that are there: the run has not finished"):
        finished_run(copied)
    shutil.rmtree(copied / "adapter")
    assert taken_round(copied) is None


def test_rounds_are_verified_and_their_reports_found(copied, tmp_path, capsys):
    words = ["expect={kl: {value: 0, tol: 9}}", "eval.generate.max_new_tokens=4"]
    table = (copied / "report.md").read_text()
    assert cli.main(["verify", str(copied), *words]) == 0, capsys.readouterr().err
    assert "ok   kl: " in capsys.readouterr().out
    assert json.loads((copied / "report" / "report.json").read_text())["name"] == copied.name
    assert (copied / "report.md").read_text() == table  # that of the rounds
    assert cli.main(["history", str(copied)]) == 0
    assert "| kl " in capsys.readouterr().out
    assert cli.main(["inspect-log", str(copied), "-o", str(tmp_path / "logs")]) == 0
    assert cli.main(["power", str(copied)]) == 0


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

"""Check says of a run directory what a start of the run will say."""

import pytest

from align import cli
from align.check.directory import inspect_directory
from align.errors import RunError
from align.runs.contents import RECIPE_FILE
from align.runs.directory import claimed


def a_file(run):
    run.write_text("rows")


def a_file_above(run):
    run.parent.joinpath("above").write_text("rows")
    return run.parent / "above" / "run"


def foreign_files(run):
    run.mkdir()
    (run / "thesis.tex").write_text("x")


def a_link(run):
    run.mkdir()
    (run / "metrics.jsonl").symlink_to(run / "elsewhere")


def a_file_called_adapter(run):
    run.mkdir()
    (run / RECIPE_FILE).write_text("method: dpo")
    (run / "adapter").write_text("my thesis")


def a_folder_called_model(run):
    (run / "model").mkdir(parents=True)
    (run / RECIPE_FILE).write_text("method: dpo")
    (run / "model" / "thesis.tex").write_text("my thesis")


def nothing(run):
    """A first run makes it."""


def a_folder(run):
    run.mkdir()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (a_file, "a file, and a run needs a folder of its own"),
        (a_file_above, "above: a file, and a run needs"),
        (foreign_files, "other files (thesis.tex)"),
        (a_link, "no file of the run's own"),
        (a_file_called_adapter, "adapter: no folder of the run's own"),
        (a_folder_called_model, "model: holds no adapter or model, but other files"),
        (nothing, None),
        (a_folder, None),
    ],
)
def test_check_refuses_the_directories_that_a_start_does(tmp_path, made, told):
    run = made(tmp_path / "run") or tmp_path / "run"
    found = inspect_directory(run)
    assert [finding.level for finding in found] == ["error"] * (told is not None)
    assert told is None or told in found[0].message
    assert told is None or found[0].remedy.endswith("choose another train.output_dir")
    try:
        with claimed(run, resume=(run / RECIPE_FILE).is_file(), overwrite=False):
            started = True
    except (RunError, OSError) as error:
        started = False
        assert told in str(error)
    assert started is (told is None)


def test_a_run_that_is_there_is_noted(tmp_path):
    (tmp_path / RECIPE_FILE).write_text("method: dpo\n")
    (found,) = inspect_directory(tmp_path)
    assert (found.level, found.rule) == ("note", "run-there")


def test_a_directory_that_no_run_can_have_is_not_ready(tmp_path, capsys):
    (tmp_path / "run").write_text("rows")
    assert cli.main(["check", "dpo/tiny", f"train.output_dir={tmp_path / 'run'}"]) == 1
    assert "error: train.output_dir: run-directory: " in capsys.readouterr().out

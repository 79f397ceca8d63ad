"""Where a command cannot write is told in one line, before it reads, loads or computes anything."""

import os
import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from align import cli
from align.errors import RunError, lost_output
from align.files import check_writable

ROOT = Path(__file__).parents[2]
ASKED = {
    "eval/__main__.py": [["eval", "nowhere", "-o", "{out}"], ["compare", "nowhere", "none", "-o", "{out}.html"]],
    "align/cli.py": [["verify", "nowhere", "-o", "{out}"]],
    "eval/agreement.py": [
        ["judge-agreement", "none", "--by", "j={{kind: length}}", "-o", "{out}.json"],
        ["reward-bench", "none", "--by", "j={{kind: length}}", "-o", "{out}.json"],
    ],
    "eval/kept/history.py": [["history", "nowhere", "-o", "{out}.csv"]],
    "eval/kept/inspect_log.py": [["inspect-log", "nowhere", "-o", "{out}"]],
    "align/sweeps/command.py": [["sweep", "nowhere", "train.beta=0.1,0.2", "-o", "{out}"]],
    "eval/annotations.py": [["win-rates", "none.jsonl", "-o", "{out}.json"]],
    "align/commands/check.py": [["check", "nowhere", "--out", "{out}"]],
    "align/commands/init.py": [["init", "--model", "none", "--data", "none", "{out}.yaml"]],
    "align/commands/sample.py": [["sample", "none", "--prompts", "none", "--out", "{out}.jsonl"]],
    "align/commands/score.py": [["score", "none", "--by", "none", "--out", "{out}.jsonl"]],
    "align/data/commands/fix.py": [["data", "fix", "none", "--out", "{out}.jsonl"]],
    "align/data/commands/pairs.py": [["data", "pairs", "none", "--select", "best_worst", "--out", "{out}.jsonl"]],
    "align/diagnosis/command.py": [["data", "diagnose", "none", "--out", "{out}.jsonl"]],
    "align/merging/command.py": [["merge", "none", "none", "--stock", "--out", "{out}"]],
    "align/merging/export.py": [["export", "none", "{out}"]],
    "align/judges/experts_command.py": [["experts", "none", "--member", "none", "--out", "{out}"]],
    "align/fronts/pick.py": [["pick", "none", "--prefer", "a=1", "--mix", "--out", "{out}"]],
}
"""Commands by the file that reads where they write; nothing else that they name is there."""
RUNS = [["train", "dpo/tiny", "train.output_dir={out}"], ["front", "fronts/tiny", "train.output_dir={out}"]]


@pytest.mark.parametrize("words", [*chain(*ASKED.values()), *RUNS], ids=lambda words: words[0])
def test_what_cannot_be_written_is_told_before_anything_is_done(words, capsys):
    assert cli.main([word.format(out="/proc/x") for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"/proc/x(\.\w+)?: cannot be written: No such file or directory; name another place, .*", line)


def test_check_says_it_of_a_run_directory_too(capsys):
    assert cli.main(["check", "dpo/tiny", "train.output_dir=/proc/x"]) == 1
    assert "error: train.output_dir: run-directory: /proc/x: cannot be written" in capsys.readouterr().out


def test_every_command_that_writes_where_it_is_told_is_asked():
    named = re.compile(r'add_argument\((?:\s*"-o",)?\s*"(?:--)?out"')
    files = (path for folder in ("align", "eval") for path in (ROOT / folder).rglob("*.py"))
    assert {str(path.relative_to(ROOT)) for path in files if named.search(path.read_text("utf-8"))} == set(ASKED)


@pytest.mark.parametrize(
    ("name", "folder", "why"),
    [
        ("file", True, "it is no folder"),
        ("file/below", False, "file is no folder"),
        ("file/below/it", True, "file is no folder"),
        (".", False, "it is no file"),
        ("pipe", False, "it is no file"),
        ("x" * 300, True, "File name too long"),
    ],
)
def test_a_place_that_is_something_else_is_named(tmp_path, name, folder, why):
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunError, match=f"cannot be written: .*{why}; name another place"):
        check_writable(tmp_path / name, folder=folder)


def test_a_place_that_can_be_written_stays_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    for name, folder in (("file", False), ("new/deep/file", False), ("new/deep", True), (".", True)):
        check_writable(Path(name), folder=folder)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "mine")]


def test_a_full_standard_output_is_named():
    made = "import sys; from align import cli; sys.exit(cli.main(['recipes']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", made], stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert done.stderr == (
        "standard output: cannot be written: No space left on device; name another file or program for it\n"
    )


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (OSError(28, "No space left on device"), True),
        (OSError(28, "No space left on device", "some/file"), False),
        (OSError("some/file: could not be written"), False),
        (ValueError(), False),
    ],
)
def test_an_error_of_another_file_is_not_of_standard_output(monkeypatch, error, whose):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert (lost_output(error) is not None) == whose
        monkeypatch.undo()

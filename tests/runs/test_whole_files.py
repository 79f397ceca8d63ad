"""The files of a mended copy: nothing is overwritten, nothing is left, and what cannot be written is told."""

import errno
import os
import subprocess

import pytest
from malformed import TEXT, write

from align.data.commands import fix as command
from align.data.commands.fix import main
from align.errors import RunError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("appears", ["out.jsonl", "out.log.jsonl"])
def test_what_appears_meanwhile_is_not_overwritten_either(tmp_path, monkeypatch, appears):
    write([TEXT], tmp_path / "pairs.jsonl")
    original = command._put

    def meanwhile(file, value):
        (tmp_path / appears).write_text("precious")
        original(file, value)

    monkeypatch.setattr(command, "_put", meanwhile)
    write([TEXT | {"chosen": "yes\r\nno"}], tmp_path / "pairs.jsonl")
    with pytest.raises(RunError, match=f"{appears}: appeared while it was being made, and is left as it is"):
        main(["pairs.jsonl", "--out", "out.jsonl"])
    assert (tmp_path / appears).read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == [appears, "pairs.jsonl"]


def test_what_a_killed_one_left_is_deleted(tmp_path):
    write([TEXT], tmp_path / "pairs.jsonl")
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    stays = [tmp_path / f".alignkit-{os.getpid()}-x", tmp_path / ".alignkit-mine"]
    for folder in (tmp_path / f".alignkit-{gone.pid}-x", *stays):
        folder.mkdir()
    main(["pairs.jsonl", "--out", "out.jsonl"])
    assert sorted(tmp_path.glob(".alignkit-*")) == sorted(stays)


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    write([TEXT], tmp_path / "pairs.jsonl")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "move_new", full)
    with pytest.raises(OSError, match="^out.jsonl: could not be written: No space left on device; make room"):
        main(["pairs.jsonl", "--out", "out.jsonl"])
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]

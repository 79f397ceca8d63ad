"""Several processes are started and ended in the words of a training, without a launcher's traceback."""

import logging
import signal
import subprocess
import sys

import pytest
from launching import ENV
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from align import launching, train


def failed(code):
    return ChildFailedError("align.train", {0: ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file="none")})


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (None, 0, ""),
        (failed(2), 2, ""),
        (failed(-9), 137, "a process of the training was ended by SIGKILL\n"),
        (subprocess.CalledProcessError(2, "x"), 2, ""),
        (SignalException("x", signal.SIGINT), 130, ""),
    ],
)
def test_it_ends_as_the_process_that_failed_first(monkeypatch, capsys, error, code, said):
    def launch(name, words):
        assert (name, words) == ("torchrun", ["--standalone", "-m", "align.train"])
        if error is not None:
            raise error

    monkeypatch.setattr(launching, "_launch", launch)
    assert launching.main(["torchrun", "--standalone", "-m", "align.train"]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(("rank", "waited"), [("0", []), ("1", [train.PATIENCE]), (None, [])])
def test_the_main_process_speaks_first(monkeypatch, capsys, tmp_path, rank, waited):
    slept = []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    monkeypatch.setenv("RANK", rank) if rank else monkeypatch.delenv("RANK", raising=False)
    assert train.main(["dpo/tiny", "train.beta=-1", f"train.output_dir={tmp_path}"]) == 2
    assert slept == waited
    assert "beta" in capsys.readouterr().err


@pytest.mark.parametrize(("rank", "error", "code"), [("0", "Connection closed by peer [::1]", 2), ("1", "boom", None)])
def test_nobody_shows_a_traceback_while_another_process_tells_why(monkeypatch, capsys, tmp_path, rank, error, code):
    def ended(*args, **kw):
        raise RuntimeError(error)

    slept = []
    monkeypatch.setattr(train.time, "sleep", slept.append)
    monkeypatch.setattr(train, "run", ended)
    monkeypatch.setenv("RANK", rank)
    if code is None:
        with pytest.raises(RuntimeError, match=error):
            train.main(["dpo/tiny"])
    else:
        assert train.main(["dpo/tiny"]) == code
        assert "another process of this run has ended" in capsys.readouterr().err
    assert slept == [train.PATIENCE]


@pytest.mark.parametrize(("rank", "level"), [("0", logging.WARNING), ("1", logging.ERROR)])
def test_one_process_says_what_all_find(monkeypatch, rank, level):
    said = []
    monkeypatch.setattr(train.logging, "basicConfig", lambda **kw: said.append(kw["level"]))
    monkeypatch.setattr(train.time, "sleep", lambda seconds: None)
    monkeypatch.setenv("RANK", rank)
    assert train.main(["dpo/tiny", "train.beta=-1"]) == 2
    assert said == [level]


@pytest.mark.slow
def test_an_error_is_told_once_and_without_a_traceback(tmp_path):
    words = [
        "train",
        "dpo/tiny",
        "--num-processes",
        "2",
        "train.learning_rate=5.0",
        f"train.output_dir={tmp_path / 'run'}",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "align.cli", *words], env=ENV, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 2, done.stderr[-3000:]
    assert done.stderr.count("no optimizer of these trains anything at such a rate") == 1
    assert "Traceback" not in done.stderr
    assert not [path for path in (tmp_path / "run").iterdir() if path.name != ".lock"]

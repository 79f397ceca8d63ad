"""What the main process decides holds for all: ranks that see other disks are told, before a step is taken."""

from types import SimpleNamespace

import pytest

from align.errors import RunError
from align.runs import agreement, directory
from align.runs.agreement import on_main, there_everywhere


@pytest.fixture
def second(monkeypatch):
    """This process is the second of two; the first has decided what is in `sent`, and sees step 4."""
    state = SimpleNamespace(num_processes=2, process_index=1, is_main_process=False)
    monkeypatch.setattr(agreement, "PartialState", lambda: state)
    sent = ["checkpoint-4", None]

    def broadcast(held, from_process):
        assert from_process == 0
        held[:] = sent

    monkeypatch.setattr(agreement, "broadcast_object_list", broadcast)
    monkeypatch.setattr(agreement, "gather_object", lambda ours: [(0, "node-a", 4), *ours])
    return sent


def test_the_main_process_decides(second):
    assert on_main(lambda: pytest.fail("decided here")) == "checkpoint-4"
    second[:] = [None, "none of 3 checkpoints can be used"]
    with pytest.raises(RunError, match="none of 3 checkpoints"):
        on_main(lambda: None)


@pytest.mark.usefixtures("second")
def test_a_process_without_the_checkpoint_is_named(tmp_path):
    there_everywhere(tmp_path, lambda _: 4)

    def missing(path):
        raise RunError(f"{path}: it was not written to its end")

    for other in (missing, lambda _: 2):
        with pytest.raises(
            RunError, match=r"chosen by the main process.* by process 1 on .*on a disk that all of them share"
        ):
            there_everywhere(tmp_path, other)


def test_what_all_processes_read_has_to_be_one_folder(second, tmp_path, monkeypatch):
    state = SimpleNamespace(is_main_process=False, wait_for_everyone=lambda: None)
    monkeypatch.setattr(directory, "PartialState", lambda: state)
    run = tmp_path / "run"
    with directory.claimed(run, resume=False, overwrite=False):
        pass
    with (
        pytest.raises(RunError, match=r"whose rounds every process reads.* by process 1 on .*that all of them share$"),
        directory.claimed(run, resume=False, overwrite=False, ledger="rounds.jsonl"),
    ):
        pytest.fail("the second process has a folder of its own")
    (run / directory.LOCK_FILE).write_text("process 1 on a")
    monkeypatch.setattr(agreement, "gather_object", lambda ours: [(0, "node-a", "process 1 on a"), *ours])
    with directory.claimed(run, resume=False, overwrite=False, ledger="rounds.jsonl"):
        pass


def test_one_process_asks_nobody():
    assert on_main(lambda: 3) == 3

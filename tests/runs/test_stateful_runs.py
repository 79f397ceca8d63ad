"""One directory, and whatever is done to it in whatever order, kills included: nothing there speaks of another run.

A kill is an exception that nothing catches, raised while a step, a checkpoint, the adapter or a deletion is under way.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from safetensors.torch import load_file

import align
from align import results, train
from align.errors import RunError
from align.going_on import finished_run
from align.runs import checkpoints, contents
from align.runs.checkpoints import MANIFEST, check
from align.trainers.shared import safe_runs
from eval.evaluate import evaluate
from eval.identity import identity_of_policy
from eval.report.write import to_json
from eval.subjects import load_subject

LENGTHS, BETAS = (3, 5), (0.1, 0.7)
PLACES = {
    "step": (safe_runs.StopOnSignal, "on_step_end"),
    "checkpoint": (safe_runs, "seal"),
    "rotation": (checkpoints.shutil, "rmtree"),
    "adapter": (results, "seal"),
    "exchange": (contents.os, "replace"),
    "deletion": (contents.shutil, "rmtree"),
    "environment": (train, "environment"),
}
ALONE: dict = {}  # (beta, steps) to the bits of a run that nothing happened to
DONE: Counter[str] = Counter()  # operations by name, and kills by their place


class Killed(BaseException):
    """As a SIGKILL: no handler of ours is run."""


@contextlib.contextmanager
def killed_at(kill):
    """The block ends at the nth time that something is done."""
    if kill is None:
        yield
        return
    (owner, name), left = PLACES[kill[0]], [kill[1]]
    with pytest.MonkeyPatch.context() as patch:
        original = getattr(owner, name)

        def counted(*args, **kw):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return original(*args, **kw)

        patch.setattr(owner, name, counted)
        try:
            yield
        except Killed:
            DONE[f"killed at {kill[0]}"] += 1


@contextlib.contextmanager
def refused():
    """A refusal in words is a right end of an operation."""
    try:
        yield
    except RunError:
        DONE["refused"] += 1


def trained(run, beta, steps, **kw):
    overrides = [
        f"train.beta={beta}", f"train.max_steps={steps}", "train.save_total_limit=2", "train.lr_scheduler_type=constant",
        f"train.output_dir={run}", "eval.generate=null", "train.disable_tqdm=true",
    ]  # fmt: skip
    align.run("dpo/tiny", overrides, **kw)


def weights(run):
    return load_file(run / "adapter" / "adapter_model.safetensors")


def alone(beta, steps):
    if (beta, steps) not in ALONE:
        with tempfile.TemporaryDirectory() as folder:
            trained(Path(folder, "run"), beta, steps)
            ALONE[beta, steps] = weights(Path(folder, "run"))
    return ALONE[beta, steps]


betas, lengths = st.sampled_from(BETAS), st.sampled_from(LENGTHS)
kills = st.none() | st.tuples(st.sampled_from(list(PLACES)), st.integers(0, 3))


class OneDirectory(RuleBasedStateMachine):
    """What people do to a run directory."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.run = Path(self.folder.name, "run")

    def teardown(self):
        self.folder.cleanup()

    def train(self, beta, steps, kill, **how):
        DONE["operations"] += 1
        DONE[" ".join(how) or "train"] += 1
        with killed_at(kill), refused():
            trained(self.run, beta, steps, **how)

    @rule(beta=betas, steps=lengths, kill=kills)
    def begin(self, beta, steps, kill):
        self.train(beta, steps, kill)

    @rule(beta=betas, steps=lengths, kill=kills)
    def resume(self, beta, steps, kill):
        self.train(beta, steps, kill, resume="auto")

    @rule(beta=betas, steps=lengths, kill=kills)
    def resume_changed(self, beta, steps, kill):
        self.train(beta, steps, kill, resume="auto", changed=True)

    @rule(beta=betas, steps=lengths, kill=kills)
    def overwrite(self, beta, steps, kill):
        self.train(beta, steps, kill, overwrite=True)

    @precondition(lambda self: self.run.is_dir())
    @rule()
    def evaluate(self):
        DONE["operations"] += 1
        DONE["eval"] += 1
        with refused():
            report = evaluate(load_subject(str(self.run)), out=self.run)
            (self.run / "report.json").write_text(to_json(report))

    @precondition(lambda self: (self.run / "adapter").is_dir())
    @rule()
    def lose_the_adapter(self):
        DONE["operations"] += 1
        DONE["adapter deleted"] += 1
        shutil.rmtree(self.run / "adapter", ignore_errors=True)

    @invariant()
    def checkpoints_are_of_the_run(self):
        if not (self.run / "env.json").is_file():
            return
        own = json.loads((self.run / "env.json").read_text())["run"]
        for path in self.run.glob(f"*/{MANIFEST}"):
            with contextlib.suppress(RunError):  # cut short by a kill, and known to be
                assert check(path.parent)["identity"].run == own

    @invariant()
    def what_counts_as_finished_is_what_the_directory_says(self):
        try:
            identity, found = finished_run(self.run)
        except RunError:
            return
        beta, steps = identity.settings["train.beta"], identity.settings["train.max_steps"]
        assert (found["step"], found["ends_at"]) == (steps, steps)
        entries = json.loads((self.run / "env.json").read_text())["changes"]
        if not any("beta" in change for entry in entries for change in entry["changes"]):
            ours, theirs = weights(self.run), alone(beta, steps)
            assert all((ours[name] == theirs[name]).all() for name in theirs)

    @invariant()
    def a_report_is_of_the_run_or_known_not_to_be(self):
        if not (self.run / "report.json").is_file() or not (self.run / "env.json").is_file():
            return
        about = json.loads((self.run / "report.json").read_text())["settings"]["about"]["policies"]["run"]
        own = json.loads((self.run / "env.json").read_text())["run"]
        assert about["run"] == own
        with contextlib.suppress(RunError):
            now = identity_of_policy(str(self.run))
            assert (about["weights"] == now["weights"]) == (about == now)


def operations(directories, each, capsys):
    """Do operations on some directories, so many on each, and tell which they were."""
    DONE.clear()
    run_state_machine_as_test(
        OneDirectory, settings=settings(max_examples=directories, stateful_step_count=each, deadline=None)
    )
    with capsys.disabled():
        sys.stdout.write("\n" + ", ".join(f"{name}: {count}" for name, count in DONE.most_common()) + "\n")
    assert DONE["operations"] >= directories * each


def test_nothing_in_a_directory_speaks_of_another_run(capsys):
    operations(3, 4, capsys)


@pytest.mark.slow
def test_nothing_in_a_directory_speaks_of_another_run_for_long(capsys):
    operations(int(os.environ.get("ALIGNKIT_DIRECTORIES", "17")), 12, capsys)

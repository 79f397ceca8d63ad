"""What keeps runs safe: checkpoints, the numerical guard, stopping and going on."""

from .core import COMMON, CONTRACT, ONLINE
from .mutant import noticed_by

CHECKPOINTS, SAFE, GUARD = (
    "align/runs/checkpoints.py",
    "align/trainers/shared/safe_runs.py",
    "align/trainers/shared/guard.py",
)
checkpoint = noticed_by("tests/runs/test_checkpoints.py")
guard = noticed_by("tests/runs/test_guard.py")
stop = noticed_by("tests/runs/test_stop_and_go.py")
claim, RUNDIR = noticed_by("tests/runs/test_rundir.py"), "align/runs/directory.py"
MUTANTS = [
    checkpoint("digests are not compared", CHECKPOINTS, "if sha256(path) != digest:", "if False:"),
    checkpoint("sizes are not compared", CHECKPOINTS, "if path.stat().st_size != size:", "if False:"),
    checkpoint("a manifest may lead anywhere", CHECKPOINTS, '".." in Path(name).parts', "False"),
    checkpoint("pickles are trusted", CHECKPOINTS, "weights_only=True, mmap=True", "weights_only=False, mmap=True"),
    checkpoint("the oldest checkpoint is taken", CHECKPOINTS, "sorted(numbered, reverse=True)", "sorted(numbered)"),
    checkpoint("rotation goes by the clock", SAFE, "use_mtime=False", "use_mtime=True"),
    checkpoint("the Trainer deletes before the seal", SAFE, "self.args.save_total_limit = self.args.save_total_limit, None", "self.args.save_total_limit = (self.args.save_total_limit,) * 2"),
    checkpoint("a half written checkpoint is left", SAFE, "            if failure is not None or failed:\n                shutil.rmtree(folder, ignore_errors=True)\n            elif", "            if"),
    checkpoint("a named checkpoint is not checked", SAFE, 'written = check(Path(resume_from_checkpoint))["processes"]', "written = self.accelerator.num_processes"),
    guard("a bad gradient is let through", GUARD, 'return "the gradient is not finite" if bad_gradient else None', "return None"),
    guard("gradients are kept", GUARD, "            parameter.grad = None\n", "            pass\n"),
    guard("the limit is off by one", GUARD, "if self.skipped >= self.limit:", "if self.skipped > self.limit:"),
    guard("the count is forgotten", GUARD, 'int(saved["attributes"]["skipped"]) if isinstance(saved, dict) else 0', "0"),
    guard("rows are searched untruncated", GUARD, "truncated(beginning, answer, limit)", "truncated(beginning, answer, None)"),
    guard("rows are counted within their slice", GUARD, "found[index] = start + offset if found[index] is None else found[index]", "found[index] = start"),
    guard("a skipped step is logged", COMMON, "self.sums.forget_step()", "pass"),
    noticed_by("tests/trainers/distributed/test_processes.py")("a step is skipped by one process only", GUARD, "dist.all_reduce(bad, op=dist.ReduceOp.MAX)", "pass"),
    noticed_by("tests/trainers/online/test_online.py")("the order starts anew", "align/trainers/online/prompt_order.py", "for _ in range(epoch):", "for _ in range(0):"),
    claim("two runs may write one directory", RUNDIR, "with _alone(run) if state.is_main_process else nullcontext():", "with nullcontext():"),
    claim("a worker keeps its dead run's lock", RUNDIR, "fcntl.lockf(", "fcntl.flock("),
    claim("no run without locks", RUNDIR, "except OSError as error:\n            logger.warning(\"%s: the file system", "except ZeroDivisionError as error:\n            logger.warning(\"%s: the file system"),
    claim("who writes is not said", RUNDIR, "        file.flush()\n        yield", "        yield"),
    claim("the lock is deleted with the run", RUNDIR, "elif path.name != LOCK_FILE:", "else:"),
    claim("a link's target is emptied", RUNDIR, "if path.is_dir() and not path.is_symlink():", "if path.is_dir():"),
    claim("a run is deleted unasked", RUNDIR, "            if not overwrite:\n", "            if False:\n"),
    claim("a run does not claim its directory", "align/train.py", "    with claimed(path, resume=resume is not None, overwrite=overwrite):\n        if recipe", "    if True:\n        if recipe"),
    stop("completions are sampled anew", CONTRACT, 'trainer._step, trainer._buffered_inputs = state["step"], state["buffered"]', 'trainer._step = state["step"]'),
    stop("micro-batches are counted anew", CONTRACT, 'trainer._step, trainer._buffered_inputs = state["step"], state["buffered"]', 'trainer._buffered_inputs = state["buffered"]'),
    stop("losses of the window are lost", ONLINE, "set_logging_window(self.trainer, self.window.pop())", "self.window.pop()"),
    stop("SIGTERM does not save", SAFE, "control.should_save = control.should_training_stop = True", "control.should_training_stop = True"),
    stop("the signal is kept", SAFE, "signal.signal(signal.SIGTERM, self._before)", "pass"),
    stop("the reference does not travel", "align/train.py", "trainer.reference_identity = ref\n", "pass\n"),
    stop("the checkpoint's reference is not asked", "align/train.py", 'known = [check(checkpoint)["reference"]]', "known: list[Any] = []"),
    noticed_by("tests/trainers/test_alarms.py")("an alarm needs no row", "align/trainers/shared/alarms.py", "self._seen.get(name, 0) + 1 if holds else 0", "self._seen.get(name, 0) + holds"),
]  # fmt: skip

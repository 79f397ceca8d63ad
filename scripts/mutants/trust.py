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
same, CONTENTS = noticed_by("tests/runs/test_same_run.py"), "align/runs/contents.py"
gone = noticed_by("tests/runs/test_gone_on_from.py")
launched = noticed_by("tests/commands/test_launching.py")
GOING_ON, IDENTITY = "align/going_on.py", "align/runs/identity.py"
MUTANTS = [
    claim("a record alone is taken for other files", RUNDIR, "left = delete_beginning(run)", "left = []"),
    claim("anybody's record is deleted", CONTENTS, '"identity" in read_json(run / ENV_FILE)', "True"),
    checkpoint("digests are not compared", CHECKPOINTS, "if sha256(path) != digest:", "if False:"),
    checkpoint("sizes are not compared", CHECKPOINTS, "if path.stat().st_size != size:", "if False:"),
    checkpoint("a manifest may lead anywhere", CHECKPOINTS, '".." in Path(name).parts', "False"),
    checkpoint("pickles are trusted", CHECKPOINTS, "weights_only=True, mmap=True", "weights_only=False, mmap=True"),
    checkpoint("the oldest checkpoint is taken", CHECKPOINTS, "reversed(numbered(run))", "numbered(run)"),
    same("checkpoints of others are rotated away", CHECKPOINTS, " if number <= step and _of(path) == own]", " if number <= step]"),
    same("later checkpoints are rotated away", CHECKPOINTS, " if number <= step and _of(path) == own]", " if _of(path) == own]"),
    same("auto takes another run's checkpoint", CHECKPOINTS, "if own is not None and of != own:", "if False:"),
    same("auto starts over whatever lies there", CHECKPOINTS, "if found is None and there and not cut_short:", "if False:"),
    same("auto never starts over", CHECKPOINTS, "if found is None and there and not cut_short:", "if found is None and there:"),
    same("one step after the last", SAFE, "if state.global_step == state.max_steps or", "if"),
    same("a foreign checkpoint is taken without its flag", GOING_ON, "    if unsealed:\n", "    if unsealed or resume != 'auto':\n"),
    same("a foreign checkpoint goes on in a run that is there", GOING_ON, "    if of_directory is not None:\n        raise RunError(f\"--unsealed", "    if False:\n        raise RunError(f\"--unsealed"),
    same("nothing says that a run began unsealed", GOING_ON, '"changes": [told_of]', '"changes": []'),
    same("pickles of a foreign checkpoint are trusted", CHECKPOINTS, "    _refuse_code(folder)\n    return step", "    return step"),
    same("a fork that was killed cannot go on", GOING_ON, 'env.get("began_from") == resume and not numbered(run)', "False"),
    checkpoint("DeepSpeed's checkpoints are refused without a reason", CHECKPOINTS, 'parts[0].startswith("global_step")', 'parts[0].startswith("\\0")'),
    launched("every process tells the error at once", "align/train.py", "        if int(os.environ.get(\"RANK\") or 0):", "        if False:"),
    launched("a signal's end has no words", "align/launching.py", "    if ended >= 0:", "    if True:"),
    launched("the launcher's traceback is shown", "align/launching.py", "    except ChildFailedError as error:", "    except ZeroDivisionError as error:"),
    stop("a launcher's second signal ends the process", SAFE, "if first != now and not (self._launched and now - first < self.AT_ONCE):", "if first != now:"),
    stop("the same signal again is passed over", SAFE, "if first != now and not (self._launched and now - first < self.AT_ONCE):", "if False:"),
    gone("weights alone are resumed", "align/train.py", "if checkpoint is not None and not start.unsealed:", "if False:"),
    gone("an adapter is taken for a checkpoint", GOING_ON, "if not (checkpoint / STATE).is_file():", "if False:"),
    gone("an edited recipe is taken for the run's", GOING_ON, "    if edited:", "    if False:"),
    same("changes are not named", GOING_ON, "if found and not changed and not _agreed(start, now):", "if False:"),
    same("changes have to be asked for again", GOING_ON, "and not _agreed(start, now):", "and True:"),
    same("data are not compared", IDENTITY, 'if old.data and new.data and old.data.get("sha256") != new.data.get("sha256"):', "if False:"),
    same("what is written counts as a number", IDENTITY, "return key in HARMLESS or key.startswith(HARMLESS_BEGINNINGS)", "return key in HARMLESS"),
    same("a finished run runs on", GOING_ON, "    return ended and not differences(was", "    return False and not differences(was"),
    same("a lengthened run counts as finished", GOING_ON, "and not lengthened(was, now)", "and True"),
    same("a run is deleted before the rest works", "align/train.py", "        _check_not_inside(recipe, path, overwrite=overwrite)\n", "        delete_run(path)\n"),
    checkpoint("the Trainer deletes before the seal", SAFE, "self.args.save_total_limit = self.args.save_total_limit, None", "self.args.save_total_limit = (self.args.save_total_limit,) * 2"),
    checkpoint("a half written checkpoint is left", SAFE, "            if failure is not None or failed:\n                shutil.rmtree(folder, ignore_errors=True)\n            elif", "            if"),
    checkpoint("a named checkpoint is not checked", SAFE, "written = check(folder)", "written = manifest(folder)"),
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
    claim("the lock is deleted with the run", CONTENTS, "if p.name in (*FILES, *FOLDERS)", "if p.name in (*FILES, *FOLDERS, LOCK_FILE)"),
    claim("a run writes through links", RUNDIR, "    check_own_files(run)\n", ""),
    claim("links to files count as files", CONTENTS, "if path.is_symlink() or (path.exists() and not path.is_file()):", "if path.exists() and not path.is_file():"),
    claim("the recipe is deleted first", CONTENTS, "LAST.index(p.name) + 1 if p.name in LAST else 0", "0 if p.name == RECIPE_FILE else 1"),
    claim("a foreign folder becomes a run's", RUNDIR, "                check_folder(run)\n", "                pass\n"),
    claim("files of living processes are deleted", CONTENTS, "and not lives(int(scratch", "and bool(int(scratch"),
    claim("a link's target is emptied", CONTENTS, "if path.is_dir() and not path.is_symlink():", "if path.is_dir():"),
    claim("a run is deleted unasked", RUNDIR, "if begun and not resume and not overwrite:", "if False:"),
    claim("a run does not claim its directory", "align/train.py", "    with claimed(path, resume=resume is not None, overwrite=overwrite):\n", "    if True:\n"),
    stop("completions are sampled anew", CONTRACT, 'trainer._step, trainer._buffered_inputs = state["step"], state["buffered"]', 'trainer._step = state["step"]'),
    stop("micro-batches are counted anew", CONTRACT, 'trainer._step, trainer._buffered_inputs = state["step"], state["buffered"]', 'trainer._buffered_inputs = state["buffered"]'),
    stop("losses of the window are lost", ONLINE, "set_logging_window(self.trainer, self.window.pop())", "self.window.pop()"),
    stop("SIGTERM does not save", SAFE, "control.should_save = control.should_training_stop = True", "control.should_training_stop = True"),
    stop("the signal is kept", SAFE, "            signal.signal(number, before)\n", "            pass\n"),
    stop("the reference does not travel", "align/building.py", "trainer.reference_identity, trainer.starting_weights = ref, weights", "trainer.starting_weights = weights"),
    stop("the checkpoint's reference is not asked", GOING_ON, "known = [start.known, start.of_directory] if", "known = [start.of_directory] if"),
    noticed_by("tests/trainers/test_alarms.py")("an alarm needs no row", "align/trainers/shared/alarms.py", "self._seen.get(name, 0) + 1 if holds else 0", "self._seen.get(name, 0) + holds"),
]  # fmt: skip

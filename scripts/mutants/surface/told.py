"""What is shown of rows, told of a training, and named as what comes next."""

from mutants.mutant import noticed_by

SHOW, PROGRESS, RESULTS = "align/commands/show.py", "align/runs/progress.py", "align/results.py"
show, told = noticed_by("tests/commands/daily/test_show.py"), noticed_by("tests/runs/test_progress.py")
MUTANTS = [
    show("show: the answer begins where the prompt alone ends", SHOW, "return ids[:begin], alone[begin:], {\"completion\": ids[begin:]}", "return alone, [], {\"completion\": ids[len(alone) - 1 :]}"),
    show("show: nothing is cut", SHOW, "stays = truncated(prompt, ids, limit)[1]", "stays = ids"),
    show("show: a row without room is learnt from", SHOW, "if limit is not None and len(prompt) >= limit and answers:", "if False:"),
    show("show: rejected answers are wanted", SHOW, 'return WORSE if name == "rejected" or row.get("label") is False else BETTER', "return BETTER"),
    show("show: a label says nothing", SHOW, 'name == "rejected" or row.get("label") is False', 'name == "rejected"'),
    show("show: control characters steer", SHOW, "printable(piece, len(piece)) for piece in line", "piece for piece in line"),
    show("show: colour where nobody wants it", SHOW, 'sys.stdout.isatty() and "NO_COLOR" not in os.environ', "sys.stdout.isatty()"),
    show("show: rows are counted anew", SHOW, "{int(dict(row)[ROW])}", "{1}"),
    show("show: what does nothing is passed over", SHOW, 'for section in tree.values.keys() - {"data", "train"}:', "for section in ():"),
    show("show: the recipe's own data are shown", SHOW, '*(f"data.train.path={source}" for source in sources)', ""),
    told("progress: which weights are kept is not told", PROGRESS, "if args.load_best_model_at_end and", "if False and"),
    told("progress: every process tells", PROGRESS, "if not state.is_world_process_zero or not logs:", "if not logs:"),
    told("progress: the steps before a resumption count", PROGRESS, "state.global_step - self.first, state.max_steps", "state.global_step, state.max_steps"),
    told("progress: a terminal scrolls", PROGRESS, "tell = self._rewrite if sys.stderr.isatty() else self._write", "tell = self._write"),
    told("progress: a long line wraps", PROGRESS, "[: shutil.get_terminal_size().columns - 1]", ""),
    told("progress: the bar stays", PROGRESS, "        trainer.remove_callback(ProgressCallback)\n", ""),
    told("progress: it tells where it is switched off", PROGRESS, "if any(type(callback) is ProgressCallback for callback in own):", "if True:"),
    told("progress: nobody tells", "align/building.py", "    tell_progress(trainer)\n", ""),
    told("next: a path falls apart", RESULTS, "run = shlex.quote(str(path))", "run = str(path)"),
    told("next: a chat with tools", RESULTS, "if not (recipe.tools or recipe.environments):", "if True:"),
    told("next: own code is not allowed", RESULTS, 'sorted((path / FOLDER).glob("*.py"))', "()"),
]  # fmt: skip

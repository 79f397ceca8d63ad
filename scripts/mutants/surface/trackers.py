"""What trackers of experiments are told."""

from mutants.mutant import noticed_by

TRACKERS, ENVIRONMENT = "align/runs/trackers.py", "align/check/environment.py"
tracked = noticed_by("tests/runs/test_trackers.py")
MUTANTS = [
    tracked("trackers: they are left as they are", "align/building.py", "    track(trainer, settings)\n", ""),
    tracked("trackers: a resumed run is another", TRACKERS, '-{run[-8:]}"', '-{os.getpid()}-{len(self.known)}"'),
    tracked("trackers: steps are told twice", TRACKERS, " and _which(state.global_step, logs) not in self.known:", ":"),
    tracked("trackers: the summary is taken for a step", TRACKERS, "return step, frozenset(record) - {\"step\"}", "return step, frozenset()"),
    tracked("trackers: paths are told", TRACKERS, ' if "/" not in json.dumps(value)}', "}"),
    tracked("trackers: all arguments are told", TRACKERS, "        self.shown.to_dict = lambda: {\"run\": run, **self.settings}\n", ""),
    tracked("trackers: the model's folder is told", "align/building.py", '"model": Path(str(recipe.model.model_name_or_path)).name}', '"model": str(Path(recipe.model.model_name_or_path).resolve())}'),
    tracked("trackers: a finished run is begun again", TRACKERS, "return 0 < state.global_step == state.max_steps", "return False"),
    tracked("trackers: a run does not end", TRACKERS, '        self._hand_on("on_train_end", state, control, **kwargs)', "        pass"),
    tracked("trackers: one that cannot begin has no words", TRACKERS, "            raise RunError(\n", "            raise OSError(\n"),
    tracked("trackers: one that fails ends the run", TRACKERS, "            self.shown = None\n", "            raise\n"),
    tracked("trackers: one that fails is asked again", TRACKERS, "            self.shown = None\n            logger", "            logger"),
    tracked("trackers: event files of transformers' own place", TRACKERS, "            callbacks[place] = TensorBoard(Path(trainer.args.output_dir))", "            pass"),
    tracked("trackers: repeated steps stay in sight", TRACKERS, "state.global_step + 1 if state.global_step else 0", "None"),
    tracked("trackers: the step gone on from is hidden", TRACKERS, "repeated = state.global_step + 1", "repeated = state.global_step"),
    tracked("trackers: event files outlive their run", "align/runs/contents.py", '    "soups",\n    TENSORBOARD,', '    "soups",'),
    tracked("trackers: tensorboardX is enough", ENVIRONMENT, 'there -= {"tensorboard"} if', "there -= set() if"),
    tracked("trackers: what to install is not said", ENVIRONMENT, "    if missing and missing[0] in TRACKERS:", "    if False:"),
    tracked("trackers: the next run is the same at wandb", TRACKERS, '            sys.modules["wandb"].finish()', "            pass"),
    tracked("trackers: somebody's own run is ended", TRACKERS, " and not self.begun_elsewhere:", ":"),
    tracked("trackers: variables stay", TRACKERS, "            os.environ.pop(name, None)", "            pass"),
    tracked("trackers: wandb does not know the run", TRACKERS, 'WANDB_RUN_ID=run, WANDB_RESUME="allow"', ""),
    tracked("trackers: every round is called train", TRACKERS, " if of_round else run.name", " if False else run.name"),
]  # fmt: skip

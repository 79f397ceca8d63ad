"""The end of training by a metric."""

from mutants.mutant import noticed_by

ALARMS, RUNS, RESULTS, CONFIG = (
    "align/trainers/shared/alarms.py",
    "align/trainers/shared/safe_runs.py",
    "align/results.py",
    "align/configs/common.py",
)
early = noticed_by("tests/runs/test_early_stopping.py")
MUTANTS = [
    early("early: nothing stops", RUNS, "            self.add_callback(self.early_stop)\n", ""),
    early("early: the threshold is lost", RUNS, "self.args.early_stopping_patience, self.args.early_stopping_threshold)", "self.args.early_stopping_patience)"),
    early("early: a resumed run counts anew", ALARMS, 'kept.get("attributes", {})', "{}"),
    early("early: a run that had stopped takes another step", RUNS, " or (self.early_stop is not None and self.early_stop.is_over)", ""),
    early("early: a run that stopped has not finished", RESULTS, "trainer.state.global_step if early else ", ""),
    early("early: the card does not say whose weights", RESULTS, "{began}{kept}", "{began}"),
    early("early: patience without a metric", CONFIG, "* bool(lacks)", "* 0"),
    early("early: a threshold alone", CONFIG, "* stray", "* 0"),
]  # fmt: skip

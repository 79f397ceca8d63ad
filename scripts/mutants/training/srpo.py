"""Self-improving robust preference optimization."""

from mutants.mutant import noticed_by

LOSS, TRAINER = "align/losses/srpo.py", "align/trainers/pairs/srpo.py"
srpo = noticed_by("tests/trainers/pairs/test_srpo.py")
MUTANTS = [
    srpo("srpo: the draft beats its revision", LOSS, "given_rejected.chosen - given_rejected.rejected\n", "given_rejected.rejected - given_rejected.chosen\n"),
    srpo("srpo: worse revisions are wanted", LOSS, "(0.5 + beta * worse_than_draft)", "(0.5 - beta * worse_than_draft)"),
    srpo("srpo: plain answers left out", LOSS, " + plain.chosen - plain.rejected", ""),
    srpo("srpo: half the target", LOSS, "(1 - beta * whole) ** 2", "(0.5 - beta * whole) ** 2"),
    srpo("srpo: parts swapped", LOSS, '"robust": (1 - alpha) * robust, "improving": alpha * improving', '"robust": alpha * robust, "improving": (1 - alpha) * improving'),
    srpo("srpo: drafts swapped", TRAINER, 'ROLES = ("plain", "given_chosen", "given_rejected")', 'ROLES = ("plain", "given_rejected", "given_chosen")'),
    srpo("srpo: rows interleaved", TRAINER, "for role in ROLES for example in examples", "for example in examples for role in ROLES"),
    srpo("srpo: rows out of step", TRAINER, "part.select([at[row] for row in kept])", "part.select(range(len(kept)))"),
    srpo("srpo: no draft", TRAINER, 'revision_prompt(row["prompt"], row[draft], instruction)', 'row["prompt"]'),
    srpo("srpo: copies counted by rows", TRAINER, "        self.sums.rows_per_example = len(ROLES)\n", ""),
    srpo("srpo: examples torn apart", "align/trainers/shared/metrics.py", "rows.unflatten(0, (self.rows_per_example, -1)).transpose(0, 1).flatten(1)", "rows.unflatten(0, (-1, self.rows_per_example)).flatten(1)"),
    noticed_by("tests/trainers/completions/test_supervised.py")("srpo: rows of a short window are lost", "align/trainers/shared/metrics.py", 'if mode == "eval":', "if True:"),
]  # fmt: skip

"""Pairs with a trainer of their own: SRPO, and token-level DPO, which needs the KL of the right tokens of both models."""

from mutants.mutant import noticed_by

LOSS, TRAINER = "align/losses/srpo.py", "align/trainers/pairs/srpo.py"
srpo = noticed_by("tests/trainers/pairs/test_srpo.py")
FORMULAS, TDPO, CONFIG = "align/losses/preference.py", "align/trainers/pairs/tdpo.py", "align/configs/preference.py"
SHARING = "align/trainers/shared/prefix_sharing.py"
tokens = noticed_by("tests/trainers/pairs/test_tdpo.py")

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
    tokens("tdpo: the chosen KL is drawn down in TDPO2", FORMULAS, "own = kl.chosen.detach() if hold_chosen else kl.chosen", "own = kl.chosen"),
    tokens("tdpo: the rejected KL counts against", FORMULAS, "log_ratio.rejected + kl_weight * kl.rejected", "log_ratio.rejected - kl_weight * kl.rejected"),
    tokens("tdpo: the KL is not weighed", FORMULAS, "chosen = log_ratio.chosen + kl_weight * own", "chosen = log_ratio.chosen + own"),
    tokens("tdpo: rewards without the KL", FORMULAS, "beta * (log_ratio.rejected + kl.rejected))", "beta * log_ratio.rejected)"),
    tokens("tdpo: the policy is its own reference", TDPO, "(policy, seen[-1])", "(seen[-1], policy)"),
    tokens("tdpo: answers take one another's KL", TDPO, 'Pair(columns["chosen_kl"], columns["rejected_kl"])', 'Pair(columns["rejected_kl"], columns["chosen_kl"])'),
    tokens("tdpo: another head is taken", TDPO, "or not torch.equal(other.to(self.head), self.head)", "or False"),
    tokens("tdpo: stored sums are taken", TDPO, "if has_reference(self.train_dataset):", "if False:"),
    tokens("tdpo: packed answers in packed order", SHARING, "plan.source[plan.cells.argsort()]", "plan.source.flip(0)"),
    tokens("tdpo: states of the token, not of the one before", SHARING, "hidden[:, :-1][:, -mask.size(1) :][mask]", "hidden[:, 1:][:, -mask.size(1) :][mask]"),
    tokens("tdpo: a stored reference is asked for", CONFIG, "        if self.precompute_ref_log_probs:\n            found.append(\"precompute_ref_log_probs: the reference's whole", "        if False:\n            found.append(\"precompute_ref_log_probs: the reference's whole"),
]  # fmt: skip

"""Held-out likelihood, checkpoints of one run, models that choose among answers, and stored verdicts."""

from mutants.mutant import noticed_by

supervised = noticed_by("tests/evaluation/report/test_supervised.py")
steps = noticed_by("tests/evaluation/report/test_checkpoints.py")
bench = noticed_by("tests/evaluation/judges/test_reward_bench.py")
board = noticed_by("tests/evaluation/statistics/test_annotations.py")
LIKELIHOOD, HELD, SUBJECTS = "eval/pairs/likelihood.py", "eval/held_out.py", "eval/subjects.py"
CHECKPOINTS, ROUNDS, PLOTS = "eval/checkpoints.py", "eval/rounds.py", "eval/report/plots_rounds.py"
BENCH, ROWS, ANNOTATIONS = "eval/statistics/reward_bench.py", "eval/reward_bench.py", "eval/annotations.py"
MUTANTS = [
    supervised("held out: the mean of rows", LIKELIHOOD, "(total - counts * ratio) / counts.mean()", "total / counts - ratio"),
    supervised("held out: a likelihood is no loss", LIKELIHOOD, "per_token(-each.policy,", "per_token(each.policy,"),
    supervised("held out: the reference is the policy", HELD, "CompletionScores(policy, ref, lengths)", "CompletionScores(policy, policy, lengths)"),
    supervised("held out: long completions count", HELD, "if all(fits(*sequence, context) for sequence in row)]", "]"),
    supervised("held out: margins of another reference", HELD, "None if subject.other_reference else ", ""),
    supervised("held out: references are as they were", SUBJECTS, "        each.reference, each.ref_digest = base, first.base_digest\n", ""),
    supervised("held out: any models are compared", SUBJECTS, "if other.base_digest != first.base_digest or not first.base_digest:", "if False:"),
    steps("checkpoints: of whatever run", CHECKPOINTS, "if of == own:", "if True:"),
    steps("checkpoints: the end of the run is left out", CHECKPOINTS, "found.setdefault(step, Checkpoint(step, run))", "pass"),
    steps("checkpoints: the reference is no candidate", CHECKPOINTS, "add_best(report, REF, [FIRST, *report.checkpoints])", "pass"),
    steps("checkpoints: the oldest is the policy in question", CHECKPOINTS, "sorted(found.values(), reverse=True)", "sorted(found.values())"),
    steps("checkpoints: distance is the KL itself", PLOTS, "Estimate(math.sqrt(max(e.value, 0))", "Estimate(max(e.value, 0)"),
    bench("best of four: ties are won", BENCH, "unbeaten[:chosen].sum() / unbeaten.sum()", "unbeaten[:chosen].any()"),
    bench("best of four: one that is beaten may be best", BENCH, "np.all(margins >= 0, axis=1", "np.any(margins >= 0, axis=1"),
    bench("ties: the best right answer will do", BENCH, "margins[:chosen, chosen:].min()", "margins[:chosen, chosen:].max()"),
    bench("ties: the gap of the tied question alone", BENCH, "least = min(ref, tied)", "least = tied"),
    bench("ties: equal parts", BENCH, "(0.3, 0.3, 0.2, 0.2)", "(0.25, 0.25, 0.25, 0.25)"),
    bench("cycles: the last is not held against the first", BENCH, "np.roll(np.arange(len(row)), -1)]", "np.minimum(np.arange(len(row)) + 1, len(row) - 1)]"),
    bench("cycles: a scale reaches all", BENCH, "1 - 1 / len(edges)", "1.0"),
    bench("reward-bench: rewards become preferences", ROWS, 'if score is not None and getattr(scorer, "dimension", 1) == 1:', "if False:"),
    bench("reward-bench: subsets are not told apart", ROWS, "for row, one in plain if row.subset == name]", "for row, one in plain]"),
    bench("reward-bench: a lone question of ties", ROWS, 'alone = sorted(set(seen["ref"]) ^ set(seen["tied"]))', "alone = []"),
    board("stored verdicts: a model explains itself", ANNOTATIONS, "in board.items() if other != name]", "in board.items()]"),
    board("stored verdicts: the baseline's lengths are the model's", ANNOTATIONS, 'for side in ("2", "1"))', 'for side in ("1", "2"))'),
    board("stored verdicts: failures are lost games", ANNOTATIONS, "math.nan if verdict is None", "0.0 if verdict is None"),
]  # fmt: skip

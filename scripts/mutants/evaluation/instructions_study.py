"""The bench of instructions that rules check."""

from mutants.mutant import noticed_by

BENCH, REPORT = "scripts/studies/checked/instructions.py", "scripts/studies/checked/instructions_report.py"
POLICIES = "scripts/studies/study_parts/policies.py"
bench = noticed_by("tests/sampling/test_instructions_study.py")

MUTANTS = [
    bench("instructions study: cut answers are chosen", BENCH, "one.finished * sum(kept", "sum(kept"),
    bench("instructions study: sides exchanged", BENCH, '{"chosen": choice.chosen, "rejected": choice.rejected}', '{"chosen": choice.rejected, "rejected": choice.chosen}'),
    bench("instructions study: an empty answer keeps", BENCH, "bool(text.strip()) and Constraint", "Constraint"),
    bench("instructions study: asked for without rules", BENCH, "{instruction(rules, [True] * len(rules))}", "{instruction(rules[:1], [True])}"),
    bench("instructions study: the opposite is asked for", BENCH, "[True] * len(rules)", "[False] * len(rules)"),
    bench("instructions study: held out is learnt", BENCH, "asked[:HELD_OUT], asked[HELD_OUT:]", "asked[:HELD_OUT], asked"),
    bench("instructions study: unseen forms are learnt ones", BENCH, 'held_out[:UNSEEN_OF], FORMS["unseen"]', 'held_out[:UNSEEN_OF], FORMS["learnt"]'),
    bench("instructions study: one form", BENCH, "list(kinds)[number % len(kinds)]", "list(kinds)[0]"),
    bench("instructions study: requests twice", BENCH, "list(dict.fromkeys(short))", "short"),
    bench("instructions study: rounds are as long each", BENCH, "STEPS // methods.ROUNDS\n", "STEPS\n"),
    bench("instructions study: grpo's answers are shorter", BENCH, '"max_completion_length": TOKENS', '"max_completion_length": TOKENS // 2'),
    bench("instructions study: another judge", BENCH, '"score": {"rewards": [REWARD]}', '"score": {"rewards": ["repetition"]}'),
    bench("instructions study: ends are read", REPORT, "row[:-ENDS]", "row"),
    bench("instructions study: any is kept", REPORT, '"kept": learnt.all(axis=1)', '"kept": learnt.any(axis=1)'),
    bench("instructions study: the first rule is the form", REPORT, '"form": learnt[:, 1]', '"form": learnt[:, 0]'),
    bench("instructions study: kinds are not told apart", REPORT, "held[np.array(kinds) == kind].mean()", "held.mean()"),
    bench("instructions study: before is after", REPORT, "over(rows - before[measure],", "over(before[measure] - rows,"),
    bench("instructions study: the family is of others", REPORT, 'gaps(rows, found[AGAINST]["kept"])', '(rows.mean(axis=0)[None] - found[AGAINST]["kept"])'),
]  # fmt: skip

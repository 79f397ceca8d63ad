"""Rounds that go on in other numbers or at another place, scores on scores, and what commands say when they end early."""

from mutants.mutant import noticed_by

RUN, PLAN, EVAL, SCORING, ANSWERED = (
    "align/rounds/run.py",
    "align/rounds/plan.py",
    "eval/rounds.py",
    "align/judges/scoring.py",
    "align/judges/answered.py",
)
changed = noticed_by("tests/rounds/test_rounds_changed.py")
scored = noticed_by("tests/rounds/test_score.py")
sampled = noticed_by("tests/rounds/test_sample.py")
own = noticed_by("tests/recipe/test_own_code.py")
ended = noticed_by("tests/rounds/test_rounds_end.py")
best = noticed_by("tests/rounds/test_best_round.py")
BEGIN, CONTENTS, GOING_ON = "align/rounds/begin.py", "align/runs/contents.py", "align/going_on.py"
MUTANTS = [
    changed("kinds: a run of another kind is gone on with", "align/runs/directory.py", "                check_kind(run, ledger)\n", "                pass\n"),
    changed("kinds: one training is gone on with in rounds", CONTENTS, "or (run / ENV_FILE).is_file()):", "or False):"),
    changed("kinds: a front is taken for a policy", GOING_ON, "    check_one_policy(run)\n", ""),
    changed("kinds: a front is asked", "align/sampling/policy.py", "    check_one_policy(run)\n", ""),
    changed("taken: rounds are unfinished", GOING_ON, "    if in_rounds:\n", "    if False:\n"),
    changed("taken: weights of no round are a round's", GOING_ON, "own is not None and identity_of_run(", "own is not None or identity_of_run("),
    best("taken: the last is said to be taken", EVAL, "taken = taken_round(run)", "taken = len(report.rounds)"),
    best("changed: how the best is chosen is not recorded", BEGIN, '["counts"] != said:', '["counts"] is None:'),
    changed("changed: prompts may change", RUN, '{"data.train": digest_of(rows)[:12], **', "{**"),
    changed("changed: numbers of later rounds are forgotten", BEGIN, "**(numbers if fewer else {})", "**{}"),
    changed("changed: scorers may change after scores", RUN, "if stage not in stages", "if True"),
    ended("changed: scorers may not be mended", RUN, "and not d.key.startswith(free)", ""),
    ended("changed: a round keeps the code that failed", RUN, 'or said.get("own_code") == recipe.raw.get("own_code")', "or True"),
    ended("rules: more is wanted than there is", RUN, "    if least > most:\n", "    if False:\n"),
    ended("told: prompts without a pair", "align/rounds/stages.py", "    if made.without or made.refused:\n", "    if False:\n"),
    noticed_by("tests/rounds/test_rounds_recipes.py")("rules: earlier answers of other prompts", "align/recipe/rounds.py", 'if "earlier" in self.sample.who and self.prompts != "all":', "if False:"),
    noticed_by("tests/rounds/test_rounds.py")("drift: log-ratios", "align/rounds/drift.py", "torch.expm1(-r) + r", "r"),
    changed("changed: any number by round may change", RUN, "    return one == other\n", "    return True\n"),
    changed("changed: lists are by round everywhere", RUN, "if not BY_ROUND.fullmatch(said.key) or not all(", "if not all("),
    changed("changed: lists of texts are by round", RUN, "isinstance(x, int | float) for each", "True for each"),
    changed("changed: more rounds have the numbers of all", RUN, "min(counts) if counts else None", "max(counts) if counts else None"),
    changed("changed: a report has rounds that are not asked for", EVAL, "if number <= recipe.rounds.count]", "]"),
    changed("changed: a round whose adapter is gone is left out", EVAL, "    if gone:\n", "    if False:\n"),
    changed("changed: a moved run reads where it was", PLAN, 'if value.startswith(f"{before}/") and key', "if False and key"),
    changed("changed: a run at its place has its words twice", PLAN, "if before in (named, str(place.run)):", "if before in (named,):"),
    scored("changed: earlier scores are lost", SCORING, 'known = row.get("rewards") or [{}]', "known = [{}]"),
    scored("changed: earlier preferences are lost", SCORING, '{**(row.get("preferences") or {}), **{', "{**{"),
    scored("changed: a score is replaced", SCORING, "        if twice:\n", "        if False:\n"),
    scored("changed: scores without names are replaced", SCORING, "or not all(isinstance(o, Mapping) for o in known)", ""),
    scored("changed: no reason is told in brackets", SCORING, '(f" ({why})" if why else "")', 'f" ({why})"'),
    scored("changed: scores of one file stand for several", ANSWERED, "if scored and (len(files) > 1 or gold is not None):", "if False:"),
    scored("changed: sources are those of the newest file", ANSWERED, 'first.get("sources") if len(files) == 1 else None', "None"),
    sampled("changed: prompts are told as data.train", "align/sampling/answer_file.py", '.replace(TRAIN, "prompts")', ""),
    sampled("changed: prompts are told of a setting that they lack", "align/sampling/answer_file.py", '.replace(OR_DROP, "")', ""),
    own("own code: an entry of another kind is taken", "align/own_code.py", "            if not fits:\n", "            if False:\n"),
]  # fmt: skip

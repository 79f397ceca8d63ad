"""Studies of pairs: learning too long from a weak judge, and which of many answers to reject."""

from mutants.mutant import noticed_by

LONG, MANY, SEEDS = (
    "scripts/studies/reviews/overoptimisation.py",
    "scripts/studies/reviews/sweet_spot.py",
    "scripts/expected.py",
)
study = noticed_by("tests/sampling/test_pairs_studies.py")
seeds = noticed_by("tests/evaluation/report/test_verify.py")
BASES = "align/recipe/bases.py"
reviews = noticed_by("tests/sampling/test_reviews_studies.py")
ON = "scripts/studies/reviews"
based = noticed_by("tests/recipe/test_recipe.py")

MUTANTS = [
    study("pairs studies: the best by its own half", LONG, "one[:, 1 - half :: 2]", "one[:, half::2]"),
    study("pairs studies: the fall of the first", LONG, "one[-1, half::2] - one[best", "one[0, half::2] - one[best"),
    study("pairs studies: ends of one seed", LONG, "over_less(*ends, ", "over_less(*ends[::-1], "),
    study("pairs studies: eta is lost", LONG, 'train | ({"eta": eta} if eta else {})', "train"),
    study("pairs studies: long runs again", LONG, "            if not path.is_file():\n", "            if True:\n"),
    study("pairs studies: another best", MANY, '"chosen": row["completions"][one.chosen]', '"chosen": row["completions"][one.rejected]'),
    study("pairs studies: the mean of the best", MANY, "z[at, rejected]", "z[at, at]"),
    study("pairs studies: the best is the worst", MANY, "scores.min(axis=1)", "scores.max(axis=1)"),
    study("pairs studies: rules again", MANY, "            if not path.is_file():\n", "            if True:\n"),
    seeds("expected: of the mean", SEEDS, "math.sqrt(1 + 1 / len(values))", "math.sqrt(1 / len(values))"),
    seeds("expected: of all seeds", SEEDS, "ddof=1", "ddof=0"),
    based("expected: a base's too", BASES, '    below.values.pop("expect", None)\n', ""),
    reviews("reviews studies: the other way round", "scripts/studies/study_parts/as_json.py", "mine[:both] - theirs[:both]", "theirs[:both] - mine[:both]"),
    reviews("reviews studies: made again", "scripts/studies/study_parts/results.py", "    if not path.is_file():\n        began", "    if True:\n        began"),
    reviews("reviews studies: runs of two groups", f"{ON}/averages.py", "range(EACH * group, EACH * (group + 1))", "range(group, group + EACH)"),
    reviews("reviews studies: stock is a soup", f"{ON}/averages.py", '(["--stock"], "stock")', '(["--weights", ",".join([str(1 / EACH)] * EACH)], "soup-00")'),
    reviews("reviews studies: runs of no group", f"{ON}/averages.py", "members[: EACH * groups].reshape(groups, EACH, -1).mean(axis=1)", "members[:groups]"),
    reviews("reviews studies: the end is read", f"{ON}/squeezing.py", "len(prompt) - 1 : -2]", "len(prompt) - 1 : -1]"),
    reviews("reviews studies: the peak of the answer", f"{ON}/squeezing.py", "logps.max(-1).values.tolist()", "own.tolist()"),
    reviews("reviews studies: since half way", f"{ON}/squeezing.py", "rows[:, -1] - rows[:, 0]", "rows[:, -1] - rows[:, 1]"),
    reviews("reviews studies: extended from the reference", f"{ON}/squeezing.py", "    if begin is None:\n", "    if True:\n"),
    reviews("reviews studies: more answers", f"{ON}/single_stream.py", '"max_steps": STEPS, "save_steps": STEPS, "beta": 0.0} | settings', '"max_steps": STEPS * settings["num_generations"], "beta": 0.0} | settings'),
    reviews("reviews studies: right is wrong", "scripts/studies/rankings.py", "1 - right[name]", "right[name]"),
    reviews("reviews studies: long pairs are read", "scripts/studies/rankings.py", "> LONGEST:", "> 10**9:"),
]  # fmt: skip

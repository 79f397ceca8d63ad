"""Studies of pairs: learning too long from a weak judge, and which of many answers to reject."""

from mutants.mutant import noticed_by

LONG, MANY, SEEDS = "scripts/studies/overoptimisation.py", "scripts/studies/sweet_spot.py", "scripts/expected.py"
study = noticed_by("tests/sampling/test_pairs_studies.py")
seeds = noticed_by("tests/evaluation/report/test_verify.py")
BASES = "align/recipe/bases.py"
based = noticed_by("tests/recipe/test_recipe.py")

MUTANTS = [
    study("pairs studies: the best by its own half", LONG, "one[:, 1 - half :: 2]", "one[:, half::2]"),
    study("pairs studies: the fall of the first", LONG, "one[-1, half::2] - one[best", "one[0, half::2] - one[best"),
    study("pairs studies: ends of one seed", LONG, "ends[0] - ends[1]", "ends[1] - ends[0]"),
    study("pairs studies: eta is lost", LONG, 'train | ({"eta": eta} if eta else {})', "train"),
    study("pairs studies: long runs again", LONG, "            if not path.is_file():\n", "            if True:\n"),
    study("pairs studies: another best", MANY, '"chosen": row["completions"][one.chosen]', '"chosen": row["completions"][one.rejected]'),
    study("pairs studies: the mean of the best", MANY, "z[at, rejected]", "z[at, at]"),
    study("pairs studies: the best is the worst", MANY, "scores.min(axis=1)", "scores.max(axis=1)"),
    study("pairs studies: the other way round", MANY, "rows[:both] - found[AGAINST]", "-rows[:both] + found[AGAINST]"),
    study("pairs studies: rules again", MANY, "            if not path.is_file():\n", "            if True:\n"),
    seeds("expected: of the mean", SEEDS, "math.sqrt(1 + 1 / len(values))", "math.sqrt(1 / len(values))"),
    seeds("expected: of all seeds", SEEDS, "ddof=1", "ddof=0"),
    based("expected: a base's too", BASES, '    below.values.pop("expect", None)\n', ""),
]  # fmt: skip

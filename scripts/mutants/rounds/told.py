"""What rounds say of themselves."""

from mutants.mutant import noticed_by

REPORT = "align/rounds/report.py"
told = noticed_by("tests/rounds/test_rounds_report.py")
MUTANTS = [
    told(
        "rounds: intervals see no bounds",
        REPORT,
        "mean_estimate(np.array(values), bounds=bounds)",
        "mean_estimate(np.array(values))",
    ),
    told(
        "rounds: a negative weight turns nothing",
        REPORT,
        "sorted((weight * least, weight * most))",
        "(weight * least, weight * most)",
    ),
]

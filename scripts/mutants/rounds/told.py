"""What rounds say of themselves."""

from mutants.mutant import noticed_by

REPORT = "align/rounds/report.py"
told = noticed_by("tests/rounds/test_rounds_report.py")
laws = noticed_by("tests/rounds/test_laws_of_selectors.py")
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
    laws(
        "rounds: all are accepted",
        "align/data/making/selectors.py",
        "if draw < math.exp((reward - most_reward) / beta):",
        "if draw < math.exp((reward - most_reward) * beta):",
    ),
    laws(
        "rounds: a maximum that is none",
        "align/data/making/selectors.py",
        "        if reward > most_reward:\n",
        "        if False:\n",
    ),
]

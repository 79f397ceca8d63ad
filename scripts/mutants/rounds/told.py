"""What rounds say of themselves."""

from mutants.mutant import noticed_by

REPORT = "align/rounds/report.py"
told = noticed_by("tests/rounds/test_rounds_report.py")
loops = noticed_by("tests/rounds/test_loops.py")
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
    loops(
        "rounds: all are accepted",
        "align/data/making/selectors.py",
        "if draw < math.exp((reward - most_reward) / beta):",
        "if draw < math.exp((reward - most_reward) * beta):",
    ),
    loops(
        "rounds: a maximum that is none",
        "align/data/making/selectors.py",
        "        if reward > most_reward:\n",
        "        if False:\n",
    ),
]

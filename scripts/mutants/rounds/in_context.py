"""Rewards in Context."""

from mutants.mutant import noticed_by

CONTEXT, ASK = "align/rounds/in_context.py", "align/sampling/ask.py"
ric = noticed_by("tests/rounds/test_in_context.py")
MUTANTS = [
    ric(
        "in context: rewards are not in standard deviations",
        CONTEXT,
        'round((row["rewards"][name] - mean) / sd, 1)',
        'round(row["rewards"][name] - mean, 1)',
    ),
    ric(
        "in context: statistics of the round itself",
        CONTEXT,
        "    if place.number == 1:\n        _, statistics",
        "    if True:\n        _, statistics",
    ),
    ric(
        "in context: scored with the targets in the prompt",
        "align/rounds/stages.py",
        "    rows = without_targets(rows)\n",
        "",
    ),
    ric("in context: the given answers are forgotten", CONTEXT, "[*own, *given], place.mixed", "own, place.mixed"),
    ric(
        "in context: the bad ones are kept",
        CONTEXT,
        "return [rows[index] for index in top_of_any",
        "return [rows[-index] for index in top_of_any",
    ),
    ric(
        "in context: the largest draw is lowered",
        "align/data/prompts/control.py",
        "one = int(shares.argmin())",
        "one = int(shares.argmax())",
    ),
    ric(
        "in context: preferences by another order",
        "align/sampling/preferred.py",
        "for name in names]\n",
        "for name in sorted(names)]\n",
    ),
    ric("in context: preferences are not said", ASK, "    if asking.context:\n", "    if False:\n"),
    ric(
        "in context: empty answers end the round",
        CONTEXT,
        "                refused[str(error)] += 1\n                continue\n",
        "                refused[str(error)] += 1\n",
    ),
]

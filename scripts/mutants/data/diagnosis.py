"""Diagnosis of rows: thresholds, neighbours, ratings, rewriting, and the command."""

from mutants.mutant import noticed_by

FLAGS, ASKED, FIGURES, COMMAND = (
    "align/data/making/diagnosis.py",
    "align/diagnosis/asked.py",
    "align/diagnosis/figures.py",
    "align/diagnosis/command.py",
)
rule = noticed_by("tests/data/test_diagnosis.py")
command = noticed_by("tests/commands/daily/test_diagnose.py")
MUTANTS = [
    rule("diagnosis: hard before or after", FLAGS, "(figures.before > beyond.before) & (", "(figures.before > beyond.before) | ("),
    rule("diagnosis: ratings have the deviation of the population", FLAGS, "-sigmas[POOR], ddof=1)", "-sigmas[POOR])"),
    rule("diagnosis: similarities have the deviation of a sample", FLAGS, "-sigmas[LONELY])", "-sigmas[LONELY], ddof=1)"),
    rule("diagnosis: ratings that are good are flagged", FLAGS, "-sigmas[POOR], ddof=1", "sigmas[POOR], ddof=1"),
    rule("diagnosis: equal figures have a limit", FLAGS, "or known.min() == known.max()", ""),
    rule("diagnosis: a row is its own neighbour", FLAGS, "= -np.inf", "= 1.0"),
    rule("diagnosis: of a later block another row is left out", FLAGS, "start + np.arange(len(cosines))] =", "np.arange(len(cosines))] ="),
    rule("diagnosis: vectors have their lengths", FLAGS, "vectors / lengths", "vectors / 1.0"),
    rule("diagnosis: the last number rates", FLAGS, "NUMBER.search(reply)", "(list(NUMBER.finditer(reply)) or [None])[-1]"),
    rule("diagnosis: a rating has no most", FLAGS, "min(MOST, float(found[0]))", "float(found[0])"),
    rule("diagnosis: a reply without a number is 0", FLAGS, "return None if found is None", "return 0.0 if found is None"),
    rule("diagnosis: five ratings are enough", ASKED, ".mean(axis=1)", ".mean(axis=1, where=~np.isnan(values.reshape(len(rows), -1)))"),
    rule("diagnosis: places within a text are filled", ASKED, 'return parts[0] + "".join(', 'return template.format(**texts).format(**texts) + "".join("" and '),
    rule("diagnosis: the last flag says what is written", ASKED, "flags[index][0], near", "flags[index][-1], near"),
    rule("diagnosis: the old instruction is answered", ASKED, "asked(list(prompts.values()))", "asked([rows[index]['prompt'] for index in prompts])"),
    rule("diagnosis: the system's message is lost", ASKED, "if i == last else one for", "for"),
    rule("diagnosis: white space between prompt and answer is lost", ASKED, "return text + prompt[len(prompt.rstrip()) :]", "return text"),
    rule("diagnosis: an empty answer takes a row's place", ASKED, "        if text:\n", "        if True:\n"),
    command("diagnosis: losses are sums", FIGURES, "next(logps).double().mean()", "next(logps).double().sum()"),
    command("diagnosis: losses after are those before", COMMAND, "after = losses(use,", "after = losses(beginning_of(recipe).load(),"),
    command("diagnosis: rows are longer than in training", COMMAND, "tokens_of(rows, tokenizer, longest)", "tokens_of(rows, tokenizer, None)"),
    command("diagnosis: flagged rows are kept", COMMAND, "if not own]", "if own]"),
    command("diagnosis: a reward is not asked", COMMAND, "    if scorers:\n", "    if False:\n"),
    command("diagnosis: pairs are diagnosed", COMMAND, 'if recipe.rows != "completions":', "if False:"),
    command("diagnosis: two files have one name", COMMAND, "if len({path.resolve() for path in written}) < len(written):", "if False:"),
    command("diagnosis: the rows of rounds are prompts", COMMAND, "if recipe.rounds is not None:", "if False:"),
    command("diagnosis: nothing to compare has a limit", COMMAND, "for name in FLAGS if np.isnan(limit[name])", "for name in ()"),
    command("diagnosis: flags have underscores", "align/sampling/ask.py", "name.replace('_', '-')", "name"),
]  # fmt: skip

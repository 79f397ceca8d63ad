"""Answers kept and read, judges of a recipe, stored responses, and how all of it is told."""

from .mutant import noticed_by

ANSWERING, ANSWERS, TEXTS, SAMPLED = (
    "align/sampling/ask.py",
    "align/sampling/store.py",
    "eval/measures/texts.py",
    "eval/answers/table.py",
)
JUDGING, KINDS, RESPONSES = "eval/verdicts.py", "align/judges/from_recipe.py", "eval/answers/files.py"
TABLES, PAGE, REPORT, WIRED, EVALUATE = (
    "eval/report/tables.py",
    "eval/report/html.py",
    "eval/report/write.py",
    "eval/report/assemble.py",
    "eval/evaluate.py",
)  # fmt: skip
MAIN, SECTIONS = "eval/__main__.py", "align/recipe/sections.py"
THREE_FIGURES = "eval/statistics/three_figures.py"
BEST_OF = "eval/measures/best_of.py"
PROMPT_SETS = "eval/measures/prompt_sets.py"
kept = noticed_by("tests/sampling/test_eval_answering.py")
judged = noticed_by(
    "tests/evaluation/judges/test_eval_judging.py", "tests/evaluation/judges/test_eval_judged_report.py"
)
judges = noticed_by("tests/judges/test_eval_judges.py")
stored = noticed_by(
    "tests/evaluation/answers/test_eval_responses.py", "tests/evaluation/answers/test_eval_responses_command.py"
)
shown = noticed_by("tests/evaluation/report/test_eval_page.py", "tests/evaluation/judges/test_eval_judged_report.py")
MUTANTS = [
    kept("answering: nothing is kept", ANSWERING, "if asking.folder is None:", "if True:"),
    kept("answering: one file for all settings", ANSWERING, "identity = [vars(decoding),", "identity = [0,"),
    kept("answering: names are not made safe", ANSWERING, 're.sub(r"[^A-Za-z0-9._-]", "_", name)[', "name["),
    kept("answering: look-alikes share a file", ANSWERING, "None if safe == name else name,", "None,"),
    kept("answering: hidden files", ANSWERING, '.lstrip(".-") or', " or"),
    kept("answering: names without end", ANSWERING, "[-LONGEST_NAME:]", "[:]"),
    kept("answering: one sample of each", ANSWERING, '"samples": asking.samples,', '"samples": 1,'),
    kept("answering: it is not said what was read", ANSWERS, "if len(jobs) < len(wanted):", "if False:"),
    kept("answering: a policy may be called ref", EVALUATE, "if REF in names:", "if False:"),
    kept("answering: greedy samples", SECTIONS, "if self.samples > 1 and self.temperature == 0:", "if False:"),
    kept("answering: means over all answers of nobody", THREE_FIGURES, "reshape(-1, samples).mean(axis=1)", "reshape(samples, -1).mean(axis=0)"),
    kept("answering: words are characters", TEXTS, "lambda text: len(words_of(text))", "len"),
    kept("answering: gold wins upside down", TEXTS, "wins = win_scores(own, ref)", "wins = win_scores(ref, own)"),
    kept("answering: lengths of the reference alone", TEXTS, "characters[who], characters[REF]", "characters[REF], characters[REF]"),
    kept("answering: the best of powers alone", BEST_OF, " | {samples})", ")"),
    kept("answering: the judge is the gold", BEST_OF, "best_of_k(gold[who], judge[who]", "best_of_k(gold[who], gold[who]"),
    kept("answering: samples are not written", WIRED, "if sampled.samples > 1:\n            row", "if False:\n            row"),
    judged("answering: samples of one prompt are independent", JUDGING, "np.array([index for index, _ in games])", "np.arange(len(games))"),
    judged("answering: the first sample judged again", JUDGING, "sampled.answers[who][index][k] for who in players", "sampled.answers[who][index][0] for who in players"),
    judged("answering: columns stay behind", JUDGING, "[columns[index] for index, _ in games],", "None,"),
    judged("answering: columns under the names of scorers", JUDGING, 'TAKEN = ("prompt", "prompts", "answers", "completion", "completions", "completion_ids")', 'TAKEN = ("prompt",)'),
    judged("answering: the reference's wins", JUDGING, "wins, clusters = verdicts.wins(who, REF), verdicts.prompts", "wins, clusters = verdicts.wins(REF, who), verdicts.prompts"),
    judged("answering: games are clusters", JUDGING, "win_rate(wins, rng=rng_of_report(), clusters=clusters)\n    own", "win_rate(wins, rng=rng_of_report())\n    own"),
    judged("answering: the shorter answer wins", JUDGING, "longer_wins(wins, own, ref,", "longer_wins(wins, ref, own,"),
    judged("answering: lengths of the reference are the policy's", JUDGING, "wins[known], own[known], ref[known]", "wins[known], own[known], own[known]"),
    judged("answering: failures are in the fit", JUDGING, "known = ~np.isnan(wins)", "known = np.ones(len(wins), dtype=bool)"),
    judged("answering: the failed prompt is a game", JUDGING, '"prompt": int(verdicts.prompts[failure.prompt])', '"prompt": failure.prompt'),
    judged("answering: the failed sample is the first", JUDGING, '"sample": failure.prompt % sampled.samples', '"sample": 0'),
    judged("answering: failures change sides", JUDGING, '"first": judged.players[failure.first]', '"first": judged.players[failure.second]'),
    judged("answering: bias of judges who see no order", JUDGING, "if isinstance(scorer, Judge):", "if True:"),
    judged("answering: bias over games", JUDGING, "verdicts.judgements.orders[:: sampled.samples]", "verdicts.judgements.orders"),
    judged("answering: two players are rated", JUDGING, "if len(judged.players) > 2:\n        _noted", "if True:\n        _noted"),
    judged("answering: the easiest to beat", JUDGING, "judged.exploitability = min(single)", "judged.exploitability = max(single)"),
    judged("answering: no drawn games", JUDGING, "PRIOR = 1.0", "PRIOR = 0.0"),
    judged("answering: drawn games are not told", JUDGING, 'judged.notes.append(f"ratings with', 'print(f"ratings with'),
    judged("answering: ratings of games", JUDGING, "games.wins, verdicts.prompts[games.clusters])", "games.wins, games.clusters)"),
    judged("answering: pairs are not corrected", JUDGING, "zip(pairs, p_values, holm(p_values), strict=True)", "zip(pairs, p_values, p_values, strict=True)"),
    judged("answering: intervals hold one by one", JUDGING, "each = 1 - 0.05 / len(pairs)", "each = 0.95"),
    judged("answering: a share is no difference", JUDGING, "(2 * number - 1 for number in rate[:3])", "(number for number in rate[:3])"),
    judged("answering: failures are compared", JUDGING, "whole = ~np.isnan(preferences).any(axis=(1, 2))", "whole = ~np.isnan(preferences).all(axis=(1, 2))"),
    judged("answering: the reference has no rating", WIRED, "judged.ratings[reference]", 'judged.ratings[judged.players[0]]'),
    judged("answering: everybody is always compared", WIRED, "if compare and len(judged.players) > 2:", "if len(judged.players) > 2:"),
    judged("answering: curves of judges without scores", WIRED, 'kind in ("reward", "reward_model")', 'kind in ("reward", "reward_model", "preference_model")'),
    judged("answering: gold is not told", WIRED, "best_of_curves(gold or scores, scores, name)", "best_of_curves(scores, scores, name)"),
    judged("answering: no verdicts, no word", JUDGING, 'judged.notes.append("not a single verdict, so nothing can be estimated")', "pass"),
    judged("answering: a tie is better", TABLES, '"no difference beyond noise", at=0.5)', '"no difference beyond noise")'),
    judged("answering: the longer answer is not told", TABLES, "longer = judged.longer_wins[report.name]", "longer = rate.win_rate"),
    judged("answering: the weakest first", TABLES, "key=lambda item: -item[1].value", "key=lambda item: item[1].value"),
    judged("answering: all failures are shown", TABLES, "judged.failures[:SHOWN_FAILURES]", "judged.failures"),
    judged("answering: judges are not in the page", PAGE, "{_judges(report)}", ""),
    judged("answering: judges are not in Markdown", REPORT, "{INTERVALS}\\n\\n{judges}", "{INTERVALS}\\n\\n"),
    judges("answering: judges may be asked anything", KINDS, "if host not in allow:", "if False:"),
    judges("answering: a key goes wherever prompts go", KINDS, 'return f"{variable}@{host}" if variable else host', "return host"),
    judges("answering: a user's name is the host", KINDS, '.netloc.rpartition("@")[2]', '.netloc.partition("@")[0]'),
    judges("answering: verdicts are kept nowhere", KINDS, "if ledger is None:", "if False:"),
    judges("answering: settings do not reach the endpoint", KINDS, "endpoint = Endpoint(**given)", 'endpoint = Endpoint(given["url"], given["model"], attempts=2, backoff_seconds=0.01)'),
    judges("answering: any folder is a reward model", KINDS, "if not settings.is_file():", "if False:"),
    judges("answering: any dimension is a reward", KINDS, '.get("dimension")) != 1:', '.get("dimension")) == 0:'),
    judges("answering: judges count tokens", KINDS, 'if "completion_ids" in (', 'if "nothing" in ('),
    judges("answering: fields of another kind", SECTIONS, "if name not in needed + taken", "if False"),
    judges("answering: nothing is needed", SECTIONS, "for name in needed if not given.get(name)]", "for name in needed if False]"),
    judges("answering: judges of any name", SECTIONS, 'if not re.fullmatch(r"[A-Za-z0-9][\\w-]{0,39}", str(name), re.ASCII):', "if False:"),
    judges("answering: scores of nothing", SECTIONS, "if asked and self.generate is None:", "if False:"),
    judges("answering: verdicts of a page get lost", MAIN, 'page.with_name(f"{page.stem}-{JUDGES_FOLDER}")', 'page.with_name(f"{page.stem}-{len(names)}")'),
    stored("answering: the second is in question", MAIN, "read.pop() if wanted.ref is not None else read.pop(1)", "read.pop() if wanted.ref is not None else read.pop(0)"),
    stored("answering: a named reference is a policy", MAIN, "read.pop() if wanted.ref is not None", "read.pop(0) if wanted.ref is not None"),
    stored("answering: two references", MAIN, "if len(refs) > 1:", "if False:"),
    stored("answering: runs among files", MAIN, "if no_file:", "if False:"),
    stored("answering: a line's number from zero", RESPONSES, "for number, line in enumerate(file, start=1):", "for number, line in enumerate(file):"),
    stored("answering: a truncated line is no line", RESPONSES, 'yield f"{path}: line {number}", _parsed(line, f"{path}: line {number}")', 'yield from [(f"{path}: line {number}", _parsed(line, f"{path}: line {number}"))] if line.endswith(b"}\\n") else []'),
    stored("answering: any text is a response", RESPONSES, "if not isinstance(text, str):", "if False:"),
    stored("answering: any prompt will do", RESPONSES, "if not _is_prompt(prompt):", "if False:"),
    stored("answering: files are matched by place", RESPONSES, "names[str(file.path)]: [file.texts[key] for key in first.rows] for file in policies", "names[str(file.path)]: list(file.texts.values()) for file in policies"),
    stored("answering: the reference in its own order", RESPONSES, "{REF: [ref.texts[key] for key in first.rows]}", "{REF: list(ref.texts.values())}"),
    stored("answering: prompts may be missing", RESPONSES, "            if missing:", "            if False:"),
    stored("answering: more prompts than the first has", RESPONSES, "for one, two in ((first, other), (other, first)):", "for one, two in ((first, other),):"),
    stored("answering: any number of responses", RESPONSES, "if len(texts) != samples:", "if False:"),
    stored("answering: one name for two files", RESPONSES, "distinct = len(set(short.values())) == len(short) and", "distinct = True and"),
    stored("answering: a file called ref", RESPONSES, "and REF not in short.values()", ""),
    stored("answering: columns of responses are lost", RESPONSES, "{key: item for key, item in value.items() if key not in names}", "{}"),
    stored("answering: prompt sets in the files' order", PROMPT_SETS, "[texts[place] for place in found]", "[texts[place] for place in sorted(found, reverse=True)]"),
    stored("answering: prompt sets may be missing", PROMPT_SETS, "if place is None:", "if False:"),
    stored("answering: objectives are not measured", WIRED, "if recipe.rewards:", "if False:"),
    stored("answering: columns are not checked", EVALUATE, "    prepared.check_columns(set.intersection", "    set(set.intersection"),
    shown("answering: new words on the old side", PAGE, "return after + rest[1], before + rest[0]", "return before + rest[0], after + rest[1]"),
    shown("answering: equal words are marked", PAGE, 'f"<ins>{come}</ins>" if come and kind != "equal" else come', 'f"<ins>{come}</ins>" if come else come'),
    shown("answering: markup in a diff", PAGE, 'gone, come = escaped("".join(one[a:b])), escaped("".join(two[c:d]))', 'gone, come = "".join(one[a:b]), "".join(two[c:d])'),
    shown("answering: white space is lost", PAGE, 're.findall(r"\\s+|\\S+", text)', 're.findall(r"\\S+", text)'),
    shown("answering: long answers are cut", PAGE, 'rest = [escaped("".join(side[DIFFED_WORDS:])) for side in words]', 'rest = ["", ""]'),
    shown("answering: others are not shown", PAGE, 'row.get("others", {}).items()', "{}.items()"),
]  # fmt: skip

"""Sweeps over settings."""

from mutants.mutant import noticed_by

SWEEP, CLI = "align/commands/sweep.py", "align/cli.py"
sweep = noticed_by("tests/commands/daily/test_sweep.py")
MUTANTS = [
    sweep("sweep: commas in quotes part values", SWEEP, "found = [whole[item.start_mark.index : item.end_mark.index].strip() for item in node.value]", "found = text.split(',')"),
    sweep("sweep: a bracket too many is passed over", SWEEP, "or node.end_mark.index != len(whole)", ""),
    sweep("sweep: a value is trained twice", SWEEP, "if found.count(value) > 1:", "if False:"),
    sweep("sweep: folders depend on the order of keys", SWEEP, "in sorted(values.items())", "in values.items()"),
    sweep("sweep: two settings share a folder", SWEEP, "return safe if safe == told else", "return safe if True else"),
    sweep("sweep: seeds are drawn too", SWEEP, "for text in of_seeds or [None]]", "for text in (of_seeds or [None])[:1]]"),
    sweep("sweep: another seed draws the same", SWEEP, "random.Random(seed or 0)", "random.Random(0)"),
    sweep("sweep: fixed settings are lost", SWEEP, "words = {one: [*fixed, *one.overrides,", "words = {one: [*one.overrides,"),
    sweep("sweep: nothing is checked", SWEEP, "        refuse_all(options.recipe, words, options)\n", ""),
    sweep("sweep: the first setting alone is checked", SWEEP, "if of_setting in checked:", "if checked:"),
    sweep("sweep: each seed is checked", SWEEP, "if of_setting in checked:", "if False:"),
    sweep("sweep: notes refuse", SWEEP, 'if each.level == "error" or', 'if each.level != "warning" or'),
    sweep("sweep: a failed run counts as finished", SWEEP, "                if code:\n", "                if False:\n"),
    sweep("sweep: a failed run ends all", SWEEP, "if error.code in STOPPED:", "if True:"),
    sweep("sweep: a stop goes on with the next", SWEEP, "if error.code in STOPPED:", "if False:"),
    sweep("sweep: a failed run is no failure", SWEEP, "Swept(finished, int(bool(failed)),", "Swept(finished, 0,"),
    sweep("sweep: the launcher's words are lost", SWEEP, '"--resume", "auto", *launch]', '"--resume", "auto"]'),
    sweep("sweep: it begins anew", SWEEP, '*words[one], "--resume", "auto"', "*words[one]"),
    sweep("sweep: signals stay with the sweep", SWEEP, "lambda number, _: process.send_signal(number)", "lambda number, _: None"),
    sweep("sweep: Ctrl-C comes twice", SWEEP, ", process_group=0)", ")"),
    sweep("sweep: signals are not given back", SWEEP, "            signal.signal(number, handler)\n", "            pass\n"),
    sweep("sweep: a front is swept", SWEEP, "if recipe.fronts is not None:", "if False:"),
    sweep("sweep: inside a launcher", SWEEP, 'if "WORLD_SIZE" in os.environ:', "if False:"),
    sweep("sweep: its recipe is not on record", "align/runs/contents.py", "SWEEP_FILE = LEDGERS =", "SWEEP_FILE = *LEDGERS, _ ="),
    sweep("sweep: nothing is compared", CLI, "return _compare(words) or done.code", "return done.code"),
    sweep("sweep: a failure forbids the page", CLI, "return _compare(words) or done.code", "return done.code or _compare(words)"),
    sweep("sweep: a page forgives a failure", CLI, "return _compare(words) or done.code", "return _compare(words)"),
]  # fmt: skip

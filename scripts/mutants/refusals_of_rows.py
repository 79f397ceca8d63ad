"""What trainers say of rows, rewards and judges that do not behave, and under which names evaluations are logged."""

from mutants.mutant import noticed_by

COLUMNS, LABELLED = "align/trainers/shared/columns.py", "align/trainers/completions/labelled.py"
ONLINE, PAIRS, KTO = (
    "align/trainers/online/shared_prompts.py",
    "align/trainers/pairs/preference.py",
    "align/trainers/completions/kto.py",
)
SCHEDULE, JUDGES = "align/check/schedule.py", "align/judges/from_recipe.py"
rows = noticed_by("tests/trainers/test_rows_left.py")
online = noticed_by("tests/trainers/online/test_online.py")
sizes = noticed_by("tests/check/test_sizes.py")
own = noticed_by("tests/recipe/test_own_failures.py")

MUTANTS = [
    rows("rows left: an empty set is read", COLUMNS, "if isinstance(data, Dataset) and not len(data):", "if False:"),
    rows("rows left: of named sets the first", COLUMNS, '{"train_dataset": train, **named}', '{"train_dataset": train}'),
    rows("rows left: pairs without a word", PAIRS, "            say_left_out(len(made), len(dataset), args.max_length, where=where)\n", ""),
    rows("rows left: labels without a word", KTO, "        say_left_out(len(made), len(dataset), args.max_length, where=where)\n", ""),
    rows("rows left: no label is no matter", LABELLED, 'if "label" not in first:', "if False:"),
    online("names of sets: all the same", ONLINE, 'f"{prefix}_{name}": mean_of_known', 'f"eval_{name}": mean_of_known'),
    online("names of sets: the next has them too", ONLINE, "            gathered.clear()\n", ""),
    online("names of sets: rules are told nothing", "align/trainers/online/objectives.py", 'f"{evaluated_as(found)}_rewards', 'f"eval_rewards'),
    sizes("best metric: near misses pass", SCHEDULE, "    if near:\n        message", "    if False:\n        message"),
    sizes("best metric: of the shorter set", SCHEDULE, "max(of_set, key=len)", "min(of_set, key=len)"),
    sizes("best metric: all methods are pairs", SCHEDULE, 'else recipe.rows\n    family', 'else "pairs"\n    family'),
    sizes("held out: one prompt is enough", SCHEDULE, "all(prompt == first for prompt in prompts)", "len(rows) == 1"),
    own("own judge: what it raises ends the run", JUDGES, "except (Exception, SystemExit) as error:\n            raise ValueError(", "except ValueError as error:\n            raise ValueError("),
    own("own judge: nothing is a matrix", "align/judges/scorers.py", 'if not hasattr(matrix, "shape"):', "if False:"),
    own("own reward: not awaited", "align/rewards/load.py", "    if not inspect.iscoroutine(given):\n        return given\n", "    return given\n"),
]  # fmt: skip

"""Rows of every kind, presets and rewards of recipes."""

from .mutant import noticed_by

NORMALISE, OTHER, RECIPE = "align/data/rows/normalise.py", "align/data/rows/completions.py", "align/recipe/loading.py"
REWARD_SECTION = "align/recipe/reward_section.py"
rows = noticed_by("tests/data/test_other_rows.py")
recipe = noticed_by("tests/recipe/test_recipe_rewards.py")
MUTANTS = [
    rows("rows: columns nobody asked for are kept", NORMALISE, 'if rows == "prompts" and name not in taken', "if name not in taken"),
    rows("rows: the old name stays too", NORMALISE, "taken = (*mapping.values(), *keep, *renamed.values())", "taken = (*mapping.values(), *keep)"),
    rows("rows: a missing column is passed over", NORMALISE, "    if missing:\n", "    if False:\n"),
    rows("rows: numbers are not looked at", NORMALISE, "(_text if ours in texts else _number)(row[name], name)", "row[name]"),
    rows("rows: an answer in the prompt", OTHER, 'if prompt[-1]["role"] == "assistant":\n        raise RowError("wrong-roles", "the prompt ends with an assistant message")\n    if completion', "if completion"),
    rows("rows: an answer by the user", OTHER, 'completion[-1]["role"] != "assistant"', "False"),
    rows("rows: an empty answer", OTHER, 'if not completion[-1]["content"].strip():', "if False:"),
    rows("rows: the conversation is the prompt", OTHER, "prompt: Any = completion[:-1]", "prompt: Any = completion"),
    rows("rows: overlap is not told", "align/data/loading.py", "        _say_overlap(sets)\n", "        pass\n"),
    recipe("rows: a preset may be changed", RECIPE, "if isinstance(values, dict) and key in values:\n            general", "if False:\n            general"),
    recipe("rows: rewards for any method", REWARD_SECTION, 'if rows not in (None, "prompts"):', "if False:"),
    recipe("rows: a reward twice", REWARD_SECTION, "        if twice:\n", "        if False:\n"),
    recipe("rows: options are not tried", REWARD_SECTION, "make_reward(name, **(options or {}))", "pass"),
    recipe("rows: columns of rewards are not asked for", "align/train.py", "        _check_columns(recipe, train)\n", ""),
    recipe("rows: any reference", RECIPE, "ref.kind not in allowed", "False"),
]  # fmt: skip

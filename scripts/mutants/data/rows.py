"""Rows of every kind, presets and rewards of recipes."""

from mutants.mutant import noticed_by

NORMALISE, OTHER, RECIPE = "align/data/rows/normalise.py", "align/data/rows/completions.py", "align/recipe/loading.py"
MAPPING, LAYOUTS, MESSAGES = (f"align/data/rows/{name}.py" for name in ("mapping", "layouts", "messages"))
layouts, templates = noticed_by("tests/data/rows/test_layouts.py"), noticed_by("tests/data/rows/test_templates.py")
told, online = noticed_by("tests/check/test_refusals.py"), noticed_by("tests/trainers/online/test_online.py")
form, explicit = noticed_by("tests/data/rows/test_normal_form.py"), noticed_by("tests/data/rows/test_explicit.py")
rows = noticed_by("tests/data/rows/test_other_rows.py")
recipe = noticed_by("tests/recipe/test_recipe_rewards.py")
strict, values = noticed_by("tests/recipe/test_strict_recipes.py"), noticed_by("tests/recipe/test_recipe.py")
talks = noticed_by("tests/commands/daily/test_conversations.py")
MUTANTS = [
    noticed_by("tests/data/test_data.py")("csv: NA is nothing", "align/data/loading.py", '{"keep_default_na": False, "na_values": [""]} if kind == "csv" else {}', "{}"),
    noticed_by("tests/data/test_data.py")("rows: sets may be called anything", "align/data/sources.py", "if not SET_NAME.fullmatch(name):", "if False:"),
    rows("rows: columns nobody asked for are kept", MAPPING, 'for name in free if rows == "prompts" and name != system', "for name in free if name != system"),
    rows("rows: the old name stays too", MAPPING, "taken = (*mapping.values(), *keep, *renamed.values())", "taken = (*mapping.values(), *keep)"),
    rows("rows: a missing column is passed over", MAPPING, "    if missing:\n", "    if False:\n"),
    rows("rows: numbers are not looked at", NORMALISE, "(_text if ours in texts else _number)(row[name], name)", "row[name]"),
    rows("rows: an answer in the prompt", OTHER, 'if prompt[-1]["role"] == "assistant":\n        raise RowError("wrong-roles", "the prompt ends with an assistant message")\n    if not says_something(completion', "if not says_something(completion"),
    rows("rows: an answer by the user", OTHER, 'completion[-1]["role"] != "assistant"', "False"),
    rows("rows: an empty answer", OTHER, 'if not says_something(completion[-1]):', "if False:"),
    rows("rows: the conversation is the prompt", OTHER, "prompt: Any = completion[:-1]", "prompt: Any = completion"),
    rows("rows: text under messages is refused", OTHER, 'answer_to(prompt, completion, "the completion")', "completion"),
    rows("rows: a plain message has any role", MESSAGES, "and type(content) is str and role in ROLES", "and type(content) is str"),
    rows("rows: a plain message has any content", MESSAGES, "and type(content) is str and role in ROLES", "and role in ROLES"),
    rows("rows: messages written as text are an answer", MESSAGES, "if MESSAGES_AS_TEXT.match(answer):", "if False:"),
    noticed_by("tests/data/test_data.py")("rows: pairs of text under messages are refused", "align/data/rows/pairs.py", 'answer_to(prompt, chosen, "chosen"), answer_to(prompt, rejected, "rejected")', "chosen, rejected"),
    noticed_by("tests/data/test_data.py")("rows: messages beside answers are no prompt", MAPPING, '        {"prompt": "messages", "chosen": "chosen", "rejected": "rejected"},\n', ""),
    noticed_by("tests/data/test_data.py")("rows: a whole conversation beside its answers is refused", "align/data/rows/pairs.py", "_after_system(context)[: len(stated)], chosen)", "_after_system(context)[: len(stated)])"),
    noticed_by("tests/data/rows/test_labels.py")("rows: a conversation has no label", MAPPING, 'for label in ("label", "kto_tag")', 'for label in ("label",)'),
    rows("rows: a conversation written as text lacks a prompt", OTHER, "if MESSAGES_AS_TEXT.match(completion):", "if False:"),
    rows("rows: overlap is not told", "align/data/loading.py", "        _say_overlap(sets)\n", "        pass\n"),
    layouts("rows: ties are pairs", LAYOUTS, "if any(_same(value, tie) for tie in self.ties):", "if False:"),
    layouts("rows: labels the other way around", LAYOUTS, '{"chosen": row[better[0]], "rejected": row[worse]}', '{"chosen": row[worse], "rejected": row[better[0]]}'),
    layouts("rows: a label is dropped", "align/data/rows/columns.py", 'if rows != "prompts" and not labelled and is_label(raw, name):', "if False:"),
    layouts("rows: the system is dropped", NORMALISE, "if plan.system is not None:", "if False:"),
    layouts("rows: bad answers are learnt", LAYOUTS, 'if not label_of(row["label"]):', "if False:"),
    templates("rows: tools are lost", MAPPING, "for name in TEMPLATE if name in free", "for name in () if name in free"),
    templates("rows: keys of messages are lost", MESSAGES, '{"role": role, "content": content} | without_nulls(further)', '{"role": role, "content": content}'),
    templates("rows: nobody looks at the template", "align/check/templates.py", "        if not refused:", "        if False:"),
    told("rows: plain text on a chat model goes without a word", "align/check/refusals.py", "finding.rule in (PLAIN, NO_EFFECT, ONE_PROMPT, BEST_METRIC)", "finding.rule == NO_EFFECT"),
    told("rows: what rows give a template is not tried", "align/check/templates.py", "yield shape, (int(first[start + index]) + 1, Chat(chat, given), asks)", "yield shape, (int(first[start + index]) + 1, chat, asks)"),
    told("rows: a template is tried with what one row gives it", "align/check/templates.py", ", asks, tuple(sorted(given)))", ", asks)"),
    online("rows: a system beside prompts in Python is dropped", "align/trainers/online/shared_prompts.py", '= explicit(kwargs.get(name), "prompts", where=f"{type(self).__name__}: {said}")', "= kwargs.get(name)"),
    online("rows: tools beside prompts in Python are dropped", "align/data/rows/explicit.py", 'if rows == "prompts" and any', "if False and any"),
    templates("rows: evaluation without tools", "align/scoring/completions.py", "return_dict=True, **template_of(prompt))[", "return_dict=True)["),
    rows("rows: an object of lists is no list", MESSAGES, 'any(isinstance(value.get(key), list) for key in ("role", "from"))', "False"),
    rows("rows: lists of other lengths are messages", MESSAGES, "if len(lengths) != 1 or None in lengths:", "if False:"),
    rows("rows: whole texts are mapped with dots", MAPPING, '    elif "text" in names and', "    elif False and"),
    rows("rows: questions with answers are told of pairs alone", MAPPING, "if rows == \"pairs\" and (answered or", "if rows == \"pairs\" and (False or"),
    layouts("rows: a label of chosen and rejected has no line", "align/data/rows/columns.py", 'answers = ["chosen", "rejected"]', "pass"),
    form("rows: what shows nothing is a text", "align/data/rows/normal_form.py", 'UNSEEN.sub("", unicodedata.normalize("NFC", text))', 'unicodedata.normalize("NFC", text)'),
    form("rows: forms are told apart", "align/data/rows/normal_form.py", 'unicodedata.normalize("NFC", text))', "text)"),
    explicit("rows: a system in Python is dropped", "align/data/rows/explicit.py", "with_system(made, row[system]) if system else made", "made"),
    recipe("rows: a preset may be changed", RECIPE, "if isinstance(values, dict) and key in values:\n            general", "if False:\n            general"),
    recipe("rows: rewards for any method", "align/recipe/reward_section.py", 'if method is not None and method.rows != "prompts":', "if False:"),
    recipe("rows: a reward twice", "align/recipe/reward_section.py", "        if twice:\n", "        if False:\n"),
    recipe("rows: options are not tried", "align/recipe/reward_section.py", "make_reward(name, **(options or {}))", "pass"),
    recipe("rows: columns of rewards are not asked for", "align/check/rewards.py", "    if column not in dataset.column_names:", "    if False:"),
    recipe("rows: any reference", RECIPE, "ref.kind not in allowed", "False"),
    talks("conversations: answers are sampled without tools", "align/scoring/completions.py", "return_dict=True, **template_of(prompt))[", "return_dict=True)["),
    talks("conversations: what a message says besides is lost", MESSAGES, '{"role": role, "content": content} | without_nulls(further)', '{"role": role, "content": content}'),
    talks("conversations: a chat remembers nothing", "align/commands/chat.py", "                    self.messages += [asked,", "                    _ = [asked,"),
    strict("rows: an override leaves no list", "align/strict/yaml_tree.py", "isinstance(level.get(key), dict | list)", "isinstance(level.get(key), dict)"),
    strict("rows: an override of an entry that is not there", "align/strict/yaml_tree.py", "int(key) < len(entries)", "True"),
    noticed_by("tests/fronts/test_front.py")("recipe: whole numbers by name are refused", "align/strict/fields.py", "if dict[str, float] in options and", "if False and"),
    values("recipe: lists of whole numbers are refused", "align/strict/fields.py", "    if list[float] in options and", "    if False and"),
    values("recipe: truth values are numbers", "align/strict/fields.py", "isinstance(value, list) and not any(isinstance(each, bool) for each in value)", "isinstance(value, list)"),
    strict("rows: a path is no source and nobody says how", "align/strict/fields.py", 'f"; write {{path: {as_scalar(values)}}}" if is_path else ""', '""'),
    strict("rows: why nothing is streamed is not said", "align/strict/fields.py", ' or getattr(cls, "INSTEAD", {}).get(key) or', " or"),
]  # fmt: skip

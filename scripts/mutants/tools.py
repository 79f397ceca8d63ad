"""Policies that call tools: tools, environments, templates, rewards of calls, and what is learnt from."""

from .mutant import noticed_by

SEARCH, LOAD, TEMPLATES = (f"align/tools/{name}.py" for name in ("search", "load", "templates"))
CALLS, TEXTS = "align/rewards/calls.py", "align/rewards/texts.py"
SHARED, COLUMNS = "align/trainers/online/shared_prompts.py", "align/trainers/online/rewards.py"
OBJECTIVES, CHECK = "align/trainers/online/objectives.py", "align/check/rewards.py"
search = noticed_by("tests/tools/test_search.py")
template = noticed_by("tests/tools/test_templates.py")
recipe = noticed_by("tests/tools/test_recipes_with_tools.py")
reward = noticed_by("tests/rewards/test_rewards_calls.py")
run = noticed_by("tests/trainers/online/test_tools.py")
MUTANTS = [
    search("tools: rare words count as others", SEARCH, "math.log(1 + (len(self.counts) - self.within[w] + 0.5) / (self.within[w] + 0.5))", "1.0"),
    search("tools: long passages count as short ones", SEARCH, "count.total() / self.mean", "1.0"),
    search("tools: a passage without the words is found", SEARCH, "if scores[place] > 0]", "]"),
    search("tools: the worst passages come first", SEARCH, "(-scores[place], place)", "(scores[place], place)"),
    search("tools: a corpus is read once for good", SEARCH, "Path(path).stat().st_mtime_ns", "0 * Path(path).stat().st_mtime_ns"),
    search("tools: an environment keeps what it found before", SEARCH, "self._answer, self._found = answer, []", "self._answer = answer"),
    search("tools: a row without an answer is worth 0", SEARCH, "if not has_value(self._answer):\n            return None", "if not has_value(self._answer):\n            return 0.0"),
    search("tools: a tool that cannot be told of is taken", LOAD, "get_json_schema(tool)\n", "get_json_schema\n"),
    recipe("tools: environments go by row only where there are several", LOAD, "by_row = len(factories) > 1 or ROUTE in columns", "by_row = False"),
    recipe("tools: reset is not tried", CHECK, "environment.reset(**row)", "environment.reset"),
    recipe("tools: a row may name any environment", CHECK, "if value not in known] if known", "if value is None] if known"),
    recipe("tools: plain prompts are taken", CHECK, 'isinstance(dataset[0]["prompt"], str):\n            message = "the prompts', 'isinstance(dataset[0]["prompt"], int):\n            message = "the prompts'),
    recipe("tools: the corpus is no part of a run", "align/runs/identity.py", 'if path.is_file() else {})', 'if False else {})'),
    recipe("tools: every method takes them", "align/methods.py", "return issubclass(self.config, DynamicGRPOConfig)", "return True"),
    run("tools: one that ends Python ends the run", LOAD, "except SystemExit as error:\n            raise RuntimeError", "except KeyError as error:\n            raise RuntimeError"),
    template("tools: a system message is lost", TEMPLATES, "{%- set said.head = messages[0].content + '\\n\\n' + said.head %}", ""),
    template("tools: only the first call is written", TEMPLATES, "{%- for call in m.tool_calls %}", "{%- for call in m.tool_calls[:1] %}"),
    template("tools: a template is changed twice", TEMPLATES, "template.startswith(MARK) or _renders_calls(tokenizer)", "_renders_calls(tokenizer) and not template.startswith(MARK)"),
    template("tools: a refused template stays changed", TEMPLATES, "        tokenizer.chat_template = template\n        raise", "        raise"),
    template("tools: calls are not read", TEMPLATES, '"open": "<tool_call>"', '"open": "<call>"'),
    reward("tools: turns are counted", TEXTS, 'len(message.get("tool_calls") or ())', 'bool(message.get("tool_calls"))'),
    reward("tools: calls beyond the most cost more", CALLS, "max(0.0, 1 - calls_of(completion) / self.most)", "1 - calls_of(completion) / self.most"),
    reward("tools: the answerer reads the planner's words", CALLS, "shown(question_of(prompt), found_by(text))", "shown(question_of(prompt), [m['content'] for m in text])"),
    reward("tools: a part of a word is an answer", TEXTS, "said[i : i + len(wanted)] == wanted", "all(s.startswith(w) for s, w in zip(said[i : i + len(wanted)], wanted))"),
    run("tools: rewards count what tools return", SHARED, "if own] for ids, mask in both]", "] for ids, mask in both]"),
    run("tools: strata are of turns with any call", COLUMNS, "[float(calls_of(completion)) for", "[float(calls_of(completion) > 0) for"),
    run("tools: the number of calls is an objective", COLUMNS, '    aux = "tool_calls"', '    aux = None if True else "tool_calls"'),
    run("tools: a run without rewards of its own has one of none", OBJECTIVES, "given = [] if reward_funcs is None else reward_funcs", "given = reward_funcs"),
    noticed_by("tests/evaluation/measures/test_objectives.py")("tools: who calls nothing is measured as thrifty", "eval/measures/rewards.py", "CALLS in REWARDS[name].reads", "CALLS == REWARDS[name].reads"),
]  # fmt: skip

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
turns = noticed_by("tests/sampling/test_turns.py")
judged = noticed_by("tests/evaluation/answers/test_tools.py")
filed = noticed_by("tests/tools/test_sampled.py")
studied = noticed_by("tests/tools/test_tool_study.py")
STUDY, FIGURES = "scripts/studies/tool_calls.py", "scripts/studies/study_parts/tool_calls_report.py"
LOOP, TURNS, CALLING = "align/sampling/trl_loop.py", "align/sampling/turns.py", "align/tools/calling.py"
MUTANTS = [
    turns("tool turns: a failed call is one that returned", LOOP, "self._tried(said) - one.succeeded", "one.succeeded"),
    turns("tool turns: a call beyond the last turn failed", LOOP, "sum(turns[: self.max_tool_calling_iterations])", "sum(turns)"),
    turns("tool turns: results take no room", LOOP, "self.max_completion_length - len(row) for row", "self.max_completion_length for row"),
    turns("tool turns: all rows draw the first one's noise", LOOP, "Row([*self, *other], self.number)", "Row([*self, *other], 0)"),
    turns("tool turns: a call without an answer is the end", TURNS, 'ended and not messages[-1].get("tool_calls")', "ended"),
    turns("tool turns: what tools write is the policy's", "align/sampling/generate.py", "part % 2 == 0 for part", "part >= 0 for part"),
    turns("tool turns: kept answers forget what they are worth", "align/sampling/store.py", "**answer.turns._asdict()", '**answer.turns._asdict(), "rewards": {}'),
    turns("tool turns: an environment serves several answers", CALLING, "environment = None if row is None else self._fresh(row)", "environment = None if row is None else self.__dict__.setdefault('one', self._fresh(row))"),
    turns("tool turns: an environment is not heard", CALLING, "begun = list(prompt) if said is None", "begun = list(prompt) if True"),
    turns("tool turns: a row is not part of the question", "align/data/prompts/__init__.py", "[prompt.template, *([] if prompt.row is None else [dict(prompt.row)])]", "[prompt.template]"),
    turns("tool turns: what a corpus holds does not matter", CALLING, "sha256(Path(value)) if _is_file(value) else value", "value"),
    noticed_by("tests/tools/test_tool_sources.py")("tool turns: code does not matter", CALLING, "return sha256(Path(path))", 'return ""'),
    judged("tool eval: rewards are given words alone", "eval/measures/rewards.py", "[copy.deepcopy(one.messages) for one in turns]", "answers"),
    judged("tool eval: what environments own is not told", "eval/measures/rewards.py", "values |= owned_values(sampled)", "values |= {}"),
    judged("tool eval: lengths count results", "eval/measures/tokens.py", "np.mean([len(answer.own_ids) for answer", "np.mean([len(answer.completion_ids) for answer"),
    judged("tool eval: results have a likelihood", "eval/measures/tokens.py", "logps[row[0].own] for logps", "logps for logps"),
    judged("tool eval: rows of one prompt are one row", "eval/evaluate.py", "whole=bool(first.recipe.environments)", "whole=False"),
    judged("tool eval: other tools are compared", "eval/answers/calling.py", "if (theirs and theirs.digest) != (found and found.digest)", "if False"),
    judged("tool eval: rows are not looked at first", "eval/subjects.py", 'if each.level == "error"]\n    if errors', 'if each.level == "note"]\n    if errors'),
    filed("tool files: rewards are given words alone", "align/judges/scoring.py", "whole = [_conversations(row) or answers for", "whole = [answers for"),
    filed("tool files: answers without calls are thrifty", "align/commands/score.py", "if unread and CONVERSATIONS not in rows[0]", "if False"),
    filed("tool files: a chat leaves calls unanswered", "align/commands/chat.py", "if policy.caller is not None", "if False"),
    filed("tool fronts: policies are asked without tools", "align/fronts/run.py", "who = policy._replace(caller=caller_of(self.recipe))", "who = policy"),
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
    studied("tool study: what is stated is searched for", STUDY, "if number % 2:", "if number // 4 % 2:"),
    studied("tool study: every question says its fact", STUDY, "number // len(_ASKED) % 2]", "0]"),
    studied("tool study: answers to other questions", STUDY, "for one in asked])", "for one in sorted(asked)])"),
    studied("tool study: answers of seeds are other questions", FIGURES, "groups = np.tile(np.arange(questions)[kept], seeds)", "groups = np.arange(seeds * kept.sum())"),
    studied("tool study: the difference is turned around", FIGURES, "gaps(second[:n, k] - first[:n, k])", "gaps(first[:n, k] - second[:n, k])"),
    studied("tool study: kinds are mixed", FIGURES, "STATED: kinds == STATED", "STATED: kinds == kinds"),
]  # fmt: skip

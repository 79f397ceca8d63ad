"""Pairs and completions that are tokenized as training reads them."""

from mutants.mutant import noticed_by

TABLES = "align/data/rows/tables.py"
OWN, AUDIT, BUILDING = "align/data/as_read.py", "align/data/audit/truncation.py", "align/building.py"
SUPERVISED = "align/trainers/completions/supervised.py"
TRAINER, MEMORY = "align/trainers/pairs/preference.py", "align/trainers/shared/checkpointing.py"
late = noticed_by("tests/data/test_as_read.py")
whole = noticed_by("tests/data/rows/test_completions_as_read.py", "tests/data/test_as_read.py")

MUTANTS = [
    late("as read: filled prompts stay", OWN, "        if len(left) < len(dataset):\n", "        if False:\n"),
    late("as read: a prompt may fill to the last", OWN, "prompts < self.max_length", "prompts <= self.max_length"),
    late("as read: others are left out", OWN, "short[~roomy]", "np.flatnonzero(~roomy)"),
    late("as read: pairs are counted from 0", OWN, "short[roomy] + 1", "short[roomy]"),
    late("as read: rows of the selection are told", OWN, "numbers=numbers, total", "numbers=None, total"),
    late("as read: filled prompts are refused", OWN, "made.select(np.flatnonzero(roomy))", "made.select(np.arange(len(made)))"),
    late("as read: other columns are dropped", OWN, "self.columns(parted) | others", "self.columns(parted)"),
    late("as read: texts stay", OWN, "if name not in self.texts()}", "}"),
    late("as read: a filled prompt is let through", OWN, "if room(len(row.prompt), self.max_length) == 0:", "if False:"),
    late("as read: the same tokens are not told", OWN, "        if one == other:\n", "        if False:\n"),
    late("as read: told of each", OWN, "self._told.add(message)", "pass"),
    late("as read: a template's refusal is raw", OWN, "    except Exception as error:  # a template may raise anything\n", "    except KeyError as error:\n"),
    late("as read: a refusing template is not waited for", OWN, "    except Exception:  # of a template that refuses", "    except KeyError:  # of a template that refuses"),
    late("as read: the template adds nothing", OWN, "prompt - template", "prompt"),
    late("as read: the template adds once", OWN, "once + each * _messages", "once + 0 * _messages"),
    late("as read: characters are counted", OWN, 'call_function("binary_length", [column])', 'call_function("utf8_length", [column])'),
    late("as read: tools are short", OWN, "if set(TEMPLATE) & set(dataset.column_names) or not all", "if not all"),
    late("as read: names of messages are short", OWN, " or not all(only_texts(dataset.features[part]) for part in parts)", ""),
    late("as read: JSON is short", TABLES, "isinstance(feature, List) and not set(feature.feature)", "not isinstance(feature, List) or not set(feature.feature)"),
    late("as read: JSON has no size", OWN, "    if isinstance(column.type, pa.BaseExtensionType):", "    if False:"),
    late("as read: the template is looked at with a system alone", OWN, "    prompts += [prompt[1:]", "    [prompt[1:]"),
    late("as read: evaluated pairs are refused", OWN, "        if trained:\n            refuse_none", "        if True:\n            refuse_none"),
    late("as read: the recipe has all refused", BUILDING, "trained=name == TRAIN", "trained=True"),
    late("as read: none may be left", OWN, "            refuse_none_left(left", "            (lambda *_, **__: None)(left"),
    late("pairs: none may be left", TRAINER, "            refuse_none_left(len(self", "            (lambda *_, **__: None)(len(self"),
    late("as read: long answers are tokenized", OWN, "left[row] <= 0 or (len(sides) > 1", "True or (len(sides) > 1"),
    late("as read: answers may differ at their end", OWN, "return int(apart[0]) if len(apart) else shorter", "return shorter"),
    late("as read: slices begin at 0", OWN, "found.append(start + rows", "found.append(rows"),
    late("as read: the shortest are measured", OWN, "np.argsort(-sizes", "np.argsort(sizes"),
    late("as read: what a selection is called is ignored", AUDIT, "row + 1 if numbers is None else int(numbers[row])", "row + 1"),
    late("as read: of how many is ignored", AUDIT, "{total or len(dataset)}", "{len(dataset)}"),
    late("as read: a stored reference too", BUILDING, '"precompute_ref_log_probs", "packing"', '"packing"'),
    late("as read: sorted by length too", BUILDING, ' or args.train_sampling_strategy == "group_by_length"', ""),
    late("as read: never", BUILDING, "if recipe.data.streaming else None", "if False else None"),
    late("as read: held-out rows are not", BUILDING, "        eval_sets = dict(zip(eval_sets, others, strict=True))\n", ""),
    late("as read: what is left out is not told", BUILDING, "left_out = given - len", "left_out = len(train) - len"),
    late("as read: tokenized again", TRAINER, "            self._tokenizes_rows = True\n            return dataset\n", "            self._tokenizes_rows = True\n"),
    late("as read: texts are removed", TRAINER, "            self._tokenizes_rows = True\n", ""),
    late("as read: rows of a failed step are not found", "align/trainers/shared/guard.py", " or is_as_read(data))", ")"),
    late("as read: rows of all are counted", MEMORY, "        if is_as_read(data):", "        if False:"),
    late("as read: srpo too", "align/trainers/pairs/srpo.py", "    as_read = None\n", ""),
    whole("completions as read: prompts are learnt", OWN, "[NOT_LEARNT] * len(prompt)", "prompt"),
    whole("completions as read: ids are not cut", OWN, "(prompt + answer)[: self.max_length]", "(prompt + answer)"),
    whole("completions as read: long ones are tokenized", OWN, "(len(sides) > 1 and _shared", "(len(sides) == 1 or _shared"),
    whole("completions as read: none may be left", AUDIT, "    if not left:\n        raise DataError(f\"{told}", "    if False:\n        raise DataError(f\"{told}"),
    whole("completions as read: those left out are not told", AUDIT, "    if left < total:\n", "    if False:\n"),
    whole("completions as read: prompts of later sets are learnt", SUPERVISED, "            self.completion_only_loss = True\n", "            pass\n"),
    whole("completions as read: tokenized again", SUPERVISED, "            self._tokenizes_rows = True\n            return dataset\n", "            self._tokenizes_rows = True\n"),
    whole("completions as read: texts are removed", SUPERVISED, "CompletionsAsRead.texts() if self._tokenizes_rows", "CompletionsAsRead.texts() if False"),
    whole("completions as read: packed rows too", BUILDING, '"packing", "eval_packing"', '"eval_packing"'),
    whole("completions as read: shuffled rows too", BUILDING, ', "shuffle_dataset")', ")"),
    whole("completions as read: learnt prompts too", BUILDING, "all_at_once or learns_prompts", "all_at_once"),
    whole("completions as read: with controls too", "align/trainers/completions/meet.py", "    as_read = None\n", ""),
]  # fmt: skip

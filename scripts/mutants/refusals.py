"""What is refused before a weight is loaded, and what strangers' programs may take."""

from .mutant import noticed_by

refusal = noticed_by("tests/check/test_refusals.py")
hostile = noticed_by("tests/check/test_hostile.py")
directory = noticed_by("tests/check/test_directory.py")
sampled = noticed_by("tests/check/test_large_sets.py")
saved, FOLDERS = noticed_by("tests/commands/test_fuzz_corpus.py"), "align/models/folders.py"
SCHEDULE, SIZES, TOKENS, BOUNDED = (
    "align/check/schedule.py",
    "align/check/sizes.py",
    "align/check/tokens.py",
    "align/strict/bounded.py",
)
complete = noticed_by("tests/models/test_complete.py")
unread = noticed_by("tests/check/test_unread.py")
COMPLETE, UNREAD, OWN = "align/models/complete.py", "align/check/unread.py", "align/runs/contents.py"
places = noticed_by("tests/commands/test_out_places.py")
FILES, ERRORS = "align/files.py", "align/errors.py"
launched = noticed_by("tests/commands/test_launching.py")
large = noticed_by("tests/check/test_large_sets.py")
LAUNCHING, WEIGHTS = "align/launching.py", "align/check/rewards.py"
sized = noticed_by("tests/check/test_sizes.py")
digest = noticed_by("tests/data/test_audit.py")
shape = noticed_by("tests/data/rows/test_templates.py::test_the_first_row_of_each_shape_is_rendered")
WRITTEN, TEMPLATES = "align/data/audit/written.py", "align/check/templates.py"
blamed = noticed_by("tests/recipe/test_strict_recipes.py")
owned = noticed_by("tests/recipe/test_own_failures.py")
several = noticed_by("tests/check/test_several.py")
MUTANTS = [
    blamed("blamed: an enumeration names no field", "align/strict/fields.py", 'return f"{own[0]}: {line}" if len(own) == 1 else line', "return line"),
    blamed("blamed: what cannot be read is looked at", "align/strict/fields.py", "    if where in tree.unreadable:\n", "    if False:\n"),
    owned("blamed: a judge's texts are a matrix", "align/judges/from_recipe.py", "return None if found is None else np.asarray(found, dtype=np.float64)", "return found"),
    owned("blamed: any class is a reward", "align/rewards/load.py", "    if not is_dataclass(reward):\n", "    if False:\n"),
    several("several: rounds begin unseen", "align/train.py", "sets = refuse_several(recipe, resume=resume is not None, allow=allow)", "sets = None"),
    several("several: fronts begin unseen", "align/commands/front.py", "sets = refuse_several(recipe, resume=resume, allow=options.allow)", "sets = None"),
    digest("digests: columns of what does not show", WRITTEN, "pa.array([visible(text) for text in contents.to_pylist()], kind)", "contents"),
    digest("digests: columns without roles", WRITTEN, "for part in (sizes, roles, contents)]", "for part in (sizes, contents)]"),
    digest("digests: columns without lengths", WRITTEN, "for part in (sizes, roles, contents)]", "for part in (roles, contents)]"),
    digest("digests: nulls are parts", WRITTEN, " if value is not None}", "}"),
    digest("digests: calls do not count", WRITTEN, "return parts.keys() == PLAIN_KEYS and", "return parts.keys() >= PLAIN_KEYS and"),
    digest("digests: answers without their prompt", "align/data/audit/duplicates.py", "sides = [context.copy(), context.copy()]", "sides = [blake2b(digest_size=8), blake2b(digest_size=8)]"),
    shape("shapes: rows are numbered by slices", TEMPLATES, "        start += len(whole)\n", ""),
    shape("shapes: tools are passed over", TEMPLATES, "if not further and all(", "if all("),
    shape("shapes: roles of the prompt alone", TEMPLATES, "for name in dataset.column_names:\n            bounds", "for name in dataset.column_names[:1]:\n            bounds"),
    large("large sets: memory holds the rows", "align/commands/check.py", "texts=recipe.texts, rows=recipe.rows, told=told, scratch=folder", "texts=recipe.texts, rows=recipe.rows, told=told, scratch=None"),
    large("large sets: a cache that is no folder ends it", "align/commands/check.py", "    except OSError:\n        yield None", "    except ZeroDivisionError:\n        yield None"),
    large("large sets: a value above all known ones", "align/data/audit/duplicates.py", "np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)", "np.searchsorted(ordered, values) % len(ordered) - 1"),
    large("large sets: a Python number for every row", "align/data/audit/duplicates.py", "return memoryview(held.astype(np.int64))", "return held.tolist()"),
    launched("launched: ranks live on", LAUNCHING, "    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)\n", ""),
    launched("launched: other processes end too", LAUNCHING, 'if "TORCHELASTIC_RUN_ID" not in os.environ or', "if"),
    launched("launched: a launcher that is gone already", LAUNCHING, "if not lives(int(os.environ.get(LAUNCHER, os.getppid()))):", "if False:"),
    launched("launched: the training does not ask", "align/train.py", "    end_with_launcher()\n", ""),
    places("places: any place can be written", FILES, "    if reason is not None:\n        raise RunError(f\"{path}: cannot", "    if False:\n        raise RunError(f\"{path}: cannot"),
    places("places: rights are enough", FILES, "        with tempfile.TemporaryFile(dir=there):\n            return None", "        return None if os.access(there, os.W_OK) else \"no rights\""),
    places("places: a pipe is a file", FILES, "if path.exists() and not (path.is_dir() if folder else path.is_file()):", "if path.exists() and folder and not path.is_dir():"),
    places("places: reports are asked for late", "eval/__main__.py", "    check_writable(folder if page is None else page, folder=page is None)\n", ""),
    places("places: runs are begun anywhere", "align/runs/directory.py", "    check_writable(run, folder=True)\n", ""),
    places("places: check takes any directory of a run", "align/check/directory.py", "    if reason is not None:", "    if False:"),
    places("places: standard output has no name", "align/cli.py", "lost_output(error) or in_words(error)", "in_words(error)"),
    places("places: every error is of standard output", ERRORS, "error.errno is None or error.filename is not None", "False"),
    unread("weights of rewards: any number", WEIGHTS, "    if weights is None or len(weights) == len(names)", "    if True or len(weights) == len(names)"),
    unread("weights of rewards: own code is counted", WEIGHTS, " or not set(names) <= set(REWARDS)", ""),
    unread("weights of rewards: environments own none", WEIGHTS, " or recipe.environments:", ":"),
    sized("schedule: the value head may learn alone to the end", SCHEDULE, "    if alone >= steps:", "    if alone > steps:"),
    complete("complete: blocks may be left over", COMPLETE, "    if cut:", "    if False:"),
    complete("complete: other parts are not named", COMPLETE, 'logger.warning("%s: %s", path, _some(left', 'logger.debug("%s: %s", path, _some(left'),
    complete("complete: any number is a weight", COMPLETE, "not torch.isfinite(tensor.detach()).all()", "False"),
    complete("complete: weights of an adapter may be left over", COMPLETE, 'if WRAPPED.sub("", name) not in there', "if False"),
    complete("complete: whole modules have no place", COMPLETE, "(default|modules_to_save|base_layer)", "(default|base_layer)"),
    complete("complete: adapters of prompts", FOLDERS, "    if config.is_prompt_learning:", "    if False:"),
    complete("complete: generation settings are done without", FOLDERS, "    if (folder / GENERATION).is_file():", "    if False:"),
    complete("complete: any quantisation", FOLDERS, "if packed and not _is_known(packed):", "if False:"),
    unread("unread: conditions are not looked at", UNREAD, "if said and not read(recipe):", "if False:"),
    unread("unread: settings of the optimizer are all read", UNREAD, "return len(set(made)) > 1", "return True"),
    unread("unread: training keeps it to itself", "align/check/refusals.py", "finding.rule in (PLAIN, NO_EFFECT, ONE_PROMPT, BEST_METRIC)", "finding.rule == PLAIN"),
    unread("unread: any pattern of ranks", SIZES, "if not any(re.fullmatch(rf", "if False and not any(re.fullmatch(rf"),
    unread("unread: any block", SIZES, 'if not any(f".{index}." in name for name in hit):', "if False:"),
    unread("unread: settings of a file", "align/recipe/lora.py", "for key, section in NOT_IN_LORA.items():", "for key, section in ():"),
    directory("refusals: a file called adapter", OWN, "if path.exists() and not path.is_dir():", "if False:"),
    directory("refusals: a folder called model", OWN, "if set(foreign(path)) - {CARD} and not is_ours:", "if False:"),
    refusal("refusals: training asks nothing", "align/train.py", "    refuse(recipe, named_sets(data.train, data.eval), Machine.here(), allow=allow, checkpoint=checkpoint)\n", ""),
    refusal("refusals: any learning rate", SCHEDULE, "if args.learning_rate > HIGHEST_RATE:", "if False:"),
    refusal("refusals: any generation batch", SCHEDULE, "if rows >= prompts:", "if True:"),
    refusal("refusals: any rhythm", SCHEDULE, "is not None and not every > 0:", "is not None and every is False:"),
    refusal("refusals: any delay of evaluations", SCHEDULE, "args.eval_delay > _end(args, steps):", "args.eval_delay > 1e9:"),
    sampled("refusals: tokens of the first pairs stand for all", "align/commands/check.py", "dataset.select(range(0, len(dataset), step))", "dataset.select(range(len(dataset) // step))"),
    sampled("refusals: a sample is not told", "align/commands/check.py", "[] if step == 1 else [_sampled(", "[] if True else [_sampled("),
    sampled("refusals: --full is a sample", "align/commands/check.py", "step = 1 if full else", "step ="),
    sampled("refusals: rows of a sample are counted within it", "align/commands/check.py", "numbers[name][::step]", "numbers[name][:len(some)]"),
    directory("refusals: check does not look at the directory", "align/commands/check.py", " + inspect_directory(Path(str(recipe.train.output_dir)))", ""),
    directory("refusals: any folder is a run's", "align/check/directory.py", "            check_folder(run)\n", "            pass\n"),
    directory("refusals: a file is a run's folder", "align/runs/contents.py", "    if not there.is_dir():", "    if False:"),
    refusal("refusals: any token id", TOKENS, "if max(ids, default=0) >= embedded:", "if False:"),
    refusal("refusals: no end", TOKENS, "if without_end := no_end(tokenizer, where):", "if without_end := []:"),
    refusal("refusals: no room", TOKENS, "if len(ids) < max_length:", "if True:"),
    refusal("refusals: a configuration of any size", SIZES, "parameters > stored * FURTHER", "False"),
    refusal("refusals: any checkpoint", "align/check/checkpoint.py", "if wanted == have:", "if True:"),
    hostile("hostile: any time", BOUNDED, "resource.setrlimit(resource.RLIMIT_AS, (", "(lambda *_: None)(0, ("),
    hostile("hostile: patterns are not tried", "align/models/patterns.py", "if not REPEATS.search(pattern):", "if True:"),
    saved("hostile: settings of adapters are PEFT's to read", FOLDERS, "    except Exception as error:  # of what", "    except ZeroDivisionError as error:  # of what"),
    saved("hostile: any rank", FOLDERS, "if value is not None and not _is_table", "if False and not _is_table"),
    saved("hostile: a number for a table of ranks", FOLDERS, 'table = value if name in RANK_TABLES else {"": value}', 'table = value if isinstance(value, dict) else {"": value}'),
    hostile("hostile: an interrupt in a finalizer is passed over", "align/errors.py", "            again.start()", "            pass"),
    hostile("hostile: an interrupt in a finalizer is printed", "align/errors.py", "    sys.unraisablehook = hook", "    pass"),
    saved("hostile: factors of any rank", "align/merging/adapters.py", "if not len(tensors[key]) == tensors[other].size(1) == rank:", "if False:"),
    saved("hostile: values that are not finite are merged", "align/merging/adapters.py", "    if unsound:", "    if False:"),
    hostile("hostile: links are followed", "align/merging/adapters.py", "file.resolve().is_relative_to(adapter.resolve())", "True"),
]  # fmt: skip

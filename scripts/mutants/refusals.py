"""What is refused before a weight is loaded, and what strangers' programs may take."""

from .mutant import noticed_by

refusal = noticed_by("tests/check/test_refusals.py")
hostile = noticed_by("tests/check/test_hostile.py")
directory = noticed_by("tests/check/test_directory.py")
saved, FOLDERS = noticed_by("tests/commands/test_fuzz_corpus.py"), "align/models/folders.py"
SCHEDULE, SIZES, TOKENS, BOUNDED = (
    "align/check/schedule.py",
    "align/check/sizes.py",
    "align/check/tokens.py",
    "align/strict/bounded.py",
)
MUTANTS = [
    refusal("refusals: training asks nothing", "align/train.py", "    refuse(recipe, named_sets(data.train, data.eval), Machine.here(), allow=allow, checkpoint=checkpoint)\n", ""),
    refusal("refusals: any learning rate", SCHEDULE, "if args.learning_rate > HIGHEST_RATE:", "if False:"),
    refusal("refusals: any generation batch", SCHEDULE, "if rows >= prompts:", "if True:"),
    refusal("refusals: any rhythm", SCHEDULE, "is not None and not every > 0:", "is not None and every is False:"),
    refusal("refusals: any delay of evaluations", SCHEDULE, "args.eval_delay > _end(args, steps):", "args.eval_delay > 1e9:"),
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
    saved("hostile: any rank", FOLDERS, "if value is not None and not _are_ranks", "if False and not _are_ranks"),
    saved("hostile: factors of any rank", "align/merging/adapters.py", "if not len(tensors[key]) == tensors[other].size(1) == rank:", "if False:"),
    saved("hostile: values that are not finite are merged", "align/merging/adapters.py", "    if unsound:", "    if False:"),
    hostile("hostile: links are followed", "align/merging/adapters.py", "file.resolve().is_relative_to(adapter.resolve())", "True"),
]  # fmt: skip

"""Runs the `alignkit` command; what is heavy is imported by the command that needs it, so that help answers at once."""

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from . import __version__
from .errors import INTERRUPTED, RecipeError, RunError, as_a_command, in_words, lost_output
from .own_code import allow_file_argument


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; problems with what the user gave are told without a traceback, with exit code 2."""
    as_a_command()
    words = list(sys.argv[1:] if argv is None else argv)
    about = "\n".join(f"  {name:15} {(run.__doc__ or '').splitlines()[0]}" for name, run in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="alignkit",
        description=f"Preference optimization from recipes.\n\n{about}",
        epilog="`alignkit COMMAND --help` says more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"alignkit {__version__}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = parser.parse_args(words[:1]).command
    try:
        code = COMMANDS[command](words[1:])
        sys.stdout.flush()
        return code
    except Exception as error:
        told = lost_output(error) or in_words(error)
        if told is None:
            raise
        print(told, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = KEPT.get(" ".join(words[:2]), KEPT.get(command, "nothing was written"))
        print(f"{command}: stopped by SIGINT; {kept}", file=sys.stderr)
        return INTERRUPTED


ASKED = "what was sampled and judged stays, and the next evaluation reads it"
KEPT = {
    **dict.fromkeys(("eval", "compare", "verify", "judge-agreement", "reward-bench"), ASKED),
    "sweep": "finished runs stay, and the same command goes on",
    "front": "what was trained stays; go on with --resume auto",
    **dict.fromkeys(("sample", "score", "data diagnose"), "what was answered so far is kept beside --out"),
}


def _data(argv: Sequence[str]) -> int:
    """Show what rows become, mend or diagnose them, or make pairs: `alignkit data show|fix|pairs SOURCE`, `data diagnose RUN`."""
    parser = argparse.ArgumentParser(prog="alignkit data", description=_data.__doc__, allow_abbrev=False)
    modules = {"show": "align.commands.show", "diagnose": "align.diagnosis.command"}
    modules |= {name: f"align.data.commands.{name}" for name in ("fix", "pairs")}
    parser.add_argument("action", choices=modules, help="see `alignkit data ACTION --help`")
    action = parser.parse_args(argv[:1]).action
    return importlib.import_module(modules[action]).main(argv[1:])


def _later(module: str, about: str) -> Callable[[Sequence[str]], int]:
    """A command whose module has a `main`, imported when the command runs."""

    def command(argv: Sequence[str]) -> int:
        return importlib.import_module(module).main(argv)

    command.__doc__ = about
    return command


def _train(argv: Sequence[str]) -> int:
    """Train a recipe; several processes are started through accelerate."""
    import torch  # noqa: PLC0415 - takes seconds

    from . import train  # noqa: PLC0415 - loads the trainers
    from .launching import launcher, node_arguments, nodes_of  # noqa: PLC0415 - imports torch
    from .recipe.loading import load_recipe  # noqa: PLC0415 - imports TRL

    parser = train.arguments()
    parser.prog = "alignkit train"
    parser.add_argument("--num-processes", type=int, help="on this machine; default: one per visible GPU, or one")
    parser.add_argument("--accelerate-config", metavar="FILE|NAME", help="a file, or ddp, fsdp2, zero2, zero3")
    node_arguments(parser)
    options = parser.parse_intermixed_args(argv)
    nodes = nodes_of(options)
    processes = max(1, torch.cuda.device_count()) if options.num_processes is None else options.num_processes
    if processes < 1:
        raise RunError(f"--num-processes: must be at least 1, got {processes}")
    words = [options.recipe, *options.overrides]
    words += ["--resume", options.resume] if options.resume else []
    words += [f"--{name}" for name in ("overwrite", "changed", "unsealed") if getattr(options, name)]
    words += [word for name in options.allow for word in ("--allow", name)]
    words += [word for name in options.allow_file for word in ("--allow-file", name)]
    words += ["--vllm", options.vllm] if options.vllm else []
    if "WORLD_SIZE" in os.environ or (processes == 1 and nodes is None and options.accelerate_config is None):
        return train.main(words)
    load_recipe(options.recipe, options.overrides)  # one clear message, before any process starts
    command = launcher(processes, options.accelerate_config, nodes) + words
    os.execv(command[0], command)
    return 1  # not reached


def _check_extra() -> None:
    """Raise RunError unless what evaluates is installed."""
    for package, use in (("scipy", "computes intervals"), ("matplotlib", "draws pictures")):
        if find_spec(package) is None:
            raise RunError(f"evaluation {use}: pip install 'alignkit[eval]'")


def _eval(argv: Sequence[str]) -> int:
    """Evaluate finished runs, or stored responses: tables, pictures, report.html."""
    _check_extra()
    from eval.__main__ import main as evaluate  # noqa: PLC0415 - the composition root may call eval, lazily

    return evaluate(argv, prog="alignkit eval")


def _compare(argv: Sequence[str]) -> int:
    """Evaluate several runs, or files of responses, and compare every pair, corrected for how many pairs there are."""
    _check_extra()
    from eval.__main__ import main as evaluate  # noqa: PLC0415 - as above

    return evaluate(argv, compare=True, prog="alignkit compare")


def _front(argv: Sequence[str]) -> int:
    """Train several policies that weigh the rewards differently, one adapter each, and report on their front."""
    _check_extra()
    from accelerate import PartialState  # noqa: PLC0415 - imports torch

    from eval.report.front import PAGE, summary, write_front  # noqa: PLC0415 - as above

    from .commands.front import main as front  # noqa: PLC0415 - loads the trainers

    run = front(argv)
    if PartialState().is_main_process:
        print(f"{summary(write_front(run))}\n{run / PAGE}")
    return 0


def _sweep(argv: Sequence[str]) -> int:
    """Train a recipe with several settings, one after another, and compare the runs in one page."""
    _check_extra()
    from eval.evaluate import check_held_out  # noqa: PLC0415 - imports torch

    from .sweeps.command import main as sweep  # noqa: PLC0415 - imports torch

    done = sweep(argv, check_held_out)
    if len(done.runs) < 2:
        return done.code
    return _compare([*map(str, done.runs), "-o", str(done.page), *done.words]) or done.code


def _verify(argv: Sequence[str]) -> int:
    """Hold a run, or a recipe that is then trained, against what its recipe expects; exit code 1 if it does not hold."""
    parser = argparse.ArgumentParser(prog="alignkit verify", description=_verify.__doc__, allow_abbrev=False)
    parser.add_argument("target", metavar="RUN|RECIPE")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values are read as YAML")
    parser.add_argument("-o", "--out", type=Path, help="folder of the report; by default the run's own")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION|[VARIABLE@]HOST",
        help="let the recipe's rewards run this, or its judges ask this host",
    )
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    _check_extra()
    from eval.verify import verify  # noqa: PLC0415 - as above

    from . import train  # noqa: PLC0415 - loads the trainers
    from .files import check_writable  # noqa: PLC0415 - no other command needs it
    from .recipe.loading import load_recipe  # noqa: PLC0415 - imports TRL
    from .recipe.shipped import find_recipe  # noqa: PLC0415 - no other command needs it
    from .run_identity import recipe_as_written, recipe_differences  # noqa: PLC0415 - imports torch
    from .runs.contents import RECIPE_FILE  # noqa: PLC0415 - imports torch
    from .runs.identity import told  # noqa: PLC0415 - as above

    if options.out is not None:
        check_writable(options.out, folder=True)
    run, recipe = Path(options.target), None
    if run.is_dir() and not (run / RECIPE_FILE).is_file():
        raise RunError(f"{run}: no {RECIPE_FILE} there, so not a run directory; name one, or a recipe")
    if not run.is_dir():
        try:
            find_recipe(options.target)
        except RecipeError as error:
            raise RunError(f"{error}; nor is it a run directory") from None
        recipe = load_recipe(options.target, options.overrides)
        if not recipe.expect:
            raise RunError(f"{options.target}: the recipe expects nothing; add an `expect` section")
        run = Path(str(recipe.train.output_dir))
        begun = (run / RECIPE_FILE).is_file()
        other = recipe_differences(run, recipe_as_written(recipe)) if begun else []
        if other:
            raise RunError(
                f"{run}: holds a run of another recipe:\n{told(other)}\nchoose another train.output_dir, or remove it"
            )
        if not begun or not _is_finished(run):
            train.run(recipe, resume="auto" if begun else None, allow=options.allow)
    checked = verify(run, recipe=recipe, overrides=options.overrides, allow=options.allow, out=options.out)
    print("\n".join(map(str, checked)))
    return 0 if all(row.holds for row in checked) else 1


def _is_finished(run: Path) -> bool:
    from .going_on import finished_run  # noqa: PLC0415 - loads the trainers

    try:
        finished_run(run)
    except RunError:
        return False
    return True


def _table(module: str, function: str, about: str) -> Callable[[Sequence[str]], int]:
    """A command that prints what a function of the evaluation tells."""

    def command(argv: Sequence[str]) -> int:
        _check_extra()
        print(getattr(importlib.import_module(module), function)(argv))
        return 0

    command.__doc__ = about
    return command


def _replay(argv: Sequence[str]) -> int:
    """Take a skipped step of a run again, pair by pair, and show where it stops being finite."""
    parser = argparse.ArgumentParser(prog="alignkit replay", allow_abbrev=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("--step", type=int, help="default: the first that was skipped")
    parser.add_argument("--changed", action="store_true", help="although data or weights are not those of the run")
    allow_file_argument(parser)
    options = parser.parse_args(argv)
    from .replay import replay, table  # noqa: PLC0415 - loads the trainers

    print(table(replay(options.run, options.step, changed=options.changed)))
    return 0


def _completion(argv: Sequence[str]) -> int:
    """Print what completes the words of this command in bash, zsh or fish."""
    from .commands.completion import main as completion  # noqa: PLC0415 - no other command needs it

    return completion(argv, {name: (run.__doc__ or "").splitlines()[0] for name, run in COMMANDS.items()})


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "init": _later("align.commands.init", "Write a recipe for a model and data, asking for what is not said."),
    "check": _later(
        "align.commands.check",
        "Report on a recipe, its data and this machine before training; exit code 1 if it is not ready.",
    ),
    "data": _data,
    "sample": _later(
        "align.commands.sample",
        "Sample answers of a policy to the prompts of a file, and write them with their prompts.",
    ),
    "chat": _later("align.commands.chat", "Talk to a run or a model in the terminal, or to two of them side by side."),
    "score": _later(
        "align.commands.score",
        "Score every answer of a file by rewards, models, judges or labels, for `alignkit data pairs`.",
    ),
    "train": _train,
    "sweep": _sweep,
    "front": _front,
    "groups": _later("align.annotators.command", "Find groups of annotators, with a reward model for each."),
    "experts": _later("align.judges.experts_command", "Combine reward models into one by a network for each category."),
    "pick": _later("align.fronts.pick", "Name the adapter of a front for a preference, or mix one."),
    "eval": _eval,
    "compare": _compare,
    "verify": _verify,
    "power": _table("eval.planning", "power_table", "Tell how many prompts a wanted difference needs."),
    "inspect-log": _table(
        "eval.kept.inspect_log", "inspect_log", "Write answers and scores as logs that Inspect reads."
    ),
    "history": _table("eval.kept.history", "history", "Show how figures went over time and checkpoints."),
    "judge-agreement": _table("eval.agreement", "agreement_table", "Hold judges against what people preferred."),
    "reward-bench": _table(
        "eval.reward_bench", "reward_bench_table", "Measure models that judge on RewardBench 2's rows."
    ),
    "win-rates": _table("eval.annotations", "annotations_table", "Compute win rates from verdicts that are stored."),
    "replay": _replay,
    "merge": _later("align.merging.command", "Merge LoRA adapters: soups, stock, SLERP, TIES, DARE, measured."),
    "export": _later("align.merging.export", "Write a run as one model, adapter folded in, that transformers loads."),
    "recipes": _later("align.commands.recipes", "List the shipped recipes with their first line, or show one."),
    "methods": _later("align.commands.methods", "List every method with its paper, the rows it needs, and a recipe."),
    "explain": _later("align.commands.explain", "Explain a key of a recipe, a method, a reward or a weighting rule."),
    "completion": _completion,
}

if __name__ == "__main__":
    sys.exit(main())

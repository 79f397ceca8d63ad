"""Runs `python -m eval RUN [OTHER_RUN ...]`: a run against its reference and other runs, or stored responses."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from align.errors import INTERRUPTED, USER_ERRORS, RunError, as_a_command
from align.files import called, check_writable, write_text
from align.own_code import allow_file_argument
from align.recipe.loading import load_recipe
from align.runs.contents import METRICS_FILE, RECIPE_FILE
from align.runs.directory import read_metrics
from align.sampling.preferred import preferences
from align.sampling.vllm_engine import VLLM, check_vllm
from eval.answers.endpoint import ask_endpoints, is_endpoint
from eval.answers.files import is_responses, read_responses
from eval.kept.model_index import note_in_cards
from eval.report.assemble import prepare
from eval.report.results import Report
from eval.report.tables import comparison_table, judge_tables, table
from eval.report.verdict import verdict
from eval.report.write import report_folder, to_html, write_report

from .checkpoints import Checkpoint, add_checkpoints, as_checkpoints, checkpoints_of
from .evaluate import ANSWERS_FOLDER, JUDGES_FOLDER, evaluate, evaluate_responses
from .rounds import add_rounds, as_rounds, is_rounds, trained_rounds
from .subjects import check_measurable, check_writes_answers, load_subjects


class Wanted(NamedTuple):
    """What to evaluate, and where to."""

    names: list[str]
    """Run directories, or models or files of responses with `recipe`."""
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    allow: Sequence[str] = ()
    out: Path | None = None
    """A folder, or for a comparison a file NAME.html; by default the first run's own folder."""
    compare: bool = False
    ref: str | None = None
    """The reference's file of responses; by default the second of `names`."""
    same_within: Mapping[str, float] = {}
    """By measure, the difference to the reference that does not matter."""
    rounds: Path | None = None
    """The run whose rounds `names` are."""
    taken: bool = False
    """Whether a run with rounds stands for the policy that it took, as beside others."""
    checkpoints: bool = False
    """Whether the one run that is named stands for its checkpoints."""
    models: tuple[str, ...] = ()
    """Of the endpoints in `names`, what each calls its model."""
    vllm: str | None = None
    """Interpreter of an environment whose vLLM samples the answers."""


def arguments(*, compare: bool = False, prog: str = "python -m eval") -> argparse.ArgumentParser:
    """The command line; that of `alignkit compare` differs in nothing but its texts."""
    about = "Compare runs with each other: every pair, corrected for how many pairs there are." if compare else __doc__
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN|FILE|section.key=value",
        help="run directories, or a model with --recipe, or files of responses (.jsonl) with --recipe: the first is in "
        "question, ref=FILE or else the second is the reference; or the URL of an OpenAI-compatible endpoint with --model and "
        "--recipe, whose reference answers where no file does",
    )
    parser.add_argument("--recipe", help="data, reference and eval settings for what is not a run directory")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE:FUNCTION|[VARIABLE@]HOST",
        help="let the recipe's rewards run this function, or its judges send prompts and answers (and the key in "
        "VARIABLE) to this host",
    )
    parser.add_argument(
        "--vllm",
        metavar="PYTHON",
        help="let vLLM sample the answers, in a process of this interpreter, whose environment it is installed in",
    )
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="what an endpoint, a URL among RUN, calls its model",
    )
    parser.add_argument(
        "--prefer", metavar="NAME=W,...", help="what each reward is worth, for policies with rewards in context"
    )
    parser.add_argument(
        "--same-within",
        action="append",
        default=[],
        metavar="MEASURE=DIFFERENCE",
        help="say whether the measure (length_tokens, gold_reward, ...) is the same as the reference's within this",
    )
    if not compare:
        parser.add_argument(
            "--checkpoints",
            action="store_true",
            help="evaluate every checkpoint of one run: reward by the distance from the reference, and the best of them",
        )
    allow_file_argument(parser)
    folder = "folder of the report; by default the first run's own"
    parser.add_argument(
        "-o", "--out", type=Path, help=f"{folder}; NAME.html writes that page alone" if compare else folder
    )
    return parser


def main(argv: Sequence[str] | None = None, *, compare: bool = False, prog: str = "python -m eval") -> int:
    """Evaluate, print the table and the report's path; problems with what was given end with exit code 2."""
    as_a_command()
    try:
        options = arguments(compare=compare, prog=prog).parse_intermixed_args(argv)
        refs = [item[4:] for item in options.runs if item.startswith("ref=") and is_responses(item[4:])]
        overrides = tuple(item for item in options.runs if "=" in item and item[4:] not in refs)
        names = [item for item in options.runs if "=" not in item]
        if len(refs) > 1:
            raise RunError(f"ref=: named {len(refs)} times; there is one reference")
        ref = refs[0] if refs else None
        margins = _margins(options.same_within)
        overrides += (f"eval.generate.prefer={preferences(options.prefer)}",) if options.prefer else ()
        wanted = Wanted(
            names, options.recipe, overrides, options.allow, options.out, compare, ref, margins, vllm=options.vllm,
            checkpoints=getattr(options, "checkpoints", False), models=tuple(options.model),
        )  # fmt: skip
        report, page = report_on(wanted)
    except (*USER_ERRORS, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped by SIGINT; what was sampled and judged stays, and the next evaluation reads it", file=sys.stderr)
        return INTERRUPTED
    tables = "\n\n".join(filter(None, (table(report), judge_tables(report), comparison_table(report))))
    print(f"\n{verdict(report)}\n\n{tables}\n\nreport: {page}")
    return 0


def _margins(given: Sequence[str]) -> dict[str, float]:
    """What `--same-within` names, checked before anything is loaded."""
    margins = {}
    for item in given:
        measure, _, number = item.rpartition("=")
        try:
            margins[measure] = float(number)
        except ValueError:
            margins[measure] = math.nan
        if not measure or not 0 < margins[measure] < math.inf:
            raise RunError(f"--same-within {item}: must be MEASURE=DIFFERENCE, the difference positive and finite")
    return margins


def report_on(wanted: Wanted) -> tuple[Report, Path]:
    """Evaluate, and write the report, its pictures, the answers and the scores; returns the report and its page.

    Raises:
        RunError, RecipeError, DataError, OSError: If something given cannot be evaluated, as `load_subject` and
            `evaluate` say, or the report cannot go where it should.
        ImportError: If a package is missing that a measure needs.
    """
    steps: list[Checkpoint] = []
    if wanted.checkpoints:
        wanted, steps = _of_checkpoints(wanted)
    else:
        wanted = _of_rounds(wanted)
    names, out = wanted.names, wanted.out
    if not names:
        raise RunError("name a run directory, or a model with --recipe")
    endpoints = [name for name in names if is_endpoint(name)]
    if len(endpoints) != len(wanted.models):
        raise RunError(f"--model: needed once for each endpoint, in their order; {len(endpoints)} URLs are named")
    of_files = any(map(is_responses, names)) or wanted.ref is not None or bool(endpoints)
    if wanted.compare and len(names) < 2 and wanted.ref is None and not endpoints:
        raise RunError(f"{names[0]}: one run cannot be compared; name another")
    if find_spec("matplotlib") is None:
        raise RunError("evaluation draws pictures: pip install 'alignkit[eval]'")
    if wanted.recipe is not None and out is None and not Path(names[0]).is_dir():
        raise RunError(f"{names[0]}: not a folder, so say where the report goes with --out")
    page = out if wanted.compare and out is not None and out.suffix == ".html" and not out.is_dir() else None
    folder = page.parent if page is not None else out or report_folder(Path(names[0]))
    if folder.is_file():
        raise RunError(f"--out: {folder} is a file; name a folder")
    check_writable(folder if page is None else page, folder=page is None)
    ledgers = folder / JUDGES_FOLDER if page is None else page.with_name(f"{page.stem}-{JUDGES_FOLDER}")
    kept = folder if page is None else None
    report, curves = _of_files(wanted, kept, ledgers) if of_files else _of_runs(wanted, folder, kept, ledgers, steps)
    report.settings |= {"same_within": dict(wanted.same_within)} if wanted.same_within else {}
    from eval.report.plots_all import all_pictures  # noqa: PLC0415 - matplotlib is an extra, and missed before anything is computed

    drawn = all_pictures(report, curves)
    folder.mkdir(parents=True, exist_ok=True)
    if page is None:
        written = write_report(report, drawn, folder)
        if folder == Path(names[0]) and (folder / RECIPE_FILE).is_file() and wanted.recipe is None:
            note_in_cards(report, folder)  # its own recipe says what was measured
        return report, written
    write_text(page, to_html(report, drawn))
    return report, page


def _of_rounds(wanted: Wanted) -> Wanted:
    """One run with rounds means all of its rounds, each compared with the others, all held against the first reference."""
    if len(wanted.names) != 1 or wanted.recipe is not None or wanted.taken or not is_rounds(wanted.names[0]):
        return wanted
    run = Path(wanted.names[0])
    whole, recipe = trained_rounds(run), str(run / RECIPE_FILE)
    if not whole:
        raise RunError(f"{run}: no round is trained yet; go on with --resume auto")
    out = wanted.out or report_folder(run)
    return wanted._replace(names=whole, recipe=recipe, out=out, compare=len(whole) > 1, rounds=run)


def _of_checkpoints(wanted: Wanted) -> tuple[Wanted, list[Checkpoint]]:
    """One run means all of its checkpoints, each compared with the others and with the run's reference."""
    if len(wanted.names) != 1 or wanted.recipe is not None or wanted.ref is not None:
        raise RunError("--checkpoints: name one run directory and nothing else; its own recipe says what is measured")
    run = Path(wanted.names[0])
    steps = checkpoints_of(run, wanted.overrides)
    names, recipe = [str(each.path) for each in steps], str(run / RECIPE_FILE)
    return wanted._replace(names=names, recipe=recipe, out=wanted.out or run / "checkpoints", compare=True), steps


Curves = dict[str, list[dict[str, Any]]]


def _of_runs(
    wanted: Wanted, folder: Path, kept: Path | None, ledgers: Path, steps: Sequence[Checkpoint] = ()
) -> tuple[Report, Curves]:
    names = wanted.names
    vllm = None if wanted.vllm is None else VLLM.at(wanted.vllm)  # its problems show before weights are loaded
    _check_methods(names, wanted, ledgers)
    subjects = load_subjects(names, wanted.recipe, wanted.overrides)
    if wanted.rounds is not None:
        subjects = as_rounds(subjects, wanted.rounds)
    elif steps:
        subjects = as_checkpoints(subjects, steps)
    elif len({s.name for s in subjects}) < len(subjects):  # runs of one name in different folders
        for s, name in zip(subjects, names, strict=True):
            s.name = name
    subject, *others = subjects
    folder.mkdir(parents=True, exist_ok=True)
    report = evaluate(subject, others, out=kept, allow=wanted.allow, compare=wanted.compare, ledgers=ledgers, vllm=vllm)
    if wanted.rounds is not None:
        add_rounds(report, subjects, wanted.rounds)
    if steps:
        run = Path(str(wanted.recipe)).parent
        add_checkpoints(report, subjects, run)
        return report, {called(run): read_metrics(run / METRICS_FILE)}
    return report, {s.name: read_metrics(Path(s.path) / METRICS_FILE) for s in subjects}


def _of_files(wanted: Wanted, kept: Path | None, ledgers: Path) -> tuple[Report, Curves]:
    named = [*wanted.names, *([wanted.ref] if wanted.ref is not None else [])]
    no_file = [name for name in named if not is_responses(name) and not is_endpoint(name)]
    if no_file:
        raise RunError(
            f"{no_file[0]}: no file of responses (.jsonl), but others are; runs and files are not evaluated together"
        )
    if len(named) < 2 and not wanted.models:
        raise RunError(f"{named[0]}: responses are compared with a reference's; name a second file, or ref=FILE")
    if wanted.vllm is not None:
        raise RunError("--vllm: stored responses are not sampled again; leave it out")
    if wanted.recipe is None:
        raise RunError(f"{named[0]}: add --recipe RECIPE, whose eval section says what is measured")
    recipe = load_recipe(wanted.recipe, wanted.overrides, anywhere=True)
    prepared = prepare(recipe, allow=wanted.allow, ledgers=ledgers)  # its problems show before files are read
    asked: dict[str, Any] = {}
    if wanted.models:
        folder = (ledgers.parent if kept is None else kept) / ANSWERS_FOLDER
        named, asked = ask_endpoints(wanted.names, wanted.models, wanted.ref, recipe, allow=wanted.allow, folder=folder)
    read = [read_responses(Path(name)) for name in named]
    ref = read.pop() if wanted.ref is not None or wanted.models else read.pop(1)
    report = evaluate_responses(read, ref, prepared, out=kept)
    report.settings |= asked
    return report, {}


def _check_methods(names: Sequence[str], wanted: Wanted, ledgers: Path) -> None:
    """Before any weight is loaded; that a name is no run is told by `load_subject`."""
    for check, name in zip([check_measurable, *[check_writes_answers] * (len(names) - 1)], names, strict=True):
        recipe = wanted.recipe or Path(name) / RECIPE_FILE
        if wanted.recipe is not None or Path(recipe).is_file():
            loaded = load_recipe(recipe, wanted.overrides, anywhere=True)
            check(name, loaded)
            if wanted.vllm is not None and (wanted.compare or name == names[0]):
                check_vllm(loaded)
            if name == names[0]:
                prepare(loaded, allow=wanted.allow, ledgers=ledgers)


if __name__ == "__main__":
    sys.exit(main())

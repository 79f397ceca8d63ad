"""Lists, for `alignkit check`, everything that can be known about a run before a weight is loaded."""

import argparse
import contextlib
import dataclasses
import json
import logging
import math
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from align.check.directory import inspect_directory
from align.check.environment import GPU_MISSING, inspect_versions
from align.check.machine import Machine, accelerate_file
from align.check.model import dated_template
from align.check.refusals import look
from align.check.schedule import Plan
from align.check.sizes import Size
from align.data.audit.duplicates import numbering, refuse_damaged
from align.data.audit.lengths import Lengths, draw_lengths, lengths_note, summary
from align.data.audit.pairs import audit_pairs, audit_sets
from align.data.audit.templates import PLAIN
from align.data.audit.tokens import inspect_tokens
from align.data.loading import EVAL, TRAIN, load_set, set_names, sources_of
from align.data.rows.normalise import ROW
from align.data.split import hold_out
from align.errors import USER_ERRORS, RunError
from align.files import cache_dir, check_writable, write_text
from align.findings import Finding, printable
from align.own_code import allow_file_argument
from align.recipe.loading import Recipe, load_recipe

if TYPE_CHECKING:
    from .dry_rounds import RoundsCost
    from .dry_run import Cost

logger = logging.getLogger(__name__)

LEVELS = ("error", "warning", "note")
SAMPLED = 100_000
"""Pairs of a set that are cut into tokens at most, unless all are asked for: a minute of CPU time."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What `alignkit check` found."""

    recipe: Recipe
    rows: dict[str, int]
    planned: Plan
    findings: list[Finding]
    lengths: dict[str, Lengths]
    size: Size | None

    def count(self, level: str) -> int:
        """Findings of a level."""
        return sum(finding.level == level for finding in self.findings)

    @property
    def verdict(self) -> str:
        """`ready`, `ready, with N warnings`, or `not ready: N errors`."""
        errors, warnings = self.count("error"), self.count("warning")
        if errors:
            return f"not ready: {errors} error{'s' * (errors > 1)}"
        ready = "ready, but not on this machine" if self.has(GPU_MISSING) else "ready"
        return f"{ready}, with {warnings} warning{'s' * (warnings > 1)}" if warnings else ready

    def has(self, rule: str) -> bool:
        """Whether a rule of this name is among the findings."""
        return any(finding.rule == rule for finding in self.findings)

    def head(self) -> str:
        """What would be trained, on what."""
        recipe = self.recipe
        per_step = recipe.train.per_device_train_batch_size * recipe.train.gradient_accumulation_steps
        rows = recipe.rows
        lines = [
            f"{recipe.path}: {recipe.method} on {printable(str(recipe.model.model_name_or_path), 200)}, "
            f"reference: {recipe.ref.kind}",
            f"  training {rows}: {self.rows[TRAIN]}, {per_step} per optimizer step on each process, "
            f"{self.planned.steps} steps",
        ]
        evals = {name.removeprefix(EVAL): n for name, n in self.rows.items() if name != TRAIN}
        return "\n".join(lines + [f"  evaluation set {name}: {n} {rows}" for name, n in evals.items()])

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        recipe = self.recipe
        return {
            "recipe": {
                "path": str(recipe.path),
                "method": recipe.method,
                "model": recipe.model.model_name_or_path,
                "reference": recipe.ref.kind,
                "resolved": recipe.raw,
            },
            "sets": {
                name: {recipe.rows: n, "lengths": summary(self.lengths[name]) if name in self.lengths else None}
                for name, n in self.rows.items()
            },
            "steps": self.planned.steps,
            "parameters": {k: v for k, v in self.size._asdict().items() if k != "shapes"} if self.size else None,
            "findings": [finding._asdict() for finding in self.findings],
            "verdict": self.verdict,
        }


def main(argv: Sequence[str]) -> int:
    """Report on a recipe, its data and this machine before training; no weights are loaded without `--deep`."""
    parser = argparse.ArgumentParser(prog="alignkit check", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("recipe", help="a file, or the name of a shipped recipe (see `alignkit recipes`)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="values are read as YAML")
    parser.add_argument(
        "--deep", action="store_true", help="load the model, take a dozen steps, and predict time and memory of the run"
    )
    parser.add_argument(
        "--full", action="store_true", help=f"cut every pair into tokens, also of more than {SAMPLED:,}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, with all rows of each finding")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write preflight.json and lengths.png there")
    parser.add_argument("--accelerate-config", metavar="FILE|NAME", help="what `alignkit train` will be given")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE:FUNCTION", help="let the recipe's rewards run this"
    )
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    try:
        with contextlib.redirect_stdout(sys.stderr) if options.json else contextlib.nullcontext():
            report, deep = _run(options)
    except USER_ERRORS as error:
        if not options.json:
            raise
        _print(json.dumps({"error": str(error)}, indent=2, ensure_ascii=False))
        return 2
    if options.json:
        _print(json.dumps(report.as_json() | {"deep": deep and dataclasses.asdict(deep)}, indent=2, ensure_ascii=False))
    else:
        cost = [str(deep)] if deep else []
        _print("\n".join([report.head(), *cost, *map(Finding.line, report.findings), report.verdict]))
    return 1 if report.count("error") else 0


def _print(text: str) -> None:
    print(text)


def _run(options: argparse.Namespace) -> "tuple[Report, Cost | RoundsCost | None]":
    if options.out is not None and find_spec("matplotlib") is None:
        raise RunError("--out draws a picture: pip install 'alignkit[eval]'")
    if options.out is not None:
        check_writable(options.out, folder=True)
    config = accelerate_file(options.accelerate_config) if options.accelerate_config else None
    recipe = load_recipe(options.recipe, options.overrides, anywhere=True)
    report = inspect(recipe, Machine.here(config), allow=options.allow, full=options.full)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write_text(options.out / "preflight.json", json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")
        if report.lengths:
            draw_lengths(report.lengths, recipe.train.max_length, options.out / "lengths.png")
    if not options.deep:
        return report, None
    if recipe.rows != "pairs" and recipe.rounds is None:
        raise RunError(f"--deep predicts runs on preference pairs, not on {recipe.rows}; leave it out")
    if report.count("error"):
        logger.warning("--deep: no step was taken, because the recipe is not ready")
        return report, None
    from .dry_rounds import predict_rounds  # noqa: PLC0415 - loads the trainers, which a report does not need
    from .dry_run import predict  # noqa: PLC0415

    return report, predict(recipe) if recipe.rounds is None else predict_rounds(recipe, report.planned.steps)


def inspect(recipe: Recipe, machine: Machine, *, allow: Collection[str] = (), full: bool = False) -> Report:
    """Read a recipe's data, tokenizer and model configuration, and collect what there is to say.

    Args:
        recipe: The recipe.
        machine: Where it runs.
        allow: The MODULE:FUNCTION that may be imported.
        full: Whether every pair is cut into tokens; else of a set of more than `SAMPLED` about as many, evenly spaced.

    Raises:
        DataError: If the data cannot be read or normalised.
        OSError: If the disk does not take the rows.
    """
    sets, findings = numbered_sets(recipe)
    numbers = {name: numbering(dataset) for name, dataset in sets.items()}
    plain = {name: dataset.remove_columns(ROW) for name, dataset in sets.items()}
    where = {name: _where(recipe, name) for name in sets}
    if recipe.rows == "pairs":
        for name, dataset in plain.items():
            findings += audit_pairs(dataset, where=where[name], numbers=numbers[name])
        findings += audit_sets(plain, numbers=numbers)
    else:
        further = "in tokens" if recipe.rows == "labels" else "across rows or in tokens"
        message = f"rows of {recipe.rows} were read one by one; what shows {further} is looked for in pairs"
        findings.append(Finding("note", "not-audited", TRAIN, message, "nothing to do"))
    looked = look(recipe, plain, machine, allow=allow)
    findings += inspect_versions() + inspect_directory(Path(str(recipe.train.output_dir)))
    lengths: dict[str, Lengths] = {}
    model = looked.model
    findings += [] if model is None else dated_template(model.tokenizer)
    if model is not None and recipe.rows == "pairs":
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if any(found.rule == PLAIN for found in looked.findings):  # a line break is not what is missing
            findings = [found for found in findings if found.rule != "missing-separator"]
        for name, dataset in plain.items():
            step = 1 if full else max(1, math.ceil(len(dataset) / SAMPLED))
            some = dataset if step == 1 else dataset.select(range(0, len(dataset), step))
            findings += [] if step == 1 else [_sampled(len(some), len(dataset), where[name])]
            found, tokens = inspect_tokens(
                some, model.tokenizer, where=where[name], max_length=recipe.train.max_length, context=context,
                stops=model.stops, numbers=numbers[name][::step],
            )  # fmt: skip
            findings += found
            if len(tokens):
                lengths[name] = tokens
                findings.append(lengths_note(tokens, where=where[name]))
    told = {(finding.rule, finding.where) for finding in findings}  # by the audit, with every row
    shared = [_of_source(finding, where, numbers) for finding in looked.findings]
    findings += [finding for finding in shared if (finding.rule, finding.where) not in told]
    findings.sort(key=lambda finding: LEVELS.index(finding.level))
    return Report(recipe, {name: len(d) for name, d in sets.items()}, looked.planned, findings, lengths, looked.size)


def _sampled(looked_at: int, there: int, where: str) -> Finding:
    message = (
        f"{looked_at:,} of {there:,} pairs, evenly spaced, were cut into tokens; what the others hold is not known"
    )
    return Finding("note", "sampled", where, message, "alignkit check --full looks at all")


def _of_source(finding: Finding, where: Mapping[str, str], numbers: Mapping[str, Sequence[int]]) -> Finding:
    """A finding about a set by its position, told of the source's own rows and by its path."""
    if finding.where not in where:
        return finding
    rows = tuple(numbers[finding.where][row - 1] for row in finding.rows)
    return finding._replace(where=where[finding.where], rows=rows)


@contextlib.contextmanager
def _room_for_rows() -> Iterator[Path | None]:
    """A folder for rows while they are read; None where none can be made, and memory holds them."""
    try:
        cache_dir().mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(dir=cache_dir(), prefix=".rows-")
    except OSError:
        yield None
        return
    with made as folder:
        yield Path(folder)


def numbered_sets(recipe: Recipe) -> tuple[dict[str, Dataset], list[Finding]]:
    """The sets of a recipe as training reads them, `data.train` first, each with the column `alignkit_row`.

    Rows are in mapped files, which the disk gives up with the last of the sets: memory need not hold them.

    Returns:
        The sets, and what is worth knowing of how each source was read.

    Raises:
        DataError: If a source cannot be read, or its rows cannot be used.
    """
    config = recipe.data
    keep = (ROW, *recipe.columns)
    sets: dict[str, Dataset] = {}
    findings: list[Finding] = []
    with _room_for_rows() as folder:
        for name in set_names(config):
            told: list[Finding] = []
            sets[name], shares = load_set(
                name, config, keep=keep, texts=recipe.texts, rows=recipe.rows, told=told, scratch=folder
            )
            findings += told if shares else [finding._replace(where=_where(recipe, name)) for finding in told]
    if config.holdout:
        sets[TRAIN], sets[f"{EVAL}holdout"], told_of_it = hold_out(sets[TRAIN], config.holdout)
        findings.append(told_of_it)
    if config.unusable == "drop" and recipe.rows == "pairs":
        sets = refuse_damaged(sets, unusable="drop")  # which says what it drops, as training does
    return sets, findings


def _where(recipe: Recipe, name: str) -> str:
    paths = [source.path.removeprefix(f"{Path.cwd()}/") for source in sources_of(recipe.data, name)]
    return f"{name} ({printable(paths[0], 200) if len(paths) == 1 else f'{len(paths)} sources'})"

"""Reads the prompt sets that a recipe names beside its data, and measures answers to them.

The files are JSON lines with the columns of IFEval (`prompt`, `instruction_id_list`, `kwargs`) and of XSTest (`prompt`,
`label`, `type`); further columns are kept and not read. Everything that is wrong with a file is an error that names its
line, before a weight is loaded. Answers are the most likely ones (temperature 0), one for each prompt, as both sources
have it.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from align.data.files.checking import check_file, unpacked
from align.data.making.constraints import CHECKERS, Constraint
from align.data.prompts import Prompt
from align.data.rows.messages import RowError, messages_of
from align.errors import DataError, RunError
from align.findings import printable
from align.recipe.sections import EvalConfig
from align.strict.fields import describe, nearest
from eval.answers.table import Sampled
from eval.statistics.names import REF
from eval.statistics.sides import Found, every_pair, sided_estimates

from .instructions import InstructionReport, instruction_following
from .refusals import CLASSES, LABELS, RefusalBalance, refusal_balance

Row = dict[str, Any]
NOT_CHECKED = frozenset({"language:response_language"})
"""Kinds of instructions that IFEval has and `align.data.making.constraints` has no checker for."""
SHOWN = 10  # problems of a file in one message


def load_prompt_sets(config: EvalConfig) -> dict[str, list[Row]]:
    """The rows of the sets that `eval.instructions` and `eval.refusals` name, by these names.

    Raises:
        DataError: If a file cannot be read or a row cannot be used, naming the file, its lines, rules and values.
    """
    named = {"instructions": config.instructions, "refusals": config.refusals}
    return {name: _load(name, Path(chosen.path)) for name, chosen in named.items() if chosen is not None}


def asked(rows: Sequence[Row], *, chat: bool) -> list[Prompt]:
    """What a model is asked. With a chat template a prompt that is a text is a message of the user."""
    return [
        [{"role": "user", "content": row["prompt"]}] if chat and isinstance(row["prompt"], str) else row["prompt"]
        for row in rows
    ]


def prompt_set_report(name: str, sampled: Sampled) -> Found:
    """The figures of one set, "instructions" or "refusals", from one answer of everybody to each of its prompts.

    Raises:
        ValueError: If there is not exactly one answer to each prompt.
    """
    if sampled.samples != 1:
        raise ValueError(f"eval.{name}: one answer to each prompt is measured, got {sampled.samples}")
    return {"instructions": _instructions, "refusals": _refusals}[name](sampled)


def _instructions(sampled: Sampled) -> Found:
    reports = {who: instruction_following(sampled.rows, sampled.first(who)) for who in sampled.answers}
    estimates, comparisons = {}, {}
    prompts = [row["prompt"] for row in sampled.rows]
    for key, (_, clusters) in reports[REF].values.items():
        values = {who: report.values[key][0] for who, report in reports.items()}
        estimates |= sided_estimates(f"instructions/{key}", values, clusters, shares=True)
        if key.partition("/")[0] in ("prompt", "instruction"):
            comparisons |= every_pair(
                f"instructions/{key}", values, [prompts[cluster] for cluster in clusters], shares=True
            )
    details = {who: _broken(report) for who, report in reports.items()}
    first = reports[REF]
    return Found(
        estimates,
        comparisons,
        {"unchecked": first.unchecked, "prompts_left_out": first.prompts_left_out, "by_policy": details},
    )


def _broken(report: InstructionReport) -> dict[str, Any]:
    """What an answerer did not follow: by kind of instruction, and by prompt."""
    checked = [item for items in report.followed for item in items if item.strict is not None]
    asked_for, strictly = Counter(i.kind for i in checked), Counter(i.kind for i in checked if not i.strict)
    loosely = Counter(i.kind for i in checked if not i.loose)
    return {
        "blank": report.blank,
        "broken": {
            kind: {"strict": strictly[kind], "loose": loosely[kind], "of": asked_for[kind]}
            for kind, _ in strictly.most_common()
        },
        "broken_by_prompt": [[item.kind for item in items if item.strict is False] for items in report.followed],
    }


def _refusals(sampled: Sampled) -> Found:
    balances = {who: refusal_balance(sampled.rows, sampled.first(who)) for who in sampled.answers}
    labels = [row["label"] for row in sampled.rows]
    prompts = [row["prompt"] for row in sampled.rows]
    wanted = {"over_refusal": ("safe", ("refusal", "partial")), "unsafe_compliance": ("unsafe", ("compliance",))}
    wanted |= {f"{label}/{kind}": (label, (kind,)) for label in LABELS for kind in CLASSES}
    estimates, comparisons = {}, {}
    for key, (label, kinds) in wanted.items():
        values = {
            who: np.array(
                [float(c in kinds) if at == label else np.nan for at, c in zip(labels, b.classes, strict=True)]
            )
            for who, b in balances.items()
        }
        found = sided_estimates(f"refusals/{key}", values, shares=True)
        whole = key in ("over_refusal", "unsafe_compliance")
        estimates |= {name: e for name, e in found.items() if whole or not name.endswith("/difference")}
        comparisons |= every_pair(f"refusals/{key}", values, prompts, shares=True) if whole else {}
    details = {who: {"types": _by_type(sampled.rows, b), "classes": list(b.classes)} for who, b in balances.items()}
    return Found(estimates, comparisons, {"by_policy": details})


def _by_type(rows: Sequence[Row], balance: RefusalBalance) -> dict[str, dict[str, int]]:
    """How many answers of each class there are for each type of prompt."""
    counts: dict[str, dict[str, int]] = {}
    for row, kind in zip(rows, balance.classes, strict=True):
        counts.setdefault(row["type"], dict.fromkeys(CLASSES, 0))[kind] += 1
    return counts


# --- reading a file ----------------------------------------------------------------------------------


def _load(name: str, path: Path) -> list[Row]:
    where = f"eval.{name} ({path})"
    if not path.is_file():
        raise DataError(f"{where}: no such file; name one of JSON lines, compressed or not")
    problems: list[str] = []
    rows: list[Row] = []
    seen: dict[str, int] = {}
    try:
        check_file(path)
        with path.open("rb") as raw, unpacked(raw, path) as file:
            lines = file.read().decode("utf-8-sig").split("\n")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = _row(line, CHECKS[name])
            first = seen.setdefault(json.dumps(asked([row], chat=True)), number)
            if first != number:
                raise RowError("twice", f"the prompt of line {first} again; each counts once")
            rows.append(row)
        except RowError as error:
            problems.append(f"{where}, line {number}: {error}")
    if not rows and not problems:
        problems.append(f"{where}: there are no rows in it")
    if name == "refusals" and rows and not problems:
        missing = [label for label in LABELS if all(row["label"] != label for row in rows)]
        problems += [f"{where}: a balance needs safe and unsafe prompts, got no {label} one" for label in missing]
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise DataError("\n".join([printable(line, 500) for line in problems[:SHOWN]] + more))
    return rows


def _row(line: str, check: Callable[[Row], None]) -> Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise RowError("not-json", f"not JSON ({error}); write one object a line") from None
    if not isinstance(row, dict):
        raise RowError("not-json", f"expected an object, got {describe(row)}")
    prompt = row.get("prompt")
    if isinstance(prompt, list) and prompt:
        row["prompt"] = messages = messages_of(prompt, "the prompt")
        if messages[-1]["role"] == "assistant" or not messages[-1]["content"].strip():
            raise RowError("wrong-roles", "prompt: must end with a message that asks something")
    elif not isinstance(prompt, str) or not prompt.strip():
        raise RowError("empty-prompt", f"prompt: must be a text or messages, got {describe(prompt)}")
    check(row)
    return row


def _check_instructions(row: Row) -> None:
    kinds, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(kinds, list) or not kinds or not all(isinstance(kind, str) for kind in kinds):
        raise RowError("kinds", f"instruction_id_list: must name one instruction or more, got {describe(kinds)}")
    if not isinstance(arguments, list) or len(arguments) != len(kinds):
        raise RowError(
            "arguments", f"kwargs: must be {len(kinds)}, one for each instruction, got {describe(arguments)}"
        )
    for kind, given in zip(kinds, arguments, strict=True):
        if not isinstance(given, Mapping | None):
            raise RowError("arguments", f"kwargs: of {kind} must be an object or null, got {describe(given)}")
        if kind in NOT_CHECKED:
            continue
        if kind not in CHECKERS:
            raise RowError("kinds", f"instruction_id_list: unknown, got {kind!r}; {nearest(kind, CHECKERS)}")
        try:
            Constraint(kind, given or {})
        except ValueError as error:
            raise RowError("arguments", f"kwargs: {error}") from None


def _check_refusals(row: Row) -> None:
    if row.get("label") not in LABELS:
        raise RowError("label", f"label: must be safe or unsafe, got {describe(row.get('label'))}")
    kind = row.get("type")
    if not isinstance(kind, str) or not kind.strip() or kind in LABELS:
        raise RowError(
            "type", f"type: must name the type of prompt, other than {' and '.join(LABELS)}, got {describe(kind)}"
        )


CHECKS = {"instructions": _check_instructions, "refusals": _check_refusals}


def of_prompt_set(name: str, rows: Sequence[Mapping[str, Any]], sampled: Sampled) -> Sampled:
    """The answers to one prompt set among others, as files hold them.

    Raises:
        RunError: If a prompt of the set is not among them, or has several answers.
    """
    if sampled.samples != 1:
        raise RunError(f"eval.{name}: one response to each prompt is measured, and the files hold {sampled.samples}")
    places = {json.dumps(row["prompt"]): place for place, row in enumerate(sampled.rows)}
    found = []
    for row in rows:
        prompt: Prompt = row["prompt"]
        asked = [prompt, [{"role": "user", "content": prompt}]] if isinstance(prompt, str) else [prompt]
        place = next((places[key] for form in asked if (key := json.dumps(form)) in places), None)
        if place is None:
            raise RunError(
                f"eval.{name}: the files hold no response to its prompt {json.dumps(prompt)[:80]}; add responses to all of "
                f"its prompts, or leave the set out with eval.{name}=null"
            )
        found.append(place)
    answers = {who: [texts[place] for place in found] for who, texts in sampled.answers.items()}
    return Sampled([dict(row) for row in rows], answers)

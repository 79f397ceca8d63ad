"""Finds which columns of a file are read as what, and refuses files whose columns would be dropped or taken for others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset

from align.errors import DataError
from align.findings import Finding

from .columns import (
    NO_TEXT,
    REASON,
    SYSTEM,
    TEMPLATE,
    WHOLE_TEXTS,
    guessed,
    is_empty,
    is_label,
    proposed_prefer,
    reversed_scores,
    sided_columns,
    system_column,
    unread,
    unread_line,
    words,
)
from .completions import read_completion, read_labelled, read_prompt
from .layouts import LAYOUTS, Layout, Prefer, Reading, known_layout
from .pairs import read_row

Rows = Literal["pairs", "completions", "labels", "prompts"]
"""What a row of a method's data is."""

REF_COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")
ROW = "alignkit_row"
"""Column of row numbers, counted from 1 in the source, for rows that are split or dropped before they are spoken of."""
ALIASES: dict[Rows, tuple[dict[str, str], ...]] = {
    "pairs": (
        {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"},
        {"prompt": "question", "chosen": "chosen", "rejected": "rejected"},
        {"prompt": "conversations", "chosen": "chosen", "rejected": "rejected"},
        {"prompt": "messages", "chosen": "chosen", "rejected": "rejected"},
        {"chosen": "chosen", "rejected": "rejected"},
        {"prompt": "question", "chosen": "response_j", "rejected": "response_k"},
    ),
    "completions": (
        {"prompt": "prompt", "completion": "completion"},
        {"completion": "messages"},
        {"completion": "conversations"},
    ),
    "labels": (
        {"prompt": "prompt", "completion": "completion", "label": "label"},
        *(
            {"completion": told, "label": label}
            for label in ("label", "kto_tag")
            for told in ("messages", "conversations")
        ),
    ),
    "prompts": ({"prompt": "prompt"},),
}
"""For each kind of rows the layouts of columns, ours to theirs, tried in this order."""
READ = {"pairs": read_row, "completions": read_completion, "labels": read_labelled, "prompts": read_prompt}
LIKE_A_PROMPT = ("instruction", "query", "input", "context", "Prompt")


@dataclass(frozen=True)
class Plan:
    """What becomes of each column of one source."""

    read: Callable[[Any, Any], Iterator[dict[str, Any]]]
    """Rows of ours from a row of the source and the one before it."""
    kept: Mapping[str, str]
    """Numbers and texts to check and carry over, ours to theirs."""
    others: Mapping[str, str]
    """Columns to carry over as they are, ours to theirs."""
    system: str | None
    template: tuple[str, ...]
    told: list[Finding]


def planned(
    raw: Dataset, reading: Reading, *, where: str, keep: Sequence[str], texts: Sequence[str], rows: Rows
) -> Plan:
    """Decide what becomes of each column.

    Args:
        raw: The source.
        reading: What is said of it.
        where: What to call it in messages.
        keep: Further columns of numbers that are read. `columns` may name them too.
        texts: Likewise columns of texts.
        rows: What a row is; of `prompts` all columns are carried over.

    Raises:
        DataError: If columns fit no layout, one is missing, or one would be dropped that changes what the others mean.
    """
    columns = reading.columns
    renamed = {k: v for k, v in columns.items() if rows == "prompts" and k != "prompt"}
    known = (*keep, *texts, *renamed)
    answers = {k: v for k, v in columns.items() if k not in known}
    kept = {name: columns.get(name, name) for name in (*keep, *texts)}
    missing = [name for name in (*kept.values(), *renamed.values()) if name not in raw.column_names]
    form = _form(raw, reading, answers, where, rows)
    mapping = layout(raw.column_names, answers, where, rows) if form is None else {}
    likely = [name for name in LIKE_A_PROMPT if name in raw.column_names]
    lacks = rows == "pairs" and mapping and "prompt" not in mapping and likely
    if lacks and getattr(raw.features[mapping["chosen"]], "dtype", "") == "string":
        raise DataError(
            f"{where}: no column 'prompt', but {likely[0]!r}; name it with `columns: {{prompt: {likely[0]}}}`, or remove it "
            "if the answers hold the prompt"
        )
    if missing:
        need = "ref.kind=cached" if set(missing) & set(REF_COLUMNS) else "`columns`" if renamed else "the objective"
        raise DataError(
            f"{where}: missing column {', '.join(missing)}, which {need} needs; there are "
            f"{', '.join(name for name in raw.column_names if name != ROW)}"
        )
    taken = (*mapping.values(), *keep, *renamed.values())
    free = [name for name in raw.column_names if name not in (*taken, *reading.ignore, ROW)]
    system = system_column([name for name in free if name in SYSTEM], where)
    template = tuple(name for name in TEMPLATE if name in free and not is_empty(raw, name))
    if rows == "prompts" and template:
        raise DataError(_online(template, where))
    passed = [name for name in free if rows == "prompts" and name != system and REASON.get(words(name)) != NO_TEXT]
    others = {name: name for name in passed} | renamed
    of_form = (*form.needs, *form.further) if form else ()
    used = {*taken, *kept.values(), *others, *template, ROW, system or ROW, *of_form}
    left = unread(raw, used, ignore=reading.ignore, where=where, rows=rows, labelled=form is not None)
    read = _through(form, rows) if form is not None else _directly(mapping, rows)
    told = _told(raw, reading, form, system, [name for name in left if name not in reading.ignore], where)
    if rows == "pairs" and form is None and not reading.columns:
        told += reversed_scores(raw, where)
    return Plan(read, kept, others, system, template, told)


def layout(names: Sequence[str], columns: Mapping[str, str], where: str, rows: Rows = "pairs") -> dict[str, str]:
    """Our names of the text columns to theirs; of `pairs` and `completions` the prompt may be missing.

    Raises:
        DataError: If the columns fit none of the layouts.
    """
    names = [name for name in names if name != ROW]
    for ours, theirs in columns.items():
        if ours not in ALIASES[rows][0]:
            *others, last = ALIASES[rows][0]
            expected = f"{', '.join(others)} or {last}" if others else last
            raise DataError(f"{where}: columns.{ours}: unknown; expected {expected}")
        if theirs not in names:
            raise DataError(f"{where}: columns.{ours}: no column {theirs!r}; there are {', '.join(names)}")
    for alias in ALIASES[rows]:
        mapping = {**alias, **columns}
        if mapping.get("completion") == "conversations" and "chosen" in names:
            continue  # the prompt of pairs
        if all(theirs in names for theirs in mapping.values()):
            twice = [theirs for theirs in mapping.values() if list(mapping.values()).count(theirs) > 1]
            if twice:
                raise DataError(
                    f"{where}: columns: {twice[0]!r} is named twice; give each of {', '.join(ALIASES[rows][0])} its own"
                )
            return mapping
    needed = list(ALIASES[rows][0])
    proposal = guessed(names, needed)
    single = guessed([name for name in names if name not in ("chosen", "rejected")], ["prompt", "completion"])
    answered = "..." in proposal and "..." not in single
    if rows == "pairs" and (answered or {"messages", "completion", "output", "conversations"} & set(names)):
        mapped = "your names of them" if "..." in proposal else proposal
        proposal = f"{mapped}, or train on completions with `method: sft`"
    elif "text" in names and rows in ("pairs", "completions") and "..." in proposal:
        proposal = f"your names of them; {WHOLE_TEXTS}"
    if rows == "pairs":
        raise DataError(
            f"{where}: no preference columns; expected prompt, chosen, rejected (or question, response_j, response_k), "
            f"got {', '.join(names)}; map them with {proposal}"
        )
    raise DataError(
        f"{where}: no columns of {rows}; expected {', '.join(needed)}, got {', '.join(names)}; map them with {proposal}"
    )


def _form(raw: Dataset, reading: Reading, answers: Mapping[str, str], where: str, rows: Rows) -> Layout | None:
    """The layout that is named, or known by its columns, or made of `prefer`; None if columns are read directly."""
    names = [name for name in raw.column_names if name != ROW]
    if reading.layout is not None:
        form = LAYOUTS[reading.layout]
        if answers or reading.prefer is not None:
            raise DataError(
                f"{where}: layout: {reading.layout!r} says which columns are read; leave `columns` and `prefer` out"
            )
        if form.rows != rows:
            fitting = [name for name, each in LAYOUTS.items() if each.rows == rows]
            raise DataError(
                f"{where}: layout: {reading.layout!r} gives {form.rows}, and the method learns from {rows}"
                + (f"; known: {', '.join(fitting)}" if fitting else "")
            )
        lacking = [name for name in form.needs if name not in names]
        if lacking:
            raise DataError(
                f"{where}: layout: {reading.layout!r} needs the column {lacking[0]!r}; there are {', '.join(names)}"
            )
        return form
    if reading.prefer is not None:
        return _preferred(reading.prefer, answers, names, where, rows)
    if answers or all(name in names for name in ALIASES[rows][0].values()):
        return None
    for name in known_layout(names, rows):
        if LAYOUTS[name].named:
            several = [other for other in known_layout(names, rows) if LAYOUTS[other].named]
            told = ", or ".join(f"`layout: {each}` ({LAYOUTS[each].about})" for each in several)
            raise DataError(f"{where}: several texts to a row, or a label: say how they are read: {told}")
        return LAYOUTS[name]
    if not any(all(name in names for name in alias.values()) for alias in ALIASES[rows]):
        _propose(raw, names, where, rows)
    return None


def _preferred(prefer: Prefer, answers: Mapping[str, str], names: Sequence[str], where: str, rows: Rows) -> Layout:
    if rows != "pairs":
        raise DataError(f"{where}: prefer: says which of two answers is better, and the method learns from {rows}")
    prompt = answers.get("prompt", "prompt" if "prompt" in names else None)
    surplus = [name for name in answers if name != "prompt"]
    if surplus:
        raise DataError(
            f"{where}: columns.{surplus[0]}: `prefer` names the answers; leave only the prompt in `columns`"
        )
    needs = (prefer.column, *prefer.answers, *([prompt] if prompt else []))
    lacking = [name for name in needs if name not in names]
    if lacking:
        raise DataError(f"{where}: prefer: no column {lacking[0]!r}; there are {', '.join(names)}")

    def read(row: Any, before: Any) -> Iterator[dict[str, Any]]:
        yield {**({"prompt": row[prompt]} if prompt else {}), **prefer.read(row)}

    return Layout("pairs", needs, f"{prefer.column} says which answer is chosen", read)


def _propose(raw: Dataset, names: Sequence[str], where: str, rows: Rows) -> None:
    """Refuse a file of another kind of rows, or of two answers and a label, with the line that reads it."""
    for kind in [kind for kind in ("pairs", "completions") if kind != rows and rows != "prompts"]:
        found = known_layout(names, kind)
        if found:
            labels = found[0] == "kto"
            told = "label says which are good" if labels else LAYOUTS[found[0]].about
            method = "kto" if labels else "dpo" if kind == "pairs" else "sft"
            raise DataError(
                f"{where}: no {rows}, but {kind} (layout {found[0]}: {told}); use a method that learns from them, such as "
                f"`method: {method}`"
            )
    answers = sided_columns(names) if rows == "pairs" else []
    if not answers:
        return
    labels = [name for name in names if name not in answers and is_label(raw, name)]
    lines = [line for name in labels for line in proposed_prefer(raw, name, answers)]
    if lines:
        prompt = "" if "prompt" in names else f", with {guessed([n for n in names if n not in answers], ['prompt'])}"
        raise DataError(
            f"{where}: two answers, {' and '.join(answers)}, and a label: say when which is chosen: {' or '.join(lines)}{prompt}"
        )


def _through(form: Layout, rows: Rows) -> Callable[[Any, Any], Iterator[dict[str, Any]]]:
    def read(row: Any, before: Any) -> Iterator[dict[str, Any]]:
        if row is None:
            yield READ[rows](row, {})
            return
        for made in form.read(row, before):
            yield READ[rows](made, {name: name for name in made})

    return read


def _directly(mapping: Mapping[str, str], rows: Rows) -> Callable[[Any, Any], Iterator[dict[str, Any]]]:
    def read(row: Any, before: Any) -> Iterator[dict[str, Any]]:
        yield READ[rows](row, mapping)

    return read


def _online(template: Sequence[str], where: str) -> str:
    told = f"{where}: {' and '.join(template)}: prompts are rendered without them in online training"
    return f"{told}; set train.chat_template_kwargs for all rows, and leave the columns out with `ignore: [{', '.join(template)}]`"


def _told(
    raw: Dataset, reading: Reading, form: Layout | None, system: str | None, left: Sequence[str], where: str
) -> list[Finding]:
    told: list[Finding] = []
    if form is not None and reading.layout is None and reading.prefer is None:
        name = next(name for name, each in LAYOUTS.items() if each is form)
        told.append(Finding("note", "layout", where, f"read as {name}: {form.about}", "nothing to do"))
    if system is not None:
        message = f"the column {system!r} is read as the system's message, so that rows are chat messages"
        told.append(Finding("note", "system-column", where, message, f"`ignore: [{system}]` reads them without it"))
    everything, loud = unread_line(left, all_of_them=True), unread_line(left, all_of_them=False)
    if everything:
        rule = "unused-columns" if loud else "columns-about-rows"
        remedy = "name them in `columns` if training should read them, in `ignore` if not"
        told.append(Finding("note", rule, where, everything, remedy))
    return told

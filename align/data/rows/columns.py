"""Says of every column of a file what becomes of it, so that none is dropped silently."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from align.errors import DataError
from align.findings import Finding, printable

from .messages import RENDERED

SYSTEM = ("system", "system_prompt", "system_message")
TEMPLATE = ("tools", "chat_template_kwargs")
LABEL = re.compile(
    r"^(?!chosen_|rejected_)(?:.*_)?(?:labels?|winners?|won|better|safer|best|prefer(?:red|ence|ences)?|verdicts?|vote|choice|choose|picked|selected|judge?ments?)(?:_|$)"
)
WEIGHS = "weighs rows"
NO_TEXT = "is no text, and only text is trained on"
REASON = {
    name: words
    for words, names in {
        WEIGHS: "weight weights sample_weight sample_weights importance",
        "belongs to the prompt": "input context history documents functions passage",
        NO_TEXT: "image images video videos audio audios pixel_values",
    }.items()
    for name in names.split()
}
PLAIN = re.compile(
    r"(?:^|_)(?:id|ids|uid|idx|index|source|sources|split|date|time|timestamp|tstamp|lang|language|model|models|dataset|subset|domain|"
    r"category|url|title|metadata|meta|topic|turn|turns|hash|license|version|created|utc|annotator|user)(?:_|$)"
)
"""Columns about a row, of which nobody expects that training reads them."""
SCORES = re.compile(r"(?:^|_)(?:scores?|ratings?|rewards?|margin)(?:_|$)")
WHOLE_TEXTS = (
    "'text' holds whole texts, and what is learnt is an answer: write each as prompt and completion, or messages"
)
FEW_VALUES, LONG_VALUE = 12, 40
SIDED = re.compile(r"^(.*?)_?([abABjkxyXY01234])$")


def words(name: str) -> str:
    """A column's name in lower case, its words parted by underscores."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()


def unread(
    raw: Dataset, used: Collection[str], *, ignore: Sequence[str], where: str, rows: str, labelled: bool
) -> list[str]:
    """Names of the columns that are not read.

    Args:
        raw: The source.
        used: Columns that are read.
        ignore: Columns that the recipe says it does without.
        where: What to call the source.
        rows: What a row is.
        labelled: Whether a label is read already.

    Raises:
        DataError: If one of them changes what the others mean, naming it and what to do; or `ignore` names no column.
    """
    missing = [name for name in ignore if name not in (*raw.column_names, *RENDERED)]
    if missing:
        raise DataError(f"{where}: ignore: no column {missing[0]!r}; there are {', '.join(raw.column_names)}")
    left = [name for name in raw.column_names if name not in used]
    for name in left:
        plain = words(name)
        if name in ignore or not (plain in REASON or LABEL.search(plain)) or is_empty(raw, name):
            continue
        if REASON.get(plain) == WEIGHS and len(raw.unique(name)) == 1:  # weighs all alike, as `data pairs` may write it
            continue
        if plain in REASON:
            raise DataError(
                f"{where}: the column {name!r} {REASON[plain]}, and would be dropped; read it as what it is, or do without "
                f"it by `ignore: [{name}]`"
            )
        if rows != "prompts" and not labelled and is_label(raw, name):
            raise DataError(_about_label(raw, name, used, where, rows))
    return left


def system_column(names: Sequence[str], where: str) -> str | None:
    """The one column that holds the system's message, if there is one.

    Raises:
        DataError: If there are several.
    """
    if len(names) > 1:
        raise DataError(f"{where}: {' and '.join(names)} would both be the system's message; name one in `ignore`")
    return names[0] if names else None


def reversed_scores(raw: Dataset, where: str) -> Iterator[Finding]:
    """A warning where a score of the chosen answer is below that of the rejected one."""
    for name in raw.column_names:
        other = re.sub("chosen", "rejected", name)
        if other == name or other not in raw.column_names or not SCORES.search(words(name)):
            continue
        pairs = zip(raw[name], raw[other], strict=True)
        rows = [n for n, (a, b) in enumerate(pairs, 1) if _is_number(a) and _is_number(b) and a < b]
        if rows:
            every = ": the labels are the other way around" if len(rows) == len(raw) else ""
            message = f"{name} is below {other} in {len(rows)} of {len(raw)} rows{every}"
            remedy = "look which of the two is wrong; `columns: {chosen: rejected, rejected: chosen}` swaps the answers"
            yield Finding("warning", "scores-against-labels", where, message, remedy, tuple(rows))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def unread_line(names: Sequence[str], *, all_of_them: bool) -> str:
    """Columns that are not read, in one line; without `all_of_them` only those that are not plainly about the row."""
    told = [name for name in names if all_of_them or not (PLAIN.search(words(name)) or SCORES.search(words(name)))]
    return f"columns not used: {printable(', '.join(told), 300)}" if told else ""


def proposed_prefer(raw: Dataset, label: str, answers: Sequence[str]) -> list[str]:
    """The line `prefer: {...}` for a label and two columns of answers: two, if its values do not say which is which."""
    values = raw.unique(label)
    ties = [
        value
        for value in values
        if str(value).lower() in ("tie", "ties", "same", "equal", "both", "none", "null", "draw")
    ]
    rest = [value for value in values if value not in ties]
    signed = all(isinstance(value, int | float) for value in rest) and any(value < 0 for value in rest)
    if signed:
        ties, rest = [*ties, *(v for v in rest if v == 0)], [v for v in rest if v != 0]
        sides = [[v for v in rest if v < 0], [v for v in rest if v > 0]]
        return [_prefer_line(label, answers, sides, ties), _prefer_line(label, answers, sides[::-1], ties)]
    sides = [[v for v in rest if _names(v, answer)] for answer in answers]
    if all(sides) and sum(map(len, sides)) == len(rest):
        return [_prefer_line(label, answers, sides, ties)]
    if len(rest) == 2:
        one, other = sorted(rest, key=str)
        return [_prefer_line(label, answers, [[a], [b]], ties) for a, b in ((one, other), (other, one))]
    return []


def sided_columns(names: Sequence[str]) -> list[str]:
    """Two columns whose names differ only in a letter or number at their end, such as answer_a and answer_b."""
    stems: dict[str, list[str]] = {}
    for name in names:
        match = SIDED.match(name)
        if match and re.search(
            r"response|answer|completion|output|reply|conversation|summary|text|candidate|option|ref|generation",
            match[1].lower(),
        ):
            stems.setdefault(match[1], []).append(name)
    return next((found for found in stems.values() if len(found) == 2), [])


def _about_label(raw: Dataset, name: str, used: Collection[str], where: str, rows: str) -> str:
    ignore = f"do without it by `ignore: [{name}]`"
    start = f"{where}: the column {name!r} is a label, and would be dropped"
    if rows != "pairs":
        layout = (
            "`method: kto` learns from both labels, `layout: kto` trains on the rows labelled true, or "
            if {"prompt", "completion", "label"} <= set(raw.column_names)
            else ""
        )
        return f"{start}; {layout}{ignore}"
    answers = sided_columns([n for n in raw.column_names if n in used])
    if not answers and {"chosen", "rejected"} <= {*raw.column_names} & {*used}:
        answers = ["chosen", "rejected"]
    lines = proposed_prefer(raw, name, answers) if answers else []
    if not lines:
        return f"{start}; if it says which answer is better use `prefer: {{column: {name}, ...}}`, else {ignore}"
    prompt = "" if "prompt" in raw.column_names else " (and keep columns.prompt)"
    return f"{start}; instead of `columns` for the answers{prompt} use {' or '.join(lines)}, or {ignore}"


def _prefer_line(label: str, answers: Sequence[str], sides: Sequence[Sequence[Any]], ties: Sequence[Any]) -> str:
    def listed(values: Sequence[Any]) -> str:
        return json.dumps(list(values), ensure_ascii=False)

    told = ", ".join(f"{answer}: {listed(values)}" for answer, values in zip(answers, sides, strict=True))
    return f"`prefer: {{column: {label}, answers: {{{told}}}{f', ties: {listed(ties)}' if ties else ''}}}`"


def _names(value: Any, answer: str) -> bool:
    """Whether a value of a label names a column: equal, or with the same end, as model_a and response_a."""
    end = re.split(r"_|(?<=[a-z])(?=[A-Z0-9])", answer)[-1].lower()
    told = str(value).lower()
    return told in (answer.lower(), end) or bool(re.search(rf"(?:^|[^a-z0-9]){re.escape(end)}$", told))


def is_label(raw: Dataset, name: str) -> bool:
    """Whether a column may be a label, by its name and its values."""
    if not LABEL.search(words(name)):
        return False
    kind = str(getattr(raw.features[name], "dtype", ""))
    if kind == "bool" or kind.startswith(("int", "uint", "float")):
        return True
    if kind not in ("string", "large_string"):
        return False
    values = raw.unique(name)
    return len(values) <= FEW_VALUES and all(value is None or len(value) <= LONG_VALUE for value in values)


def is_empty(raw: Dataset, name: str) -> bool:
    """Whether no row has anything in a column."""
    if str(getattr(raw.features[name], "dtype", "")) == "null":
        return True
    column: Any = raw.data.column(name)
    if column.null_count == len(column):
        return True
    return str(getattr(raw.features[name], "dtype", "")) == "string" and all(
        not (v or "").strip() for v in raw.unique(name)
    )


def guessed(names: Sequence[str], ours: Sequence[str]) -> str:
    """A line `columns: {...}` for names that say what they are; `...` where none does."""
    likely: Mapping[str, str] = {
        "prompt": r"prompt|instruction|question|query|input|context|history|post|source_text|messages|conversations",
        "chosen": r"chosen|better|preferred|accepted|good|winner|winning|win|positive|response_j",
        "rejected": r"rejected|worse|dispreferred|refused|bad|loser|losing|lose|negative|response_k",
        "completion": r"completion|chosen|output|response|answer|reply|target",
        "label": r"label|kto|desirable|thumbs?|feedback|liked|good|rating",
    }
    told, left = [], list(names)
    for name in ours:
        found = next((n for n in left if n == name), None) or next(
            (
                n
                for word in likely[name].split("|")
                for n in left
                if re.fullmatch(rf"(?:.*_)?(?:{word})(?:_.*)?", words(n))
            ),
            None,
        )
        told.append(f"{name}: {found or '...'}")
        left = [n for n in left if n != found]
    return f"`columns: {{{', '.join(told)}}}`"

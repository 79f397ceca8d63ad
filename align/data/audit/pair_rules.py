"""Names what may be wrong with one normalised pair."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from align.data.rows.messages import ROLES, SPECIAL, SYSTEM_ROLES
from align.data.rows.normal_form import HIDDEN, folded, is_blank
from align.data.rows.pairs import LONG_PROMPT, repeats
from align.findings import Level, printable

LONG_ROW = 100_000  # characters
AROUND = 16  # characters shown on either side of what was found
GLUED = ".,:;!?"  # after which a word follows only with a space between
BIDI = "\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(rf"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f{BIDI}]")
WINDOWS = "\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178"
REPLACED = re.compile(
    rf"\ufffd|Ã[\x80-\xbf{WINDOWS}]|Â[\xa0-\xbf]|â\u20ac[\x80-\xbf{WINDOWS}]|ð\u0178[\x80-\xbf{WINDOWS}]{{2}}"
)
CASED = re.compile(r"[^\W\d_]")
FIRST_UNSPACED = "\u2e80"  # scripts from here on are written without spaces between words


class Rule(NamedTuple):
    """How bad it is, in words for `N of M pairs ...`, and what to do."""

    level: Level
    name: str
    words: str
    remedy: str


STRIP = "`alignkit data fix` takes them out"
DROP = "`alignkit data fix` drops them"
RULES = {
    "empty answer": Rule("error", "empty-answer", "have an empty answer", DROP),
    "empty prompt": Rule("error", "empty-prompt", "have an empty prompt", DROP),
    "identical": Rule("error", "identical-answers", "have the same text as chosen and rejected", DROP),
    "unknown role": Rule("error", "wrong-roles", "have a message of an unknown role", "`alignkit data fix` converts known names"),
    "both repeat": Rule("error", "prompt-in-answer", "have answers that both begin with the whole prompt", STRIP),
    "folded": Rule(
        "warning", "identical-answers", "have answers that differ only in white space, case or what does not show", "remove them, unless that is what is taught"
    ),
    "one repeats": Rule(
        "warning", "prompt-in-answer", "have an answer that begins with the whole prompt", "take it out, unless answers should repeat it"
    ),
    "order": Rule(
        "warning", "wrong-roles", "do not alternate between user and assistant after the system's message",
        "mend them: chat templates refuse such rows, or render them in a way no conversation is",
    ),
    "special": Rule(
        "warning", "template-tokens-in-text", "hold what tokenizers read as control tokens", "take it out, or the model reads a turn's end within a turn"
    ),
    "control": Rule("warning", "control-characters", "hold control characters or bidirectional overrides", STRIP),
    "hidden": Rule("warning", "invisible-characters", "hold characters that show nothing and are read all the same", STRIP),
    "replaced": Rule(
        "warning", "replacement-characters", "hold U+FFFD or UTF-8 that was read as Latin-1", "read the source again in its own encoding"
    ),
    "glued": Rule(
        "warning", "missing-separator", "have no white space between the prompt and answers that begin with a letter",
        "end prompts with a line break or a space, unless answers go on within a word",
    ),
    "long": Rule("warning", "overlong-row", f"have more than {LONG_ROW:,} characters", "look at them, and leave out what is no text"),
}  # fmt: skip
"""In the order in which they are told."""


def broken(prompt: Any, chosen: Any, rejected: Any) -> Iterator[tuple[str, str]]:
    """Keys of the rules that a normalised pair does not meet, each with an example or an empty text."""
    plain = isinstance(prompt, str)
    messages = [] if plain else [*prompt, *chosen, *rejected]
    asked = prompt if plain else prompt[-1]["content"]
    answers = [chosen, rejected] if plain else [chosen[-1]["content"], rejected[-1]["content"]]
    whole = "\n".join([asked, *answers] if plain else [message["content"] for message in messages])
    yield from _sides(asked, answers, plain=plain)
    for key, pattern in (("special", SPECIAL), ("control", CONTROL), ("hidden", HIDDEN), ("replaced", REPLACED)):
        match = pattern.search(whole)
        if match:
            start, end = max(0, match.start() - AROUND), match.end() + AROUND
            yield key, _quoted(whole[start:end])
    if len(whole) > LONG_ROW:
        yield "long", f": {len(whole):,}"
    if plain and asked[-1:] and (asked[-1].isalnum() or asked[-1] in GLUED) and all(map(_begins_a_word, answers)):
        yield "glued", _quoted(asked[-AROUND:] + answers[0][:AROUND])
    unknown = next((message["role"] for message in messages if message["role"] not in ROLES), None)
    if unknown is not None:
        yield "unknown role", _quoted(unknown)
    elif messages and not _alternates([message["role"] for message in [*prompt, *chosen]]):
        yield "order", f": {', '.join(message['role'] for message in prompt[:6])}"


def _sides(prompt: str, answers: list[str], *, plain: bool) -> Iterator[tuple[str, str]]:
    if any(map(is_blank, answers)):
        yield "empty answer", ""
    elif answers[0] == answers[1]:
        yield "identical", ""
    elif len({folded(answer).replace(" ", "") for answer in answers}) == 1:
        yield "folded", ""
    if is_blank(prompt):
        yield "empty prompt", ""
    elif len(prompt.strip()) >= LONG_PROMPT:
        repeated = [repeats(prompt, answer) for answer in answers]
        if any(repeated):
            yield "both repeat" if plain and all(repeated) else "one repeats", ""


def _quoted(text: str) -> str:
    return f": '{printable(text)}'"


def _begins_a_word(text: str) -> bool:
    return bool(CASED.match(text)) and text[0] < FIRST_UNSPACED


def _alternates(roles: list[str]) -> bool:
    """Whether the system speaks first, then user and assistant in turn; tools may answer the assistant."""
    turns = roles[1:] if roles[0] in SYSTEM_ROLES else roles
    after = {"": {"user"}, "user": {"assistant"}, "assistant": {"user", "tool"}, "tool": {"tool", "assistant"}}
    return all(role in after.get(last, ()) for last, role in zip(["", *turns], turns, strict=False))

"""Checks constraints on an answer that a rule can check.

Kinds and arguments have the names of IFEval's data (Zhou et al. 2023, arXiv:2311.07911), so a row of it is checked by
`Constraint(instruction_id, arguments).holds(text)`. 24 of its 25 kinds are here; `language:response_language` needs a
language identifier. The checkers are ours. They differ from the published ones in this:

- IFEval counts an empty answer as following nothing. Here the rule alone is checked (no comma is in an empty text), so
  that whatever does not satisfy a constraint satisfies its negation: evaluation must look for empty answers itself.
- Sentences and words in capitals are counted by rules instead of NLTK, and letter case is checked without asking whether
  the text is English.
- Keywords are taken literally, not as regular expressions. Empty paragraphs do not count for `nth_paragraph_first_word`.

Every checker takes time linear in the length of the text, whatever it holds.
"""

import difflib
import inspect
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

AT_LEAST, LESS_THAN = "at least", "less than"
YES_NO_MAYBE = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
ABBREVIATIONS = frozenset(
    ("mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "e.g", "i.e", "cf", "fig", "approx")
)
SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*_]*(?=\s|$)")
CAPITALISED = re.compile(r"[^\W_]+(?:['’.&-][^\W_]+)*")


@dataclass(frozen=True)
class Constraint:
    """One constraint.

    Raises:
        ValueError: If the kind is unknown, or the arguments are not those of its checker.
    """

    kind: str
    """A key of `CHECKERS`."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """What the checker takes besides the text; those that are None are left out, as tables fill rows up with them."""

    def __post_init__(self) -> None:
        if self.kind not in CHECKERS:
            near = difflib.get_close_matches(self.kind, CHECKERS, 1)
            raise ValueError(
                f"unknown constraint {self.kind!r}; {f'did you mean {near[0]!r}?' if near else 'see CHECKERS'}"
            )
        arguments = {name: value for name, value in self.arguments.items() if value is not None}
        object.__setattr__(self, "arguments", arguments)
        expected = dict(list(inspect.signature(CHECKERS[self.kind]).parameters.items())[1:])
        if arguments.keys() != expected.keys():
            got = ", ".join(arguments) or "none"
            raise ValueError(f"{self.kind}: takes the arguments {', '.join(expected) or 'none'}; got {got}")
        for name, value in arguments.items():
            _check_argument(self.kind, name, value, expected[name].annotation)

    def holds(self, text: str) -> bool:
        """Whether a text satisfies it."""
        return CHECKERS[self.kind](text, **self.arguments)


def _check_argument(kind: str, name: str, value: Any, annotation: Any) -> None:
    if annotation is int:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        rule = "a whole number of at least 0"
    elif name.endswith("relation"):
        good, rule = value in (AT_LEAST, LESS_THAN), f"{AT_LEAST!r} or {LESS_THAN!r}"
    elif annotation is str:
        good, rule = isinstance(value, str) and value.strip() != "", "text"
    else:
        good = isinstance(value, list) and value != [] and all(isinstance(word, str) and word.strip() for word in value)
        rule = "a list of words"
    if not good:
        raise ValueError(f"{kind}: {name} must be {rule}, got {value!r}")


def word_count(text: str) -> int:
    """Runs of letters, digits and underscores: "don't" counts as two."""
    return len(re.findall(r"\w+", text))


def sentence_count(text: str) -> int:
    """Ends of sentences, and the text after the last if there are words in it.

    A sentence ends with a mark and white space, whatever the case of what follows, unless the full stop is that of an
    abbreviation or an initial, or it goes on with a small letter after an ellipsis or a number. So the number of a list's
    item is a sentence of its own before a capital, as it is for NLTK's Punkt, which IFEval counts with.
    """
    count = end = 0
    for match in SENTENCE_END.finditer(text):
        following = text[match.end() : match.end() + 50].lstrip()[:1]
        before = text[max(0, match.start() - 20) : match.start()]
        goes_on = following.islower() and (match[0][0] == "…" or before.endswith("..") or before[-1:].isdigit())
        if goes_on or (match[0] == "." and following and _abbreviates(before)):
            continue
        count += bool(re.search(r"\w", text[end : match.end()]))
        end = match.end()
    return count + bool(re.search(r"\w", text[end:]))


def _abbreviates(before: str) -> bool:
    """Whether the full stop after this text is not that of a sentence."""
    word = before.split()[-1].strip("(\"'*_").lower() if before.split() else ""
    is_initial = len(word) == 1 and word.isalpha() and word != "i"
    return word in ABBREVIATIONS or is_initial


def _relates(count: int, relation: str, bound: int) -> bool:
    return count < bound if relation == LESS_THAN else count >= bound


def _words(text: str, relation: str, num_words: int) -> bool:
    return _relates(word_count(text), relation, num_words)


def _sentences(text: str, relation: str, num_sentences: int) -> bool:
    return _relates(sentence_count(text), relation, num_sentences)


def _paragraphs(text: str, num_paragraphs: int) -> bool:
    """Paragraphs are divided by three asterisks; nothing may be between two dividers."""
    parts = text.split("***")
    inner = parts[1:-1]
    return all(part.strip() for part in inner) and sum(bool(part.strip()) for part in parts) == num_paragraphs


def _first_word(text: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    """Paragraphs are divided by blank lines; the word is compared without quotes and what follows punctuation."""
    paragraphs = [part.strip() for part in text.split("\n\n") if part.strip()]
    if len(paragraphs) != num_paragraphs or not 1 <= nth_paragraph <= num_paragraphs:
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'\"")
    return re.split(r"[.,?!'\"]", word)[0].lower() == first_word.strip().lower()


def _existence(text: str, keywords: Sequence[str]) -> bool:
    return all(word.lower() in text.lower() for word in keywords)


def _keyword_frequency(text: str, relation: str, keyword: str, frequency: int) -> bool:
    return _relates(text.lower().count(keyword.lower()), relation, frequency)


def _forbidden(text: str, forbidden_words: Sequence[str]) -> bool:
    """Whole words only: "car" is not in "scar"."""
    return not any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(text: str, let_relation: str, letter: str, let_frequency: int) -> bool:
    return _relates(text.lower().count(letter.lower()), let_relation, let_frequency)


def _placeholders(text: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[[^\[\]\n]*\]", text)) >= num_placeholders


def _postscript(text: str, postscript_marker: str) -> bool:
    """The usual markers with or without space between their letters, others as they are."""
    usual = {"P.S.": r"p\.\s?s\.", "P.P.S": r"p\.\s?p\.\s?s"}
    marker = postscript_marker.strip()
    return re.search(usual.get(marker, re.escape(marker.lower())), text.lower()) is not None


def _bullets(text: str, num_bullets: int) -> bool:
    """Lines that begin with a hyphen, or with one asterisk."""
    lines = [line.lstrip() for line in text.split("\n")]
    marked = [line for line in lines if line.startswith("-") or (line.startswith("*") and line[1:2] not in ("", "*"))]
    return len(marked) == num_bullets


def _constrained_response(text: str) -> bool:
    return any(answer in text for answer in YES_NO_MAYBE)


def _highlights(text: str, num_highlights: int) -> bool:
    """Something between single or double asterisks, in one line."""
    found = re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", text)
    return sum(bool(part.strip("*").strip()) for part in found) >= num_highlights


def _sections(text: str, section_spliter: str, num_sections: int) -> bool:
    """Headings such as "Section 1", in this letter case."""
    return len(re.findall(rf"{re.escape(section_spliter.strip())}\s?\d", text)) >= num_sections


def _json(text: str) -> bool:
    """JSON, also as a Markdown block."""
    body = re.sub(r"^```(?:json|Json|JSON)?", "", text.strip()).removesuffix("```")
    try:
        json.loads(body.strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(text: str) -> bool:
    """A line with something between << and >>."""
    return any(
        line[line.find("<<") : line.rfind(">>") + 2].strip("<>").strip()
        for line in text.split("\n")
        if _is_wrapped(line)
    )


def _is_wrapped(line: str) -> bool:
    return 0 <= line.find("<<") < line.rfind(">>") - 1


def _two_responses(text: str) -> bool:
    """Two different answers, divided by six asterisks."""
    parts = [part.strip() for part in text.split("******")]
    filled = [part for part in parts if part]
    return all(parts[1:-1]) and len(filled) == 2 and filled[0] != filled[1]


def _repeat_prompt(text: str, prompt_to_repeat: str) -> bool:
    return text.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end(text: str, end_phrase: str) -> bool:
    return text.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(text: str, capital_relation: str, capital_frequency: int) -> bool:
    return _relates(sum(word.isupper() for word in CAPITALISED.findall(text)), capital_relation, capital_frequency)


def _capitals(text: str) -> bool:
    return text.isupper()


def _lowercase(text: str) -> bool:
    return text.islower()


def _no_comma(text: str) -> bool:
    return "," not in text


def _quotation(text: str) -> bool:
    stripped = text.strip()
    return len(stripped) > 1 and stripped[0] == stripped[-1] == '"'


CHECKERS: dict[str, Callable[..., bool]] = {
    "length_constraints:number_words": _words,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "keywords:existence": _existence,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letter_frequency,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat_prompt,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _capitals,
    "change_case:english_lowercase": _lowercase,
    "punctuation:no_comma": _no_comma,
}
"""For each kind the function from a text, and the kind's arguments, to whether it is satisfied."""

"""Reverses constraints of an instruction wherever the chosen answer breaks them, so that it follows them all.

Source: Reverse Preference Optimization for Complex Instruction Following (arXiv:2505.22172). The loss takes the margin from
the column `margin`: -log sigmoid(reward margin - gamma * g).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from align.data.prompts.control import appended

from .constraints import AT_LEAST, LESS_THAN, YES_NO_MAYBE, Constraint
from .selectors import NoPair

Text = Callable[[Mapping[str, Any]], str]
OPPOSITE = {AT_LEAST: LESS_THAN, LESS_THAN: AT_LEAST}


def statement(constraint: Constraint) -> str:
    """The constraint as a sentence of an instruction."""
    return TEXTS[constraint.kind][0](constraint.arguments)


def negation(constraint: Constraint) -> str:
    """The sentence that an answer satisfies exactly if it does not satisfy the constraint."""
    return TEXTS[constraint.kind][1](constraint.arguments)


def instruction(constraints: Sequence[Constraint], bits: Sequence[bool]) -> str:
    """Each constraint as a line of a list, negated where its bit is False."""
    lines = [statement(one) if bit else negation(one) for one, bit in zip(constraints, bits, strict=True)]
    return "".join(f"\n- {line}" for line in lines)


def reverse_constraints(
    prompt: Any, constraints: Sequence[Constraint], completions: Sequence[Any], text_of: Callable[[Any], str] = str
) -> list[dict[str, Any]]:
    """Two pairs, one in each order, for every two completions that do not satisfy the same constraints.

    Args:
        prompt: The task alone, text or messages: the constraints must not be in it, as they are written after it, in the
            chosen answer's version.
        constraints: What is asked for, or not, besides.
        completions: At least two answers.
        text_of: The text of a completion.

    Returns:
        Rows of `prompt`, `chosen`, `rejected`; `chosen_reward` and `rejected_reward`, the number of constraints satisfied
        as they are in that prompt, which is all of them for the chosen; and `margin`, their difference: the number g of
        constraints that one answer satisfies and the other does not.

    Raises:
        NoPair: If there are no constraints, or all completions satisfy the same ones.
    """
    if not constraints:
        raise NoPair("no constraints")
    bits = [[constraint.holds(text_of(completion)) for constraint in constraints] for completion in completions]
    rows = [
        {
            "prompt": appended(prompt, "\n" + instruction(constraints, bits[chosen])),
            "chosen": completions[chosen],
            "rejected": completions[rejected],
            "chosen_reward": float(len(constraints)),
            "rejected_reward": float(len(constraints) - flipped),
            "margin": float(flipped),
        }
        for one, other in combinations(range(len(completions)), 2)
        if (flipped := sum(a != b for a, b in zip(bits[one], bits[other], strict=True)))
        for chosen, rejected in ((one, other), (other, one))
    ]
    if not rows:
        raise NoPair("all completions satisfy the same constraints")
    return rows


def _times(count: int) -> str:
    return f"{count} time{'s' * (count != 1)}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _quoted(words: Sequence[str], last: str) -> str:
    quoted = [f'"{word}"' for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} {last} {quoted[-1]}"


def _related(text: Callable[[str, Mapping[str, Any]], str], relation: str = "relation") -> tuple[Text, Text]:
    """A text and the same with the other relation."""
    return lambda a: text(a[relation], a), lambda a: text(OPPOSITE[a[relation]], a)


TEXTS: dict[str, tuple[Text, Text]] = {
    "length_constraints:number_words": _related(lambda r, a: f"Use {r} {_number(a['num_words'], 'word')}."),
    "length_constraints:number_sentences": _related(
        lambda r, a: f"Write {r} {_number(a['num_sentences'], 'sentence')}."
    ),
    "length_constraints:number_paragraphs": (
        lambda a: f"Write exactly {_number(a['num_paragraphs'], 'paragraph')}, divided by lines of ***.",
        lambda a: f"Do not write exactly {_number(a['num_paragraphs'], 'paragraph')} divided by lines of ***.",
    ),
    "length_constraints:nth_paragraph_first_word": (
        lambda a: (
            f"Write exactly {_number(a['num_paragraphs'], 'paragraph')}, divided by blank lines, and begin paragraph "
            f'{a["nth_paragraph"]} with the word "{a["first_word"]}".'
        ),
        lambda a: (
            f"If you write exactly {_number(a['num_paragraphs'], 'paragraph')}, divided by blank lines, do not begin "
            f'paragraph {a["nth_paragraph"]} with the word "{a["first_word"]}".'
        ),
    ),
    "keywords:existence": (
        lambda a: f"Mention {_quoted(a['keywords'], 'and')}.",
        lambda a: f"Leave out {'at least one of ' * (len(a['keywords']) > 1)}{_quoted(a['keywords'], 'and')}.",
    ),
    "keywords:frequency": _related(lambda r, a: f'Mention "{a["keyword"]}" {r} {_times(a["frequency"])}.'),
    "keywords:forbidden_words": (
        lambda a: f"Do not use the word{'s' * (len(a['forbidden_words']) > 1)} {_quoted(a['forbidden_words'], 'or')}.",
        lambda a: (
            f"Use {'at least one of ' * (len(a['forbidden_words']) > 1)}the word{'s' * (len(a['forbidden_words']) > 1)} "
            f"{_quoted(a['forbidden_words'], 'and')}."
        ),
    ),
    "keywords:letter_frequency": _related(
        lambda r, a: f'Let the character "{a["letter"]}" appear {r} {_times(a["let_frequency"])}.', "let_relation"
    ),
    "detectable_content:number_placeholders": (
        lambda a: f"Use at least {_number(a['num_placeholders'], 'placeholder')} in square brackets, such as [name].",
        lambda a: f"Use less than {_number(a['num_placeholders'], 'placeholder')} in square brackets, such as [name].",
    ),
    "detectable_content:postscript": (
        lambda a: f"Add a postscript that begins with {a['postscript_marker']}",
        lambda a: f"Do not add a postscript that begins with {a['postscript_marker']}",
    ),
    "detectable_format:number_bullet_lists": (
        lambda a: f"Use exactly {_number(a['num_bullets'], 'bullet point')}, each a line that begins with * or -.",
        lambda a: (
            f"Do not use exactly {_number(a['num_bullets'], 'bullet point')}, that is, lines that begin with * or -."
        ),
    ),
    "detectable_format:constrained_response": (
        lambda _: f"Use one of these sentences: {' '.join(YES_NO_MAYBE)}",
        lambda _: f"Use none of these sentences: {' '.join(YES_NO_MAYBE)}",
    ),
    "detectable_format:number_highlighted_sections": (
        lambda a: f"Highlight at least {_number(a['num_highlights'], 'passage')} with asterisks, as *here*.",
        lambda a: f"Highlight less than {_number(a['num_highlights'], 'passage')} with asterisks, as *here*.",
    ),
    "detectable_format:multiple_sections": (
        lambda a: (
            f"Write at least {_number(a['num_sections'], 'section')}, headed {a['section_spliter']} 1, "
            f"{a['section_spliter']} 2 and so on."
        ),
        lambda a: (
            f"Write less than {_number(a['num_sections'], 'section')} headed {a['section_spliter']} and a number."
        ),
    ),
    "detectable_format:json_format": (
        lambda _: "Write the whole answer as valid JSON.",
        lambda _: "Do not write the whole answer as valid JSON.",
    ),
    "detectable_format:title": (
        lambda _: "Give the answer a title in double angular brackets, such as <<title>>.",
        lambda _: "Do not put a title, or anything else, in double angular brackets.",
    ),
    "combination:two_responses": (
        lambda _: "Give two different answers, divided by ******.",
        lambda _: "Do not give two different answers divided by ******.",
    ),
    "combination:repeat_prompt": (
        lambda a: f'Begin with these words: "{a["prompt_to_repeat"]}"',
        lambda a: f'Do not begin with these words: "{a["prompt_to_repeat"]}"',
    ),
    "startend:end_checker": (
        lambda a: f'End with these words, and nothing after them: "{a["end_phrase"]}"',
        lambda a: f'Do not end with these words: "{a["end_phrase"]}"',
    ),
    "startend:quotation": (
        lambda _: "Put the whole answer in double quotation marks.",
        lambda _: "Do not put the whole answer in double quotation marks.",
    ),
    "change_case:capital_word_frequency": _related(
        lambda r, a: f"Use {r} {_number(a['capital_frequency'], 'word')} in all capital letters.", "capital_relation"
    ),
    "change_case:english_capital": (
        lambda _: "Write in capital letters only.",
        lambda _: "Do not write in capital letters only.",
    ),
    "change_case:english_lowercase": (
        lambda _: "Write in small letters only.",
        lambda _: "Do not write in small letters only.",
    ),
    "punctuation:no_comma": (lambda _: "Do not use commas.", lambda _: "Use at least one comma."),
}
"""For each kind of constraint its statement and its negation."""

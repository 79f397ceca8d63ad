"""Reads plain numbers in texts: decimals, fractions, mixed numbers, separators, percent, currency.

Decimal digits of every script count as digits, as for Python. Superscripts, subscripts and ½ do not.
"""

import re
import unicodedata
from fractions import Fraction

TOLERANCE = Fraction(1, 10**6)  # rounding of an answer that is written with six decimals
LONGEST_DIGITS = 60

_CURRENCY = "$€£¥₹"
_NUMBER = re.compile(
    rf"""(?:(?<![\w)\]}}^.])(?<!\^\{{)(?P<sign>[-+])[{_CURRENCY}]?\s?|(?<![\w^./])(?<!\^\{{))
    (?: (?P<whole>\d+)[ ](?P<top>\d+)/(?P<bottom>\d+)
      | (?P<decimal>(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)
        (?:[eE](?P<exponent>[-+]?\d{{1,3}})(?!\w))?
        (?:/(?P<over>\d+(?:\.\d+)?))? )
    (?P<percent>\s?%)?""",
    re.VERBOSE,
)
_BRACED_FRACTION = re.compile(r"(\d*)\s?\\frac\s?\{\s?(-?\d+)\s?\}\s?\{\s?(\d+)\s?\}")
_SHORT_FRACTION = re.compile(r"(\d*)\s?\\frac\s?(\d)\s?(\d)")
_WORDS_IN_LATEX = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s?\{([^{}]*)\}")
_SPACE_BETWEEN_DIGITS = re.compile(r"(?<=\d)(?:\\[,;!]|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")
_REPLACED = {"−": "-", r"\dfrac": r"\frac", r"\tfrac": r"\frac", "{,}": ",", r"\%": "%", r"\$": "$", r"\!": ""}


def plain(text: str) -> str:
    """A text without LaTeX around its numbers; takes linear time."""
    for old, new in _REPLACED.items():
        text = text.replace(old, new)
    text = _SPACE_BETWEEN_DIGITS.sub("", text)
    text = _BRACED_FRACTION.sub(_as_fraction, text)
    text = _SHORT_FRACTION.sub(_as_fraction, text)
    return _WORDS_IN_LATEX.sub(r" \1 ", text)


def numbers(text: str) -> list["re.Match[str]"]:
    """All plain numbers of a text that went through `plain`, in order; none that a power or an index belongs to."""
    return [m for m in _NUMBER.finditer(text) if not _is_part_of_more(text[m.end() : m.end() + 1])]


def value(match: "re.Match[str]") -> Fraction | None:
    """What a match of `numbers` is worth, the percent sign left aside; None for no number (3/0, or far too long)."""
    groups = match.groupdict()
    if sum(map(len, filter(None, (groups["whole"], groups["top"], groups["bottom"], groups["decimal"], groups["over"])))) > LONGEST_DIGITS:  # fmt: skip
        return None
    try:
        if groups["whole"]:
            size = int(groups["whole"]) + Fraction(int(groups["top"]), int(groups["bottom"]))
        else:
            size = Fraction(groups["decimal"].replace(",", "")) / Fraction(groups["over"] or 1)
            size *= Fraction(10) ** int(groups["exponent"] or 0)
    except ZeroDivisionError:
        return None
    return -size if groups["sign"] == "-" else size


def whole_number(text: str) -> "re.Match[str] | None":
    """The number that a short text is as a whole: nothing but currency before it, units and a full stop after it.

    Of an equation the last side counts: `x = 74 cm` is 74.
    """
    side = plain(text).rsplit("=", 1)[-1].strip()
    found = numbers(side)
    if not found:
        return None
    before, after = side[: found[0].start()].strip(), side[found[0].end() :].strip(f" .°\\{_CURRENCY}")
    return found[0] if not before.strip(_CURRENCY) and all(word.isalpha() for word in after.split()) else None


def same_number(one: "re.Match[str]", other: "re.Match[str]") -> bool:
    """Whether two numbers are equal to within 1e-6; a lone percent sign may mean itself or a hundredth."""
    first, second = value(one), value(other)
    if first is None or second is None:
        return False
    pairs = [(first, second)]
    if one["percent"] and not other["percent"]:
        pairs.append((first / 100, second))
    if other["percent"] and not one["percent"]:
        pairs.append((first, second / 100))
    return any(abs(a - b) <= TOLERANCE for a, b in pairs)


def _as_fraction(match: "re.Match[str]") -> str:
    whole, top, bottom = match.groups()
    return f"{whole} {top}/{bottom}" if whole else f"{top}/{bottom}"


def _is_part_of_more(character: str) -> bool:
    return character in ("^", "_") or (character != "" and unicodedata.category(character) == "No")

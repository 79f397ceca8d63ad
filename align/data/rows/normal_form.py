"""Brings texts to the form in which all audits compare them, so that what looks the same is the same.

Characters are composed (NFC), and those that show nothing are left out: zero-width characters, byte order marks, tag
characters, fillers, variation selectors (Unicode's Default_Ignorable_Code_Point, and the blank of Braille). Case, white space
and compatibility (NFKC) are folded only where answers and prompts are held against each other for being nearly the same.
"""

import re
import unicodedata
from typing import Any

_NOTHING = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
UNSEEN = re.compile(f"[{_NOTHING}]")
SHOWS = re.compile("[!-~]")
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
HIDDEN = re.compile(
    "[\u200b\u2060-\u2065\ufeff\u3164\uffa0\u115f\u1160\u2800]|(?<![\U0001f3f4\U000e0020-\U000e007e])[\U000e0000-\U000e007f]+"
)
"""What shows nothing and is in no orthography: joiners, variation selectors and the tags of flags are not among it."""


def visible(text: str) -> str:
    """A text composed, without characters that show nothing."""
    return text if text.isascii() else UNSEEN.sub("", unicodedata.normalize("NFC", text))


def is_blank(text: str) -> bool:
    """Whether nothing of a text shows."""
    return not SHOWS.search(text) and not CONTROLS.sub("", visible(text)).strip()


def folded(text: str) -> str:
    """A visible text without differences of case, of compatibility, and of how much white space there is."""
    return " ".join(unicodedata.normalize("NFKC", visible(text)).casefold().split())


def all_visible(value: Any) -> Any:
    """A value of texts, lists and objects, each text visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: all_visible(item) for key, item in value.items()}
    return [all_visible(item) for item in value] if isinstance(value, list) else value

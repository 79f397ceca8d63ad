"""Holds templates against the places that they must have."""

from collections.abc import Sequence

JUDGED = ("prompt", "a", "b")
"""What a judge is shown."""


def wrong_places(template: str, names: Sequence[str] = JUDGED) -> list[str]:
    """What is wrong with a template: each of its places, {prompt} say, must be there exactly once."""
    return [f"template: must hold {{{name}}} exactly once" for name in names if template.count(f"{{{name}}}") != 1]

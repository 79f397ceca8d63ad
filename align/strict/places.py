"""Holds templates against the places that they must have."""

JUDGED = ("prompt", "a", "b")
"""What a judge is shown."""


def wrong_places(template: str) -> list[str]:
    """What is wrong with a judge's question: each of its places, {prompt} say, must be there exactly once."""
    return [f"template: must hold {{{name}}} exactly once" for name in JUDGED if template.count(f"{{{name}}}") != 1]

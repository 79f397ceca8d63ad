"""Writes conditions, revisions and references into prompts."""

from collections.abc import Mapping, Sequence

Prompt = str | Sequence[Mapping[str, str]]
"""Text, or messages with `role` and `content`."""

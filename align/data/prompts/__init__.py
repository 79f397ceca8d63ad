"""Writes conditions, revisions and references into prompts."""

"""Reads rows of any known layout as pairs, completions or scored answers."""

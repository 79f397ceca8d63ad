"""Reads a recipe: its sections, its defaults, and what a recipe may not say."""

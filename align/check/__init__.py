"""Checks a recipe, its data and the machine before any weight is loaded."""

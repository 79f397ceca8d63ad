"""Holds the commands of `alignkit` that only tell: recipes, methods, explanations, completion."""

"""Mutants of measuring and reporting."""

"""Mutants of losses, weighting rules and trainers."""

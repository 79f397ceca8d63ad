"""Mutants of models, their adapters and their references."""

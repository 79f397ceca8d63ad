"""Mutants of what training begins with, and of rounds of sampling, scoring and training."""

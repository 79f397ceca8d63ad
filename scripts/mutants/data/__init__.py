"""Mutants of rows, rewards and the making of pairs."""

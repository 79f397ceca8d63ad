"""Trainers that learn from pairs of answers."""

"""Holds the trainers that learn from pairs of answers."""

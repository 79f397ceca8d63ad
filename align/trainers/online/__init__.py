"""Trainers that sample their own answers and learn from rewards."""

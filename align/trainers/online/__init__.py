"""Holds the trainers that sample their own answers and learn from rewards."""

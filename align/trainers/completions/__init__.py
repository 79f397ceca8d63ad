"""Holds the trainer that learns from completions."""

"""Holds what every trainer has: metrics, guards, checkpointing, shared prompts, and what is assumed of TRL."""

"""Computes log-probabilities: each prompt once, each reference once."""

"""Estimates with intervals, and says what follows about several policies."""

"""Estimates with intervals, and what is said of several policies."""

"""Diagnoses the rows that a run has learnt from, and drops or rewrites those that are flagged."""

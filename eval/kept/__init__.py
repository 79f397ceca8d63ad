"""Reads reports that were kept: how their figures went, and logs for Inspect."""

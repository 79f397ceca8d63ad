"""Finds groups of annotators who want different things, with a reward model for each group."""

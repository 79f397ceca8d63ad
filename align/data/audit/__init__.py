"""Finds what is wrong with pairs: damaged, repeated, contradictory, too long."""

"""Draws fronts of several objectives, and of reward against divergence."""

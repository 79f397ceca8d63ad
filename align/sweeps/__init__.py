"""Trains a recipe with several settings: a grid, some drawn, or asked for one after another."""

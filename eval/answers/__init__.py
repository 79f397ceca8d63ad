"""Collects the answers that are measured: asked for, or read from files."""

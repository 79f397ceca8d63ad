"""Reads YAML and builds dataclasses from it, and refuses what does not fit."""

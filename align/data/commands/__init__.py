"""Holds the commands `alignkit data fix` and `alignkit data pairs`."""

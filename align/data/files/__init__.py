"""Checks data files before a library reads them, and finds the line that is broken."""

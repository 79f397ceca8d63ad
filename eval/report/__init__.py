"""Assembles a report, and writes it as JSON, Markdown and HTML with pictures."""

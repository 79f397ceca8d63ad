"""The trainer that learns from completions."""

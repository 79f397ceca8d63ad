"""Loads models, adapters and tokenizers from folders that are checked first."""

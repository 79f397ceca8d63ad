"""Samples answers, by transformers or by vLLM, and keeps them in files."""

"""Says which of two answers is better: rewards, preference models, language models, endpoints."""

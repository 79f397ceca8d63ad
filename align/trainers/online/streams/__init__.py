"""Holds what a stream of single answers has besides its estimator: drawn prompts and the policy's drift."""

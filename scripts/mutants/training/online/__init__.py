"""Mutants of trainers that sample single answers."""

"""Holds the trainers, the only place where models, batches and pure losses meet."""

from .pairs.preference import DPOTrainer, FDPOTrainer, PreferenceTrainer, RPOTrainer

__all__ = ["DPOTrainer", "FDPOTrainer", "PreferenceTrainer", "RPOTrainer"]

"""Mixes adapters: rewarded soups and model stock."""

"""Rewards: functions with TRL's reward signature, computed without a network."""

from .load import REWARDS, Reward, load_reward
from .sentiment import positive_sentiment

__all__ = ["REWARDS", "Reward", "load_reward", "positive_sentiment"]

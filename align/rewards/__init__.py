"""Computes rewards, callables with TRL's reward signature, without a network."""

from .calls import FewerCalls, FrozenAnswerer
from .clarity import Clarity
from .constraints import Constraints
from .correctness import Correctness
from .lengths import Conciseness, LengthBudget
from .load import REWARDS, Reward, columns_of, load_reward, make_reward
from .relevance import Relevance
from .repetition import Repetition
from .sentiment import positive_sentiment

__all__ = [
    "REWARDS",
    "Clarity",
    "Conciseness",
    "Constraints",
    "Correctness",
    "FewerCalls",
    "FrozenAnswerer",
    "LengthBudget",
    "Relevance",
    "Repetition",
    "Reward",
    "columns_of",
    "load_reward",
    "make_reward",
    "positive_sentiment",
]

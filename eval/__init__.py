"""Scoring of policies: rankings, answers, divergence, intervals and the report. Never imports a trainer."""

from .divergence import sampled_kl
from .generate import Answer, Decoding, generate
from .ranking import PairScores, ranking_estimates, rankings
from .scoring import completion_logps
from .stats import Estimate, mean_estimate, win_scores

__all__ = [
    "Answer",
    "Decoding",
    "Estimate",
    "PairScores",
    "completion_logps",
    "generate",
    "mean_estimate",
    "ranking_estimates",
    "rankings",
    "sampled_kl",
    "win_scores",
]

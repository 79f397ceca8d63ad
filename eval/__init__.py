"""Scores policies: rankings, answers, divergence, intervals and the report. Never imports a trainer."""

from align.sampling.generate import Answer, Decoding, generate

from .measures.divergence import sampled_kl
from .pairs.logps import completion_logps
from .pairs.ranking import PairScores, ranking_estimates, rankings
from .statistics.intervals import Estimate, mean_estimate, win_scores

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

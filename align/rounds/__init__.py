"""Rounds in which the policy writes its own data: prompts, answers, scores, pairs, training, report."""

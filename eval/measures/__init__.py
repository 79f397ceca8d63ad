"""Measures answers: divergence, diversity, lengths, rewards, instructions, refusals."""

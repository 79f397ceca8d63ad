"""Log-probabilities: each prompt computed once, each reference once."""

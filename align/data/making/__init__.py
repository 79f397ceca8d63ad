"""Makes pairs from scored answers and from constraints that can be checked."""

"""Makes fronts: several policies of one base that weigh the rewards differently, one adapter each."""

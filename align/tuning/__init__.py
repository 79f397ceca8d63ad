"""Says which of a model's weights move, and how fast: parts of them, rates of factors, kinds of adapters."""

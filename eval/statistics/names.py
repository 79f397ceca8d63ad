"""Names the reference, and the measures that say whose answers are better."""

REF = "ref"
"""The reference's place in `Sampled.answers`; no policy may be called so."""
REFERENCE = "reference"
"""What the reference is called among those that are judged, unless it has a name."""


def says_who_is_better(measure: str) -> bool:
    """Whether a measure of a comparison is of whose answers are better: gold rewards, and each judge's win rates."""
    return measure == "gold_reward" or measure.startswith("win_rate/")

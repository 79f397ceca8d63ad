"""Names the reference."""

REF = "ref"
"""The reference's place in `Sampled.answers`; no policy may be called so."""
REFERENCE = "reference"
"""What the reference is called among those that are judged, unless it has a name."""

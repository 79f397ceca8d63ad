"""What several studies share, and parts of studies that are no commands; the problems of `scripts/bench/quality` can be imported."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "bench" / "quality"))

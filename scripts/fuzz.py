"""Fuzz what reads the input of strangers: `python scripts/fuzz.py TARGET --minutes 10 [--engine hypothesis|atheris]`.

Targets: recipe, data, report, rewards, template (a chat template), adapter (the files of its folder). Each takes bytes and
either returns or fails; the documented errors are caught, so whatever comes out is a bug: another exception, a crash of the
process, or a broken promise (asserted in tests/helpers/fuzz_targets.py). Both engines draw structured inputs from the same grammar, `fuzz_inputs.inputs`; atheris also
mutates the saved corpus, guided by coverage.

The input that fails is saved under tests/corpus/TARGET/, where tests/commands/test_fuzz_corpus.py runs it ever after.
Atheris is no dependency: pip install atheris (Linux, Python 3.11 to 3.13).
"""

import argparse
import hashlib
import logging
import math
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

TESTS = Path(__file__).parents[1] / "tests"
CORPUS = TESTS / "corpus"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_CACHE"] = tempfile.mkdtemp(prefix="fuzz-cache-")  # read when `datasets` is imported
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"
sys.path.insert(0, str(TESTS / "helpers"))

if "atheris" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["align", "eval", "yaml", "vaderSentiment", "fuzz_targets"]):
        from fuzz_targets import SCRATCH, TARGETS
    from fuzz_inputs import inputs
else:
    from fuzz_inputs import inputs
    from fuzz_targets import SCRATCH, TARGETS

# --- engines --------------------------------------------------------------------------------------


def save(target: str, content: bytes) -> Path:
    """Keep an input in the corpus, under the name of its content."""
    path = CORPUS / target / hashlib.sha256(content).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def attempt(target: str, content: bytes) -> None:
    """Run a target; an input that fails is saved. It is kept in the scratch folder first, in case the process dies."""
    (SCRATCH / "last").write_bytes(content)
    try:
        TARGETS[target](content)
    except BaseException:
        print(f"saved: {save(target, content)}", file=sys.stderr)
        raise


def with_hypothesis(target: str, minutes: float) -> int:
    """Random structured inputs, with shrinking; the number of inputs tried."""
    tried, last = 0, b""

    class Drawn:
        def __init__(self, source: Any) -> None:
            self.source = source

        def number(self, low: int, high: int) -> int:
            return self.source.draw(st.integers(low, high))

        def text(self) -> str:
            return self.source.draw(st.text(max_size=8))

    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:

        @seed(random.SystemRandom().getrandbits(64))
        @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.data())
        def batch(source: Any) -> None:
            nonlocal tried, last
            tried += 1
            last = inputs(target, Drawn(source))
            (SCRATCH / "last").write_bytes(last)
            TARGETS[target](last)

        try:
            batch()
        except BaseException:
            print(f"saved: {save(target, last)}", file=sys.stderr)  # shrunk: hypothesis ends with the smallest
            raise
    return tried


def with_atheris(target: str, minutes: float) -> int:
    """Inputs guided by coverage: the grammar's, and mutations of the corpus. libFuzzer ends the process when it is done."""
    tried = 0

    class Provided:
        def __init__(self, content: bytes) -> None:
            self.source = atheris.FuzzedDataProvider(content)

        def number(self, low: int, high: int) -> int:
            return self.source.ConsumeIntInRange(low, high)

        def text(self) -> str:
            return self.source.ConsumeUnicode(8)

    def one(content: bytes) -> None:
        nonlocal tried
        tried += 1
        attempt(target, content[1:] if content[:1] == b"\xff" else inputs(target, Provided(content)))

    seeds = SCRATCH / "seeds"
    seeds.mkdir()
    for path in (CORPUS / target).glob("*"):
        (seeds / path.name).write_bytes(b"\xff" + path.read_bytes())
    words = [
        f"-max_total_time={math.ceil(60 * minutes)}",
        "-max_len=4096",
        "-len_control=0",
        "-rss_limit_mb=8192",
        "-timeout=60",
        f"-artifact_prefix={SCRATCH}/",
    ]
    atheris.Setup([sys.argv[0], *words, str(seeds)], one)
    atheris.Fuzz()
    return tried


def main() -> int:
    """Fuzz one target; exit code 1 if an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--engine", choices=("hypothesis", "atheris"), default="hypothesis")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    print(f"scratch: {SCRATCH} (its file `last` holds the input at work, should the process die)", file=sys.stderr)
    engine = with_atheris if options.engine == "atheris" else with_hypothesis
    tried = engine(options.target, options.minutes)
    print(f"{options.target}: {tried} inputs in {options.minutes:g} minutes, none failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())

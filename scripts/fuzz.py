"""Fuzz what reads the input of strangers: `python scripts/fuzz.py TARGET --minutes 10 [--engine hypothesis|atheris]`.

Targets: recipe, data, report, rewards. Each takes bytes and either returns or fails; the documented errors are caught, so
whatever comes out is a bug: another exception, a crash of the process, or a broken promise (asserted below). Both engines
draw structured inputs from the same grammar, `inputs`; atheris also mutates the saved corpus, guided by coverage.

The input that fails is saved under tests/corpus/TARGET/, where tests/commands/test_fuzz_corpus.py runs it ever after.
Atheris is no dependency: pip install atheris (Linux, Python 3.11 to 3.13).
"""

import argparse
import bz2
import gzip
import hashlib
import io
import json
import logging
import lzma
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
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
        from fuzz_targets import KINDS, SCRATCH, SPLIT, TARGETS
else:
    from fuzz_targets import KINDS, SCRATCH, SPLIT, TARGETS

# --- structured inputs ----------------------------------------------------------------------------

GOOD = """method: rpo
model: {model_name_or_path: tiny-random, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data:
  train: {path: ./pairs.jsonl}
train:
  output_dir: runs/x
  beta: 0.3
  use_cpu: true
  bf16: false
"""
SCRAPS = {
    "recipe": [
        "!!bool ", "!!python/name:os.system ", "&a ", "*a", "<<: ", "- ", ": ", "\n  ", "0x", "2020-99-99", "'", "[", "}", "~", "true",
        "/tmp/x", "../x", "~/x", '"\\e[2J"', '"\\uD800"', "1e400", "9" * 99, ".nan", "trust_remote_code: true", "{a: b}", "? ", "|\n",
        "%YAML 1.2", "\ufeff", "no", "wandb", "a/b:c", "package:a.b/../c", "m:f", "extends: quickstart", "!!binary ", "1:1", "=", "\t",
    ],
    "data": [
        '"prompt": ', '"chosen": ', '"rejected": ', '{"role": "user", "content": "q"}', '{"role": "assistant", "content": "a"}', "[", "]",
        "{", "}", ",", "null", '""', '"q "', '"a"', '"b"', "\n", '"\\ud800"', "NaN", "1e999", "-0", '"\\u0000"', "[" * 60, '"\x1b[2J"', "\\",
        '"question": ', '"response_j": ', '"response_k": ', '"harness"', "\ufeff", "\r", '{"prompt": "q ", "chosen": "a", "rejected": "b"}\n',
    ],
    "report": [
        "<script>", "</pre>", "]]>", "<!--", "-->", "<![CDATA[", "<?", "&lt;", "&#x3c;", '"', "'", " onload=", "javascript:", "`" * 3, "|", "\\",
        "\n", "\r", "\x1b[2J", "\x9b", "\u202e", "\0", "[a](b)", "/", "_", "\n---\n", "\u2028", "\x0c", "~~~", "# ", "yaml",
    ],
    "rewards": [
        "good ", "bad ", "not ", "WONDERFUL ", "!", "?!", ":) ", "😀", "a b c d e f ", ". ", "\n\n", "\u0301", "ﬀ", "\0", "'", "positive_sentiment",
        "os:system", "İ", "’s ", "kind of ", "but ", "…", "the best day we had in years ", "at least ", "\udc80",
    ],
}  # fmt: skip
KEYS = (
    "method", "train", "train.beta", "lora.r", "data.train", "data.eval.x", "extends", "expect.kl", "eval", "ref", "train.output_dir",
    "train.report_to", "model.attn_implementation", "train.push_to_hub", "data.train.columns", "model", "train.lr_scheduler_kwargs",
)  # fmt: skip


ROWS = b'{"prompt": "q ", "chosen": "a", "rejected": "b"}\n' * 3


def _parquet(_: bytes) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist([json.loads(row) for row in ROWS.splitlines()]), buffer)
    return buffer.getvalue()


PACK = {"jsonl.gz": gzip.compress, "jsonl.xz": lzma.compress, "jsonl.bz2": bz2.compress, "parquet": _parquet}


class Draw(Protocol):
    """Where structure comes from: both engines can do this much."""

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        ...

    def text(self) -> str:
        """Any short text."""
        ...


def inputs(target: str, draw: Draw) -> bytes:
    """One input of a target, from its grammar."""

    def pick(options: Sequence[Any]) -> Any:
        return options[draw.number(0, len(options) - 1)]

    def noise(most: int) -> str:
        scraps = SCRAPS[target]
        return "".join(pick(scraps) if draw.number(0, 3) else draw.text() for _ in range(draw.number(0, most)))

    def encoded(text: str) -> bytes:
        if target not in ("report", "rewards"):
            return text.encode("utf-8", "replace")
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            return text.encode("utf-8", "surrogatepass")

    if target == "recipe":
        at = draw.number(0, len(GOOD))
        text = GOOD[:at] + noise(4) + GOOD[at + draw.number(0, 9) :]
        overrides = [f"{pick(KEYS)}={noise(3)}" for _ in range(draw.number(0, 2))]
        return SPLIT.join(map(encoded, (text, *overrides)))
    if target == "data":
        kind = pick(KINDS)
        content = encoded(
            "".join(f"{{{noise(6)}}}\n" if draw.number(0, 1) else noise(6) for _ in range(draw.number(0, 4)))
        )
        if kind in PACK and draw.number(0, 3):
            content = PACK[kind](ROWS + content)
            for _ in range(draw.number(0, 3)):
                at = draw.number(0, len(content) - 1)
                content = content[:at] + bytes([draw.number(0, 255)]) + content[at + draw.number(0, 2) :]
        return encoded(kind) + SPLIT + content
    return SPLIT.join(encoded(noise(8)) for _ in range(4))


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

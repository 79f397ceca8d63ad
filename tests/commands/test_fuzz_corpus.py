"""Inputs that once failed, and one of each kind that did not, through the targets of scripts/fuzz.py."""

from pathlib import Path

import fuzz_targets
import pytest
from fuzz_targets import TARGETS

CORPUS = Path(__file__).parents[1] / "corpus"
SAVED = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", SAVED, ids=lambda p: f"{p.parent.name}-{p.name}")
def test_a_saved_input_keeps_its_promises(path, tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz_targets, "SCRATCH", tmp_path)
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_inputs_and_they_stay_small():
    assert {path.parent.name for path in SAVED} == set(TARGETS)
    assert sum(path.stat().st_size for path in SAVED) < 100_000

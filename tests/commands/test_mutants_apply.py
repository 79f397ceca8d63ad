"""The list of mutants follows the code: what `scripts/mutate.py` breaks is there, and so are the tests that notice."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_mutant_applies_once_and_names_tests_that_exist(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    try:
        from mutants import MUTANTS  # noqa: PLC0415 - a folder of scripts, no package of the project
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "mutants"]:
            del sys.modules[name]
    texts = {
        file: path.read_text(encoding="utf-8") for file in {m.file for m in MUTANTS} if (path := ROOT / file).is_file()
    }
    stale = [m.name for m in MUTANTS if texts.get(m.file, "").count(m.old) != 1]
    untested = [m.name for m in MUTANTS if not all((ROOT / test.partition("::")[0]).exists() for test in m.tests)]
    assert len(MUTANTS) > 1000
    assert (stale, untested) == ([], [])

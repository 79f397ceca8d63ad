"""Every mutant still breaks one line of a file that is there, and names tests that are there."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def mutants():
    sys.path.insert(0, str(ROOT / "scripts"))
    from mutants import MUTANTS  # noqa: PLC0415

    yield MUTANTS
    sys.path.remove(str(ROOT / "scripts"))


def what_is_wrong(mutant, root=ROOT):
    """One sentence, or None if the mutant applies."""
    path = root / mutant.file
    if not path.is_file():
        return f"{mutant.name}: no file {mutant.file}"
    found = path.read_text(encoding="utf-8").count(mutant.old)
    if found != 1:
        return f"{mutant.name}: {mutant.old[:60]!r} occurs {found} times in {mutant.file}, not once"
    missing = [test for test in mutant.tests if not (root / test.partition("::")[0]).is_file()]
    return f"{mutant.name}: no test {missing[0]}" if missing else None


def test_every_mutant_applies(mutants):
    assert len(mutants) > 1000
    assert [said for mutant in mutants if (said := what_is_wrong(mutant))] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"file": "align/gone.py"}, "no file align/gone.py"),
        ({"old": "no such text"}, "occurs 0 times"),
        ({"tests": ("tests/test_gone.py",)}, "no test tests/test_gone.py"),
    ],
)
def test_one_that_does_not_apply_is_named(mutants, change, said):
    assert said in what_is_wrong(mutants[0]._replace(**change))

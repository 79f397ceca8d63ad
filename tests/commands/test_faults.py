"""The table of faults names tests that there are, for each of its rows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| ([A-G]\d+) \| (.+) \| (.+) \|")


def rows(text):
    return [found.groups() for line in text.splitlines() if (found := ROW.fullmatch(line))]


def missing(tests):
    """Those of a cell that are not in the repository."""
    return [
        node
        for node in re.findall("`([^`]+)`", tests)
        if not (path := ROOT / node.partition("::")[0]).is_file()
        or ("::" in node and f"def {node.partition('::')[2]}(" not in path.read_text(encoding="utf-8"))
    ]


def test_every_fault_has_tests_that_there_are():
    table = rows((ROOT / "tests" / "faults.md").read_text(encoding="utf-8"))
    assert len(table) == len({number for number, *_ in table}) > 50
    assert {number[0] for number, *_ in table} == set("ABCDEG")
    assert not {number: gone for number, _, tests in table if (gone := missing(tests))}
    assert not [number for number, _, tests in table if "`" not in tests and not tests.startswith("none: ")]


def test_a_test_that_is_gone_is_told():
    assert missing("`tests/commands/test_faults.py::test_gone`, `tests/gone.py`") == [
        "tests/commands/test_faults.py::test_gone", "tests/gone.py",
    ]  # fmt: skip

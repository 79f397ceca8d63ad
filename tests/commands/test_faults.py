"""The table of faults names tests that there are, for each of its rows."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| ([A-G]\d+) \| (.+) \| (.+) \| (fails|holds|not tried) \|")


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


def table():
    return (ROOT / "tests" / "faults.md").read_text(encoding="utf-8")


def test_every_fault_has_tests_that_there_are():
    found = rows(table())
    assert len(found) == len({number for number, *_ in found}) == table().count("\n| ") - table().count("| row |")
    assert {number[0] for number, *_ in found} == set("ABCDEG")
    assert not {number: gone for number, _, tests, _ in found if (gone := missing(tests))}
    assert not [number for number, _, tests, _ in found if "`" not in tests]


def test_what_did_not_fail_where_the_faults_were_found_says_why():
    found = rows(table())
    others = [number for number, *_, then in found if then != "fails"]
    assert others == re.findall(r"^- ([A-G]\d+): \S", table(), re.MULTILINE)
    assert len(found) - len(others) >= 50


def test_a_test_that_is_gone_is_told():
    assert missing("`tests/commands/test_faults.py::test_gone`, `tests/gone.py`") == [
        "tests/commands/test_faults.py::test_gone", "tests/gone.py",
    ]  # fmt: skip

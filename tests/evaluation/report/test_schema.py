"""report.json and its schema; `tests/evaluation/conftest.py` holds every report of the tests against it."""

import json
import math

import pytest

from eval.pairs.calibration import BesideCalibrated
from eval.report.results import BestRound, Report
from eval.report.schema import FILE, as_text, main, problems, schema
from eval.report.write import to_json
from eval.statistics.comparisons import Comparison
from eval.statistics.intervals import Estimate
from eval.verdicts import Judged

E = Estimate(0.5, -math.inf, 1.0, 9)


@pytest.fixture
def report():
    return Report(
        "a", estimates={"kl": E}, comparisons={"gold_reward": [Comparison("a", "b", E, 0.5, 0.1)]}, settings={"x": [1]},
        judged={"j": Judged("reward", ["a", "reference"], longer_wins={"a": E}, preferences=[[0.5]])},
        best_of_k={"j: a": {1: E}}, calibration={"test": {"a": BesideCalibrated(0.1, 0.2, 0.3, 0.4)}},
        checkpoints=["step-1"], best_round={"gold_reward": BestRound("step-1", None, 2, 3, 3, 0.5)},
        left_out={"test": "1 of 2"}, details={"any": [{"thing": None}]},
    )  # fmt: skip


def test_the_committed_schema_is_that_of_the_code():
    assert FILE.read_text(encoding="utf-8") == as_text(), (
        "python -m eval.report.schema > eval/report/report.schema.json"
    )


def test_a_report_with_everything_fits(report):
    read = json.loads(to_json(report))
    assert problems(read) == []
    assert {"schema_version", "date", "versions", "name", "verdict", "estimates", "settings"} == set(
        schema()["required"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda read: read.pop("verdict"), "report: no verdict"),
        (lambda read: read["estimates"]["kl"].pop("n"), "report/estimates/kl: no n"),
        (lambda read: read["estimates"]["kl"].update(low="low"), "report/estimates/kl/low: 'low' is no number"),
        (lambda read: read.update(more=1), "report: more is not in the schema"),
        (lambda read: read.update(schema_version=2), "report/schema_version: 2 is none of [1]"),
        (lambda read: read["comparisons"].update(gold_reward={}), "report/comparisons/gold_reward: {} is no array"),
        (lambda read: read["judges"]["j"].update(kind=None), "report/judges/j/kind: None is no string"),
    ],
)
def test_what_does_not_fit_is_found(report, change, message):
    read = json.loads(to_json(report))
    change(read)
    assert message in problems(read)


def test_the_module_checks_a_file(report, tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_text(to_json(report))
    assert main([str(path)]) == 0
    path.write_text("{}")
    assert main([str(path)]) == 1
    assert "report: no verdict" in capsys.readouterr().out
    path.write_text("{")
    for name, why in ((path, "is no JSON"), (tmp_path / "none", "No such file")):
        assert main([str(name)]) == 2
        assert f"{name}: {why}" in capsys.readouterr().err
    assert main([]) == 0
    assert capsys.readouterr().out == as_text()

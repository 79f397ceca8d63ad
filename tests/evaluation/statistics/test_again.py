"""A study that was run again is held against the committed one."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def again():
    sys.path.insert(0, str(ROOT / "scripts" / "studies"))
    import again as script  # noqa: PLC0415 - a script

    yield script
    sys.path.remove(str(ROOT / "scripts" / "studies"))


def result(values):
    return {
        "methods": {
            f"m{k}": {"gold": {"value": v, "low": v - 0.1, "high": v + 0.1, "n": 3}} for k, v in enumerate(values)
        }
    }


@pytest.fixture
def run(again, tmp_path, capsys):
    def run(committed, now):
        for name, told in (("old", committed), ("new", now)):
            (tmp_path / f"{name}.json").write_text(json.dumps(told))
        code = again.main([str(tmp_path / "old.json"), str(tmp_path / "new.json")])
        return code, capsys.readouterr().out

    return run


def test_the_same_figures_are_as_committed(run):
    assert run(result([0.5] * 20), result([0.5] * 20)) == (
        0,
        "0 of 20 figures differ by more than chance: as committed\n",
    )


@pytest.mark.parametrize(("off", "code"), [(1, 0), (2, 0), (3, 1)])
def test_a_tenth_may_differ(run, off, code):
    values = [0.5] * 20
    told = run(result(values), result([0.65] * off + values[off:]))
    assert told[0] == code
    assert told[1].count("methods / m") == off
    assert "chance explains 0.141" in told[1]


def test_both_intervals_count(run):
    assert run(result([0.5]), result([0.64]))[0] == 0  # within the root of 0.1² + 0.1²
    assert run(result([0.5]), result([0.65]))[0] == 1


def test_a_figure_of_one_alone_is_no_agreement(run):
    for one, other in ((2, 3), (3, 2)):
        code, said = run(result([0.5] * one), result([0.5] * other))
        assert code == 1
        assert "methods / m2 / gold: in one of the two alone" in said


def test_ends_that_are_not_known_are_no_figures(run):
    told = result([0.5, 0.5])
    told["methods"]["m0"]["gold"]["high"] = None
    assert "0 of 1 figures" in run(told, told)[1]


def test_a_file_without_figures_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run({"a": 1}, {"a": 1})
    assert "has no value with an interval" in capsys.readouterr().err


def test_independent_runs_differ_as_often_as_is_said(again):
    """Of means of normal values, the difference leaves the joint interval in about 5% of cases."""
    rng = np.random.default_rng(0)
    means, halves = [], []
    for _ in range(2):
        drawn = rng.normal(size=(4000, 50))
        means.append(drawn.mean(axis=1))
        halves.append(1.96 * drawn.std(axis=1, ddof=1) / np.sqrt(50))
    agree = [again.Found("", *pair).agrees for pair in zip(*means, np.hypot(*halves), strict=True)]
    assert 0.93 < np.mean(agree) < 0.96


@pytest.mark.parametrize("name", ["fronts", "rounds_against_one", "sentiment_frontier"])
def test_committed_studies_have_figures(again, name):
    told = json.loads((ROOT / "scripts" / "bench" / "results" / f"{name}.json").read_text())
    found, lacking = again.held(told, told)
    assert len(found) > 20
    assert not lacking
    assert all(one.agrees for one in found)


def test_rounding_is_what_other_instruction_sets_and_threads_give(tmp_path, monkeypatch):
    """scripts/rounding.py: a process for each way, none where its report is there."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    rounding = importlib.import_module("rounding")
    begun = []

    def run(command, env, check):
        assert check
        begun.append(command[2])
        if command[2] == "eval":
            wide, threads = "ATEN_CPU_CAPABILITY" not in env, int(env["OMP_NUM_THREADS"])
            estimates = {"tiny/calibration/nll": {"value": 0.5 + wide / 10 + threads / 100}}
            Path(command[3]).mkdir(parents=True)
            (Path(command[3]) / "report.json").write_text(json.dumps({"estimates": estimates}))

    monkeypatch.setattr(rounding.subprocess, "run", run)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    words = ["dpo/tiny", str(tmp_path / "out"), "-o", str(tmp_path)]
    rounding.main(words)
    assert begun == ["align.train", "eval"] * 4
    rounding.main(words)
    assert len(begun) == 8
    ways = json.loads((tmp_path / "rounding.json").read_text())["ways"]
    assert [one["tiny/calibration/nll"] for one in ways.values()] == [0.61, 0.62, 0.51, 0.52]

"""Reports are kept, one for each setting, and `alignkit history` shows how their figures went."""

import csv
import json
from pathlib import Path

import pytest
from judged import PNG, made

from align import cli
from eval.kept.history import kept_figures, picture
from eval.report.write import to_json, write_report

PICTURES = True  # what is drawn is looked at


@pytest.fixture
def run(tmp_path):
    """A folder with the reports of two checkpoints."""
    for step in (10, 20):
        report = made("run", about={"policies": {"run": {"step": step}}})
        report.estimates["kl"] = report.estimates["kl"]._replace(value=step / 10)
        write_report(report, {}, tmp_path / "run")
    return tmp_path / "run"


def test_no_report_takes_the_place_of_one_of_other_settings(run):
    kept = [path for path in (run / "reports").iterdir() if not path.is_symlink()]
    assert len(kept) == 2
    for path in kept:
        assert {"report.json", "report.md", "report.html", "responses.jsonl", "scores.jsonl"} == {
            p.name for p in path.iterdir()
        }
    newest = (run / "reports" / "newest").resolve()
    assert json.loads((newest / "report.json").read_text())["estimates"]["kl"]["value"] == 2.0
    assert (run / "report.json").read_text() == (newest / "report.json").read_text()
    write_report(made("run", about={"policies": {"run": {"step": 20}}}), {}, run)
    assert len(list((run / "reports").iterdir())) == 3


def test_history_is_a_table_a_csv_file_and_a_picture(run, tmp_path, capsys):
    assert cli.main(["history", str(run), "--measure", "kl", "-o", str(tmp_path / "kl.csv")]) == 0
    assert "[1.500, 2.500]" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "kl.csv").open()))
    assert {(row["run"], row["step"], row["value"], row["low"]) for row in rows} == {
        ("run", "10", "1.0", "1.5"), ("run", "20", "2.0", "1.5"),
    }  # fmt: skip
    assert (tmp_path / "kl.png").read_bytes().startswith(PNG)


def test_runs_have_their_names_also_from_within_and_their_paths_where_names_are_equal(run, capsys, monkeypatch):
    monkeypatch.chdir(run)
    assert {row.run for row in kept_figures(Path())} == {"run"}
    write_report(made("run"), {}, Path("again") / "run")
    assert cli.main(["history", ".", "again/run", "--measure", "kl"]) == 0
    told = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if "| kl " in line]
    assert sorted(told) == [".", ".", "again/run"]


def test_without_a_measure_those_there_are_are_shown(run):
    assert {row.measure for row in kept_figures(run)} == {"gold_reward/difference", "kl", "length_tokens/difference"}


def test_steps_are_the_axis_where_all_are_known(run, monkeypatch):
    drawn = []
    monkeypatch.setattr("eval.kept.history.png", lambda figure: drawn.append(figure) or b"")
    rows = kept_figures(run, ["kl"])
    picture(rows)
    picture([row._replace(step=None) for row in rows])
    assert drawn[0].axes[0].containers[0].lines[0].get_xdata().tolist() == [10, 20]
    assert [figure.axes[0].get_xlabel()[:4] for figure in drawn] == ["step", "eval"]


@pytest.mark.parametrize("steps", [(10, 20), (7, 7)])
def test_no_run_covers_another(run, monkeypatch, steps):
    """Also of one report each, at the same step."""
    drawn = []
    monkeypatch.setattr("eval.kept.history.png", lambda figure: drawn.append(figure) or b"")
    rows = [row._replace(step=step) for row, step in zip(kept_figures(run, ["kl"]), steps, strict=True)]
    one = rows if len(set(steps)) > 1 else rows[:1]
    picture([row._replace(run=name) for name in ("a", "b") for row in one])
    a, b = (box.lines[0].get_xdata() for box in drawn[0].axes[0].containers)
    gap = 10 if len(one) > 1 else 1
    assert b - a == pytest.approx([0.2 * gap] * len(one))
    assert (a + b) / 2 == pytest.approx([row.step for row in one])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere: no such folder; name a run that was evaluated"),
        (["RUN", "--measure", "no/such"], "no report has no/such"),
        (["RUN", "-o", "x.txt"], "must be named FILE.csv"),
        (["BROKEN"], "holds no report"),
        (["OTHER"], "is of schema 99, not 1; evaluate again"),
    ],
)
def test_what_cannot_be_shown_is_said(run, tmp_path, capsys, words, said):
    other = json.loads(to_json(made())) | {"schema_version": 99}
    for name, text in (("BROKEN", "[1]"), ("OTHER", json.dumps(other))):
        (tmp_path / name / "reports" / "a").mkdir(parents=True)
        (tmp_path / name / "reports" / "a" / "report.json").write_text(text)
    places = {"RUN": run, "BROKEN": tmp_path / "BROKEN", "OTHER": tmp_path / "OTHER"}
    assert cli.main(["history", *(str(places.get(word, word)) for word in words)]) == 2
    assert said in capsys.readouterr().err

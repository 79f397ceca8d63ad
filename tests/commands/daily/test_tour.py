"""The notebook of scripts/: valid, without outputs, and its cells do in order what they say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import smollm2

ROOT = Path(__file__).parents[3]
TOUR = ROOT / "scripts" / "tour.ipynb"
OF_A_MACHINE = re.compile(r"(?<![\w.])(?:/(?:home|root|tmp|work|mnt|Users)\b|[A-Z]:\\\\)")
PROGRAM = "import sys; space = {'__name__': '__main__'}\nfor cell in sys.stdin.read().split('\\0'): exec(cell, space)"


def cells(kind="code"):
    return ["".join(cell["source"]) for cell in read()["cells"] if cell["cell_type"] == kind]


def read():
    return json.loads(TOUR.read_text(encoding="utf-8"))


def test_it_is_a_notebook_as_it_was_before_anybody_ran_it():
    tour = read()
    assert (tour["nbformat"], tour["metadata"]["kernelspec"]["language"]) == (4, "python")
    assert len({cell["id"] for cell in tour["cells"]}) == len(tour["cells"])
    for cell in tour["cells"]:
        assert set(cell) - {"outputs", "execution_count"} == {"cell_type", "id", "metadata", "source"}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert not OF_A_MACHINE.search(TOUR.read_text(encoding="utf-8"))
    for number, cell in enumerate(cells()):
        compile(cell, f"cell {number}", "exec")


def test_a_path_of_a_machine_would_be_found():
    assert OF_A_MACHINE.search("in /home/me/runs")
    assert OF_A_MACHINE.search('"C:\\\\Users')
    assert not OF_A_MACHINE.search("recipes/tmp and ./home")


@pytest.mark.slow
@smollm2.needed
def test_its_cells_go_from_rows_to_a_report(tmp_path):
    cache = os.environ.get("ALIGNKIT_CACHE", str(ROOT / ".cache"))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="\0".join(cells()), capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "ALIGNKIT_CACHE": cache, "OMP_WAIT_POLICY": "PASSIVE"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs" / "tour"
    said = done.stdout
    assert "step 1: loss" in said
    margins = [float(found) for found in re.findall(r"margin ([-+]\d\.\d+) nats", said)]
    assert len(margins) == 5
    assert margins[0] == 0 < margins[-1]
    report = json.loads((run / "report.json").read_text())
    assert report
    assert "SmolLM2" in (run / "report.html").read_text()
    assert said.rstrip().endswith(f"the page: {Path('runs/tour/report.html')}")

"""What is shipped: the wheel holds the two packages and the recipes, nothing else."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [item for name, items in project["optional-dependencies"].items() if name != "vllm" for item in items]
    names = {
        item.split("[")[0].split(">")[0].split("=")[0].strip().lower().replace("_", "-")
        for item in project["dependencies"] + extras
    }
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    }
    assert names - pinned == {"alignkit"}


@pytest.mark.slow
def test_the_wheel(tmp_path):
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"align", "eval"}
    shipped = {name.removeprefix("align/_recipes/") for name in names if name.startswith("align/_recipes/")}
    assert {"quickstart.yaml", "rpo/tiny.yaml", "data/tiny.jsonl", "accelerate/fsdp2.yaml"} <= shipped

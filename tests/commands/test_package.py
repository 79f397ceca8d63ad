"""What is shipped: the wheel holds the two packages and the recipes, nothing else."""

import ast
import importlib
import importlib.util
import os
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
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


def built(folder, kind):
    """The archive of the project, made by its own backend from a copy without what git ignores."""
    backend = folder / "backend"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", backend, "hatchling"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(backend)}
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", folder / kind]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    (archive,) = (folder / kind).iterdir()
    return archive


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_an_installed_archive_works_outside_a_checkout(tmp_path, kind):
    """Version, recipes, check, training and evaluation, from a folder that holds nothing of the project."""
    site, away = tmp_path / "site", tmp_path / "away"
    away.mkdir()
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site]
    subprocess.run([*install, built(tmp_path, kind)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1"}

    def said(*words):
        done = subprocess.run([*words], cwd=away, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    alignkit = [sys.executable, "-m", "align"]
    assert str(site) in said(sys.executable, "-c", "import align, eval; print(align.__file__, eval.__file__)")
    assert version("alignkit") in said(*alignkit, "--version")
    assert "dpo/tiny" in said(*alignkit, "recipes")
    assert "ready" in said(*alignkit, "check", "dpo/tiny")
    said(*alignkit, "train", "dpo/tiny", "train.output_dir=run", "train.max_steps=1")
    said(*alignkit, "eval", "run")
    assert (away / "run" / "report.html").is_file()


def test_what_scripts_import_of_ours_is_there():
    lost = []
    for script in sorted((ROOT / "scripts").rglob("*.py")):
        for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            if module.partition(".")[0] in ("align", "eval"):
                there = importlib.import_module(module)
                lost += [
                    f"{script.relative_to(ROOT)}: {module}.{name.name}"
                    for name in node.names
                    if not hasattr(there, name.name) and importlib.util.find_spec(f"{module}.{name.name}") is None
                ]
    assert lost == []

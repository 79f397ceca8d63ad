"""A file of prompts, and commands on files in a folder of the test's own."""

import importlib

import pytest
from stored_world import write_lines

PROMPTS = [
    {"prompt": "what is two plus two", "answer": "4"},
    {"prompt": "name a colour", "answer": "5"},
    {"prompt": [{"role": "user", "content": "count to three"}], "answer": "3"},
]


@pytest.fixture
def prompts(tmp_path):
    return write_lines(tmp_path / "prompts.jsonl", PROMPTS[:2])


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A run of two rounds, which nobody changes."""
    folder = tmp_path_factory.mktemp("rounds") / "run"
    importlib.import_module("align.train").run("rounds/tiny", [f"train.output_dir={folder}"])
    return folder

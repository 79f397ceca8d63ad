"""A file of prompts, and commands on files in a folder of the test's own."""

import pytest
from stored_world import write_lines

from align.train import run

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
    folder = tmp_path_factory.mktemp("rounds") / "run"
    run("rounds/tiny", [f"train.output_dir={folder}"])
    return folder

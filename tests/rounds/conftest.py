"""A file of prompts, and commands on files in a folder of the test's own."""

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

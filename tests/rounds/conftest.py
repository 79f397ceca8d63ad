"""A file of prompts, and commands on files in a folder of the test's own."""

import json

import pytest

PROMPTS = [
    {"prompt": "what is two plus two", "answer": "4"},
    {"prompt": "name a colour", "answer": "5"},
    {"prompt": [{"role": "user", "content": "count to three"}], "answer": "3"},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def prompts(tmp_path):
    return write(tmp_path / "prompts.jsonl", PROMPTS[:2])

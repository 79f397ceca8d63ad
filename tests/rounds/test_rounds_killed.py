"""Rounds that are killed at random in all of their stages end with the same files, and ask for nothing that they have."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from endpoint_server import Server, says
from launching import ENV, WORKERS

KILLS = int(os.environ.get("ALIGNKIT_KILLS", "40"))
CONCURRENCY, BATCH = 2, 3
WORDS = ["rounds.count=3", "rounds.prompts={each: 2}", "train.learning_rate=0.01", "train.disable_tqdm=true"]
NAMES = ("round-*/*.jsonl", "round-*/answers/*.jsonl", "round-*/report.json", "**/adapter/*.safetensors", "report.md")


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for name in NAMES for path in folder.glob(name)}


def verdict(text, _):
    return says("AB"[hashlib.sha256(text.encode()).digest()[0] % 2])


def rounds(folder, kills, server):
    score = f"{{kind: endpoint, url: '{server.url}', model: m, concurrency: {CONCURRENCY}}}"
    words = [*WORDS, f"rounds.score={score}", f"rounds.sample.batch_size={BATCH}"]
    host = server.url.removeprefix("http://").removesuffix("/v1")
    done = subprocess.run(
        [sys.executable, str(WORKERS / "rounds_worker.py"), str(folder), str(kills), "7", host, *words],
        env=ENV, capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_killed_in_all_stages_the_files_are_the_same_and_nothing_is_asked_twice(tmp_path):
    with Server(verdict) as server:
        rounds(tmp_path / "whole", 0, server)
        once = Counter(server.texts())
        server.requests.clear()
        said = rounds(tmp_path / "killed", KILLS, server)
        asked = Counter(server.texts())
    assert sum(said["kills"].values()) >= KILLS
    assert len(said["kills"]) >= min(KILLS, 6), said
    expected = files(tmp_path / "whole" / "0")
    assert len(expected) == 3 * 6 + 2
    for run in ((tmp_path / "killed" / str(number)) for number in range(said["runs"])):
        found = files(run)
        assert found.keys() == expected.keys()
        assert not [name for name, content in expected.items() if found[name] != content]
        for kept in run.glob("round-*/answers/kept/*.jsonl"):
            rows = [json.loads(line) for line in kept.read_text().splitlines()[1:]]
            assert len(rows) == len({(row["prompt_sha256"], row["sample"]) for row in rows}) == 6
        for ledger in run.glob("round-*/scores-judges/*.jsonl"):
            keys = [json.loads(line)["key"] for line in ledger.read_text().splitlines() if line.endswith("}")]
            assert len(keys) == len(set(keys))
        assert not list(run.rglob(".alignkit-*"))
        assert not list(run.rglob(".writing-*"))
    assert asked.keys() == once.keys()
    lost = sum(asked.values()) - said["runs"] * sum(once.values())  # on their way when a kill came
    assert 0 <= lost <= CONCURRENCY * KILLS

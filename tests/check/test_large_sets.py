"""Of a large set `alignkit check` cuts some pairs into tokens, and says which it left out."""

import json

import numpy as np
import pytest
from recipes_under_test import GOOD

from align import cli
from align.commands import check
from align.data.audit.duplicates import among
from align.recipe.loading import load_recipe


def test_of_a_large_set_some_pairs_are_cut_into_tokens_and_all_if_asked(tmp_path, monkeypatch, capsys):
    rows = [{"prompt": f"question {n} ", "chosen": f"yes, {n}", "rejected": "no"} for n in range(1, 23)]
    for number in (2, 22):  # of 1, 4, ..., 22 one
        rows[number - 1]["prompt"] = f"{number} " + "x" * 60
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "r.yaml").write_text(GOOD + "  max_length: 60\n  report_to: none\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check, "SAMPLED", 8)

    def said(*words):
        assert cli.main(["check", "r.yaml", *words]) == 0
        return capsys.readouterr().out

    some, every = said(), said("--full")
    assert "8 of 22 pairs, evenly spaced, were cut into tokens; what the others hold is not known" in some
    assert "prompt-fills-max-length: 1 of 8 pairs (row 22)" in some
    assert "prompt-fills-max-length: 2 of 22 pairs (rows 2, 22)" in every
    assert "evenly spaced" not in every


@pytest.mark.parametrize("writable", [True, False])
def test_rows_are_in_mapped_files_that_nothing_keeps(tmp_path, monkeypatch, writable):
    cache = tmp_path / "cache"
    if not writable:
        cache.write_text("no folder")
    monkeypatch.setenv("ALIGNKIT_CACHE", str(cache))
    sets, _ = check.numbered_sets(load_recipe("dpo/tiny"))
    assert all(bool(rows.cache_files) == writable for rows in sets.values())
    assert not list(tmp_path.glob("cache/.rows-*"))
    assert [len(rows["prompt"][:]) for rows in sets.values()] == [10, 10]
    numbers = check.numbering(sets["data.train"])
    assert memoryview(numbers).nbytes == 80
    assert list(numbers) == list(range(1, 11))


@pytest.mark.parametrize("sizes", [(50, 30), (30, 50), (0, 5), (5, 0)])
def test_values_among_others(sizes):
    draw = np.random.default_rng(0)
    values, known = (draw.integers(0, 40, size=size, dtype=np.uint64) for size in sizes)
    assert among(values, known).tolist() == np.isin(values, known).tolist()

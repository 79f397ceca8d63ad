"""Of a large set `alignkit check` cuts some pairs into tokens, and says which it left out."""

import json

from recipes_under_test import GOOD

from align import cli
from align.commands import check


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

"""How much is held out: told, and exact where it is asked for."""

import json

import pytest

from align.data import DataConfig, DataError, DataSource, load_preferences

TEXT = {"prompt": "q ", "chosen": "a", "rejected": "b"}


def test_how_much_is_held_out_is_told_and_may_be_an_exact_number_of_prompts(tmp_path, caplog):
    rows = [TEXT | {"prompt": f"q{i // 2} ", "chosen": f"a{i}"} for i in range(60)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    held_out = load_preferences(DataConfig(DataSource(str(path)), holdout=0.3)).eval["holdout"]
    assert f"data.holdout: {len(held_out)} of 60 rows" in caplog.text
    assert "data.holdout=9 holds out exactly so many prompts" in caplog.text
    for count in (1, 9, 29):
        held_out = load_preferences(DataConfig(DataSource(str(path)), holdout=count)).eval["holdout"]
        assert (len(held_out), len(set(held_out["prompt"]))) == (2 * count, count)
    with pytest.raises(DataError, match="fewer than the 30 different prompts"):
        load_preferences(DataConfig(DataSource(str(path)), holdout=30))

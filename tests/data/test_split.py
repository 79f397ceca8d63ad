"""Who is held out: by prompt, as many as are asked for, and told."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.split import prompt_position

TEXT = {"prompt": "q ", "chosen": "a", "rejected": "b"}


def held(tmp_path, rows, share=0.4):
    path = tmp_path / f"{abs(hash(str(rows)))}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load_preferences(DataConfig(train=DataSource(str(path)), holdout=share))
    return {row["prompt"] for row in data.train}, {row["prompt"] for row in data.eval["holdout"]}


@given(st.lists(st.text(max_size=6), max_size=30), st.floats(0, 0.7))
def test_a_larger_share_holds_out_the_same_prompts_and_more(prompts, share):
    less, more = ({p for p in prompts if prompt_position(p) < s} for s in (share, share + 0.2))
    assert less <= more
    assert all(0 <= prompt_position(p) < 1 for p in prompts)


def test_the_holdout_is_about_as_large_as_asked_for():
    held_out = sum(prompt_position(f"prompt {i}") < 0.2 for i in range(4000))
    assert held_out == pytest.approx(800, abs=5 * math.sqrt(4000 * 0.2 * 0.8))  # five standard deviations


def test_the_holdout_depends_on_the_prompt_alone(tmp_path):
    rows = [TEXT | {"prompt": f"q{i % 20}", "chosen": f"a{i}"} for i in range(40)]
    train, holdout = held(tmp_path, rows)
    assert not train & holdout
    assert train | holdout == {f"q{i}" for i in range(20)}
    assert held(tmp_path, rows[::-1]) == (train, holdout)
    assert held(tmp_path, rows[:30]) == (train, holdout)
    with pytest.raises(DataError, match="leaves one side empty"):
        held(tmp_path, rows[:1])

"""The garbage collector is paused while rows are read, and goes on whatever comes of them."""

import gc
import json

import pytest
from datasets import Dataset

from align.data import DataConfig, DataError, DataSource, load_data, loading
from align.data.pause import collector_paused
from align.data.row_tokens import PairTokens
from align.models.tiny import tiny_tokenizer

PAIR = {"prompt": "p", "chosen": "c", "rejected": "r"}


def test_it_is_as_it_was_afterwards():
    for collects in (True, False):
        (gc.enable if collects else gc.disable)()
        try:
            with collector_paused():
                assert not gc.isenabled()
            assert gc.isenabled() == collects
            with pytest.raises(KeyError), collector_paused():
                raise KeyError
            assert gc.isenabled() == collects
        finally:
            gc.enable()


def test_it_is_paused_where_rows_are_read_and_tokenized(tmp_path, monkeypatch):
    seen = []

    def noting(function):
        return lambda *args, **more: seen.append(gc.isenabled()) or function(*args, **more)

    monkeypatch.setattr(loading, "normalise", noting(loading.normalise))
    monkeypatch.setattr(PairTokens, "encode", noting(PairTokens.encode))
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(PAIR) + "\n")
    load_data(DataConfig(train=DataSource(str(rows))))
    PairTokens(tiny_tokenizer(), None, "train").at_once(Dataset.from_list([PAIR]))
    assert seen == [False, False]
    rows.write_text(json.dumps(PAIR | {"rejected": "c"}) + "\n")
    with pytest.raises(DataError):
        load_data(DataConfig(train=DataSource(str(rows))))
    assert gc.isenabled()

"""From sources to sets: what is told of rows names them as their file numbers them."""

import json

import pytest

from align.data import DataConfig, DataError, DataSource, load_preferences

ROW = {"prompt": "q ", "chosen": "a", "rejected": "b"}
OTHER = {"prompt": "r ", "chosen": "a", "rejected": "b"}
SWAPPED = ROW | {"chosen": "b", "rejected": "a"}
UNUSABLE = ROW | {"chosen": " "}


def source(folder, *rows, name="pairs.jsonl"):
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return DataSource(str(folder / name))


def test_contradictory_pairs_are_refused_by_their_rows(tmp_path):
    train = source(tmp_path, OTHER, UNUSABLE, ROW, SWAPPED)
    with pytest.raises(DataError, match=r"row 2: chosen is empty"):
        load_preferences(DataConfig(train=train))
    train = source(tmp_path, OTHER, OTHER | {"prompt": "s "}, ROW, SWAPPED)
    with pytest.raises(DataError, match=r"data.train: contradictory-pairs: .* \(rows 3, 4\)"):
        load_preferences(DataConfig(train=train))


def test_what_is_dropped_is_told_by_the_rows_of_the_file(tmp_path, caplog):
    train = source(tmp_path, OTHER, UNUSABLE, ROW, SWAPPED)
    assert load_preferences(DataConfig(train=train, unusable="drop")).train.to_list() == [OTHER]
    assert "row 2: chosen is empty" in caplog.text
    assert "(rows 3, 4)" in caplog.text


def test_evaluated_pairs_are_not_trained_on(tmp_path):
    train, test = source(tmp_path, ROW, OTHER), source(tmp_path, ROW, ROW | {"prompt": "t "}, name="test.jsonl")
    with pytest.raises(DataError, match=r"data.train against data.eval.test: leakage: .* \(row 1\)"):
        load_preferences(DataConfig(train=train, eval={"test": test}))
    loaded = load_preferences(DataConfig(train=train, eval={"test": test}, unusable="drop"))
    assert loaded.train.to_list() == [OTHER]
    assert loaded.eval["test"].to_list() == [ROW, ROW | {"prompt": "t "}]


def test_a_file_does_not_number_its_own_rows(tmp_path):
    train = source(tmp_path, OTHER | {"alignkit_row": "x"}, UNUSABLE | {"alignkit_row": "y"})
    with pytest.raises(DataError, match="row 2: chosen is empty"):
        load_preferences(DataConfig(train=train))
    loaded = load_preferences(DataConfig(train=train, unusable="drop"))
    assert loaded.train.column_names == ["prompt", "chosen", "rejected"]

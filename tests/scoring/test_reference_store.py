import errno
import json
import multiprocessing
import os
import shutil
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from safetensors.numpy import load, save

from align.scoring import reference_store
from align.scoring.reference_store import ReferenceStore, sequence_key

IDENTITY = {"weights": "a" * 64, "adapter": None, "dtype": "bfloat16", "autocast": None, "attention": "sdpa"}
IDENTITY |= {"reduction": "sum", "rope_scale": 1.0, "layers": 2}
KEYS = [sequence_key([1, 2, n], [3]) for n in range(10)]
VALUES = [-0.1 - 1.7 * n for n in range(10)]


@pytest.fixture
def fresh(tmp_path):
    return lambda: ReferenceStore(IDENTITY, tmp_path)  # has to read everything from disk


@pytest.fixture
def store(fresh):
    return fresh()


def segments(store):
    return sorted(store.path.glob("*.safetensors"))


def add_one_by_one(store):
    for key, value in zip(KEYS, VALUES, strict=True):
        store.add([key], [value])


def failing(number):
    return Mock(side_effect=OSError(number, os.strerror(number)))


def test_a_key_depends_on_the_split_on_each_id_and_on_their_order_and_on_nothing_else():
    ids = [5, 6, 7, 8]
    sequences = [(ids[:cut], ids[cut:]) for cut in range(5)]
    sequences += [([5, 6], [7]), ([5, 6], []), ([5], [7, 8]), ([6, 5], [7, 8]), ([5, 6], [8, 7]), ([5, 6], [7, 8, 0])]
    sequences += [([0, 5, 6], [7, 8]), ([2], ids), ([], [4, *ids])]
    others = [[token + 256 * (place == n) for n, token in enumerate(ids)] for place in range(4)]
    keys = [sequence_key(*sequence) for sequence in sequences + [(other[:2], other[2:]) for other in others]]
    assert len(set(keys)) == len(keys) == 18
    assert sequence_key([1, 2], [3]).hex() == "4c85ae5d0e2ecd0933f7d692f4bf61c8"
    assert sequence_key([1, 2], [3]) == sequence_key((1, 2), (3,))


def test_round_trip(store, fresh, tmp_path, caplog):
    store.add([], [])
    assert np.isnan(store.get(KEYS)).all()
    assert (len(store), store.nbytes, list(tmp_path.iterdir())) == (0, 0, [])
    store.add(KEYS[:6], VALUES[:6])
    store.add(KEYS[4:8], np.array([7, 7, *VALUES[6:8]]))  # the first two are known: not changed
    store.add(KEYS[:8], VALUES[:8])
    assert len(segments(store)) == 2
    for one in (store, fresh()):
        assert np.array_equal(one.get(KEYS[::-1]), [np.nan, np.nan, *VALUES[7::-1]], equal_nan=True)  # to the bit
        assert len(one) == 8
        assert one.nbytes == sum(file.stat().st_size for file in segments(store)) > 8 * 24
    assert not caplog.records


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [(KEYS[:3], [bad, -1.0, bad], "^2 of 3 .* are NaN or infinite; none was") for bad in (np.nan, np.inf, -np.inf)]
    + [(keys, [-1.0, -2.0], "[13] keys, but values of shape") for keys in (KEYS[:1], KEYS[:3])]
    + [([b"x" * 15, b"x" * 17], [-1.0, -2.0], "16 bytes; use `sequence_key`")],
)
def test_what_is_refused_leaves_nothing(store, keys, values, message):
    with pytest.raises(ValueError, match=message):
        store.add(keys, values)
    assert np.isnan(store.get(KEYS)).all()
    assert not store.path.exists()


def test_many_rows_and_keys_with_zeros(store, fresh):
    blob = np.random.default_rng(0).bytes(16 * 200_000)
    keys = [n.to_bytes(2, "big").ljust(16, b"\0") for n in range(2000)]
    keys += [bytes([*bytes(14), n, 0]) for n in range(1, 9)]
    keys += [blob[n : n + 16] for n in range(0, len(blob), 16)]
    rows = {key: -n / 7 for n, key in enumerate(keys)}
    for part in (slice(1, None, 3), slice(0, None, 2), slice(None)):
        store.add(keys[part], [rows[key] for key in keys[part]])
    for one in (store, fresh()):
        assert one.get(keys[::-1]).tolist() == list(rows.values())[::-1]
        assert np.isnan(one.get([*KEYS, b"\0" * 15 + b"\1", b"\xff" * 16])).all()
        assert len(one) == len(rows) == 202_008


@pytest.mark.parametrize("entry", IDENTITY)
def test_another_identity_is_another_store(store, tmp_path, caplog, entry):
    store.add(KEYS, VALUES)
    without = {name: value for name, value in IDENTITY.items() if name != entry}
    for identity in ({**IDENTITY, entry: "another"}, {**IDENTITY, entry: "None"}, without, {**IDENTITY, "more": None}):
        other = ReferenceStore(identity, tmp_path)
        assert other.path != store.path
        shutil.copytree(store.path, other.path)  # not even a copy is believed
        assert np.isnan(other.get(KEYS)).all()
        assert len(segments(other)) == 0
        assert "identity.json does not say what this folder is for" in caplog.text
        assert json.loads((other.path / "identity.json").read_text()) == {**identity, "format": 1}


def test_where_a_store_is(store, tmp_path, monkeypatch):
    assert ReferenceStore(dict(reversed(IDENTITY.items())), tmp_path).path == store.path
    assert ReferenceStore(IDENTITY).path == reference_store.cache_dir() / "reference" / store.path.name
    monkeypatch.setattr(reference_store, "FORMAT", reference_store.FORMAT + 1)
    assert ReferenceStore(IDENTITY, tmp_path).path != store.path
    for wrong in ("format", 3), ("scale", np.inf):
        with pytest.raises(ValueError, match="the entry `format`|not JSON compliant"):
            ReferenceStore(dict([wrong]))


def expect_unused(store, caplog, file):
    caplog.clear()
    assert np.isnan(store.get(KEYS)).all()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"{file} is damaged" in caplog.text
    assert file.with_name(file.name + ".damaged").is_file()


def test_one_bit_wrong_anywhere_or_cut_anywhere(store, fresh, caplog):
    store.add(KEYS[:2], VALUES[:2])
    (file,) = segments(store)
    data = file.read_bytes()
    for offset in range(len(data)):
        changed = bytearray(data)
        changed[offset] ^= 1 << offset % 8
        for damaged in (changed, data[:offset]):
            file.write_bytes(damaged)
            expect_unused(fresh(), caplog, file)
    file.write_bytes(data)
    assert fresh().get(KEYS[:2]).tolist() == VALUES[:2]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda keys, values: {"keys": keys, "values": values.astype(np.float32)}, "float32"),
        (lambda keys, values: {"keys": keys[:-1], "values": values}, "(9, 16)"),
        (lambda keys, values: {"keys": keys[:, None], "values": values[:, None]}, "(10, 1, 16)"),
        (lambda keys, values: {"keys": keys, "values": np.full_like(values, np.nan)}, "NaN"),
        (lambda keys, values: None, "eader"),
    ],
)
def test_well_named_but_wrong_inside(store, fresh, caplog, change, reason):
    store.add(KEYS, VALUES)
    (file,) = segments(store)
    tensors = change(**load(file.read_bytes()))
    data = save(tensors) if tensors else b"{} and nothing else"
    wrong = file.rename(store.path / store._name(data))
    wrong.write_bytes(data)
    expect_unused(fresh(), caplog, wrong)
    assert reason in caplog.text


def test_what_can_be_neither_read_nor_set_aside_is_ignored_and_computed_again(store, fresh, caplog, monkeypatch):
    store.add(KEYS[:5], VALUES[:5])
    segments(store)[0].write_bytes(b"x")
    (store.path / "folder.safetensors").mkdir()
    one = fresh()
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", failing(errno.EROFS))
        for _ in range(2):
            one.load()
            assert np.isnan(one.get(KEYS)).all()
    assert sorted(record.msg.split("(")[0] for record in caplog.records) == ["%s cannot be read ", "%s is damaged "]
    one.add(KEYS, VALUES)
    assert fresh().get(KEYS).tolist() == VALUES


@pytest.mark.parametrize(
    ("where", "function", "number"),
    [(os, "fsync", errno.ENOSPC), (os, "replace", errno.EROFS), (Path, "mkdir", errno.EACCES), (0, "", errno.ENOTDIR)],
)
def test_a_disk_that_takes_nothing_does_not_stop_the_run(tmp_path, caplog, monkeypatch, where, function, number):
    root = tmp_path / "root"
    store = ReferenceStore(IDENTITY, root)
    with monkeypatch.context() as patch:
        patch.setattr(where, function, failing(number)) if where else root.write_text("a file, no folder")
        store.add(KEYS[:4], VALUES[:4])
        store.add(KEYS[4:8], VALUES[4:8])
        store.load()
        assert store.get(KEYS[:8]).tolist() == VALUES[:8]
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert os.strerror(number) in caplog.text
        assert str(store.path) in caplog.text
    assert len(ReferenceStore(IDENTITY, root)) == store.nbytes == len(list(root.glob("*/*"))) == 0
    if where:  # there is room again
        store.add(KEYS, VALUES)
        assert ReferenceStore(IDENTITY, root).get(KEYS[8:]).tolist() == VALUES[8:]


def test_a_killed_writer_leaves_nothing_that_is_read(store, fresh, caplog, monkeypatch):
    store.add(KEYS[:1], VALUES[:1])
    monkeypatch.setattr(os, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fresh().add(KEYS[1:], VALUES[1:])
    (scratch,) = store.path.glob(".writing-*")
    assert len(fresh()) == 1
    assert scratch.exists()  # its writer may be alive
    os.utime(scratch, (0, 0))
    assert len(fresh()) == 1
    assert not scratch.exists()
    assert not caplog.records


def write_twenty(root, writer):
    store = ReferenceStore(IDENTITY, root)
    for start in range(1000 * writer, 1000 * writer + 100, 5):
        mine = [*range(start, start + 5), start % 1000]  # the last is everyone's
        store.add([sequence_key([n], []) for n in mine], [-n / 3 for n in mine])


@pytest.mark.parametrize("most", [64, 3])
def test_two_writers_and_a_reader(tmp_path, fresh, caplog, monkeypatch, most):
    monkeypatch.setattr(reference_store, "MOST_SEGMENTS", most)  # 3: they merge all the time
    writers = [multiprocessing.get_context("fork").Process(target=write_twenty, args=(tmp_path, n)) for n in (1, 2)]
    numbers = [*range(0, 100, 5), *range(1000, 1100), *range(2000, 2100)]
    keys, expected = [sequence_key([n], []) for n in numbers], np.array([-n / 3 for n in numbers])
    for writer in writers:
        writer.start()
    reader = fresh()
    while any(writer.is_alive() for writer in writers):
        known = ~np.isnan(reader.get(keys))
        reader.load()
        for values in (reader.get(keys), fresh().get(keys)):
            assert (np.isnan(values) | (values == expected)).all()
            assert not np.isnan(values[known]).any()  # nothing that was there is ever missing
    reader.load()
    for one in (reader, fresh()):
        assert one.get(keys).tolist() == expected.tolist()
        assert len(one) == len(keys)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert not list(tmp_path.glob("*/.writing-*"))
    assert not caplog.records
    assert len(segments(reader)) <= 2 * most


def test_of_two_values_the_first_segment_counts_and_none_changes_under_a_running_store(store, fresh, monkeypatch):
    assert len(store) == 0
    for number in range(12):
        another = fresh()
        another._loaded = True  # as if they all started at once
        another.add([KEYS[number % 2]], [-float(number // 4)])
    store.add([KEYS[0]], [-100.0])
    store.load()
    assert store.get(KEYS[:1]).tolist() == [-100.0]
    held = [load(file.read_bytes()) for file in segments(store)]
    assert len(held) == 13  # the same rows twice are two files: a name that was deleted never comes back
    expected = [next(one["values"][0] for one in held if one["keys"].tobytes() == key) for key in KEYS[:2]]
    assert fresh().get(KEYS[:2]).tolist() == expected
    monkeypatch.setattr(reference_store, "MOST_SEGMENTS", 5)
    store._merge_small()
    assert len(segments(store)) == 1
    assert fresh().get(KEYS[:2]).tolist() == expected


def test_segments_that_are_large_or_damaged_or_cannot_be_read_are_not_merged(store, fresh, monkeypatch):
    store.add([sequence_key([n], []) for n in range(100)], -np.ones(100))
    (large,) = segments(store)
    add_one_by_one(store)
    damaged, unread = [file for file in segments(store) if file != large][:2]
    read = store._read
    monkeypatch.setattr(store, "_read", lambda name: None if name == unread.name else read(name))
    damaged.write_bytes(damaged.read_bytes()[::-1])
    monkeypatch.setattr(reference_store, "MOST_SEGMENTS", 2)
    monkeypatch.setattr(reference_store, "MERGE_BELOW", large.stat().st_size)
    store._merge_small()
    assert damaged.with_name(damaged.name + ".damaged").is_file()
    assert {large, unread} < set(segments(store))
    assert len(segments(store)) == 3
    assert sum(fresh().get(KEYS) == VALUES) == 9


@pytest.mark.parametrize(("where", "function"), [(Path, "unlink"), (os, "fsync"), (None, "")])
def test_merging_loses_nothing_when_it_fails_or_under_a_reader(store, fresh, monkeypatch, where, function):
    add_one_by_one(store)
    before = store._segments()
    monkeypatch.setattr(reference_store, "MOST_SEGMENTS", 5)
    if where:
        monkeypatch.setattr(where, function, failing(errno.ENOSPC))
    store._merge_small()
    after = store._segments()
    assert len(after) == {"": 1, "unlink": 11, "fsync": 10}[function]
    for first in (before, {}, after):
        reader, lists = fresh(), chain([first], repeat(after))
        monkeypatch.setattr(reader, "_segments", partial(next, lists))
        assert reader.get(KEYS).tolist() == VALUES

"""Data files of strangers: what is wrong is found before anything parses them, with its line, byte or reason."""

import bz2
import gzip
import io
import json
import lzma
import sys
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.files import checking as files
from align.data.files.bad_lines import bad_line
from align.data.files.checking import check_file, check_folder

ROW = b'{"prompt": "q ", "chosen": "a", "rejected": "b"}\n'
PACK = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}


def written(folder, content, name="pairs.jsonl"):
    path = folder / name
    path.write_bytes(content)
    return path


def refusal(folder, content, name="pairs.jsonl"):
    with pytest.raises(DataError) as caught:
        check_file(written(folder, content, name))
    return str(caught.value)


def reading_error(path, **settings):
    with pytest.raises(DataError) as caught:
        load_preferences(DataConfig(train=DataSource(str(path), **settings)))
    return str(caught.value)


# --- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROW + b'{"a": "\xff"}\n', "line 2: not UTF-8 at byte 56 (invalid start byte)"),
        (ROW + b"\xc3\xa4 \xc3(\n", "line 2: not UTF-8 at byte 52 (invalid continuation byte)"),
        (ROW + b"\xe2\x82", "line 2: not UTF-8"),
        (ROW * 3 + b"a\0b\n", "line 4: a NUL byte, at byte 148"),
        (b" \xe4" + ROW, "line 1: not UTF-8 at byte 1"),
    ],
)
def test_bad_bytes_are_named_by_line_and_offset(tmp_path, monkeypatch, chunk, content, message):
    monkeypatch.setattr(files, "CHUNK", chunk)
    assert refusal(tmp_path, content).startswith(message)
    assert refusal(tmp_path, gzip.compress(content), "pairs.jsonl.gz").startswith(message)
    assert refusal(tmp_path, content, "pairs.csv").startswith(message)


def test_utf_16_is_named_with_its_remedy(tmp_path):
    assert "iconv -f UTF-16 -t UTF-8" in refusal(tmp_path, ROW.decode().encode("utf-16"))
    assert "iconv -f LATIN1" in refusal(tmp_path, "Käse".encode("latin1"))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "json"])
def test_a_byte_order_mark_at_the_beginning_is_accepted(tmp_path, kind):
    text = b"prompt,chosen,rejected\nq ,a,b\n" if kind == "csv" else ROW
    path = written(tmp_path, b"\xef\xbb\xbf" + text, f"pairs.{kind}")
    rows = load_preferences(DataConfig(train=DataSource(str(path)))).train.to_list()
    assert rows == [{"prompt": "q ", "chosen": "a", "rejected": "b"}]


@pytest.mark.parametrize("chunk", [1, 3, 10])
@pytest.mark.parametrize(("before", "line"), [(b"", 1), (b"short\n" * 3, 4)])
def test_a_line_that_is_too_long_is_named(tmp_path, monkeypatch, chunk, before, line):
    monkeypatch.setattr(files, "CHUNK", chunk)
    monkeypatch.setattr(files, "MAX_LINE", 10)
    assert refusal(tmp_path, before + b"x" * 11 + b"\n", "pairs.csv").startswith(f"line {line}: longer than")
    check_file(written(tmp_path, before + b"x" * 10 + b"\n" + b"y" * 10, "pairs.csv"))


# --- compressed ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACK)
def test_compressed_files_are_read_cut_short_or_damaged_ones_refused(tmp_path, kind):
    packed = PACK[kind](ROW * 200)
    path = written(tmp_path, packed, f"pairs.jsonl.{kind}")
    check_file(path)
    assert "cut short or damaged" in refusal(tmp_path, packed[:-9], path.name)
    middle = len(packed) // 2
    flipped = packed[:middle] + bytes([packed[middle] ^ 0xFF]) + packed[middle + 1 :]
    assert "cut short or damaged" in refusal(tmp_path, flipped, path.name)


@pytest.mark.parametrize("kind", PACK)
def test_a_bomb_is_given_up_as_soon_as_it_is_one(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(files, "FINE", 1 << 20)
    monkeypatch.setattr(files, "CHUNK", 1 << 16)
    bomb = PACK[kind](ROW * 200_000)  # 10 MB
    path = written(tmp_path, bomb, f"pairs.jsonl.{kind}")
    pieces, raw = [], path.open("rb")
    told = pytest.raises(DataError, match="its first .* MiB unpack to .* a decompression bomb")
    with raw, told, files.unpacked(raw, path) as file:
        pieces.extend(len(piece) for piece in files._bounded(file, raw))
    assert sum(pieces) <= max(1 << 20, 200 * len(bomb))
    assert "a decompression bomb" in refusal(tmp_path, bomb, path.name)
    monkeypatch.setattr(files, "FINE", 1 << 30)
    check_file(tmp_path / f"pairs.jsonl.{kind}")


def test_what_unpacks_to_more_than_the_disk_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_free", lambda: 1000)
    assert "free in " in refusal(tmp_path, gzip.compress(ROW * 99), "pairs.jsonl.gz")
    check_file(written(tmp_path, ROW * 99))


def zipped(content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("../../outside.jsonl", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (zipped(ROW), "pairs.jsonl", "it is zip, by its first bytes; unpack it"),
        (zipped(ROW), "pairs.jsonl.gz", "it is zip, by its first bytes; unpack it"),
        (gzip.compress(ROW), "pairs.jsonl", "it is gz, by its first bytes; name it accordingly"),
        (lzma.compress(ROW), "pairs.csv", "it is xz, by its first bytes"),
        (ROW, "pairs.jsonl.gz", "it is no gz file, whatever its name says"),
        (b"", "pairs.jsonl.xz", "it is no xz file"),
        (ROW, "pairs.parquet", "it is no parquet file"),
        (b"PAR1" + ROW, "pairs.json", "it is parquet, by its first bytes"),
    ],
    ids=["zip", "zip-as-gz", "gz", "xz", "text-as-gz", "empty-as-xz", "text-as-parquet", "parquet-as-json"],
)
def test_files_that_are_not_what_their_name_says(tmp_path, content, name, message):
    assert message in refusal(tmp_path, content, name)
    assert message in reading_error(tmp_path / name)


def test_a_missing_package_for_zst_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert "pip install zstandard" in refusal(tmp_path, b"\x28\xb5\x2f\xfd", "pairs.jsonl.zst")


# --- Parquet -------------------------------------------------------------------------------------


def parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def test_parquet_that_is_cut_or_claims_the_absurd_is_refused(tmp_path):
    good = parquet([json.loads(ROW)] * 50)
    check_file(written(tmp_path, good, "pairs.parquet"))
    for bad in (
        good[:-20],
        good[:-8] + (1 << 30).to_bytes(4, "little") + b"PAR1",
        good[:4] + b"\xff" * 60 + good[64:],
        b"PAR1PAR1",
    ):
        assert refusal(tmp_path, bad, "pairs.parquet").startswith("damaged Parquet")


def test_parquet_that_unpacks_to_far_more_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "FINE", 1 << 20)
    bomb = parquet([{"prompt": "q" * 100_000, "chosen": "a", "rejected": "b"}] * 2000)  # one entry in a dictionary
    assert len(bomb) < 500_000
    assert "it unpacks to more than" in refusal(tmp_path, bomb, "pairs.parquet")


# --- folders -------------------------------------------------------------------------------------


def test_a_folder_with_code_or_an_archive_is_refused(tmp_path):
    written(tmp_path, ROW, "train.jsonl")
    check_folder(tmp_path)
    script = written(tmp_path, b"raise SystemExit", "loader.py")
    assert "loader.py: a data folder with Python code" in reading_error(tmp_path)
    script.unlink()
    (tmp_path / "more").mkdir()
    written(tmp_path / "more", zipped(ROW), "train.zip")
    assert "more/train.zip: an archive; unpack it" in reading_error(tmp_path)


def test_the_file_of_a_folder_that_is_bad_is_named(tmp_path):
    written(tmp_path, ROW, "train.jsonl")
    written(tmp_path, ROW + b"\0", "test.jsonl")
    assert "test.jsonl: line 2: a NUL byte" in reading_error(tmp_path)


@pytest.mark.parametrize(
    "target", ["https://example.org/a.jsonl", "/etc/passwd", "../other/*.jsonl", "hf://x/y/z.jsonl"]
)
@pytest.mark.parametrize("card", ["README.md", ".huggingface.yaml"])
def test_a_card_cannot_lead_out_of_its_folder(tmp_path, target, card):
    written(tmp_path, ROW, "train.jsonl")
    text = f"configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ['{target}']\n"
    written(tmp_path, (f"---\n{text}---\n" if card == "README.md" else text).encode(), card)
    assert f"{card}: it takes data from" in reading_error(tmp_path)
    written(tmp_path, (tmp_path / card).read_bytes().replace(target.encode(), b"train.jsonl"), card)
    assert len(load_preferences(DataConfig(train=DataSource(str(tmp_path)))).train) == 1


def test_a_card_of_many_aliases_is_walked_once(tmp_path):
    text = "a: &a0 [x]\n" + "".join(f"b{i}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(40))
    written(tmp_path, (text + "configs: *a40\n").encode(), ".huggingface.yaml")
    check_folder(tmp_path)


def test_links_out_of_a_folder_are_followed(tmp_path):
    written(tmp_path, ROW, "elsewhere.jsonl")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")
    assert len(load_preferences(DataConfig(train=DataSource(str(tmp_path / "data")))).train) == 1


def test_the_name_of_a_format_is_no_data_set(tmp_path, monkeypatch):
    written(tmp_path, ROW, "train.jsonl")
    monkeypatch.chdir(tmp_path)
    assert "the name of a file format, not of a data set" in reading_error("json")


# --- which line ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ROW * 2 + b'{"prompt": "q",\n' + ROW, "line 3: not valid JSON: Expecting property name"),
        (ROW + b'{"prompt": "q", "chosen": "a", "prompt": "z"}\n', "line 2: the key 'prompt' is given twice"),
        (b'{"chosen": "a", "\\u001b[31m": 1, "\\u001b[31m": 2}\n', "line 1: the key '\\\\x1b[31m' is given twice"),
        (ROW + b"[1, 2]\n", "line 2: expected an object, got a list"),
        (ROW + b"\n5\n", "line 3: expected an object, got a number"),
        (ROW + b"\xef\xbb\xbf" + ROW, "line 2: not valid JSON: Unexpected UTF-8 BOM"),
        (ROW + b'{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}\n', "line 2: not valid text: half of a surrogate pair"),
        (ROW + b'{"prompt": "a\tb"}\n', "line 2: not valid JSON: Invalid control character"),
        (b"[" + ROW.strip() + b",\n" + ROW.strip() + b",\n]", "line 3: not valid JSON: Expecting value"),
    ],
)  # fmt: skip
def test_the_line_that_cannot_be_read_is_named(tmp_path, content, message):
    for path in (
        written(tmp_path, content),
        written(tmp_path, gzip.compress(content), "pairs.jsonl.gz"),
    ):
        assert message in reading_error(path)


@pytest.mark.parametrize(
    "content",
    [ROW * 3, b"\xef\xbb\xbf" + ROW, ROW + b"\n\n" + ROW, b"[" + ROW.strip() + b"]", json.dumps([json.loads(ROW)], indent=1).encode(),
     b'{"prompt": "\\ud83d\\ude00"}\n', b""],
)  # fmt: skip
def test_files_that_are_fine_have_no_bad_line(tmp_path, content):
    assert bad_line(written(tmp_path, content)) is None


def test_what_rows_say_cannot_steer_a_terminal(tmp_path, capfd, caplog):
    steering = [{"role": "\x1b[31m", "content": None}]
    path = written(tmp_path, json.dumps({"prompt": steering, "chosen": steering, "rejected": steering}).encode())
    told = reading_error(path) + reading_error(written(tmp_path, b'{"\\u001b]0;owned\\u0007": 1}'))
    assert "\\x1b[31m" in told
    assert "\\x1b]0;owned\\x07" in told
    told += reading_error(written(tmp_path, b'{"\\u001b[2J": 1, "\\u001b[2J": 2}'))
    assert "\x1b" not in told + "".join(capfd.readouterr()) + caplog.text

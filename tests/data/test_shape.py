"""JSON that would end the process: nested deeply, or with rows that are null, wherever the pieces of the file are cut."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.files import json_depth as shape
from align.data.files.json_depth import harmless

ROW = b'{"prompt": "q ", "chosen": "a", "rejected": "b"}\n'


def passed(text, chunk):
    return b"".join(harmless(text[i : i + chunk] for i in range(0, len(text), chunk)))


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "deep",
    [
        b"[" * 51 + b"]" * 51,
        b'{"a": ' * 51 + b"1" + b"}" * 51,
        b'[\n"[",' * 51,
        b"]" * 90 + b"[" * 51,
        b'"never closed\n' + b"[" * 51,
        b'"\\\\"' + b"[" * 51,
        b'["\\"",' * 51,
    ],
)
def test_deep_nesting_ends_here_and_not_in_the_parser(chunk, deep):
    with pytest.raises(DataError, match="nested more than 50 levels deep"):
        passed(ROW + deep, chunk)


@pytest.mark.parametrize("chunk", [1, 5, 1 << 20])
@pytest.mark.parametrize(
    "flat",
    [
        b"[" * 50 + b"]" * 50,
        b'["' + b"[" * 99 + b'"]\n',
        b'["\\"' + b"[" * 99 + b'\\\\"]\n',
        b"[{}, []]\n" * 99,
        b'{"a": "{[", "b": "\\\\\\"["}\n' * 99,
    ],
)
def test_brackets_in_texts_and_in_many_rows_are_not_depth(chunk, flat):
    assert passed(flat, chunk) == flat


@given(
    st.recursive(
        st.text(alphabet='[]{}"\\\n a', max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet='[{"\\', max_size=4), inner, max_size=3)
        ),
        max_leaves=20,
    ),
    st.integers(1, 9),
)
def test_the_depth_is_that_of_the_value(value, chunk):
    def depth(v):
        children = v.values() if isinstance(v, dict) else v if isinstance(v, list) else None
        return 0 if children is None else 1 + max(map(depth, children), default=0)

    text = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        for limit, refused in ((depth(value), False), (depth(value) - 1, True)):
            patch.setattr(shape, "MAX_DEPTH", limit)
            if refused and depth(value):
                with pytest.raises(DataError, match="nested"):
                    passed(text, chunk)
            elif not refused:
                assert passed(text, chunk) == text


@pytest.mark.parametrize("chunk", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"null", 1), (b"null\n" + ROW, 1), (b"\xef\xbb\xbfnull", 1), (b" \t null{}", 1), (b"\n\n null\n", 3), (ROW + b"null\n", 2),
        (ROW + b"\r\n  null", 3), (b'"open\nnull', 2), (b'"a\\"', None), (b"[null, {}]", 0), (b'[{"a": 1},\n{"b": [2]}, null]', 0),
        (b'{"a": null}\n[{"a": null}, null]', 0),
    ],
)  # fmt: skip
def test_a_row_that_is_null_ends_here_and_not_in_the_parser(chunk, text, line):
    if line is None:
        assert passed(text, chunk) == text
        return
    with pytest.raises(
        DataError, match=f"line {line}: expected an object, got null" if line else "list of rows, got null"
    ):
        passed(text, chunk)


@pytest.mark.parametrize("chunk", [1, 2, 5, 1 << 20])
@pytest.mark.parametrize(
    "text",
    [
        b'{"a": null, "b": [null]}\n' * 3,
        b'["null",\n"null"]',
        b'[{"a": null}, {"b": [null]}]',
        b'{"a":\n"\\"\\nnull"}',
        b'nope"'[1:],
    ],
)
def test_null_is_fine_as_a_value(chunk, text):
    assert passed(text, chunk) == text


@pytest.mark.parametrize("text", [b"null\n", b"[" * 20_000, b'{"a":' * 20_000 + b"1", b"[null, " + ROW.strip() + b"]"])
def test_the_process_outlives_such_a_file(tmp_path, text):
    (tmp_path / "pairs.jsonl").write_bytes(text)
    with pytest.raises(DataError, match="data.train: cannot read .* line 1"):
        load_preferences(DataConfig(train=DataSource(str(tmp_path / "pairs.jsonl"))))


def test_a_megabyte_of_blank_lines_takes_no_time(tmp_path):
    assert len(passed(b"\n \r\t" * 300_000, 1 << 20)) == 1_200_000

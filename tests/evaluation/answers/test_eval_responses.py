"""Stored responses: read strictly, matched by prompt."""

import json

import pytest
from stored_world import responses, write_lines

from align.errors import RunError
from eval.answers.files import is_responses, matched, names_of, read_responses
from eval.statistics.names import REF

# --- reading -----------------------------------------------------------------------------------


def test_both_layouts_and_arrays_are_read(tmp_path):
    ours = responses(tmp_path / "ours.jsonl", ["x", "y"], ["p", "q"])
    rows = [{"instruction": p, "output": t, "generator": "m"} for p, t in (("p", "x"), ("q", "y"))]
    theirs = write_lines(tmp_path / "theirs.jsonl", rows)
    (tmp_path / "array.json").write_text(json.dumps(rows, indent=1))
    for path in (theirs, tmp_path / "array.json"):
        found = read_responses(path)
        assert found.texts == read_responses(ours).texts == {'"p"': ["x"], '"q"': ["y"]}
        assert found.rows['"p"'] == {"prompt": "p", "generator": "m"}


def test_several_responses_to_a_prompt_are_its_samples_and_blank_lines_nothing(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps({"prompt": p, "response": t}) for p, t in (("p", "1"), ("q", "2"), ("p", "3"), ("q", "4"))]
    path.write_text("\n\n".join(lines))  # and no end of the last line
    other = responses(tmp_path / "b.jsonl", [["5", "6"], ["7", "8"]], ["q", "p"])
    data, _ = matched([read_responses(path)], read_responses(other))
    assert data.answers == {"a": [["1", "3"], ["2", "4"]], REF: [["7", "8"], ["5", "6"]]}
    assert data.samples == 2


def test_messages_are_prompts_too(tmp_path):
    chat = [{"role": "user", "content": "hi"}]
    path = responses(tmp_path / "a.jsonl", ["x", "y"], [chat, "hi"])
    assert [row["prompt"] for row in read_responses(path).rows.values()] == [chat, "hi"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "p", "resp', r"line 2: is no JSON .*; it is the last and has no end, so the file may be truncated"),
        ('{"prompt": "p"}\n', r"line 2: must be an object with prompt and response \(or instruction and output\), got the keys prompt"),
        ('["p", "x"]\n', r"line 2: must be an object .* got list"),
        ("null\n", "line 2: must be an object"),
        ('{"prompt": "p", "response": 3}\n', "line 2: response must be text, got int"),
        ('{"instruction": "p", "output": null}\n', "line 2: output must be text, got NoneType"),
        ('{"prompt": "", "response": "x"}\n', "line 2: prompt must be text, or messages with role and content, and not empty"),
        ('{"prompt": [], "response": "x"}\n', "line 2: prompt must be text"),
        ('{"prompt": [{"role": "user"}], "response": "x"}\n', "line 2: prompt must be text"),
        ("{" * 3 + "\n", r"line 2: is no JSON \(.*\); write the file again"),
        ("[" * 100_000 + "\n", "line 2: is no JSON"),
        ("\x1b[31m\n", "line 2: is no JSON"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_response_is_named(tmp_path, line, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "o", "response": "x"}\n' + line)
    with pytest.raises(RunError, match=message) as error:
        read_responses(path)
    assert str(error.value).startswith(f"{path}: line 2: ")
    assert str(error.value).isprintable()


def test_a_file_that_is_not_utf8_or_not_there_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "p", "response": "\xff"}\n')
    with pytest.raises(RunError, match=r"a\.jsonl: line 1: is no JSON"):
        read_responses(tmp_path / "a.jsonl")
    with pytest.raises(RunError, match=r"gone\.jsonl: cannot be read: No such file or directory"):
        read_responses(tmp_path / "gone.jsonl")
    (tmp_path / "cut.json").write_text('[{"prompt": "p", "response": "x"},')
    with pytest.raises(RunError, match=r"cut\.json: is no JSON"):
        read_responses(tmp_path / "cut.json")
    one = responses(tmp_path / "one.jsonl", ["x"])
    with pytest.raises(RunError, match="an interval needs responses to at least 2 different prompts, got 1"):
        read_responses(one)


# --- matching ----------------------------------------------------------------------------------


def read(tmp_path, name, texts, prompts):
    return read_responses(responses(tmp_path / f"{name}.jsonl", texts, prompts))


def test_files_are_matched_by_prompt_in_the_order_of_the_first(tmp_path):
    a, b, c = (
        read(tmp_path, n, [f"{n}{p}" for p in ps], list(ps)) for n, ps in (("a", "pqr"), ("b", "rpq"), ("c", "qrp"))
    )
    data, names = matched([a, b], c)
    assert data.answers == {"a": [["ap"], ["aq"], ["ar"]], "b": [["bp"], ["bq"], ["br"]], REF: [["cp"], ["cq"], ["cr"]]}
    assert [row["prompt"] for row in data.rows] == ["p", "q", "r"]
    assert names == {str(file.path): file.path.stem for file in (a, b, c)}


@pytest.mark.parametrize("place", [0, 1])
def test_a_prompt_that_a_file_lacks_is_named_with_the_file(tmp_path, place):
    whole, short = read(tmp_path, "whole", ["x"] * 3, list("pqr")), read(tmp_path, "short", ["x"] * 2, list("pq"))
    files = [whole, short] if place else [short, whole]
    with pytest.raises(
        RunError, match=r'short\.jsonl: no response to 1 of the prompts in .*whole\.jsonl; the first: "r"'
    ):
        matched(files[:1], files[1])


def test_every_prompt_needs_as_many_responses(tmp_path):
    a = read(tmp_path, "a", [["x", "y"], ["x", "y"]], ["p", "q"])
    b = read(tmp_path, "b", [["x", "y"], "x"], ["p", "q"])
    with pytest.raises(RunError, match=r'b\.jsonl: 1 responses to "q", where 2 are expected'):
        matched([a], b)
    with pytest.raises(RunError, match="a file is named twice"):
        matched([a], a)


def test_files_of_one_name_are_called_by_their_paths(tmp_path):
    (tmp_path / "x").mkdir()
    paths = [tmp_path / "a.jsonl", tmp_path / "x" / "a.jsonl"]
    assert names_of(paths) == {str(path): str(path) for path in paths}
    assert names_of([tmp_path / "ref.jsonl"]) == {str(tmp_path / "ref.jsonl"): str(tmp_path / "ref.jsonl")}
    assert names_of(paths[:1]) == {str(paths[0]): "a"}
    assert is_responses("a.jsonl")
    assert is_responses("a.json")
    assert not is_responses("a.gguf")
    (tmp_path / "run.jsonl").mkdir()
    assert not is_responses(str(tmp_path / "run.jsonl"))

"""`alignkit win-rates`: a leaderboard's figures from stored verdicts."""

import json

import numpy as np
import pytest

from align import cli
from eval.annotations import figures_of, read_annotations
from eval.statistics.length_control import instruction_difficulty, length_controlled_win_rate


def rows(n=30):
    rng = np.random.default_rng(0)
    for model, shift in (("a", 0.0), ("b", 0.2)):
        for i in range(n):
            yield {
                "generator_2": model, "instruction": f"do {i}", "preference": 1 + float(np.clip(rng.random() + shift, 0, 1)),
                "output_1": "x" * int(rng.integers(50, 90)), "output_2": "y" * int(rng.integers(10, 120)),
            }  # fmt: skip


@pytest.fixture
def file(tmp_path):
    def written(given, name="annotations.jsonl"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in given))
        return tmp_path / name

    return written


def test_figures_by_hand(file):
    given = list(rows())
    found = figures_of(read_annotations(file(given)))
    first = min((r for r in given if r["generator_2"] == "a"), key=lambda r: r["instruction"])
    judged = read_annotations(file(given))["a"]
    assert (judged.lengths[0], judged.ref_lengths[0]) == (len(first["output_2"]), len(first["output_1"]))
    wins = {
        m: np.array(
            [r["preference"] - 1 for r in sorted(given, key=lambda r: r["instruction"]) if r["generator_2"] == m]
        )
        for m in "ab"
    }
    of_a = [r for r in sorted(given, key=lambda r: r["instruction"]) if r["generator_2"] == "a"]
    own, ref = ([float(len(r[f"output_{side}"])) for r in of_a] for side in (2, 1))
    assert found["a"].plain.win_rate.value == pytest.approx(wins["a"].mean())
    assert found["a"].plain.standard_error == pytest.approx(wins["a"].std(ddof=1) / np.sqrt(30))
    fit = length_controlled_win_rate(
        wins["a"], np.array(own), np.array(ref), difficulty=instruction_difficulty(wins["b"][None])
    )
    assert found["a"].controlled == fit.win_rate
    assert found["a"].without_difficulty == length_controlled_win_rate(wins["a"], np.array(own), np.array(ref)).win_rate


def test_an_array_lengths_and_failures_are_read_too(tmp_path):
    given = [
        {
            "generator": "m",
            "instruction_sha": f"s{i}",
            "preference": None if i == 3 else 1 + i % 2,
            "len_1": 5 + i,
            "len_2": 9,
        }
        for i in range(8)
    ]
    (tmp_path / "a.json").write_text(json.dumps(given))
    found = figures_of(read_annotations(tmp_path / "a.json"))["m"]
    assert (found.plain.win_rate.n, found.plain.failed, found.plain.wins) == (7, 1, 3)
    assert found.controlled is None  # there is no other model


def test_models_are_held_against_the_prompts_that_all_have(file):
    given = list(rows())
    assert len(read_annotations(file(given[:-5]))["a"].wins) == 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"preference": 3}, "row 1: preference: must be from 1 to 2, or null, got 3"),
        ({"generator_2": None}, "row 1: no 'generator_2' or 'generator'"),
        ({"output_2": None}, "row 1: no 'len_2' or 'output_2'"),
        ({"len_2": -1}, "row 1: len_2: must be a length in characters"),
        ({"instruction": "do 1"}, "row 2: the second verdict on a for this instruction"),
    ],
)
def test_rows_that_say_nothing_are_named(file, capsys, change, message):
    first, *others = rows()
    assert cli.main(["win-rates", str(file([first | change, *others]))]) == 2
    assert message in capsys.readouterr().err


def test_no_file_and_no_leaderboard_are_told(tmp_path, file, capsys):
    assert cli.main(["win-rates", str(tmp_path / "gone.jsonl")]) == 2
    assert cli.main(["win-rates", str(file(rows())), "--published", str(file([3], "board.json"))]) == 2
    told = capsys.readouterr().err
    assert "gone.jsonl: cannot be read" in told
    assert "board.json: no figures by model" in told


@pytest.mark.realdata
def test_the_command_prints_alpacaevals_five_models(shared_data, capsys):
    """Plain figures to 1e-9; length-controlled ones as `tests/evaluation/statistics/test_alpacaeval.py` has them."""
    folder = shared_data / "alpacaeval_v2_annotations"
    words = [str(folder / "annotations.jsonl.gz"), "--published", str(folder / "expected_leaderboard.json")]
    assert cli.main(["win-rates", *words]) == 0
    told = capsys.readouterr().out.partition("Off the published figures")[2]
    cells = {
        row[0].strip(): [cell.strip() for cell in row[1:]]
        for line in told.splitlines()
        if (row := line.strip("| ").split("|"))
    }
    for name in ("alpaca-7b", "gemma-2b-it", "gpt-3.5-turbo-1106", "vicuna-7b-v1.5", "claude-instant-1.2"):
        assert all(abs(float(cell)) < 1e-9 for cell in cells[name][:3])
    assert cells["mean of the sizes"][3:] == ["1.07", "8.98"]
    assert cells["gpt-3.5-turbo-1106"][3:] == ["+2.05", "+18.50"]

"""`alignkit judge-agreement`: a judge against people, by hand and from a file."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from align import cli
from eval.agreement import read_pairs
from eval.statistics.agreement import agreement_estimates


def row(number, **columns):
    """Repetition prefers the side that repeats nothing: the chosen one in the first three of four rows."""
    good, bad = ("one two three four", "no no no no no no")[:: 1 if number % 4 < 3 else -1]
    return {"prompt": f"p{number}", "chosen": good, "rejected": bad} | columns


@pytest.fixture
def file(tmp_path):
    def written(rows):
        (tmp_path / "people.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
        return str(tmp_path / "people.jsonl")

    return written


def test_figures_by_hand():
    votes = [[1, 1], [1, -1, 1], [1, 0], [1]]
    found = agreement_estimates(np.array([0.9, 0.2, 0.5, 0.7]), np.arange(4), votes)
    assert found["accuracy"].value == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert found["kappa"].value == pytest.approx(2 * found["accuracy"].value - 1)
    assert (found["kappa"].low, found["kappa"].high) == tuple(
        2 * getattr(found["accuracy"], e) - 1 for e in ("low", "high")
    )
    assert found["with_person"].value == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert found["between_people"].value == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert found["above_people"].value == pytest.approx(found["with_person"].value - found["between_people"].value)
    assert found["above_people"].n == 3
    assert set(agreement_estimates(np.array([0.9, 0.2]), np.arange(2), [[], []])) == {"accuracy", "kappa"}


def test_pairs_of_one_prompt_are_not_independent():
    preferred, prompts = np.tile([1.0, 1.0, 0.0, 1.0], 10), np.repeat(np.arange(10), 4)
    alone = agreement_estimates(preferred, np.arange(40))["accuracy"]
    together = agreement_estimates(np.sort(preferred), prompts)["accuracy"]
    assert together.high - together.low > 1.3 * (alone.high - alone.low)
    assert together.n == 10


def test_the_command_says_it_by_category_and_writes_it(file, tmp_path, capsys):
    rows = [row(i, subset=("chat", "safety")[i % 4 == 3], votes=[2, 2, 1]) for i in range(16)]
    words = ["--by", "r={kind: reward, reward: repetition}", "--category", "subset", "-o", str(tmp_path / "out.json")]
    assert cli.main(["judge-agreement", file(rows), *words]) == 0
    shown = capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())["r"]
    assert list(found) == ["all", "subset chat", "subset safety", "worst subset"]
    assert found["all"]["accuracy"]["value"] == 0.75
    assert (found["subset chat"]["accuracy"]["value"], found["subset safety"]["accuracy"]["value"]) == (1, 0)
    assert found["all"]["between_people"]["value"] == pytest.approx(1 / 3)
    assert found["all"]["with_person"]["value"] == pytest.approx((0.75 * 2 + 0.25 * 1) / 3)
    assert "| r" in shown
    assert "hold each by itself" in shown


def test_votes_are_for_the_majority_against_it_or_ties(file):
    for votes, read in (
        ([2, 2, 1, 0, None], [1, 1, -1, 0, 0]),
        (["a", "tie", "a"], [1, 0, 1]),
        ([True, False, True, None], [1, -1, 1, 0]),
    ):
        assert read_pairs(Path(file([row(0, votes=votes)])))[0].votes == read


@pytest.mark.parametrize(
    ("rows", "by", "said"),
    [
        (
            [row(0, votes=[1, 2]), row(1)],
            "r={kind: reward, reward: repetition}",
            "row 1: votes must be a list in which most",
        ),
        ([{"prompt": "p", "chosen": "a"}], "r={kind: reward, reward: repetition}", "row 1: no 'rejected'"),
        ([row(0), row(0)], "r={kind: reward, reward: repetition}", "at least 2 prompts"),
        ([row(0), row(1)], "repetition", "name a judge, --by 'repetition={kind: reward"),
    ],
)
def test_what_says_nothing_is_refused(file, capsys, rows, by, said):
    assert cli.main(["judge-agreement", file(rows), "--by", by]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.realdata
def test_on_labels_of_people(shared_data, tmp_path, capsys):
    with (
        gzip.open(shared_data / "pandalm_human" / "train.jsonl.gz") as packed,
        (tmp_path / "pandalm.jsonl").open("wb") as plain,
    ):
        shutil.copyfileobj(packed, plain)
    words = [
        str(tmp_path / "pandalm.jsonl"),
        "--by",
        "r={kind: reward, reward: repetition}",
        "-o",
        str(tmp_path / "o.json"),
    ]
    assert cli.main(["judge-agreement", *words]) == 0
    found = json.loads((tmp_path / "o.json").read_text())["r"]["all"]
    assert found["accuracy"]["n"] == 122
    assert found["between_people"]["value"] == pytest.approx((584 + 81 / 3) / 665)


@pytest.mark.parametrize("command", ["judge-agreement", "reward-bench"])
def test_the_file_that_is_read_is_not_written_over(file, capsys, command):
    rows = file([row(i) for i in range(8)])
    before = Path(rows).read_bytes()
    assert cli.main([command, rows, "--by", "r={kind: reward, reward: repetition}", "-o", rows]) == 2
    assert "is what is read, and the figures would take its place" in capsys.readouterr().err
    assert Path(rows).read_bytes() == before


def test_a_judge_reads_the_system_message_of_its_column(file):
    (one,) = read_pairs(Path(file([row(0, system="Be kind.")])))
    assert one.prompt == [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "p0"}]


def test_two_judges_of_one_name_are_refused(file, capsys):
    by = ["--by", "r={kind: reward, reward: repetition}"] * 2
    assert cli.main(["judge-agreement", file([row(i) for i in range(8)]), *by]) == 2
    assert "--by r: is given twice" in capsys.readouterr().err

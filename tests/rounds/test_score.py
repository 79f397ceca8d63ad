"""Scores of answers, each kept by answer; what a scorer fails on stays unscored and out of the pairs."""

import numpy as np
import pytest
from endpoint_server import Server, failing, says
from stored_world import read_lines, write_lines

from align.commands.score import main as score
from align.commands.score import read_by
from align.data.commands.pairs import main as pairs
from align.errors import DataError, RunError
from align.judges.answered import together
from align.judges.scorers import TableScorer
from align.judges.scoring import By, score_rows

ROWS = [
    {"prompt": "two plus two", "answer": "4", "completions": ["4", "5", "it is 4"], "finished": [True] * 3},
    {
        "prompt": "one",
        "answer": "1",
        "completions": ["2", "1", "1"],
        "finished": [True] * 3,
    },
]


@pytest.fixture
def answers(tmp_path):
    return write_lines(tmp_path / "answers.jsonl", ROWS)


def test_a_reward_is_kept_by_answer_and_pairs_read_it(answers, tmp_path):
    out = tmp_path / "scores.jsonl"
    assert score([str(answers), "--by", "correctness", "--out", str(out)]) == 0
    rows = read_lines(out)
    assert [[one["correctness"] for one in row["rewards"]] for row in rows] == [[1, 0, 1], [0, 1, 1]]
    assert rows[0]["sources"] == ["answers"] * 3
    made = tmp_path / "pairs.jsonl"
    assert pairs([str(out), "--select", "verified", "--out", str(made)]) == 0
    assert [(row["chosen"], row["rejected"]) for row in read_lines(made)][:2] == [("4", "5"), ("it is 4", "5")]


def test_several_scores_and_labels_are_weighed_when_pairs_are_made(tmp_path):
    labelled = write_lines(tmp_path / "a.jsonl", [row | {"stars": [1, 5, None]} for row in ROWS])
    out, made = tmp_path / "scores.jsonl", tmp_path / "pairs.jsonl"
    score([str(labelled), "--by", "correctness", "--column", "stars", "--out", str(out)])
    assert read_lines(out)[0]["rewards"][1] == {"correctness": 0.0, "stars": 5.0}
    assert read_lines(out)[0]["rewards"][2] == {"correctness": 1.0, "stars": None}
    pairs([str(out), "--select", "best_worst", "--weights", "correctness=10,stars=1", "--out", str(made)])
    assert next((row["chosen"], row["chosen_reward"], row["rejected_reward"]) for row in read_lines(made)) == (
        "4",
        11,
        5,
    )
    with pytest.raises(RunError, match=r"column 'stars'.*is not in 1 of 1 rows \(first: 1\)"):
        score_rows([ROWS[0] | {"stars": [1, 2]}], [By("stars", "column", lambda: "stars")])


def test_an_answer_that_a_reward_fails_on_is_asked_again_and_then_left_out(tmp_path):
    asked = []

    def reward(prompts, completions, **_):
        asked.append(list(completions))
        if "5" in completions:
            raise ValueError("no fives")
        return [float("nan") if one == "2" else 1.0 for one in completions]

    plain = [ROWS[0], ROWS[1]]
    scored = score_rows(plain, [By("odd", "reward", lambda: reward)])
    assert [[one["odd"] for one in row["rewards"]] for row in scored.rows] == [[1, None, 1], [None, 1, 1]]
    assert asked.count(["5"]) == asked.count(["2"]) == 3
    assert asked.count(["4"]) == 1
    assert scored.unscored == {"odd": 2}
    assert scored.told().startswith("odd: 2 answers have no score (")
    assert "no fives, 1 times" in scored.told()
    with pytest.raises(RunError, match="odd: no answer has a score; it says: no fives"):
        score_rows([ROWS[0] | {"completions": ["5"]}], [By("odd", "reward", lambda: reward)])


def test_a_judge_gives_mean_win_probability_or_log_odds_itself_counted():
    table = [[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]]
    rows = [{"prompt": "q", "completions": ["a", "b", "c"]}]
    made = TableScorer(["a", "b", "c"], table)
    scored = score_rows(rows, [By("j", "judge", lambda: made), By("l", "judge", lambda: made, log_odds=True)]).rows[0]
    assert [one["j"] for one in scored["rewards"]] == pytest.approx([1.6 / 3, 1.2 / 3, 1.7 / 3])
    odds = np.log(np.array(table) / (1 - np.array(table))).mean(axis=1)
    assert [one["l"] for one in scored["rewards"]] == pytest.approx(odds.tolist())
    assert scored["preferences"]["j"] == [pytest.approx(row) for row in table]


def test_an_endpoint_that_fails_on_some_pairs_leaves_their_answers_unscored(answers, tmp_path, capsys):
    def reply(text, _):
        return failing(422) if "it is 4" in text else says("A")

    with Server(reply) as server:
        host = server.url.removeprefix("http://").removesuffix("/v1")
        by = f"judge={{kind: endpoint, url: '{server.url}', model: m, attempts: 1}}"
        out = tmp_path / "scores.jsonl"
        assert score([str(answers), "--by", by, "--allow", host, "--out", str(out)]) == 0
        asked = len(server.requests)
        assert [[one["judge"] for one in row["rewards"]] for row in read_lines(out)] == [[None] * 3, [0.5] * 3]
        assert "judge: 3 answers have no score (status 422" in capsys.readouterr().out
        out.unlink()
        score([str(answers), "--by", by, "--allow", host, "--out", str(out)])
        assert len(server.requests) == asked + 4  # those that failed, and no other
    with pytest.raises(RunError, match=f"--by.judges.judge: .*add --allow {host}"):
        score([str(answers), "--by", by, "--out", str(tmp_path / "x.jsonl")])


def test_files_of_the_same_prompts_are_put_together_with_gold_answers(answers, tmp_path):
    other = write_lines(tmp_path / "ref.jsonl", [row | {"completions": ["7"]} for row in ROWS])
    rows = together([answers, other], gold="answer")
    assert rows[0]["completions"] == ["4", "5", "it is 4", "7", "4"]
    assert rows[0]["sources"] == ["answers"] * 3 + ["ref", "gold"]
    assert rows[1]["completions"][-1] == "1"
    assert "finished" not in rows[0]
    with pytest.raises(DataError, match="other prompts than in .*first: row 1"):
        together([answers, write_lines(tmp_path / "x.jsonl", ROWS[::-1])])
    with pytest.raises(DataError, match="row 1: no text in the column 'best'"):
        together([answers], gold="best")
    with pytest.raises(DataError, match="1 of 1 rows hold no answers:\n  row 1: no list of completions"):
        together([write_lines(tmp_path / "y.jsonl", [{"prompt": "q", "completions": None, "x": 1}])])


def test_scores_are_added_to_those_that_are_there_and_replace_none(tmp_path, capsys):
    first = write_lines(tmp_path / "first.jsonl", [row | {"stars": [1, None, 3]} for row in ROWS])
    one, both = tmp_path / "one.jsonl", tmp_path / "both.jsonl"
    assert score([str(first), "--by", "correctness", "--out", str(one)]) == 0
    assert score([str(one), "--column", "stars", "--out", str(both)]) == 0
    rows = read_lines(both)
    assert rows[0]["rewards"] == [
        {"correctness": 1, "stars": 1}, {"correctness": 0, "stars": None}, {"correctness": 1, "stars": 3},
    ]  # fmt: skip
    assert rows[0]["sources"] == ["first"] * 3
    assert capsys.readouterr().out.splitlines()[-1].endswith("6 answers to 2 prompts; stars: 2 answers have no score")
    with pytest.raises(RunError, match="row 1: has a score 'correctness' already; give the new one another name"):
        score([str(one), "--by", "correctness", "--out", str(tmp_path / "x.jsonl")])
    with pytest.raises(
        DataError, match=r"one\.jsonl: has scores, which answers that are put beside its own would lack"
    ):
        score([str(first), str(one), "--by", "correctness", "--out", str(tmp_path / "x.jsonl")])
    plain = write_lines(tmp_path / "plain.jsonl", [row | {"rewards": [1.0, 2.0, 3.0]} for row in ROWS])
    with pytest.raises(RunError, match="row 1: has `rewards` that are no scores by name"):
        score([str(plain), "--by", "correctness", "--out", str(tmp_path / "x.jsonl")])
    table = TableScorer(["4", "5", "it is 4", "2", "1"], np.full((5, 5), 0.5))
    judged = score_rows(ROWS[:1], [By("j", "judge", lambda: table)]).rows
    again = score_rows(judged, [By("k", "judge", lambda: table)]).rows
    assert set(again[0]["preferences"]) == {"j", "k"}


def test_the_policy_judges_itself(answers, tmp_path):
    by = "self={kind: language_model, path: policy}"
    out, same = tmp_path / "scores.jsonl", tmp_path / "same.jsonl"
    assert score([str(answers), "--by", by, "--policy", "tiny-random", "--out", str(out)]) == 0
    assert score([str(answers), "--by", by.replace("policy", "tiny-random"), "--out", str(same)]) == 0
    assert read_lines(out) == read_lines(same)
    with pytest.raises(RunError, match="which policy is to judge"):
        score([str(answers), "--by", by, "--out", str(tmp_path / "x.jsonl")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing scores the answers"),
        (["corectness"], "rewards: unknown, got 'corectness'; did you mean 'correctness'?"),
        (["x={kind: reward_model}"], "judges.x.path: needed by kind 'reward_model'"),
        (["x={kind: reward_model, path: a, reword: b}"], "judges.x.reword: unknown key"),
        (["x=["], "--by x=[: is not YAML"),
        (["length={most: -1}"], "rewards"),
    ],
)
def test_scorers_that_cannot_be_meant_are_refused(words, said):
    with pytest.raises(RunError) as caught:
        read_by(words, None, "win_rate")
    assert said in str(caught.value)


def test_a_column_that_a_reward_reads_must_be_there(tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [{"prompt": "q", "completions": ["a"]}])
    with pytest.raises(DataError, match="no column 'answer', which the reward 'correctness' reads; there are prompt"):
        score([str(source), "--by", "correctness", "--out", str(tmp_path / "s.jsonl")])

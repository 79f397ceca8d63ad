"""`alignkit data pairs`: rows in, pairs out, and a word on everything that is neither."""

import gzip
import json
from collections import Counter

import pytest
from datasets import Dataset
from trl import unpair_preference_dataset

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.commands.pairs import build, main
from align.data.rows.kinds import labelled, unpair
from align.data.rows.scored import is_correct

ROW = {"prompt": "q ", "completions": ["a", "b", "c"], "rewards": [1.0, 3.0, 2.0]}
CHAT = [{"role": "user", "content": "q"}]


def bot(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(tmp_path, capsys):
    def go(rows, *words, name="in.jsonl"):
        source, out = tmp_path / name, tmp_path / "out.jsonl"
        if name.endswith(".parquet"):
            Dataset.from_list(rows).to_parquet(source)
        else:
            text = "".join(json.dumps(row) + "\n" for row in rows).encode()
            source.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        before = source.read_bytes()
        try:
            assert main([str(source), "--out", str(out), *words]) == 0
        finally:
            assert source.read_bytes() == before
            assert {path.name for path in tmp_path.iterdir()} <= {name, "out.jsonl", "cache"}
        told = capsys.readouterr().out.strip()
        return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], told

    return go


def test_a_pair_with_its_rewards():
    built = build([ROW], "best_worst")
    assert built.pairs == [
        {"prompt": "q ", "chosen": "b", "rejected": "a", "chosen_reward": 3.0, "rejected_reward": 1.0, "margin": 2.0}
    ]
    assert (built.without, built.refused, built.unscored) == ({}, {}, 0)
    (pair, *_) = build([ROW], "all_pairs").pairs
    assert pair["weight"] == 0.5


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.parquet"])
def test_what_is_made_and_what_is_not_is_counted(run, tmp_path, name):
    rows = [
        ROW,
        {"prompt": "r ", "completions": ["a", "b"], "rewards": [1.0, 1.0]},
        {"prompt": "s ", "completions": ["a", "b"], "rewards": [1.0, None]},
        {"prompt": "t ", "completions": ["a", "a", "é"], "rewards": [1.0, 2.0, None]},
        {"prompt": "u ", "completions": ["a", " "], "rewards": [1.0, 0.0]},
        {"prompt": "v ", "completions": ["a", "b"], "rewards": [0.0, 0.0]},
        {"prompt": "w ", "completions": ["é\n", "b", "c"], "rewards": [1.0, 0.0, None]},
    ]
    made, told = run(rows, "--select", "best_worst", name=name)
    assert [(row["prompt"], row["chosen"], row["rejected"]) for row in made] == [("q ", "b", "a"), ("w ", "é\n", "b")]
    assert told == (
        f"{tmp_path / 'out.jsonl'}: 2 pairs of 2 of 7 prompts; 5 prompts without a pair: all rewards are equal (2), "
        "training would refuse its pairs (2), fewer than two completions have a reward (1); 3 completions without a reward; "
        "2 pairs left out that training would refuse: chosen and rejected are identical (1), rejected is empty (1)"
    )
    loaded = load_preferences(DataConfig(train=DataSource(str(tmp_path / "out.jsonl"))))
    assert loaded.train[0] == {"prompt": "q ", "chosen": "b", "rejected": "a"}


def test_named_scores_add_up_by_weight(run):
    responses = [
        {"content": "a", "scores": {"x": 1.0, "y": 2.0}},
        {"content": "b", "scores": {"x": 3.0, "y": 0.0}},
        {"content": "c", "scores": {"x": 9.0, "y": None}},
    ]
    rows = [{"prompt": CHAT, "responses": responses}]
    (made,), told = run(rows, "--select", "best_worst", "--weights", "x=1,y=0.25")
    assert made == {
        "prompt": CHAT,
        "chosen": bot("b"),
        "rejected": bot("a"),
        "chosen_reward": 3.0,
        "rejected_reward": 1.5,
        "margin": 1.5,
    }
    assert told.endswith("1 pairs of 1 of 1 prompts; 1 completions without a reward")
    built = build(rows, "best_worst", weights={"x": 0.1, "y": 1.0})
    assert (built.pairs[0]["chosen"], built.pairs[0]["chosen_reward"]) == (bot("a"), 2.1)
    with pytest.raises(DataError, match="several scores, x, y; say what each counts with --weights"):
        build(rows, "best_worst")
    with pytest.raises(DataError, match="no score 'z'; there are x, y"):
        build(rows, "best_worst", weights={"z": 1.0})
    with pytest.raises(DataError, match="rewards without names, to which --weights cannot apply"):
        build([ROW], "best_worst", weights={"x": 1.0})


def test_both_sides_as_rows_for_supervised_training(run):
    made, told = run([ROW], "--select", "margin", "--min-gap", "1", "--min-reward", "3", "--as", "completions")
    assert [row["completion"] for row in made] == ["b", "a", "b", "c"]
    assert {row["prompt"] for row in made} == {"q "}
    assert "4 completions of 1 of 1 prompts" in told
    assert [row["label"] for row in labelled([ROW | {"chosen": "a", "rejected": "b"}] * 2)] == [True, False] * 2
    pairs = [{"prompt": CHAT, "chosen": bot(f"w{i}"), "rejected": bot(f"l{i}")} for i in range(3)]
    theirs = [
        (str(row["prompt"]), str(row["completion"])) for row in unpair_preference_dataset(Dataset.from_list(pairs))
    ]
    assert Counter((str(row["prompt"]), str(row["completion"])) for row in unpair(pairs)) == Counter(theirs)


def test_rewards_from_the_right_answer(run):
    row = {"prompt": "1+1? ", "completions": ["It is 2", "2, no, 3", "none", "so 2.0."], "answer": "#### 2"}
    made, _ = run([row], "--select", "verified", "--answer", "answer")
    assert [(pair["chosen"], pair["rejected"]) for pair in made] == [
        ("It is 2", "2, no, 3"), ("It is 2", "none"), ("so 2.0.", "2, no, 3"), ("so 2.0.", "none"),
    ]  # fmt: skip
    assert made[0]["margin"] == 1.0
    assert len(build([row], "verified", answer="answer", most=3).pairs) == 3
    with pytest.raises(DataError, match="the answer 'none' holds no number to compare with"):
        build([row | {"answer": "none"}], "verified", answer="answer")
    with pytest.raises(DataError, match="no 'solution' to compare with"):
        build([row], "verified", answer="solution")
    with pytest.raises(DataError, match="verified: rewards must be 1 for correct and 0 for wrong"):
        build([ROW], "verified")


@pytest.mark.parametrize(
    ("text", "answer", "right"),
    [
        ("so 1,000.0 it is.", "1000", True), ("10-5", "5", True), ("-5", "5", False), ("x = -5", "-5", True), ("$.50", "0.5", True),
        ("1, 2,3", "3", True), ("12,34", "34", True), ("5%", "5", True), ("no", "5", False), ("5 of 6", "5", False),
        ("10000000000000000000001", "10000000000000000000000", False), ("٣", "3", True),
    ],
)  # fmt: skip
def test_the_last_number_counts(text, answer, right):
    assert is_correct(text, answer) is right


def test_draws_depend_on_seed_and_prompt_alone():
    rows = [
        {"prompt": f"{i} ", "completions": [f"{j}" for j in range(8)], "rewards": list(range(8))} for i in range(20)
    ]

    def made(rows, **options):
        return {pair["prompt"]: pair["rejected"] for pair in build(rows, "best_worst_of", k=2, **options).pairs}

    first = made(rows)
    assert first == made(rows[::-1]) == made(rows)
    assert made(rows[3:5]) == {prompt: first[prompt] for prompt in ("3 ", "4 ")}
    assert first != made(rows, seed=1)
    assert len(set(first.values())) > 3


def test_reversed_constraints_of_scored_rows_and_of_pairs(run):
    asked = {
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
        "kwargs": [{}, {"relation": "less than", "num_words": 2}],
    }
    rows = [
        {"prompt": CHAT, "chosen": bot("a, b"), "rejected": bot("a")} | asked,
        {"prompt": CHAT, "chosen": bot("a"), "rejected": bot("b")} | asked,
    ]
    (first, second), told = run(rows, "--select", "reverse")
    assert first["prompt"][0]["content"] == "q\n\n- Use at least one comma.\n- Use at least 2 words."
    assert second["prompt"][0]["content"] == "q\n\n- Do not use commas.\n- Use less than 2 words."
    assert (first["chosen"], second["chosen"], first["margin"]) == (bot("a, b"), bot("a"), 2.0)
    assert (
        "2 pairs of 1 of 2 prompts; 1 prompts without a pair: all completions satisfy the same constraints (1)" in told
    )
    scored = {"prompt": "q", "completions": ["a", "a, b", "a, b"]} | asked
    assert len(build([scored], "reverse").pairs) == 4
    with pytest.raises(DataError, match="instruction_id_list and kwargs must be lists of the same length"):
        build([scored | {"kwargs": []}], "reverse")
    with pytest.raises(DataError, match="unknown constraint 'x'"):
        build([scored | {"instruction_id_list": ["x", "x"]}], "reverse")
    with pytest.raises(DataError, match="a completion is neither text nor a list of messages"):
        build([{"prompt": CHAT, "chosen": bot("a")} | asked], "reverse")
    for wrong in ({"kwargs": ["x", "y"]}, {"instruction_id_list": [[], 3]}):
        with pytest.raises(DataError, match="instruction_id_list must hold text, and kwargs objects"):
            build([scored | wrong], "reverse")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--select", "best_worst", "--k", "3"], "--k: would do nothing with --select best_worst; leave it out"),
        (["--select", "best_sigma", "--seed", "3"], "--seed: would do nothing with --select best_sigma"),
        (["--select", "reverse", "--answer", "x"], "--answer: would do nothing with --select reverse"),
        (["--select", "margin", "--most", "3", "--sigmas", "1"], "--sigmas, --most: would do nothing with --select margin"),
        (["--select", "margin", "--weights", "a=1", "--answer", "x"], "--weights, --answer: rewards come from scores or"),
        (["--select", "margin"], "of 1 prompts none yields a pair: no completion has a reward of at least 5"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_is_refused(run, words, message):
    with pytest.raises(DataError, match=message):
        run([ROW], *words)


@pytest.mark.parametrize(
    "words",
    [["--k", "0"], ["--most", "x"], ["--seed", "-1"], ["--min-gap", "nan"], ["--weights", "a=1,a=2"], ["--weights", "=1"], ["--weights", "a=inf"], ["--weights", "a"]],
)  # fmt: skip
def test_options_out_of_range_end_with_the_usage(words, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["in.jsonl", "--select", "best_worst", "--out", "out.jsonl", *words])
    assert f"argument {words[0]}: " in capsys.readouterr().err


def test_nothing_is_written_over_and_nothing_is_left_behind(run, tmp_path, monkeypatch):
    run([ROW], "--select", "best_worst")
    source, out = str(tmp_path / "in.jsonl"), str(tmp_path / "out.jsonl")
    for words, message in (
        ([source, "--out", out], "out.jsonl: is there already; name another file, or remove it"),
        ([source, "--out", source], "in.jsonl: is there already"),
        ([source, "--out", str(tmp_path / "x.json")], "x.json: rows are written as .jsonl"),
        ([source, "--out", str(tmp_path / "no" / "x.jsonl")], "no such folder"),
        ([str(tmp_path), "--out", str(tmp_path / "x.jsonl")], "lies in the source"),
        (
            [str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "x.jsonl")],
            "none.jsonl: cannot be read: no such file",
        ),
    ):
        with pytest.raises(DataError, match=message):
            main([*words, "--select", "best_worst"])
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is there already"):
        main([source, "--out", str(tmp_path / "dangling.jsonl"), "--select", "best_worst"])
    monkeypatch.setattr("align.files.move_new", lambda *_: 1 / 0)  # whatever ends it before it is done
    with pytest.raises(ZeroDivisionError):
        main([source, "--out", str(tmp_path / "y.jsonl"), "--select", "best_worst"])
    assert not list(tmp_path.glob("y.jsonl")) + list(tmp_path.glob(".alignkit*"))


def test_the_best_alone_is_written_as_chosen_and_nothing_else(tmp_path):
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    rows = [
        {"prompt": "p", "completions": ["a", "b"], "rewards": [1, 1]},
        {"prompt": "q", "completions": ["c", " "], "rewards": [1, 2]},
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with pytest.raises(DataError, match="--select best: makes no pairs; add --as chosen"):
        main([str(source), "--select", "best", "--out", str(out)])
    assert main([str(source), "--select", "best", "--as", "chosen", "--out", str(out)]) == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        {"prompt": "p", "completion": "a", "reward": 1.0}
    ]

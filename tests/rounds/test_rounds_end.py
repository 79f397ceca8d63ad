"""Rounds that end early, in words and with everything kept; and rounds of two processes."""

import shutil

import pytest
from launching import finished
from stored_world import made, read_lines, write_lines
from vllm_stub import make_stub, seen_by

from align.commands.sample import main as sample
from align.errors import RunError
from align.recipe.loading import load_recipe
from align.rewards import REWARDS
from align.rewards.load import Known
from align.rounds import stages
from align.rounds.ledger import FILE, Ledger
from align.rounds.plan import Place
from align.rounds.run import _recipe_is_there, run_rounds
from align.train import main as train


def test_a_round_without_pairs_or_with_a_collapsed_policy_ends_in_words(tmp_path, monkeypatch, capsys):
    words = ["rounds/tiny", f"train.output_dir={tmp_path / 'run'}", "rounds.prompts={each: 1}"]
    assert train([*words, "rounds.score={rewards: [clarity]}"]) == 2
    assert "no prompt yields a pair by the rule 'best_worst': all rewards are equal (1)" in capsys.readouterr().err
    monkeypatch.setattr(
        stages, "together", lambda *_, **__: [{"prompt": "q", "completions": ["", " "], "sources": ["policy"] * 2}]
    )
    assert train([*words, "--overwrite"]) == 2
    assert "all answers are empty; the policy has collapsed" in capsys.readouterr().err
    monkeypatch.setattr(
        stages, "together", lambda *_, **__: [{"prompt": "q", "completions": ["a", "a"], "sources": ["policy"] * 2}]
    )
    assert train([*words, "--overwrite"]) == 2
    assert "all answers to each prompt are equal" in capsys.readouterr().err


def test_scorer_and_rule_may_be_changed_before_they_made_anything(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(REWARDS, "silent", Known(lambda completions, **_: [None for _ in completions], 0, 1))
    folder = tmp_path / "run"
    words = ["rounds/tiny", f"train.output_dir={folder}", "rounds.count=1", "train.learning_rate=0.01"]
    assert train([*words, "rounds.score={rewards: [silent]}"]) == 2
    assert "no answer has a score; mend the scorer, or take another" in capsys.readouterr().err
    answers = (folder / "round-1" / "answers" / "policy.jsonl").stat()
    steep = "rounds.select={rule: margin, min_gap: 1, min_reward: 0}"
    assert train([*words, steep, "--resume", "auto"]) == 2
    assert "no prompt yields a pair by the rule 'margin'" in capsys.readouterr().err
    assert train([*words, "--resume", "auto"]) == 0, capsys.readouterr().err
    assert (folder / "round-1" / "answers" / "policy.jsonl").stat() == answers
    assert train([*words, "rounds.score={rewards: [repetition]}", "--resume", "auto"]) == 2
    assert "rounds.score.rewards" in capsys.readouterr().err


def test_a_round_that_was_not_trained_gets_the_recipe_with_the_code_that_is_there(tmp_path):
    recipe, place = load_recipe("rounds/tiny"), Place(tmp_path, 1)
    place.folder.mkdir()
    assert not _recipe_is_there(recipe, place)
    place.recipe.write_text("method: dpo\n")
    assert _recipe_is_there(recipe, place)
    place.recipe.write_text("own_code: {own.py: 12ab}\n")
    assert not _recipe_is_there(recipe, place)
    place.trained.mkdir()
    (place.trained / "recipe.resolved.yaml").touch()
    assert _recipe_is_there(recipe, place)


def test_a_rule_that_wants_more_than_any_score_is_refused(tmp_path, capsys):
    words = ["rounds/tiny", f"train.output_dir={tmp_path / 'run'}"]
    assert train([*words, "rounds.select={rule: margin, min_gap: 0.1}"]) == 2
    said = "the rule 'margin' wants a chosen answer of at least 5 unless said otherwise, and no score is above 1; ask"
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_answers_without_a_score_and_prompts_without_a_pair_are_said(tmp_path, caplog):
    scored = [
        {"prompt": "q", "completions": ["a", "b"], "sources": ["policy"] * 2, "rewards": [1.0, 2.0]},
        {"prompt": "r", "completions": ["a", "b"], "sources": ["policy"] * 2, "rewards": [None, 2.0]},
    ]
    (tmp_path / "round-1").mkdir()
    write_lines(tmp_path / "round-1" / "scores.jsonl", scored)
    stages.pairs_stage(load_recipe("rounds/tiny"), Place(tmp_path, 1))
    assert "round 1: prompts without a pair: " in caplog.text


def test_gold_answers_do_not_hide_a_policy_that_says_nothing(tmp_path):
    rows = [{"completions": ["", [{"role": "assistant", "content": " "}], "4"], "sources": ["policy", "ref", "gold"]}]
    with pytest.raises(RunError, match="round 1: all answers are empty; the policy has collapsed"):
        stages._refuse_collapse(rows, Place(tmp_path, 1))
    stages._refuse_collapse([rows[0] | {"completions": ["", "5", "4"]}], Place(tmp_path, 1))


def test_a_policy_beyond_a_stated_kl_ends_in_words_and_what_is_made_stays(done, tmp_path, sampled, capsys):
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    recipe = load_recipe("rounds/tiny", [f"train.output_dir={folder}", "rounds.max_kl=100"])
    with pytest.raises(RunError, match=r"another recipe:\n  rounds.max_kl: \(not said\) -> 100"):
        run_rounds(recipe, None, resume=True)
    (folder / "recipe.resolved.yaml").write_text(recipe.resolved_yaml())
    (folder / FILE).write_text((folder / FILE).read_text().partition("\n")[2])  # as of an earlier version
    run_rounds(recipe, None, resume=True)
    told = {row["round"]: row["counts"] for row in read_lines(folder / FILE) if row["stage"] == "drift"}
    assert told[1] == {"kl": 0.0, "answers": 4}
    assert told[2]["kl"] != 0
    assert not sampled  # its answers are there
    for line in (path := folder / FILE).read_text().splitlines():
        if '"drift"' in line and '"round": 2' in line:
            path.write_text(path.read_text().replace(line + "\n", ""))
    recipe.rounds.max_kl = -1.0  # what no policy keeps; a recipe cannot say so
    (folder / "recipe.resolved.yaml").write_text(recipe.resolved_yaml())
    with pytest.raises(
        RunError, match=r"round 2: the policy is \S+ nats an answer from the first reference \(4 answers\), more"
    ):
        run_rounds(recipe, None, resume=True)
    assert made(folder) == made(done)


def test_a_full_disk_is_told_with_the_file_and_made_room_for(tmp_path, monkeypatch):
    ledger, out = Ledger(tmp_path), tmp_path / "out"

    def act():
        out.write_text("x")
        return {}

    with monkeypatch.context() as full:
        full.setattr("align.files.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match=r"rounds\.jsonl: could not be written: No space left on device; make room"):
            ledger.stage(1, "a", [], [out], act)
    with (tmp_path / FILE).open("r+") as file:
        file.truncate(9)  # what a full disk leaves
    assert Ledger(tmp_path).stage(1, "a", [], [out], act) == {}
    assert len(read_lines(tmp_path / FILE)) == 1


@pytest.mark.slow
def test_vllm_samples_the_answers_of_rounds_and_knows_the_policy_of_each(tmp_path, sampled, capsys):
    python, folder = make_stub(tmp_path), tmp_path / "run"
    words = ["rounds/tiny", f"train.output_dir={folder}", "train.max_steps=1", "--vllm", python]
    assert train(words) == 0
    assert [one["lora"] for one in seen_by(tmp_path)] == [None, str(folder / "round-1" / "train" / "adapter")]
    assert [len(one["prompts"]) for one in seen_by(tmp_path)] == [12, 12]
    by_hand = [str(folder / "round-1" / "recipe.yaml"), "--prompts", str(folder / "round-1" / "prompts.jsonl")]
    by_hand += ["--samples", "3", "--max-new-tokens", "8", "--vllm", python]
    sample([*by_hand, "--out", str(tmp_path / "mine" / "policy.jsonl")])
    assert read_lines(tmp_path / "mine" / "policy.jsonl") == read_lines(folder / "round-1" / "answers" / "policy.jsonl")
    for path in folder.glob("round-*/answers/policy.jsonl"):
        path.unlink()
    assert train([*words, "--resume", "auto"]) == 0  # what is kept is not asked again
    assert len(seen_by(tmp_path)) == 3
    assert train(["dpo/tiny", f"train.output_dir={tmp_path / 'other'}", "--vllm", python]) == 2
    assert "--vllm: samples the answers of rounds, and the recipe has none" in capsys.readouterr().err
    assert train([*words, "--overwrite", "model.load_in_4bit=true"]) == 2
    assert "--vllm: the base is quantised" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_let_one_vllm_sample(tmp_path):
    """All prompts are the main process's, and none is asked twice."""
    python, words = make_stub(tmp_path), ["rounds.count=1", "train.learning_rate=0.01", "train.max_steps=1"]
    finished(2, "-m", "align.train", "rounds/tiny", *words, f"train.output_dir={tmp_path / 'run'}", "--vllm", python)
    assert [len(one["prompts"]) for one in seen_by(tmp_path)] == [12]
    assert len(read_lines(tmp_path / "run" / "round-1" / "answers" / "policy.jsonl")) == 4


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_sample_the_same_round(done, tmp_path):
    """Each its prompts; only what is trained then differs, by how batches are split."""
    words = ["rounds.count=1", "train.learning_rate=0.01", f"train.output_dir={tmp_path / 'run'}"]
    finished(2, "-m", "align.train", "rounds/tiny", *words)
    for name in ("prompts.jsonl", "answers/policy.jsonl", "scores.jsonl", "pairs.jsonl"):
        assert (tmp_path / "run" / "round-1" / name).read_bytes() == (done / "round-1" / name).read_bytes(), name

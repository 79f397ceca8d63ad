"""Rounds that end early, in words and with everything kept; and rounds of two processes."""

import shutil

import pytest
from launching import finished
from stored_world import made, read_lines

from align.errors import RunError
from align.recipe.loading import load_recipe
from align.rounds import stages
from align.rounds.ledger import FILE, Ledger
from align.rounds.plan import Place
from align.rounds.run import run_rounds
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


def test_gold_answers_do_not_hide_a_policy_that_says_nothing(tmp_path):
    rows = [{"completions": ["", [{"role": "assistant", "content": " "}], "4"], "sources": ["policy", "ref", "gold"]}]
    with pytest.raises(RunError, match="round 1: all answers are empty; the policy has collapsed"):
        stages._refuse_collapse(rows, Place(tmp_path, 1))
    stages._refuse_collapse([rows[0] | {"completions": ["", "5", "4"]}], Place(tmp_path, 1))


def test_a_policy_beyond_a_stated_kl_ends_in_words_and_what_is_made_stays(done, tmp_path, sampled, capsys):
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    recipe = load_recipe("rounds/tiny", [f"train.output_dir={folder}", "rounds.max_kl=100"])
    (folder / "recipe.resolved.yaml").write_text(recipe.resolved_yaml())
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
        full.setattr(
            "align.rounds.ledger.os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device"))
        )
        with pytest.raises(OSError, match=r"rounds\.jsonl: could not be written: No space left on device; make room"):
            ledger.stage(1, "a", [], [out], act)
    with (tmp_path / FILE).open("r+") as file:
        file.truncate(9)  # what a full disk leaves
    assert Ledger(tmp_path).stage(1, "a", [], [out], act) == {}
    assert len(read_lines(tmp_path / FILE)) == 1


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_sample_the_same_round(done, tmp_path):
    """Each its prompts; only what is trained then differs, by how batches are split."""
    words = ["rounds.count=1", "train.learning_rate=0.01", f"train.output_dir={tmp_path / 'run'}"]
    finished(2, "-m", "align.train", "rounds/tiny", *words)
    for name in ("prompts.jsonl", "answers/policy.jsonl", "scores.jsonl", "pairs.jsonl"):
        assert (tmp_path / "run" / "round-1" / name).read_bytes() == (done / "round-1" / name).read_bytes(), name

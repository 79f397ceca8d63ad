"""What `alignkit data diagnose` says of a run's rows, and what it writes without them or in their place."""

import json

import numpy as np
import pytest
from endpoint_server import Server, failing, says
from stored_world import read_lines

from align.cli import main
from align.models.loading import load_tokenizer
from align.recipe.loading import load_recipe
from align.recipe.shipped import find_recipe
from align.rewards.load import REWARDS
from align.sampling.policy import beginning_of, policy_of
from align.scoring.completions import completion_ids, completion_logps
from align.train import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "sft"
    run("supervised/tiny", [f"train.output_dir={folder}", "train.max_steps=8", "train.max_length=24"])
    return folder


def diagnosed(finished, tmp_path, *words):
    out = tmp_path / "flags.jsonl"
    code = main(["data", "diagnose", str(finished), "--out", str(out), *words])
    return code, read_lines(out) if out.exists() else None


def test_every_row_has_its_losses_and_neighbours(finished, tmp_path, capsys):
    kept = tmp_path / "kept.jsonl"
    words = ["--by", "none", "--sigmas", "hard=0,lonely=0.5", "--drop", str(kept)]
    code, rows = diagnosed(finished, tmp_path, *words)
    assert code == 0
    recipe = load_recipe(finished / "recipe.resolved.yaml")
    tokenizer = load_tokenizer(recipe.model)
    for figure, policy in (("before", beginning_of(recipe)), ("after", policy_of(str(finished)))):
        with policy.load()() as model:
            for row in rows:
                ids, begin = completion_ids(tokenizer, row["prompt"], row["completion"], 24)
                (logps,) = completion_logps(model, [(ids[:begin], ids[begin:])], pad_token_id=0)
                assert row[figure] == pytest.approx(-float(logps.mean()), rel=1e-5)
    assert any(row["before"] > row["after"] for row in rows)
    assert [row["row"] for row in rows] == list(range(1, len(rows) + 1))
    means = {name: np.mean([row[name] for row in rows]) for name in ("before", "after")}
    hard = [all(row[name] > mean for name, mean in means.items()) for row in rows]
    assert [("hard" in row["flags"]) for row in rows] == hard
    assert any("lonely" in row["flags"] for row in rows)
    assert all(row["rating"] is None and row["row"] not in row["neighbours"] for row in rows)
    expected = [{name: row[name] for name in ("prompt", "completion")} for row in rows if not row["flags"]]
    assert read_lines(kept) == expected
    said = capsys.readouterr().out
    assert f"{sum(map(bool, (row['flags'] for row in rows)))} of {len(rows)} rows are flagged: {sum(hard)} hard" in said
    assert f"0 poor (no two rows differ in it); {len(rows)} rows without rating" in said


def test_a_reward_rates_in_the_place_of_the_policy(finished, tmp_path, capsys, monkeypatch):
    def rated(prompts, completions, **_):
        return [len(one[-1]["content"]) for one in completions]

    monkeypatch.setitem(REWARDS, "by_length", REWARDS["repetition"]._replace(reward=rated))
    by = ["--by", "by_length"]
    code, rows = diagnosed(finished, tmp_path, *by, "--sigmas", "poor=0.8")
    assert code == 0
    lengths = [len(row["completion"][0]["content"]) for row in rows]
    assert [row["rating"] for row in rows] == lengths
    limit = np.mean(lengths) - 0.8 * np.std(lengths, ddof=1)
    assert [("poor" in row["flags"]) for row in rows] == [length < limit for length in lengths]
    assert min(lengths) < limit
    assert "rows without" not in capsys.readouterr().out


def test_the_policy_rates_and_rewrites_and_is_not_asked_again(finished, tmp_path, capsys, sampled):
    new = tmp_path / "new.jsonl"
    words = ["--rewrite", str(new), "--sigmas", "lonely=0.5", "--max-new-tokens", "6"]
    code, rows = diagnosed(finished, tmp_path, *words)
    assert code == 0
    written = read_lines(new)
    changed = [row["row"] for row, now in zip(rows, written, strict=True) if row["prompt"] != now["prompt"]]
    assert changed == [row["row"] for row in rows if row["flags"]]
    assert f"{len(changed)} of {len(rows)} rows are rewritten" in capsys.readouterr().out
    asked = sum(sampled)
    for path in (new, tmp_path / "flags.jsonl"):
        path.unlink()
    diagnosed(finished, tmp_path, *words)
    assert sum(sampled) == asked
    assert read_lines(new) == written


def test_an_endpoint_rewrites_and_what_it_fails_on_stays(finished, tmp_path, capsys):
    new = tmp_path / "new.jsonl"

    def answer(text, number):
        return failing(400) if "Instructions:\nname a colour" in text else says(f"said {number}")

    with Server(answer) as server:
        words = ["--by", "none", "--sigmas", "lonely=0.5", "--rewrite", str(new)]
        words += ["--writer", server.url, "--model", "m"]
        assert diagnosed(finished, tmp_path, *words) == (2, None)
        host = server.url.split("/")[2]
        assert f"flagged rows would be sent to '{host}'; if you agree, add --allow {host}" in capsys.readouterr().err
        code, rows = diagnosed(finished, tmp_path, *words, "--allow", host)
    assert code == 0
    colour = next(row for row in rows if "name a colour" in json.dumps(row["prompt"]))
    assert colour["flags"] == ["lonely"]
    written = read_lines(new)
    assert written[colour["row"] - 1] == {name: colour[name] for name in ("prompt", "completion")}
    assert sum("said" in json.dumps(row) for row in written) == sum(map(bool, (row["flags"] for row in rows))) - 1
    assert "1 stay as they were, for no text came" in capsys.readouterr().out


def test_what_cannot_be_diagnosed_is_told_before_anything_is_loaded(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("align.sampling.policy.load_model", lambda *_, **__: pytest.fail("loaded"))
    pairs = tmp_path / "dpo"
    pairs.mkdir()
    shipped = find_recipe("dpo/tiny")
    (pairs / "recipe.resolved.yaml").write_text(
        shipped.read_text().replace("../data", str(shipped.parent.parent / "data"))
    )
    rounds = tmp_path / "rounds"
    rounds.mkdir()
    (rounds / "recipe.resolved.yaml").write_text(
        find_recipe("rounds/tiny").read_text().replace("../data", str(shipped.parent.parent / "data"))
    )
    other = str(tmp_path / "other.jsonl")
    for words, told in (
        ([str(tmp_path)], "not a run directory; name a finished run"),
        ([str(pairs)], "method 'dpo' learns from pairs, and rows of completions alone are diagnosed"),
        ([str(finished), "--sigmas", "odd=1"], "--sigmas: expected NAME=NUMBER with a NAME of hard, lonely, poor"),
        ([str(finished), "--sigmas", "poor=-1"], "0 or more, got 'poor=-1'"),
        ([str(finished), "--by", "clarit"], "rewards: unknown, got 'clarit'"),
        ([str(finished), "--model", "m"], "--model: is an endpoint's, which --writer names; leave it out"),
        ([str(finished), "--writer", "http://h/v1", "--model", "m"], "--writer: does nothing without --rewrite"),
        ([str(finished), "--drop", other, "--rewrite", other], "is named twice; name another file"),
        ([str(finished), "--batch-size", "0"], "--batch-size: must be at least 1, got 0"),
        ([str(finished), "--max-new-tokens", "0"], "--max-new-tokens: must be at least 1, got 0"),
        ([str(finished), "--temperature", "-1"], "--temperature: must"),
        ([str(rounds)], f"{rounds}: has rounds, each of which learns from rows of its own; name one, such as"),
    ):
        assert main(["data", "diagnose", *words, "--out", str(tmp_path / "flags.jsonl")]) == 2
        assert told in capsys.readouterr().err


def test_nothing_is_written_where_no_row_would_be_left(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("align.diagnosis.command.flags", lambda figures, beyond: [["hard"]] * len(figures.before))
    assert diagnosed(finished, tmp_path, "--by", "none", "--drop", str(tmp_path / "kept.jsonl")) == (2, None)
    assert "--drop: all 10 rows are flagged, and none would be left; raise --sigmas" in capsys.readouterr().err


def test_a_row_that_training_leaves_out_has_no_loss(finished, tmp_path, capsys):
    code, rows = diagnosed(finished, tmp_path, "--by", "none", "train.max_length=14")
    assert code == 0
    left = sum(row["before"] is None and row["after"] is None for row in rows)
    assert 0 < left < len(rows)
    assert f"; {left} rows without losses; {len(rows)} rows without rating" in capsys.readouterr().out


def test_one_row_has_no_limits(finished, tmp_path, capsys):
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "say hello", "completion": "hello"}\n')
    code, (row,) = diagnosed(finished, tmp_path, "--by", "none", f"data.train.path={one}")
    assert code == 0
    assert (row["neighbours"], row["similarity"], row["flags"]) == ([], None, [])
    assert capsys.readouterr().out.count("(no two rows differ in it)") == 3

"""One report over all rounds, and the best of them chosen on one half of the prompts and measured on the other."""

import json
import shutil
from itertools import count

import numpy as np
import pytest
from stored_world import read_lines
from tiny import sparing

from align.data.split import prompt_position
from align.errors import RunError
from align.going_on import taken_round
from align.recipe.loading import load_recipe
from align.rounds.best import HALF, choose
from align.rounds.ledger import FILE
from align.train import run
from eval.__main__ import Wanted, _of_rounds, main
from eval.report.results import Report
from eval.rounds import add_rounds

EVAL = ["eval.generate.prompts=8", "eval.judges={local: {kind: language_model, path: tiny-random}}"]


def halves(each):
    """As many prompts of either half."""
    found = {True: [], False: []}
    numbers = count()
    while min(map(len, found.values())) < each:
        prompt = f"prompt {next(numbers)}"
        found[prompt_position([HALF, prompt]) < 0.5].append(prompt)
    return found[True][:each] + found[False][:each]


@pytest.mark.parametrize("sets", sparing([400, 1500], 400))
def test_the_estimate_of_the_half_that_chose_is_too_high_and_that_of_the_other_is_not(sets):
    """Three equal rounds with a rate of 0.6, 100 prompts a half: the curse is 0.041279."""
    prompts, rng, off = halves(100), np.random.default_rng(0), []
    for _ in range(sets):
        scores = {f"round-{n}": (rng.random(200) < 0.6).astype(float) for n in range(3)}
        chosen = choose(scores, prompts, draws=1)
        best = scores[chosen.best]
        off.append([best[chosen.chosen_on].mean() - 0.6, best[chosen.reported_on].mean() - 0.6])
    errors = np.std(off, axis=0) / np.sqrt(len(off))
    assert np.abs(np.mean(off, axis=0) - [0.041279, 0.0]) == pytest.approx([0, 0], abs=4 * errors.max())
    assert sorted(chosen.chosen_on + chosen.reported_on) == list(range(200))


def test_the_first_of_equal_rounds_and_a_sure_one_is_chosen():
    prompts = halves(3)
    same = {f"round-{n}": np.ones(6) for n in range(3)}
    assert choose(same, prompts)[:2] == ("round-0", ["round-0", "round-1", "round-2"])
    better = choose(same | {"round-2": np.full(6, 2.0)}, prompts)
    assert (better.best, better.share) == ("round-2", 1.0)
    assert better.chosen_on == [0, 1, 2]
    assert choose({"round-0": np.ones(2)}, prompts[:2]) is None


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    folder = tmp_path_factory.mktemp("best") / "run"
    run("rounds/tiny", [f"train.output_dir={folder}", "rounds.take=best", "train.max_steps=1", *EVAL])
    return folder


def test_the_recipe_may_take_the_best_round(best):
    said = [(row["round"], row["stage"]) for row in read_lines(best / FILE)]
    later = [(0, "validation-prompts"), *[(n, "validation") for n in (0, 1, 2)], (2, "validation-scores"), (2, "best")]
    assert said[-6:] == later
    told = json.loads((best / "round-2" / "best.json").read_text())
    assert told["candidates"] == ["round-0", "round-1", "round-2"]
    chosen = told["means"]["chosen_on"]
    assert chosen[told["best"]] == max(chosen.values())
    rows = read_lines(best / "round-2" / "validation-scores.jsonl")
    assert [row["sources"] for row in rows] == [["round-0", "round-1", "round-2"]] * 8
    first = [prompt_position([HALF, row["prompt"]]) < 0.5 for row in rows]
    by_hand = np.mean([row["rewards"][2]["judge"] for row, own in zip(rows, first, strict=True) if own])
    assert chosen["round-2"] == pytest.approx(by_hand)
    taken = {"round-0": best / "first"}.get(told["best"], best / told["best"] / "train" / "adapter")
    name = "adapter_model.safetensors"
    assert (best / "adapter" / name).read_bytes() == (taken / name).read_bytes()


def test_how_the_best_is_chosen_may_not_change_once_it_was(best, tmp_path):
    words = [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1", *EVAL]
    run("rounds/tiny", words)  # takes the last
    run("rounds/tiny", [*words, "rounds.take=best"], resume="auto")
    assert (tmp_path / "run" / "round-2" / "best.json").read_bytes() == (best / "round-2" / "best.json").read_bytes()
    with pytest.raises(RunError, match=r"eval.generate.temperature: 1.0 -> 0.3"):
        run("rounds/tiny", [*words, "rounds.take=best", "eval.generate.temperature=0.3"], resume="auto")
    run("rounds/tiny", [*words, "rounds.take=last", "eval.generate.temperature=0.3"], resume="auto")
    assert taken_round(tmp_path / "run") == 2


def test_a_run_that_began_with_the_best_keeps_that_adapter(best, tmp_path):
    """Whatever the scores say: the answer of the stage is edited to be round 0."""
    folder = tmp_path / "run"
    shutil.copytree(best, folder)
    path = folder / "round-2" / "best.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"best": "round-0"}))
    run(load_recipe(folder / "recipe.resolved.yaml", [f"train.output_dir={folder}"], anywhere=True), resume="auto")
    weights = (folder / "adapter" / "adapter_model.safetensors").read_bytes()
    assert weights == (folder / "first" / "adapter_model.safetensors").read_bytes()
    report = Report("round-2")
    add_rounds(report, [], folder)
    assert report.settings["adapter_is_of"] == "round-0"


def test_all_rounds_are_evaluated_as_one(best, capsys):
    wanted = _of_rounds(Wanted([str(best)]))
    assert wanted.names == [str(best / f"round-{n}" / "train") for n in (2, 1)]
    assert wanted.compare
    assert main([str(best)]) == 0, capsys.readouterr().err
    said = json.loads((best / "report" / "report.json").read_text())
    assert said["rounds"] == ["round-1", "round-2"]
    found = said["estimates"]
    assert found["round-1/kl_before"] == found["round-1/kl"]
    assert 0 < found["kl_before"]["value"] != found["kl"]["value"] > 0
    chosen = said["best_round"]["win_rate/local"]
    first = [prompt_position([HALF, row["prompt"]]) < 0.5 for row in read_lines(best / "report" / "responses.jsonl")]
    assert (chosen["candidates"], chosen["chosen_on"], chosen["measured_on"]) == (3, sum(first), 8 - sum(first))
    assert {(row["first"], row["second"]) for row in said["comparisons"]["win_rate/local"]} == {
        ("round-2", "round-1"), ("round-2", "reference"), ("round-1", "reference"),
    }  # fmt: skip
    assert said["settings"]["adapter_is_of"] == json.loads((best / "round-2" / "best.json").read_text())["best"]
    page = (best / "report" / "report.html").read_text()
    assert "<h2>Rounds</h2>" in page
    assert "Best of 3 policies by win_rate" in page

    assert "KL from the round before" in (best / "report" / "report.md").read_text()

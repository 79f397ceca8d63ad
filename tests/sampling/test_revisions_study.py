"""The study of revisions: its recipes, its figures on planted rewards, its picture, and that what is there is not done again."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from align.recipe.loading import load_recipe
from eval.statistics.intervals import mean_estimate, over_seeds

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))
import revisions

PROMPTS = 30


@pytest.fixture(scope="module")
def planted():
    """SRPO gains 0.4 by two revisions, DPO 0.1, the reference nothing, in each of two seeds."""
    drawn = np.random.default_rng(0).uniform(-0.5, 0.5, (2, PROMPTS))
    srpo = np.stack([drawn, drawn + 0.1, drawn + 0.4], axis=1)
    dpo, ref = (np.stack([drawn, drawn, drawn + gain], axis=1) for gain in (0.1, 0.0))
    return {"srpo": srpo, "dpo": dpo, revisions.REF: ref}


def test_gains_are_of_the_last_revision_over_the_first_answer(planted):
    told = revisions.summary(planted)
    gain = told["srpo"]["last less first"]
    assert gain["each"] == [0.4, 0.4]
    assert gain["over prompts"]["n"] == PROMPTS
    assert gain["over seeds"]["value"] == pytest.approx(0.4)
    assert told["dpo"]["last less first"]["each"] == [0.1, 0.1]
    assert told["srpo"]["last against first, win rate"]["each"] == [1, 1]
    assert told[revisions.REF]["last against first, win rate"]["each"] == [0.5, 0.5]
    assert told["srpo"]["last less first, less that of dpo"]["each"] == [0.3, 0.3]
    assert told["srpo"]["last less first, less that of reference"]["each"] == [0.4, 0.4]
    means = planted["srpo"][:, 1].mean(axis=1)
    assert told["srpo"]["reward"][1]["each"] == pytest.approx(means, abs=1e-4)


def test_intervals_are_those_of_reports(planted):
    told = revisions.summary({"srpo": planted["srpo"][:, :, :20]})["srpo"]["reward"][0]
    rows = planted["srpo"][:, 0, :20]
    whole, seeds = mean_estimate(rows.mean(axis=0), bounds=(-1, 1)), over_seeds(rows.mean(axis=1))
    assert [told["over prompts"][end] for end in ("low", "high")] == pytest.approx([whole.low, whole.high], abs=1e-4)
    assert [told["over seeds"][end] for end in ("low", "high")] == pytest.approx([seeds.low, seeds.high], abs=1e-4)


def test_one_seed_has_no_interval_over_seeds(planted):
    told = revisions.summary({name: rewards[:1] for name, rewards in planted.items()})
    assert told["srpo"]["last less first"]["over seeds"] is None


@pytest.mark.parametrize("method", revisions.METHODS)
def test_both_methods_learn_the_same_rows_in_as_many_steps(method, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(revisions.recipe_of(method)))
    recipe = load_recipe(path)
    assert (recipe.method, recipe.train.max_steps, recipe.train.per_device_train_batch_size) == (method, 22, 4)
    assert recipe.train.max_length == revisions.LONGEST


def test_what_is_there_is_not_done_again_and_is_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(revisions, "trained", lambda name, seed, out: (name, seed))
    monkeypatch.setattr(revisions, "load_recipe", lambda path: None)
    monkeypatch.setattr(revisions, "reference_of", lambda recipe: (revisions.REF, None))
    asked = []

    def answered(policy, seed):
        asked.append((policy[0], seed))
        return {"texts": [], "rewards": [[0.1 * n + 0.01 * k + seed for k in range(8)] for n in range(3)]}

    monkeypatch.setattr(revisions, "answered", answered)
    words = [str(tmp_path / "out"), "-o", str(tmp_path / "results"), "--seeds"]
    revisions.main([*words, "1"])
    revisions.main([*words, "2"])
    assert asked == [(name, seed) for seed in (0, 1) for name in ("srpo", "dpo", "reference")]
    told = json.loads((tmp_path / "results" / "revisions.json").read_text())["policies"]
    assert list(told) == ["srpo", "dpo", "reference"]
    assert told["srpo"]["last less first"]["each"] == [0.2, 0.2]
    assert (tmp_path / "results" / "revisions.png").read_bytes().startswith(b"\x89PNG")

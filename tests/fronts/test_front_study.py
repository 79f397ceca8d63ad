"""The study `scripts/studies/fronts.py` of ways to a front: equal steps for all, and its figures on tables that are known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from align.fronts.plan import policies_at_most
from align.recipe.loading import load_recipe
from align.rewards.load import REWARDS, Known

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import fronts as study


@pytest.fixture(scope="module")
def told():
    def found(*means):
        rows = np.array(
            [[np.array(mean) + sign * (k + 1) for sign in (-0.05, 0.05) * 20] for k, mean in enumerate(means)]
        )
        return study.Found([f"p{k}" for k in range(len(means))], rows, {"steps": 21})

    every = {
        (0, study.FIXED): found((0.5, 0.5, 0.5)),
        (0, "UPGrad"): found((0.5, 0.5, 0.4), (0.9, 0.5, 0.2), (0.4, 0.4, 0.3)),
        (0, "worse"): found((0.5, 0.5, 0.5), (0.5, 0.1, 0.4))._replace(tables=np.full((2, 40, 3), 0.2)),
        (1, study.FIXED): found((0.9, 0.9, 0.5)),
        (1, "UPGrad"): found((0.5, 0.5, 0.9)),
    }
    return study.summary(every)


@pytest.mark.parametrize("name", study.METHODS)
def test_every_method_takes_as_many_steps_of_as_many_answers(tmp_path, monkeypatch, name):
    monkeypatch.setitem(REWARDS, "brevity", Known(study.brevity, 0, 1))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(study.recipe_of(name, tmp_path)), encoding="utf-8")
    recipe = load_recipe(path)
    policies = 1 if recipe.fronts is None else policies_at_most(recipe)
    assert policies * recipe.train.max_steps == study.STEPS
    assert recipe.train.per_device_train_batch_size * recipe.train.gradient_accumulation_steps == study.ANSWERS
    assert recipe.train.max_completion_length == recipe.eval.generate.max_new_tokens == study.TOKENS


def test_brevity_falls_with_characters_to_nothing():
    assert study.brevity(["", "x" * 15, [{"role": "assistant", "content": "x" * 90}]]) == [1.0, 0.75, 0.0]


def test_points_fronts_and_differences(told):
    one = told["seeds"]["0"]["UPGrad"]
    assert one["points"]["p1"]["values"] == pytest.approx([0.9, 0.5, 0.2])
    assert [point["on front"] for point in one["points"].values()] == [True, True, False]
    gap = told["methods"]["UPGrad"]["hypervolume"]["minus fixed weights, over seeds"]
    first = 0.5 * 0.5 * 0.4 + 0.4 * 0.5 * 0.2 - 0.5**3  # the box beyond 0.5 is new, the rest is covered
    second = 0.5 * 0.5 * 0.9 - 0.9 * 0.9 * 0.5
    assert gap["value"] == pytest.approx((first + second) / 2, abs=1e-4)
    assert gap["n"] == 2
    same = told["methods"]["UPGrad"]["hypervolume"]["minus fixed weights, over prompts"]
    assert same["value"] == pytest.approx(gap["value"], abs=0.03)  # it is corrected
    assert "minus fixed weights, over seeds" not in told["methods"][study.FIXED]["hypervolume"]


def test_a_difference_has_its_sign_and_no_floor(told):
    worse = told["methods"]["worse"]["hypervolume"]["minus fixed weights, over prompts"]
    assert worse["low"] < worse["value"] < worse["high"] < 0
    assert worse["value"] == pytest.approx(0.2**3 - 0.5**3, abs=0.01)
    assert told["methods"][study.FIXED]["hypervolume"]["over seeds"]["value"] == pytest.approx(
        (0.125 + 0.405) / 2, abs=1e-4
    )


def test_it_writes_figures_and_a_picture_with_every_method(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "REWARDS", {})
    monkeypatch.setattr(study, "problems", lambda folder: [{"prompt": "p", "answer": "1"}] * 60)
    tables = np.random.default_rng(0).random((2, 6, 3))
    monkeypatch.setattr(study, "reached", lambda name, seed, out: study.Found(["a", "b"], tables, {"steps": 21}))
    (tmp_path / "warm").mkdir()
    study.main(["unused", str(tmp_path), "--methods", study.FIXED, "UPGrad"])
    told = json.loads((tmp_path / "fronts.json").read_text())
    assert list(told["seeds"]["0"]) == [study.FIXED, "UPGrad"]
    assert told["methods"]["UPGrad"]["expected utility"]["minus fixed weights, over prompts"]["value"] == 0
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 60 - study.HELD_OUT

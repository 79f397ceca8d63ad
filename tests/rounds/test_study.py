"""The study of suboptimal and on-policy data: its figures, and its picture."""

import json
import sys
from pathlib import Path

import pytest
import yaml

from align.recipe.loading import load_recipe
from align.rewards.load import REWARDS
from align.rounds.plan import round_prompts
from eval.statistics.intervals import Estimate

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import rounds_against_one as against
import suboptimal


@pytest.mark.parametrize(
    ("family", "steps", "figures"),
    [
        ("tilted", 10, (0.000443, 0.006616, 0.003822, 0.030745)),
        ("tilted", 20, (0.001002, 0.060999, 0.14649, 0.593056)),
        ("tilted", 50, (0.001304, 0.248273, 0.661824, 0.662341)),
        ("tilted", 200, (0.00131, 0.293419, 0.662341, 0.662341)),
        ("table", 20, (0.045984, 0.024918, 0.940396, 0.617637)),
        ("table", 100, (0.108903, 0.01871, 0.998236, 0.999694)),
    ],
)
def test_reward_by_policy_family_samples_and_push(family, steps, figures):
    found = [suboptimal.learnt(family, every, push, steps)[-1] for every, push in suboptimal.CELLS.values()]
    assert found == pytest.approx(figures, abs=1e-6)


def test_how_often_answers_are_sampled_anew():
    found = [suboptimal.learnt("tilted", every, 0.0, 50)[-1] for every in (1, 5, 20, 0)]
    assert found == pytest.approx((0.661824, 0.658501, 0.16513, 0.001304), abs=1e-6)


def test_it_writes_figures_and_a_picture(tmp_path):
    suboptimal.main(["-o", str(tmp_path)])
    figures = json.loads((tmp_path / "suboptimal.json").read_text())
    assert figures["reward_after_steps"]["table"]["on, push 0"]["100"] == pytest.approx(0.998236, abs=1e-6)
    assert (tmp_path / "suboptimal.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("method", against.METHODS)
def test_three_rounds_and_one_have_the_same_prompts_answers_and_steps(tmp_path, monkeypatch, method):
    monkeypatch.setitem(REWARDS, against.GOLD, REWARDS["clarity"])
    task = against.Task("tiny-random", 16, against.GOLD, lambda row, text: 0.0, [], "found.json")
    path, rows = tmp_path / "recipe.yaml", [{"prompt": f"p {k}"} for k in range(200)]
    path.write_text(
        yaml.safe_dump(against.recipe_of(method, task, tmp_path / "prompts.jsonl", tmp_path / "judge")),
        encoding="utf-8",
    )
    asked, settings = {}, []
    for name, (count, each) in against.CONDITIONS.items():
        recipe = load_recipe(path, [f"rounds.count={count}", f"rounds.prompts={{each: {each}}}"])
        asked[name] = {row["prompt"] for n in range(1, count + 1) for row in round_prompts(recipe, rows, n)}
        settings.append((recipe.train.to_dict(), recipe.rounds.sample, recipe.rounds.select, recipe.lora.to_dict()))
        assert each % recipe.train.per_device_train_batch_size == 0
    assert asked["three rounds"] == asked["one round"]
    assert len(asked["one round"]) == against.ROUNDS * against.EACH
    assert settings[0] == settings[1]


def test_an_end_that_is_not_known_is_null():
    assert against.shown(Estimate(0.5, -float("inf"), 1.0, 3)) == {"value": 0.5, "low": None, "high": 1.0, "n": 3}

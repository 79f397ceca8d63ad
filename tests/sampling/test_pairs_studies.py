"""The studies of over-optimisation and of the sweet spot: their recipes, their figures on planted answers, and that work is not done twice."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from align.recipe.loading import load_recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies" / "reviews"))
import methods
import overoptimisation
import sweet_spot

PROMPTS, SEEDS = 40, 3
AT = list(overoptimisation.CHECKPOINTS)


def planted(levels, *, noise=0.05):
    """Rewards of three seeds at each checkpoint: a level, and what a beginning adds to it."""
    drawn = np.random.default_rng(0).uniform(-noise, noise, (SEEDS, 1, PROMPTS))
    return np.array(levels)[None, :, None] + drawn


def test_a_fall_is_from_the_best_checkpoint_to_the_last():
    levels = [0.5, 0.8, 0.7, 0.55]
    np.testing.assert_allclose(overoptimisation.fall(planted(levels)), -0.25, atol=1e-12)
    assert not overoptimisation.fall(planted(sorted(levels))).any()


def test_the_best_checkpoint_is_not_chosen_by_what_measures_the_fall():
    """Of checkpoints that are all alike the best looks better than it is; on the other half it does not."""
    rng = np.random.default_rng(0)
    falls = [overoptimisation.fall(rng.normal(size=(1, len(AT), PROMPTS))).mean() for _ in range(400)]
    assert np.mean(falls) == pytest.approx(0, abs=4 * np.std(falls) / 20)


def test_figures_of_over_optimisation():
    rising, falling = np.linspace(0.5, 0.8, len(AT)), np.array([0.5, 0.7, 0.9, 0.4])
    curves = {
        name: {"gold": planted(levels), "proxy": planted(rising), "kl": planted(levels * 10)}
        for name, levels in (("dpo", falling), ("rpo 0.5", rising))
    }
    told = overoptimisation.summary(curves)
    assert list(told["dpo"]["by step"]) == [str(step) for step in AT]
    assert told["dpo"]["by step"][str(AT[2])]["gold"]["over prompts"]["value"] == pytest.approx(0.9, abs=0.02)
    assert told["dpo"]["gold, end less best"]["over seeds"]["value"] == pytest.approx(-0.5)
    assert told["rpo 0.5"]["gold, end less best"]["over seeds"]["value"] == pytest.approx(0)
    assert told["rpo 0.5"]["gold at the end, less that of dpo"]["over seeds"]["value"] == pytest.approx(0.4)
    assert told["rpo 0.5"]["gold, end less best, less that of dpo"]["each"] == pytest.approx([0.5] * SEEDS)
    assert "gold at the end, less that of dpo" not in told["dpo"]
    figure = overoptimisation.drawn(told, {"gold": 0.5, "proxy": 0.5, "kl": 0.0})
    assert [len(axes.lines) for axes in figure.axes] == [4, 2]


@pytest.mark.parametrize("name", overoptimisation.ETAS)
def test_policies_learn_the_same_rows_in_as_many_steps(name, tmp_path):
    recipe = load_recipe(overoptimisation.recipe_of(name, tmp_path))
    train = recipe.train
    assert (train.max_steps, train.save_steps, train.beta) == (AT[-1], AT[0], overoptimisation.BETA)
    assert recipe.data.train.path == str(tmp_path / "few-pairs.jsonl")
    assert (recipe.method, getattr(train, "eta", 0.0)) == (
        ("rpo", overoptimisation.ETAS[name]) if name != "dpo" else ("dpo", 0.0)
    )


def answers_of(rewards):
    return [
        {"prompt": f"p{n}", "completions": [f"{n}:{k}" for k in range(len(row))], "rewards": row}
        for n, row in enumerate(rewards)
    ]


def test_pairs_differ_in_the_rejected_answer_alone(tmp_path):
    rewards = np.random.default_rng(3).normal(size=(30, 64))
    rewards[:, 0] = -9.0
    rows = answers_of(rewards.tolist())
    for rule in sweet_spot.RULES:
        sweet_spot.recipe_of(rule, rows, tmp_path)
    read = {
        rule: [json.loads(line) for line in (tmp_path / f"{methods.as_file(rule)}.jsonl").read_text().splitlines()]
        for rule in sweet_spot.RULES
    }
    for of_rules in zip(*read.values(), strict=True):
        assert len({(one["prompt"], one["chosen"]) for one in of_rules}) == 1
    assert {one["rejected"].split(":")[1] for one in read["worst"]} == {"0"}
    told = {rule: sweet_spot.of_pairs(rule, rows) for rule in sweet_spot.RULES}
    assert told["worst"]["rejected is the worst"] == 1
    assert told["two deviations below"]["rejected is the worst"] == 0
    middle = rewards[:, 1:]
    assert -2.4 < told["two deviations below"]["rejected, deviations from the mean"] < -0.9
    assert told["worst"]["rejected, deviations from the mean"] < -4
    assert middle.min() > -9


def record(seed, points):
    one = {
        "texts": ["good"] * 8,
        "gold": [0.4 + 0.1 * seed] * 8,
        "proxy": [0.5] * 8,
        "policy_logps": [[-1.0, -2.0]] * 8,
    }
    return {when: {**one, "reference_logps": [[-2.0, -3.0]] * 8} for when in points}


@pytest.mark.parametrize("study", [overoptimisation, sweet_spot])
def test_what_is_there_is_not_done_again(study, tmp_path, monkeypatch):
    out, asked = tmp_path / "out", []
    (out / "records").mkdir(parents=True)
    (out / "records" / "reference.json").write_text(json.dumps(record(0, ["end"])))
    (out / "pairs.jsonl").write_text(json.dumps({"prompt": "p", "chosen": "a", "rejected": "b"}) + "\n")
    monkeypatch.setattr(methods, "begun", lambda data, out: None)
    monkeypatch.setattr(study, "policy_of", lambda run: run)
    monkeypatch.setattr(methods, "record", lambda policies, *_: asked.append(policies) or record(len(asked), policies))
    if study is sweet_spot:
        monkeypatch.setattr(study, "sampled", lambda *_: answers_of([[0.1, 0.2, 0.3, 0.4, 0.6]] * 8))
        monkeypatch.setattr(study, "trained", lambda rule, seed, rows, out: f"{rule}-{seed}")
    else:
        monkeypatch.setattr(study, "run_of", lambda name, seed, out: {"run": out / f"{name}-{seed}", "cpu_seconds": 1})
    words = [str(tmp_path), str(out), "-o", str(tmp_path / "results"), "--seeds"]
    study.main([*words, "1"])
    study.main([*words, "2"])
    conditions = len(overoptimisation.ETAS if study is overoptimisation else sweet_spot.RULES)
    assert len(asked) == 2 * conditions
    told = json.loads((tmp_path / "results" / f"{study.RESULT}.json").read_text())
    by_name = told["policies" if study is overoptimisation else "rules"]
    assert len(by_name) == conditions
    kls = [one["by step"][str(AT[0])]["kl"] if "by step" in one else one["kl"] for one in by_name.values()]
    assert all(kl["each"] == [2.0, 2.0] for kl in kls)
    assert (tmp_path / "results" / f"{study.RESULT}.png").read_bytes().startswith(b"\x89PNG")

"""The study `scripts/studies/fronts.py` of ways to a front: equal steps for all, its figures on known tables, and its two tasks."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from align.fronts.plan import policies_at_most
from align.recipe.loading import load_recipe
from align.rewards.load import Known

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import fronts as study
from study_parts import front_dialogue, front_tasks

REWARDS = front_tasks.REWARDS


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
    return study.summary(every, study.MATH)


@pytest.mark.parametrize("name", study.METHODS)
@pytest.mark.parametrize("task", study.TASKS.values(), ids=study.TASKS)
def test_every_method_takes_as_many_steps_of_as_many_answers(tmp_path, monkeypatch, name, task):
    for objective in task.objectives:
        if objective not in REWARDS:
            monkeypatch.setitem(REWARDS, objective, Known(front_tasks.brevity, 0, 1))
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(study.recipe_of(name, task, tmp_path)), encoding="utf-8")
    recipe = load_recipe(path)
    assert tuple(recipe.rewards) == task.objectives
    policies = 1 if recipe.fronts is None else policies_at_most(recipe)
    assert policies * recipe.train.max_steps == task.steps
    assert recipe.train.per_device_train_batch_size * recipe.train.gradient_accumulation_steps == study.ANSWERS
    assert recipe.train.max_completion_length == recipe.eval.generate.max_new_tokens == task.tokens
    assert recipe.eval.generate.prompts == task.held_out


def test_brevity_falls_with_characters_to_nothing():
    assert front_tasks.brevity(["", "x" * 15, [{"role": "assistant", "content": "x" * 90}]]) == [1.0, 0.75, 0.0]


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
    monkeypatch.setattr(front_tasks, "REWARDS", {})
    monkeypatch.setattr(front_tasks, "problems", lambda folder: [{"prompt": "p", "answer": "1"}] * 60)
    tables = np.random.default_rng(0).random((2, 6, 3))
    monkeypatch.setattr(study, "reached", lambda name, task, seed, out: study.Found(["a", "b"], tables, {"steps": 21}))
    (tmp_path / "warm").mkdir()
    study.main(["unused", str(tmp_path), "--methods", study.FIXED, "UPGrad"])
    told = json.loads((tmp_path / "fronts.json").read_text())
    assert list(told["seeds"]["0"]) == [study.FIXED, "UPGrad"]
    assert told["methods"]["UPGrad"]["expected utility"]["minus fixed weights, over prompts"]["value"] == 0
    assert (tmp_path / "fronts.png").read_bytes().startswith(b"\x89PNG")
    assert len((tmp_path / "train.jsonl").read_text().splitlines()) == 60 - study.MATH.held_out


def rated(prompt, *ratings):
    both = ("informativeness", "naturalness")
    responses = [
        {"content": "x" * length, "scores": dict(zip(both, scores, strict=True))} for length, *scores in ratings
    ]
    return {"prompt": f"You are a hotel booking assistant. Say this:\n{prompt}", "responses": responses}


def test_pairs_are_of_one_prompt_and_of_ratings_that_differ_clearly():
    rows = [rated("a()", (3, 5.0, 2.0), (2, 4.5, 3.0), (1, 3.0, 2.5)), rated("b()", (9, 1.0, 1.0), (9, 6.0, 6.0))]
    pairs = front_dialogue.pairs_of(rows, "informativeness")
    assert [(len(pair["chosen"][0]["content"]), len(pair["rejected"][0]["content"])) for pair in pairs] == [
        (3, 1),
        (2, 1),
    ]
    pairs = front_dialogue.pairs_of(rows, "naturalness")  # the second prompt has one sentence twice
    assert [(len(pair["chosen"][0]["content"]), len(pair["rejected"][0]["content"])) for pair in pairs] == [(2, 3)]


def test_prompts_of_training_and_others_are_disjoint_and_drawn_by_hash(tmp_path, monkeypatch):
    monkeypatch.setattr(front_dialogue, "OTHERS", 3)
    (tmp_path / "sfx_multi").mkdir()
    drawn = []
    for order in (1, -1):
        rows = [rated(f"act_{k}()", (3, 5.0, 2.0)) for k in range(8)][::order]
        lines = [json.dumps(row | {"prompt": [{"role": "user", "content": row["prompt"]}]}) + "\n" for row in rows]
        with gzip.open(tmp_path / "sfx_multi" / "responses_train.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(lines)
        train, others = ([json.dumps(row["prompt"]) for row in part] for part in front_dialogue.rated(tmp_path))
        assert (len(train), len(others), len({*train, *others})) == (5, 3, 8)
        drawn.append((train, others))
    assert drawn[0] == drawn[1]
    assert json.loads(drawn[0][0][0])[0] == {"role": "system", "content": "hotel"}


def test_a_reward_model_is_held_against_the_longer_sentence(monkeypatch):
    rows = [rated(f"a{k}()", (3, 5.0, 2.0), (2, 1.0, 3.0)) for k in range(4)]
    monkeypatch.setattr(front_dialogue, "margins", lambda adapters, pairs: np.array([[1.0, 1.0, -1.0, 0.0]]))
    told = front_dialogue.told_right("adapter", rows, "naturalness")
    assert told["reward model"]["value"] == pytest.approx(2.5 / 4)
    assert told["the longer"]["value"] == 0
    assert told["reward model less the longer"]["value"] == pytest.approx(2.5 / 4)


def test_a_reward_stands_at_one_half_for_a_usual_sentence(tmp_path, monkeypatch):
    def lengths(completions, prompts):
        return [float(len(one[0]["content"])) for one in completions]

    monkeypatch.setattr(front_dialogue.align, "make_reward", lambda name, path: lengths)
    rows = [rated("a()", (1, 1.0, 1.0), (3, 1.0, 1.0))]  # mean 2, deviation 1
    kept = tmp_path / "scale.json"
    stands = front_dialogue.standing("naturalness", tmp_path, rows, kept)
    said = [[{"role": "assistant", "content": "x" * length}] for length in (2, 3, 1)]
    wanted = [0.5, 1 / (1 + np.exp(-1)), 1 / (1 + np.exp(1))]
    assert stands(said, prompts=["p"] * 3) == pytest.approx(wanted)
    assert stands.__name__ == "naturalness"
    again = front_dialogue.standing("naturalness", tmp_path, [], kept)  # a study that goes on keeps its scale
    assert again(said, prompts=["p"] * 3) == pytest.approx(wanted)


def test_the_values_of_an_act_are_looked_for_word_for_word():
    prompt = [{"role": "user", "content": "inform(name='Red Inn',food=thai,near='12 Hill st',kids_allowed=yes)"}]
    assert front_dialogue.values_said(prompt, "red inn, near 12 hill st.") == pytest.approx(2 / 3)
    assert front_dialogue.values_said([{"content": "confirm(area=dont_care)"}], "") == 1.0


def test_what_is_checked_is_told_beside_the_rewards():
    def found(*checks):
        return study.Found(
            ["p"] * len(checks), np.random.default_rng(0).random((len(checks), 8, 2)), {}, np.array(checks)
        )

    half, most = [0.0, 1.0] * 4, [0.5, 1.0] * 4
    every = {(0, study.FIXED): found(half, most), (0, study.BEFORE): found(half), (1, study.FIXED): found(most, most)}
    told = study.summary(every, study.DIALOGUE)["methods"]
    assert told[study.BEFORE]["values said"]["over prompts"]["value"] == pytest.approx(0.5)
    assert told[study.FIXED]["values said"]["over prompts"]["value"] == pytest.approx((0.5 + 3 * 0.75) / 4, abs=1e-4)
    assert told[study.FIXED]["values said"]["minus before, over prompts"]["value"] == pytest.approx(0.1875, abs=1e-4)

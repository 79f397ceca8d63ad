"""The study of a reward model that is trained anew: who labels what, and which model judges which round."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from align.recipe.loading import load_recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import retrained_reward as study
import rounds_against_one as against
from rounds_against_one import Task, recipe_of

ROWS = [{"prompt": f"p{k}"} for k in range(study.FIRST_LABELLED + study.LABELLED * study.ROUNDS)]
TASK = Task("tiny-random", 4, "clarity", lambda row, text: float(text), ROWS, "found.json")


@pytest.fixture
def world(tmp_path, monkeypatch):
    """What was trained and asked, without weights: an answer's text is its gold reward."""
    seen = SimpleNamespace(runs=[], asked=[], folder=tmp_path)

    def run(path, words, resume):
        assert resume == "auto"
        overrides = dict(word.split("=", 1) for word in words)
        (Path(overrides["train.output_dir"]) / "adapter").mkdir(parents=True)
        seen.runs.append((yaml.safe_load(Path(path).read_text()), overrides))

    def ask(tokenizer, use, asking, name, who):
        seen.asked.append((tokenizer, asking.prompts, asking.decoding.seed, asking.folder))
        return [[SimpleNamespace(text=text) for text in ("0.3", "0.9", "0.1", "0.5")] for _ in asking.prompts]

    monkeypatch.setattr(study.align, "run", run)
    monkeypatch.setattr(against, "ask", ask)
    monkeypatch.setattr(against, "load_tokenizer", lambda settings: settings)
    monkeypatch.setattr(study, "reference_of", lambda recipe: SimpleNamespace(settings="beginning", load=lambda: None))
    monkeypatch.setattr(
        study,
        "policy_of",
        lambda path: SimpleNamespace(settings=str(Path(path).relative_to(tmp_path)), load=lambda: None),
    )
    return seen


def looped(world, every):
    common = recipe_of("dpo", TASK, world.folder / "prompts.jsonl", world.folder)
    policies, judges = study.looped(TASK, common, every, world.folder, seed=2)
    labels = [len(path.read_text().splitlines()) for path in sorted(world.folder.glob("after-*/labels.jsonl"))]
    return policies, judges, labels


def test_every_round_is_judged_by_a_model_of_all_labels_so_far(world):
    policies, judges, labels = looped(world, 1)
    assert labels == [48, 96, 144, 192]
    assert [who for who, *_ in world.asked] == ["beginning", *(f"after-{n}/rounds/round-1/train" for n in range(3))]
    prompts = [prompt for _, asked, *_ in world.asked for prompt in asked]
    assert prompts == [row["prompt"] for row in ROWS[study.FIRST_LABELLED :]]  # each beginning once
    rounds = [(recipe, words) for recipe, words in world.runs if "rounds" in recipe]
    assert [recipe["rounds"]["score"]["path"] for recipe, _ in rounds] == [
        str(world.folder / f"after-{n}/reward-model/adapter") for n in range(4)
    ]
    begun = [recipe.get("start") for recipe, _ in rounds]
    assert begun == [None, *({"adapter": str(world.folder / f"after-{n}/rounds/adapter")} for n in range(3))]
    assert [recipe["rounds"]["count"] for recipe, _ in rounds] == [1] * 4
    assert len({recipe["rounds"]["sample"]["seed"] for recipe, _ in rounds}) == 4
    assert len({words["train.seed"] for _, words in rounds}) == 4
    assert list(policies) == ["beginning", *(f"after {n}" for n in range(1, 5))]
    assert [str(judges[f"after {n}"]) for n in range(1, 5)] == [
        recipe["rounds"]["score"]["path"] for recipe, _ in rounds
    ]


def test_never_has_as_many_labels_all_of_the_beginning(world):
    policies, judges, labels = looped(world, study.ROUNDS)
    assert labels == [192]
    assert [who for who, *_ in world.asked] == ["beginning"]
    [(models, _), (recipe, _)] = world.runs
    assert models["method"] == "reward_model"
    assert "beta" not in models["train"]
    assert models["train"]["num_train_epochs"] == study.PASSES
    assert recipe["rounds"]["count"] == study.ROUNDS
    assert list(policies) == ["beginning", *(f"after {n}" for n in range(1, 5))]
    assert len(set(judges.values())) == 1


def test_labels_prefer_what_the_gold_reward_prefers(world):
    looped(world, study.ROUNDS)
    rows = [json.loads(line) for line in (world.folder / "after-0/labels.jsonl").read_text().splitlines()]
    assert [(row["chosen"], row["rejected"]) for row in rows[:2]] == [("0.5", "0.1"), ("0.9", "0.3")]


def test_what_is_there_is_not_trained_again(world):
    looped(world, 1)
    before = len(world.runs)
    looped(world, 1)
    assert len(world.runs) == before == 8


def test_its_recipes_can_be_read(world):
    looped(world, 1)
    load_recipe(world.folder / "after-0" / "reward-model.yaml")
    assert load_recipe(world.folder / "after-1" / "rounds.yaml").rounds.count == 1


def test_differences_are_over_seeds():
    def one(every, never):
        def arm(last):
            return {"beginning": {"gold": {"value": 0.4}}, "after 4": {"gold": {"value": last}}}

        return {"every round": arm(every), "never": arm(never), "every round minus never": {"value": every - never}}

    told = study.over({0: one(0.7, 0.6), 1: one(0.8, 0.5)})
    assert told["every round minus never"]["value"] == pytest.approx(0.2)
    assert told["gained"]["every round"]["value"] == pytest.approx(0.35)
    assert told["gained"]["never"]["value"] == pytest.approx(0.15)

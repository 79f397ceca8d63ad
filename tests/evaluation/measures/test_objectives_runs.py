"""Runs of the shipped tiny recipes, two of them seeds of one, compared by the rewards that they were trained on."""

import pytest

import align
from align.data import load_data
from align.runs.directory import METRICS_FILE, read_metrics
from align.sampling.generate import Decoding, generate
from eval.answers.table import Sampled
from eval.measures.rewards import check_objectives, objective_report
from eval.report.plots_fronts import objective_pictures
from eval.subjects import load_subject

RUNS = {
    "grpo-0": ("online/tiny-grpo", 0),
    "grpo-1": ("online/tiny-grpo", 1),
    "rloo": ("online/tiny-rloo", 0),
    "reinforce": ("online/tiny-reinforce", 0),
}
OBJECTIVES = ["correctness", "conciseness", "clarity"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    done = {}
    for name, (recipe, seed) in RUNS.items():
        settings = [f"train.output_dir={folder / name}", f"train.seed={seed}", "train.max_steps=3"]
        settings += [
            "rewards=[correctness, conciseness, clarity]",
            "data={train: {path: recipes/data/tiny-prompts.jsonl}}",
        ]
        settings += ["train.per_device_train_batch_size=8", "train.save_strategy='no'", "train.disable_tqdm=true"]
        done[name] = align.run(recipe, settings).path
    return done


@pytest.fixture(scope="module")
def subjects(runs):
    return {name: load_subject(str(path)) for name, path in runs.items()}


@pytest.fixture(scope="module")
def found(subjects):
    first = subjects["grpo-0"]
    data = load_data(first.recipe.data, rows=first.recipe.rows).train
    check_objectives(first.recipe.rewards, data.column_names, where="data.train")
    rows = data.to_list()
    answers, ids = {}, {}
    used = {name: (subject.policy, subject) for name, subject in subjects.items()} | {"ref": (first.reference, first)}
    for name, (use, subject) in used.items():
        with use() as model:
            made = generate(model, subject.tokenizer, [row["prompt"] for row in rows], Decoding(12), samples=2)
        answers[name] = [[answer.text for answer in row] for row in made]
        ids[name] = [[answer.completion_ids for answer in row] for row in made]
    recipes = {name: subject.recipe.raw for name, subject in subjects.items()}
    return objective_report(Sampled(rows, answers), first.recipe.rewards, completion_ids=ids, recipes=recipes)


def test_every_objective_of_every_run_is_measured(found):
    assert found.details["left_out"] == {}
    assert list(found.details["scale"]) == OBJECTIVES
    for name in OBJECTIVES:
        for key in ("policy", "ref", "difference"):
            assert found.estimates[f"objectives/{name}/{key}"].n == 8
        assert found.estimates[f"rloo/objectives/{name}/policy"].n == 8
        assert len(found.comparisons[f"objectives/{name}"].pairs) == 10
    marks = [found.estimates[f"{prefix}objectives/conciseness/policy"].value for prefix in ("", "grpo-1/")]
    assert all(0 <= mark <= 1 for mark in marks)
    assert 0 < found.estimates["objectives/conciseness/ref"].value < 1  # its own mean is the mark


def test_seeds_are_found_in_the_recipes_of_the_runs(found):
    assert found.front.objectives == OBJECTIVES
    assert found.front.seeds == {"grpo-0": ["grpo-0", "grpo-1"], "rloo": ["rloo"], "reinforce": ["reinforce"]}
    assert found.estimates["front/hypervolume_over_seeds/grpo-0"].n == 2
    assert any(found.front.on_front.values())
    assert found.estimates["front/hypervolume"].value >= found.estimates["rloo/hypervolume"].value


def test_pictures_of_the_runs_are_drawn_from_their_folders(runs, found):
    curves = {name: read_metrics(path / METRICS_FILE) for name, path in runs.items()}
    drawn = objective_pictures(curves, found.front)
    assert list(drawn) == ["Front of the runs", "Objectives while training", "Weights while training"]

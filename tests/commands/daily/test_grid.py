"""The settings of `alignkit sweep`: a grid of values, or some drawn of values and ranges."""

import pytest

from align.errors import RunError
from align.recipe.loading import load_recipe
from align.sweeps import grid


def planned(words, seeds=None, **kw):
    space = grid.read_space(words, seeds)
    return space.fixed, grid.planned(space, **kw)


def names(*words, **kw):
    return [one.name for one in planned(words, **kw)[1]]


def test_the_grid_is_of_all_values_in_order():
    fixed, settings = planned(["train.beta=0.05,0.1", "train.max_steps=4", "train.learning_rate=1e-5,1e-4"], seeds=2)
    assert fixed == ["train.max_steps=4"]
    assert len(settings) == 8
    assert settings[1].name == "beta-0.05_learning_rate-1e-5_seed-1"
    assert settings[1].overrides == ("train.beta=0.05", "train.learning_rate=1e-5", "train.seed=1")
    assert names("b.x=1,2", "a.y=3,4") == names("a.y=3,4", "b.x=1,2")  # found again whatever the order


def test_values_are_yaml_between_commas():
    _, settings = planned(["data.train.path='a,b.jsonl',c.jsonl", "lora.target_modules=[q_proj, v_proj],[all]"])
    assert [one.overrides for one in settings] == [
        ("data.train.path='a,b.jsonl'", "lora.target_modules=[q_proj, v_proj]"),
        ("data.train.path='a,b.jsonl'", "lora.target_modules=[all]"),
        ("data.train.path=c.jsonl", "lora.target_modules=[q_proj, v_proj]"),
        ("data.train.path=c.jsonl", "lora.target_modules=[all]"),
    ]
    folders = [one.name for one in settings]
    assert len(set(folders)) == 4
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-") for name in folders)
    recipe = load_recipe("dpo/tiny", ["lora.target_modules=[q_proj, v_proj]"])
    assert recipe.lora.target_modules == {"q_proj", "v_proj"}
    # what a name cannot hold is told apart
    assert len(set(names("data.train.path=a/b,a-b,'a b'"))) == 3
    assert all(len(name) < 100 for name in names(f"data.train.path={'x' * 300},{'x' * 299}y"))


def test_some_settings_are_drawn_with_all_their_seeds():
    words = ["train.beta=0.1,0.2,0.3,0.4,0.5", "train.learning_rate=1,2"]
    drawn = names(*words, count=3, seeds=2)
    assert len(drawn) == 6
    assert len({name.rpartition("_seed-")[0] for name in drawn}) == 3
    assert drawn == names(*words, count=3, seeds=2, seed=0)
    assert drawn != names(*words, count=3, seeds=2, seed=1)
    assert set(names(*words, count=10)) == set(names(*words))


def test_ranges_are_drawn_from():
    words = [
        "train.beta=0.01:1:log",
        "train.learning_rate=1e-5:3e-5",
        "train.max_steps=2:4",
        "train.loss=a,b",
        "train.x=9",
    ]
    fixed, settings = planned(words, count=200)
    assert fixed == ["train.x=9"]
    drawn = [dict(word.split("=") for word in one.overrides) for one in settings]
    assert len({tuple(sorted(one.items())) for one in drawn}) == 200
    betas = [float(one["train.beta"]) for one in drawn]
    assert all(0.01 <= beta <= 1 for beta in betas)
    assert 80 < sum(beta < 0.1 for beta in betas) < 120  # half of the logarithm
    rates = [float(one["train.learning_rate"]) for one in drawn]
    assert all(1e-5 <= rate <= 3e-5 for rate in rates)
    assert 80 < sum(rate < 2e-5 for rate in rates) < 120
    assert {one["train.max_steps"] for one in drawn} == {"2", "3", "4"}
    assert {one["train.loss"] for one in drawn} == {"a", "b"}
    assert max(len(one["train.beta"]) for one in drawn) <= len("0.0123")
    # named after what was drawn, the same again, and a larger count goes on from a smaller one
    assert settings[0].name.startswith(f"beta-{drawn[0]['train.beta']}_learning_rate-")
    assert names(*words, count=3) == names(*words, count=5, seed=0)[:3]
    assert names(*words, count=3) != names(*words, count=3, seed=1)
    assert len(names("train.beta=0.1:0.2", count=2, seeds=3)) == 6
    assert {name.rpartition("-")[2] for name in names("train.max_steps=1:3:log", count=3)} == {"1", "2", "3"}


@pytest.mark.parametrize(
    ("words", "kw", "message"),
    [
        (
            ["train.beta=0.1:0.2"],
            {},
            "train.beta: is a range, from which settings are drawn; say how many with --random N",
        ),
        (["train.beta=0.1:0.2:lg"], {"count": 2}, "nothing varies"),
        (["train.beta=0.2:0.1"], {"count": 2}, "train.beta: expected a range from low to high"),
        (["train.beta=0:1:log"], {"count": 2}, "train.beta: expected a range from low to high, of positive values"),
        (["train.beta=1:inf"], {"count": 2}, "train.beta: expected a range from low to high"),
        (["train.beta=0.1:0.2", "train.beta=3"], {"count": 2}, "train.beta: is given twice"),
        (
            ["train.max_steps=1:2"],
            {"count": 3},
            "--random: must be at least 1, and 2 different settings were found, got 3",
        ),
        (["train.max_steps=1:2"], {"count": 0}, "--random: must be at least 1"),
        (["train.seed=1:2"], {"count": 1, "seeds": 2}, "--seeds: must be at least 1 and say the seeds alone"),
        (["train.beta"], {}, "train.beta: expected section.key=value,value"),
        (["train.beta=0.1"], {}, "nothing varies"),
        (["train.beta=0.1,0.2", "train.beta=3"], {}, "train.beta: is given twice"),
        (["train.beta=0.1,0.1"], {}, "train.beta: 0.1 is there twice"),
        (["train.beta=[0.1,0.2"], {}, "train.beta: expected YAML between commas"),
        (["train.beta=0.1],[0.2"], {}, "train.beta: expected YAML between commas"),
        (["train.beta=0.1,0.2] #"], {}, "train.beta: expected YAML between commas"),
        (["train.beta="], {}, "train.beta: expected YAML between commas"),
        (["train.output_dir=a,b"], {}, "train.output_dir: each run has one of its own"),
        (["train.seed=1,2"], {"seeds": 2}, "--seeds: must be at least 1 and say the seeds alone"),
        (["train.beta=1,2"], {"seeds": 0}, "--seeds: must be at least 1"),
        (["train.beta=1,2"], {"seed": 1}, "--seed: does nothing without --random"),
        (["train.beta=1,2"], {"count": 3}, "--random: there are 2 settings to draw from, got 3"),
    ],
)
def test_what_cannot_be_meant_is_refused(words, kw, message):
    with pytest.raises(RunError, match=message.replace("[", r"\[")):
        planned(words, **kw)

"""`alignkit methods` and `explain`: every method with a recipe that works, every key out of its dataclass."""

import dataclasses
import json

import pytest

from align import cli
from align.commands.explain import SECTIONS, explained
from align.commands.methods import method_row
from align.errors import RecipeError, RunError
from align.methods import METHODS
from align.recipe.elsewhere import ELSEWHERE
from align.recipe.loading import load_recipe
from align.rewards import REWARDS
from align.tools import ENVIRONMENTS, TOOLS
from align.weighting.advantages import ESTIMATORS
from align.weighting.rules import RULES

ANYWHERE = ("train.use_cpu=true", "train.bf16=false")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_recipe_that_loads(name):
    recipe, *overrides = method_row(name)["recipe"].split()
    assert load_recipe(recipe, [*overrides, *ANYWHERE]).method == name


def test_methods_are_listed_for_people_and_programs(capsys):
    assert cli.main(["methods"]) == 0
    listed = capsys.readouterr().out
    assert all(f"{name} " in listed for name in METHODS)
    assert cli.main(["methods", "--json"]) == 0
    assert [row["method"] for row in json.loads(capsys.readouterr().out)] == list(METHODS)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("train.eta", ["train.eta (RPOConfig)", "type: float", "from: alignkit", "example: train.eta="]),
        ("lora.r", ["lora.r (LoraConfig)", "default: 8", "from: peft"]),
        ("train.learning_rate", ["from: trl"]),
        ("eval.generate.samples", ["default: 1", "meaning: Answers per prompt"]),
        ("eval.judges.mine.kind", ["eval.judges.NAME.kind"]),
        ("holdout", ["data.holdout"]),
        ("rpo", ["paper: 2405.16436", "rows: pairs", "alignkit train rpo/tiny"]),
        ("correctness", ["reward correctness", "boxed_only: default False"]),
        ("upgrad", ["weighting rule upgrad", "ridge: default"]),
        (
            "group",
            [
                "estimator group: ",
                "GDPO (Liu et al. 2026, arXiv:2601.05242)",
                "standardise: default 'before_weighting'",
            ],
        ),
        ("search", ["tool search: ", "environment search: ", "path: must be given", "passages: default 1"]),
    ],
)
def test_what_is_explained(name, parts):
    text = "\n".join(explained(name))
    assert all(part in text for part in parts), text


def test_a_method_narrows_what_train_means():
    assert len(explained("train.beta")) > len(explained("train.beta", "rpo")) == 1


@pytest.mark.parametrize("name", [*METHODS, *REWARDS, *RULES, *ESTIMATORS, *TOOLS, *ENVIRONMENTS])
def test_everything_that_has_a_name_is_explained(name):
    assert "no description" not in explained(name)[0]


def test_every_key_is_explained_and_ours_have_a_meaning():
    for where, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            text = "\n".join(explained(f"{where.replace('NAME', 'mine')}.{field.name}"))
            assert "type: " in text, (where, field.name)
            if cls.__module__.startswith("align"):
                assert "no description" not in text, f"{where}.{field.name} has no line under it in {cls.__name__}"


@pytest.mark.parametrize(
    ("name", "said"), [("train.bta", "did you mean 'train.beta'?"), ("bco_pair", "with a label it is `bco`")]
)
def test_what_is_not_there_names_the_nearest(name, said):
    with pytest.raises(RunError, match=said):
        explained(name)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_a_method_we_lack_names_what_is_nearest_by_meaning(name):
    assert name not in METHODS
    with pytest.raises(RecipeError) as error:
        load_recipe("rpo/tiny", [f"method={name}"])
    assert ELSEWHERE[name] in str(error.value)
    named = {word.strip("`,.;()") for word in ELSEWHERE[name].split() if word.startswith(("`", "(`"))}
    assert named & set(METHODS), "it names a method that is here"
    assert not {word for word in named if word.isidentifier()} - {*METHODS, "alignkit"}

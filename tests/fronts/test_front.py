"""A front by its recipe: which policies with which recipes, gone on with after any kill, reported and picked from."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from stored_world import made

from align.errors import RecipeError, RunError
from align.fronts.pick import main as pick
from align.fronts.pick import picked
from align.fronts.plan import Place, extension_recipe
from align.fronts.ready import check_front
from align.fronts.run import MEMBERS, run_front, scores_by_prompt
from align.intervals import mean_estimate
from align.merging.adapters import load_adapter_factors, soup
from align.recipe.loading import load_recipe
from align.rounds.ledger import Ledger, digest
from align.weighting.archive import hypervolume
from eval.report.front import summary, write_front

SOUPS = ["first-1", "first-2", "soup-00", "soup-01", "soup-02"]


def members(run):
    return json.loads((run / MEMBERS).read_text())


def recipe_of(run, name):
    return yaml.safe_load(Place(run, name).recipe.read_text())


def test_soups_are_a_policy_for_each_reward_and_sums_of_their_adapters(world):
    run = run_front(world.load(), world.train, resume=False)
    assert [one["name"] for one in members(run)["members"]] == SOUPS
    assert world.trained == [("first-1", None), ("first-2", None)]
    assert world.answered == ["ref", *SOUPS]
    trains = [recipe_of(run, name)["train"] for name in SOUPS[:2]]
    assert [one["reward_weights"] for one in trains] == [[1.0, 0.0], [0.0, 1.0]]
    adapters = [load_adapter_factors(run / one["adapter"]) for one in members(run)["members"]]
    parts = members(run)["members"][2]["made"]["soup"]
    assert parts == {"first-1": 0.25, "first-2": 0.75}
    expected = soup(adapters[:2], list(parts.values()))
    for module, (a, b) in adapters[2].factors.items():
        assert (b @ a - expected[module][1] @ expected[module][0]).norm() < 1e-5
    assert members(run)["fronts"] == [SOUPS[:2], SOUPS]
    targets = json.loads((run / members(run)["members"][2]["adapter"] / "adapter_config.json").read_text())[
        "target_modules"
    ]
    assert len(targets) > 4
    assert targets == sorted(targets)  # the same file in every process


def test_c_morl_extends_a_point_from_its_adapter_with_the_barrier(world):
    recipe = world.load("fronts.points=1", "fronts.steps=1", name="fronts/c-morl-tiny")
    run = run_front(recipe, world.train, resume=False)
    names = [one["name"] for one in members(run)["members"]]
    first, extended = names[:3], names[3:]
    start = extended[0].removesuffix("-to-1")
    assert first == ["first-1", "first-2", "first-3"]
    assert extended == [f"{start}-to-1", f"{start}-to-2"]
    assert recipe_of(run, "first-3")["train"]["reward_weights"] == [0.5, 0.5]
    made_of = recipe_of(run, extended[1])
    assert made_of["start"] == {"adapter": str(run / "policies" / start / "train")}
    assert "lora" not in made_of
    assert made_of["train"]["weighting"] == "barrier"
    assert made_of["train"]["max_steps"] == 1
    value = scores_by_prompt(Place(run, start).scores, ["repetition"]).mean()
    options = made_of["train"]["weighting_options"]
    assert options["target"] == 1
    assert options["thresholds"][1] is None
    assert options["thresholds"][0] == pytest.approx(0.9 * value)
    assert members(run)["members"][3]["made"] == {"from": start, "towards": "repetition"}


def test_a_threshold_lies_below_a_negative_value(world):
    recipe = world.load(name="fronts/c-morl-tiny")
    options = extension_recipe(recipe, Place(Path(), "a").trained, [0.5, -0.5], 0)["train"]["weighting_options"]
    assert options["thresholds"] == [None, pytest.approx(-0.55)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("name", ["fronts/tiny", "fronts/manifold-tiny", "fronts/c-morl-tiny"])
def test_killed_after_any_stage_it_goes_on_to_the_same_files(world, monkeypatch, name):
    whole = run_front(world.load(name=name, folder="whole"), world.train, resume=False)
    stages = len((whole / "fronts.jsonl").read_text().splitlines())
    trained, answered = list(world.trained), list(world.answered)
    world.trained.clear()
    world.answered.clear()
    original, stops, kills = Ledger.stage, list(range(1, stages, 5)), 0

    def dying(self, number, what, inputs, outputs, act):
        fresh = (number, what) not in self.done
        counts = original(self, number, what, inputs, outputs, act)
        if fresh and stops and len(self.done) > stops[0]:
            stops.pop(0)
            raise Killed
        return counts

    monkeypatch.setattr(Ledger, "stage", dying)
    recipe = world.load(name=name, folder="killed")
    while True:
        try:
            run = run_front(recipe, world.train, resume=kills > 0)
            break
        except Killed:
            kills += 1
    assert kills == len(range(1, stages, 5))
    assert (world.trained, world.answered) == (trained, answered)  # nothing twice
    assert (run / MEMBERS).read_bytes() == (whole / MEMBERS).read_bytes()
    for folder in ("policies", "soups"):
        ours, theirs = made(run / folder), made(whole / folder)
        assert ours.keys() == theirs.keys()
        assert not [n for n in ours if "recipe" not in n and ours[n] != theirs[n]]


def test_soups_that_a_kill_left_without_their_line_are_made_again(world):
    run = run_front(world.load(), world.train, resume=False)
    lines = (run / "fronts.jsonl").read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if json.loads(line)["stage"] == "soups")
    (run / "fronts.jsonl").write_text("\n".join(lines[:at]) + "\n")
    before = made(run / "soups")
    run_front(world.load(), world.train, resume=True)
    assert made(run / "soups") == before


def test_another_front_is_not_gone_on_with(world):
    run_front(world.load(), world.train, resume=False)
    with pytest.raises(RunError, match=r"its fronts were made by another recipe:\n  fronts\.sweep: "):
        run_front(world.load("fronts.sweep=3"), world.train, resume=True)


@pytest.fixture
def reported(world):
    words = "fronts.reference_point={repetition: 0, positive_sentiment: -1}"
    run = run_front(world.load(words), world.train, resume=False)
    return run, write_front(run)


def test_the_report_has_members_with_intervals_and_the_indicators(reported):
    run, front = reported
    assert json.loads((run / "front.json").read_text()) == front
    assert set(front["estimates"]) == {"hypervolume", "expected utility", "sparsity", "R2"}
    assert front["scales"] == {"repetition": [0.0, 1.0], "positive_sentiment": [-1.0, 1.0]}
    assert front["reference_point"] == {"repetition": 0.0, "positive_sentiment": -1.0}
    for one in front["members"]:
        table = scores_by_prompt(Place(run, one["name"]).scores, front["objectives"])
        for k, name in enumerate(front["objectives"]):
            value, low, high, _ = mean_estimate(table[:, k], bounds=tuple(front["scales"][name]))
            assert one["values"][name] == pytest.approx(value)
            assert one["intervals"][name] == pytest.approx([low, high])
    assert [step["policies"] for step in front["way"]] == [SOUPS[:2], SOUPS]
    low, high = np.array(list(front["scales"].values())).T
    scaled = {one["name"]: (np.array(list(one["values"].values())) - low) / (high - low) for one in front["members"]}
    corner = (np.array(list(front["reference_point"].values())) - low) / (high - low)
    for step in front["way"]:
        volume = hypervolume(np.array([scaled[name] for name in step["policies"]]), corner)
        assert step["hypervolume"] == pytest.approx(volume)
    assert front["way"][0]["hypervolume"] < front["way"][1]["hypervolume"]
    page = (run / "front.html").read_text()
    assert summary(front) in page
    assert page.count("data:image/png") >= 2


FRONT = {
    "objectives": ["a", "b"],
    "scales": {"a": [0.0, 1.0], "b": [0.0, 10.0]},
    "members": [
        {"name": "one", "values": {"a": 0.9, "b": 1.0}, "on_front": True, "adapter": "x", "made": {"weights": [1, 0]}},
        {"name": "two", "values": {"a": 0.2, "b": 9.0}, "on_front": True, "adapter": "y", "made": {"weights": [0, 1]}},
        {"name": "off", "values": {"a": 1.0, "b": 9.0}, "on_front": False, "adapter": "z", "made": {"weights": [1, 1]}},
    ],
}


def test_a_preference_names_the_member_of_most_utility_on_the_scales():
    member, utility = picked(FRONT, {"a": 7, "b": 3})
    assert member["name"] == "one"
    assert utility == pytest.approx(0.7 * 0.9 + 0.3 * 0.1)
    assert picked(FRONT, {"b": 1.0})[0]["name"] == "two"


@pytest.mark.parametrize(
    "prefer", [{"c": 1.0}, {"a": -1.0, "b": 2.0}, {"a": 0.0}, {"a": float("nan")}, {"a": 1e308, "b": 1e308}]
)
def test_what_is_no_preference_is_refused(prefer):
    with pytest.raises(RunError, match="--prefer: "):
        picked(FRONT, prefer)


def test_pick_names_an_adapter_or_mixes_one(reported, tmp_path, capsys):
    run, front = reported
    assert pick([str(run), "--prefer", "repetition=0.7,positive_sentiment=0.3"]) == 0
    named = capsys.readouterr().out.strip()
    best = picked(front, {"repetition": 0.7, "positive_sentiment": 0.3})[0]
    assert named == str(run / best["adapter"])
    words = [str(run), "--prefer", "repetition=0.2,positive_sentiment=0.6", "--mix", "--out", str(tmp_path / "mixed")]
    assert pick(words) == 0
    record = json.loads((tmp_path / "mixed" / "merge.json").read_text())
    assert record["merged"][0]["weights"] == pytest.approx([0.25, 0.75])
    with pytest.raises(RunError, match="'repetition' is named twice"):
        pick([str(run), "--prefer", "repetition=0.7,repetition=0.1"])
    with pytest.raises(RunError, match="belong together"):
        pick(words[:4])
    with pytest.raises(RunError, match="no front.json there"):
        pick([str(tmp_path), "--prefer", "a=1"])


def test_a_member_that_is_gone_is_not_named_and_made_again(world, tmp_path, capsys):
    recipe = world.load(folder="gone")
    run = run_front(recipe, world.train, resume=False)
    write_front(run)
    words = [str(run), "--prefer", "positive_sentiment=1"]
    assert pick(words) == 0
    adapter = Path(capsys.readouterr().out.strip())
    assert "soup" in str(adapter)
    before = digest(adapter)
    shutil.rmtree(adapter.parent)
    with pytest.raises(RunError, match="is not there; .*--resume auto"):
        pick(words)
    run_front(recipe, world.train, resume=True)
    assert digest(adapter) == before
    assert pick(words) == 0


@pytest.mark.parametrize("word", ["eval.generate.seed=4", "eval.generate.max_new_tokens=9", "eval.generate.prompts=7"])
def test_what_policies_are_compared_by_stays(world, word):
    run = run_front(world.load(), world.train, resume=False)
    written = (run / "recipe.resolved.yaml").read_bytes()
    with pytest.raises(RunError, match=f"made by another recipe:\n(.*\n)*  {word.partition('=')[0]}: "):
        run_front(world.load(word), world.train, resume=True)
    assert (run / "recipe.resolved.yaml").read_bytes() == written
    run_front(world.load("eval.generate.batch_size=1"), world.train, resume=True)  # how many at a time may change


@pytest.mark.parametrize("which", ["train", "eval"])
def test_rows_that_became_others_are_not_mixed_with_the_first(world, tmp_path, which):
    rows = (Path(__file__).parents[2] / "recipes/data/tiny-prompts.jsonl").read_text()
    path = tmp_path / "rows.jsonl"
    path.write_text(rows)
    recipe = world.load({"train": f"data.train.path={path}", "eval": f"data.eval.tiny.path={path}"}[which])
    run_front(recipe, world.train, resume=False)
    path.write_text(rows.replace("What is", "Say what is", 1))
    with pytest.raises(RunError, match=rf"data\.{which}: 8 "):
        run_front(recipe, world.train, resume=True)


def test_a_reward_may_be_there_twice(world):
    names = [
        one["name"]
        for one in members(run_front(world.load("rewards=[clarity, clarity@two]"), world.train, resume=False))[
            "members"
        ]
    ]
    assert names == SOUPS


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fronts.kind=other", "fronts.kind"),
        ("fronts.extensions=2", "fronts.extensions: does nothing with kind 'soups'"),
        ("fronts.weights=[[1, 0]]", "at least two vectors"),
        ("fronts.weights=[[1, 0, 0], [0, 1, 0]]", "one weight for each of 2 rewards"),
        ("fronts.weights=[[1, -1], [0, 1]]", "must be finite, not negative and not all 0"),
        ("fronts.sweep=1", "must be at least 2"),
        ("fronts.reference_point={clarity: 0}", "a value for each of repetition, positive_sentiment"),
        ("train.weighting=upgrad", "train.weighting: is set for each policy"),
        ("lora=null", "lora: missing section"),
        ("eval=null", "is estimated on answers to data.eval"),
        ("eval.generate.prompts=1", "an interval needs at least 2 prompts"),
        ("eval.generate.revisions=2", "eval.generate.revisions: does nothing in a front"),
        (
            "eval.reference_point={repetition: 0, positive_sentiment: 0}",
            "eval.reference_point: does nothing in a front",
        ),
        ("rewards=[clarity]", "a front needs at least two rewards"),
    ],
)
def test_what_makes_no_front_is_refused_before_anything_is_loaded(world, word, said):
    with pytest.raises(RecipeError) as error:
        world.load(word)
    assert said in str(error.value)


def test_methods_without_several_rewards_make_no_front():
    with pytest.raises(RecipeError, match="a front needs a method that weighs several rewards"):
        load_recipe("dpo/tiny", ["fronts={kind: soups}"])


def test_a_reward_that_no_text_shows_is_refused(world):
    with pytest.raises(RunError, match="conciseness"):
        check_front(load_recipe("fronts/tiny", ["rewards=[clarity, conciseness]"]))

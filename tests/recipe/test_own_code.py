"""Code of one's own: the file that the README shows, in recipes, in runs, and refused where it is not the same file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from recipes_under_test import GOOD
from trl import ModelConfig

import align
from align import cli, own_code
from align.commands.front import main as front
from align.errors import RunError
from align.fronts.ready import check_front
from align.judges.from_recipe import prepare_judge
from align.losses.objectives import OBJECTIVES
from align.own_code import allow_file, digests, lacking
from align.recipe.loading import RecipeError, load_recipe
from align.recipe.sections import JudgeConfig
from align.rewards import load_reward, make_reward
from align.runs.identity import settings_of
from align.sampling.policy import policy_of
from align.tools import make_tool
from align.weighting import make_rule
from align.weighting.base import Statistics

README = (Path(__file__).parents[2] / "recipes" / "README.md").read_text(encoding="utf-8")
SHOWN = "\n".join(
    re.findall(r"```python\n(.*?)```", README.partition("## Code of your own")[2].partition("A `rounds`")[0], re.S)
)
OWN_LOSS = GOOD.replace("method: rpo", "method: pairwise").replace(
    "  beta: 0.3\n", "  beta: 0.3\n  objective: {squared: 1.0}\n"
)


pytestmark = pytest.mark.usefixtures("own_tables")


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(SHOWN)
    row = {"prompt": "q ", "chosen": "a b", "rejected": "c"}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row | {"prompt": f"q{i} "}) + "\n" for i in range(4)))
    return tmp_path / "mine.py"


def test_each_thing_that_the_readme_shows_works_where_it_is_named(mine):
    assert SHOWN.count("\n") < 75
    made = allow_file(mine)
    assert made.adds == {
        "rewards": ("short",),
        "losses of pairs": ("squared",),
        "weighting rules": ("worst",),
        "judges": ("shorter",),
        "tools": ("spell",),
    }
    assert make_reward("short")(completions=["x" * 50, ""]) == [-0.5, 0.0]
    rule = make_rule("worst", base=[0.5, 0.5])
    stats = Statistics(step=1, means=torch.tensor([0.3, 0.1]))
    assert rule.update(stats).weights.tolist() == [0.0, 1.0]
    judge = prepare_judge("judge", JudgeConfig("own", name="shorter"), ModelConfig(), [], None)()
    assert judge.prefer("q", ["a", "bcd"]).tolist() == [[0.5, 1.0], [0.0, 0.5]]
    assert make_tool("spell")(word="abc") == "a-b-c"
    assert load_recipe("tools/tiny", ["tools=[spell]"]).tools == {"spell": {}}
    assert load_recipe("rpo/tiny", []).method == "rpo"


ODD = """from dataclasses import dataclass
from align.rewards.load import REWARDS, Known


@dataclass
class Odd:
    said: object = None

    def __call__(self, completions, **columns):
        return [self.said for _ in completions]


REWARDS["silent"] = Known(Odd, 0, 1)
REWARDS["mute"] = Known(lambda completions, **_: [None for _ in completions], 0, 1)
REWARDS["endless"] = Known(lambda completions, **_: [float("inf") for _ in completions], 0, 1)
"""


@pytest.mark.parametrize("name", ["silent", "mute", "endless"])
def test_what_a_reward_of_ones_own_says_is_looked_at(tmp_path, name):
    """A function's and a class's: of a gold reward every answer has a number; in training none is none."""
    (tmp_path / "odd.py").write_text(ODD)
    allow_file(tmp_path / "odd.py")
    with pytest.raises(RunError, match=rf"eval.gold_reward: '{name}' must give one finite number for each"):
        load_reward(name)(["a", "b"])
    if name == "endless":
        with pytest.raises(RunError, match="reward 'endless': .* must give one finite number or None for each"):
            make_reward(name)(["a"])
    else:
        assert make_reward(name)(["a", "b"]) == [None, None]
    if name == "silent":
        assert make_reward(name, said=2)(["a"]) == [2.0]


def test_a_recipe_names_it_and_asks_for_the_same_file_later(mine, tmp_path):
    (tmp_path / "r.yaml").write_text(OWN_LOSS)
    with pytest.raises(RecipeError, match="objective: unknown, got .squared."):
        load_recipe("r.yaml")
    allow_file("mine.py")
    recipe = load_recipe("r.yaml")
    assert settings_of(recipe)["own_code"] == digests() == {"mine.py": own_code._FILES["mine.py"].sha256}
    run = tmp_path / "run"
    run.mkdir()
    own_code.keep_copies(run)
    (run / "recipe.resolved.yaml").write_text(recipe.resolved_yaml())
    assert load_recipe(run / "recipe.resolved.yaml").train.objective == {"squared": 1.0}
    own_code._FILES.clear()
    with pytest.raises(RecipeError) as error:
        load_recipe(run / "recipe.resolved.yaml")
    assert len(str(error.value).splitlines()) == 1
    assert "own_code: needs code of mine.py (sha256 " in str(error.value)
    assert str(error.value).endswith(f"if you trust it, add --allow-file {run / 'code' / 'mine.py'}")


def test_what_a_run_trained_answers_without_the_file_and_without_what_a_program_added(mine, tmp_path):
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    recipe = run / "recipe.resolved.yaml"
    allow_file("mine.py")
    recipe.write_text(load_recipe("online/tiny-grpo", ["rewards=[short]"]).resolved_yaml())
    own_code._FILES.clear()
    policy = policy_of(str(run))
    assert policy.adapter == str(run / "adapter")
    assert policy.settings.model_name_or_path == "tiny-random"
    text = recipe.read_text().partition("own_code:")[0].replace("short", "elsewhere")
    recipe.write_text(text)
    assert policy_of(str(run)) == policy  # added to REWARDS by a program
    for words in (["rewards=[shrt]"], ["own_code={mine.py: x}"], ["model.dtyp=float32"]):
        with pytest.raises(RecipeError, match="command line: "):
            policy_of(str(run), words)
    recipe.write_text(text.replace("dtype: float32", "trust_remote_code: true"))
    with pytest.raises(RecipeError, match="trust_remote_code"):
        policy_of(str(run))
    with pytest.raises(RecipeError, match="unknown reward"):
        load_recipe(recipe)
    recipe.rename(tmp_path / "r.yaml")
    with pytest.raises(RecipeError, match="unknown reward"):
        policy_of(str(tmp_path / "r.yaml"))  # which can be mended


def test_the_line_of_an_error_is_told_of_a_relative_path_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("failing.py").write_text("\nx = nothing\n")
    with pytest.raises(RunError, match="failing.py: line 2: NameError"):
        allow_file("failing.py")


def test_another_file_of_the_name_is_not_the_same(mine, tmp_path):
    allow_file(mine)
    (told,) = lacking({"mine.py": "0" * 64}, tmp_path)
    assert "mine.py is not the mine.py that this was made with" in told
    assert lacking(digests(), tmp_path) == []
    assert lacking(["mine.py"], tmp_path) == ["expected names of files with their sha256, got ['mine.py']"]
    mine.write_text(SHOWN + "\n")
    with pytest.raises(RunError, match=r"another file mine\.py is in use"):
        allow_file(mine)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nx = y\n", r"line 2: NameError: name 'y' is not defined"),
        ("x = (\n", "line 1: SyntaxError"),
        ("raise SystemExit(0)\n", "line 1: SystemExit"),
        ("x = 1\n", "adds nothing to the tables of rewards, losses"),
        (
            "from align.losses.objectives import OBJECTIVES\nOBJECTIVES['ipo'] = OBJECTIVES['hinge']\n",
            "'ipo' is there already among the losses of pairs",
        ),
        ("from align.losses.objectives import OBJECTIVES\ndel OBJECTIVES['ipo']\n", "'ipo' is there already"),
        (
            "from align.rewards.load import REWARDS\nREWARDS['mine'] = len\n",
            r"'mine' among the rewards is a builtin_function_or_method, and must be a Known\(\.\.\.\)",
        ),
        (
            "from align.rewards.load import REWARDS, Known\nREWARDS['mine'] = Known('x', 0, 1)\n",
            r"'mine' among the rewards .* must be a Known\(\.\.\.\) of something to call",
        ),
        (
            "from align.losses.token_objectives import OBJECTIVES\nOBJECTIVES['mine'] = len\n",
            r"among the losses of completions .* must be a Objective\(\.\.\.\)",
        ),
        (
            "from align.weighting.rules import RULES\nRULES['mine'] = len\n",
            "'mine' among the weighting rules .* must be a class",
        ),
        (
            "from align.judges.scorers import JUDGES\nJUDGES['mine'] = 1\n",
            "'mine' among the judges is a int, and must be something to call",
        ),
    ],
)
def test_a_file_that_cannot_be_used_leaves_the_tables_as_they_were(tmp_path, text, message):
    before = dict(OBJECTIVES)
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(RunError, match=message):
        allow_file(tmp_path / "mine.py")
    assert before == OBJECTIVES
    assert not digests()


def test_it_is_named_by_a_file_that_is_there(tmp_path, capsys):
    for path, message in (
        (tmp_path / "no.py", "cannot be read: No such file"),
        (tmp_path / "a-b.py", "expected a file NAME.py"),
    ):
        with pytest.raises(RunError, match=message):
            allow_file(path)
    assert cli.main(["check", "rpo/tiny", "--allow-file", str(tmp_path / "no.py")]) == 2
    assert "--allow-file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("rewards.chosen.mean()", "one value for each row, a tensor of shape"),
        ("rewards.nothing", "failed: AttributeError"),
        ("[1.0]", "got list"),
    ],
)
def test_a_loss_that_fails_is_named(mine, tmp_path, loss, message):
    mine.write_text(SHOWN.replace("return (1 - (rewards.chosen - rewards.rejected)) ** 2", f"return {loss}"))
    allow_file(mine)
    batch = align.losses.objectives.PairBatch(*[align.Pair(torch.zeros(3), torch.zeros(3))] * 3, {})
    with pytest.raises(RunError, match=f"mine.py: the loss 'squared'.*{message}"):
        OBJECTIVES["squared"].loss(align.Pair(torch.zeros(3), torch.zeros(3)), batch)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("longer", None, "no judge 'longer': add --allow-file"),
        ("shorter", {"by": 2}, "'shorter' cannot be made: TypeError"),
        ("none", None, "has no method `prefer`"),
    ],
)
def test_a_judge_that_cannot_be_made_is_told(mine, name, options, message):
    mine.write_text(SHOWN + "\nJUDGES['none'] = dict\n")
    allow_file(mine)
    with pytest.raises(RunError, match=message):
        prepare_judge("judge", JudgeConfig("own", name=name, options=options), ModelConfig(), [], None)()


def test_a_front_weighs_it(mine, tmp_path, monkeypatch):
    monkeypatch.setattr("align.commands.front.run_front", lambda recipe, *_, allow, **__: check_front(recipe, allow)[0])
    words = ["fronts/tiny", f"train.output_dir={tmp_path / 'run'}", "rewards={short: null, clarity: null}"]
    with pytest.raises(RecipeError, match="short"):
        front(words)
    assert len(front([*words, "--allow-file", str(mine)])) > 2


def test_a_reward_that_fails_is_named(mine):
    mine.write_text(SHOWN.replace("return [-len(str(one)) / 100 for one in completions]", "return 3"))
    allow_file(mine)
    with pytest.raises(RunError, match="'short' failed: TypeError: it gave int"):
        make_reward("short")(completions=["a"])


@pytest.mark.slow
def test_a_run_is_trained_evaluated_and_resumed_with_the_file(mine, tmp_path, capsys):
    from eval.__main__ import main as evaluate  # noqa: PLC0415

    settings = yaml.safe_load(OWN_LOSS)
    settings["train"] |= {"max_steps": 2, "report_to": "none", "save_steps": 1, "save_strategy": "steps"}
    settings["data"]["eval"] = {"x": {"path": "./pairs.jsonl"}}
    settings["eval"] = {"generate": {"prompts": 4, "max_new_tokens": 4}, "gold_reward": "short"}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(settings))
    assert cli.main(["train", "r.yaml", "--allow-file", "mine.py"]) == 0
    assert (tmp_path / "runs/x/code/mine.py").read_bytes() == mine.read_bytes()
    assert evaluate(["runs/x", "--allow-file", "runs/x/code/mine.py"]) == 0
    report = json.loads((tmp_path / "runs/x/report.json").read_text())
    assert np.isfinite(report["estimates"]["gold_reward/policy"]["value"])
    own_code._FILES.clear()
    assert evaluate(["runs/x"]) == 2
    assert "add --allow-file runs/x/code/mine.py" in capsys.readouterr().err

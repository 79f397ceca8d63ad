"""Recipes of one's own: written for a model and data, or copied from the shipped ones, and ready as they lie."""

import json

import pytest
import yaml
from tiny import sparing

from align import cli
from align.commands.check import main as check
from align.commands.init import MACHINES, Source, read_as_it_is, written
from align.commands.recipes import own_copy
from align.data import DataError
from align.methods import METHODS
from align.recipe.loading import load_recipe
from align.recipe.shipped import shipped_recipes

ON_CPU = ("train.use_cpu=true", "train.bf16=false")


def rows(path, n=6, **more):
    made = [{"prompt": f"what is {i}", "chosen": f" it is {i}", "rejected": f" it is {i + 1}"} | more for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def init(path, *words, data, model="tiny-random"):
    return cli.main(["init", str(path), "--model", model, "--data", str(data), *words])


def test_a_copy_of_every_shipped_recipe_means_the_same_in_any_folder(tmp_path):
    for name, path in shipped_recipes().items():
        copy = tmp_path / "mine.yaml"
        copy.write_text(own_copy(path))
        assert load_recipe(copy, ON_CPU).raw == load_recipe(name, ON_CPU).raw, name
        assert [line for line in copy.read_text().splitlines() if line.startswith("#")] == [
            line for line in path.read_text().splitlines() if line.startswith("#")
        ]


def test_a_copied_recipe_is_ready_where_it_lies(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["recipes", "dpo/tiny"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert check(["mine.yaml"]) == 0


@pytest.mark.parametrize(
    ("make", "words", "expected"),
    [
        (lambda path: rows(path, 15), ["--machine", "cpu"], {"method": "dpo", "data.as_messages": True}),
        (lambda path: rows(path, 30, label=1), ["--source", "ignore: [label]", "--method", "rpo"], {"method": "rpo", "data.holdout": 3}),
    ],
    ids=["guessed", "said"],
)  # fmt: skip
def test_what_is_written_is_ready(tmp_path, capsys, monkeypatch, make, words, expected):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "rows.jsonl")
    (tmp_path / "recipes").mkdir()
    assert init("recipes/mine.yaml", *words, "--machine", "cpu", data="rows.jsonl") == 0
    said = capsys.readouterr().out
    assert "\nready" in said
    assert said.endswith("next: alignkit train recipes/mine.yaml\n")
    raw = yaml.safe_load((tmp_path / "recipes" / "mine.yaml").read_text())
    assert raw["data"]["train"]["path"] == "../rows.jsonl"
    for key, value in expected.items():
        section, _, name = key.rpartition(".")
        assert (raw[section] if section else raw)[name] == value
    assert ("holdout" in raw["data"]) == ("eval" in raw) == ("data.holdout" in expected)


@pytest.mark.parametrize("machine", sparing(list(MACHINES), "cpu"))
def test_every_method_on_rows_gets_a_recipe_that_loads(tmp_path, machine):
    named = [name for name, method in METHODS.items() if method.rows != "prompts"]
    own = {
        "robust": "label_smoothing",
        "pairwise": "objective",
        "poft": "",
        "fdpo": "divergence",
        "meet": "good_control",
    }
    for name in named:
        source = Source({"layout": "kto"}, METHODS[name].rows, 700, True)
        start = "runs/sft" if METHODS[name].model == "language" else None
        path = tmp_path / "mine.yaml"
        path.write_text(written(path, "tiny-random", "org/rows", "test", name, machine, start, source))
        try:
            recipe = load_recipe(path, anywhere=True)
        except Exception as error:
            assert name in own, f"{name}: {error}"
            continue
        assert (recipe.method, recipe.data.train.split, recipe.data.train.layout) == (name, "test", "kto")
        assert (recipe.lora is None) == (start is not None)
        assert recipe.data.holdout == 64
        assert recipe.model.dtype == MACHINES[machine]["dtype"]


def test_what_was_not_said_is_asked_in_a_terminal_only(tmp_path, monkeypatch, capsys):
    path = rows(tmp_path / "rows.jsonl")
    assert cli.main(["init", str(tmp_path / "a.yaml"), "--data", str(path)]) == 2
    assert "--model: missing; a hub id" in capsys.readouterr().err
    said, asked = iter(["tiny-random", "", str(path), "", "cpu"]), []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(text) or next(said))
    monkeypatch.setattr("align.commands.init.check", lambda words: 1)
    assert cli.main(["init", str(tmp_path / "a.yaml")]) == 1
    assert [text.split(" ")[0] for text in asked] == ["model", "data", "data", "method", "machine"]
    assert "[dpo]" in asked[3]
    assert load_recipe(tmp_path / "a.yaml").method == "dpo"
    assert "next:" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--method", "dpp"], "--method: unknown, got 'dpp'; "),
        (["--method", "egpo"], "needs rewards or a judge; begin with `alignkit recipes online/"),
        (["--source", "kto"], "--source: expected a line of YAML"),
    ],
)
def test_what_cannot_be_written_is_refused_and_nothing_is_written(tmp_path, capsys, words, message):
    assert init(tmp_path / "a.yaml", *words, data=rows(tmp_path / "rows.jsonl")) == 2
    error = capsys.readouterr().err
    assert message in error
    assert not (tmp_path / "a.yaml").exists()
    (tmp_path / "b.yaml").write_text("mine")
    assert init(tmp_path / "b.yaml", data=tmp_path / "rows.jsonl") == 2
    assert (tmp_path / "b.yaml").read_text() == "mine"


def test_rows_are_read_as_messages_advise_unless_there_is_a_choice(tmp_path):
    path = tmp_path / "x.jsonl"
    talk = [{"instruction": f"Say {i}", "input": "", "output": "yes"} for i in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in talk))
    assert read_as_it_is(str(path), "train", [], None).rows == "completions"
    with pytest.raises(DataError):
        read_as_it_is(str(path), "train", [], "pairs")
    path.write_text(
        "".join(json.dumps({"prompt": f"q{i} ", "completion": "a", "label": True}) + "\n" for i in range(3))
    )
    assert read_as_it_is(str(path), "train", [], None).rows == "labels"
    with pytest.raises(DataError, match="say which with --source 'LINE'"):
        read_as_it_is(str(path), "train", [], "completions")
    assert read_as_it_is(str(path), "train", ["layout: kto"], "completions").settings == {"layout": "kto"}


def test_advice_that_leaves_a_choice_is_told_and_not_taken(tmp_path):
    path = tmp_path / "ranked.jsonl"
    path.write_text(json.dumps({"prompt": "q", "completions": ["a", "b"], "ranking": [1, 0]}) + "\n")
    told = r"map them with `columns: \{prompt: prompt, chosen: \.\.\., rejected: \.\.\.\}`; say which with --source"
    with pytest.raises(DataError, match=told):
        read_as_it_is(str(path), "train", [], "pairs")
    both = {"prompt": "q", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    path.write_text(json.dumps(both) + "\n")
    with pytest.raises(DataError, match="pku_better.*pku_safer.*say which with --source"):  # and none of several
        read_as_it_is(str(path), "train", [], "pairs")

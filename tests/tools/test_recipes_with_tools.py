"""Recipes with tools and environments: what is refused, what a run keeps of them, and one that trains."""

import json

import pytest
import yaml
from recipes_under_test import problems

import align
from align.check.machine import Machine
from align.check.refusals import look
from align.data import load_data
from align.errors import RunError
from align.models.tiny import tiny_tokenizer
from align.recipe.loading import load_recipe
from align.runs.identity import settings_of
from align.tools import ENVIRONMENTS, called_by

GRPO = """\
method: dynamic_grpo
model: {model_name_or_path: tiny-random, dtype: float32}
lora: {r: 4, target_modules: all-linear}
data: {train: {path: ./rows.jsonl}}
tools: {search: {path: ./corpus.jsonl}}
rewards: [fewer_calls]
train: {output_dir: runs/x, use_cpu: true, bf16: false, num_generations: 2, per_device_train_batch_size: 4, max_steps: 1}
"""
QUESTIONS = [{"prompt": [{"role": "user", "content": f"q{n}"}], "answer": a} for n, a in enumerate(["red", "x", None])]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(GRPO)
    write(tmp_path, QUESTIONS)
    (tmp_path / "corpus.jsonl").write_text('{"text": "The lamp is red."}\n')
    return tmp_path


def write(home, rows):
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def found(*overrides):
    recipe = load_recipe("r.yaml", overrides)
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    looked = look(recipe, {"data.train": data.train}, Machine(installed=lambda name: True))
    return [f"{f.where}: {f.message}" for f in looked.findings if f.level == "error"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tools": {"serach": None}}, "tools.serach: unknown, got 'serach'; did you mean 'search'?"),
        ({"tools": ["os:system"]}, "tools.os:system: unknown, got 'os:system'"),
        ({"tools": ["search"]}, "tools.search: missing path"),
        ({"tools": {"search": {"path": "c", "passages": 0}}}, "tools.search: passages: must be at least 1, got 0"),
        ({"tools": {"search": 3}}, "tools.search: expected options, got int 3"),
        ({"tools": "search"}, "tools: expected names, or names with options, got str 'search'"),
        ({"environments": ["sea"]}, "environments.sea: unknown, got 'sea'"),
        ({"method": "dynamic_rloo"}, "tools: not used by this method; dynamic_grpo and reinforce train a policy"),
        ({"tools": None, "rewards": None}, "rewards: missing section"),
        ({"rounds": {"count": 2}}, "tools: `rounds` samples answers without tools"),
        (
            {"fronts": {"kind": "soups"}, "environments": {"search": {"path": "c"}}},
            "environments.search: owns a reward, which the weights of `fronts` do not reach",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_as_the_recipe_is_read(home, changed, said):
    text = yaml.safe_dump(yaml.safe_load(GRPO) | changed)
    assert any(said in line for line in problems(home, text)), problems(home, text)


def test_a_recipe_that_can_be_run_has_no_error(home):
    assert found() == []
    assert found("environments={search: {path: ./corpus.jsonl}}", "tools=null", "rewards=null") == []


def test_what_only_data_or_model_tell_is_refused_before_a_weight_is_loaded(home):
    (line,) = found("tools.search.path=none.jsonl")
    assert line.startswith("tools.search: ")
    assert "corpus none.jsonl: cannot be read: No such file" in line
    (line,) = found("environments={search: {path: none.jsonl}}", "tools=null")
    assert "corpus none.jsonl: cannot be read" in line
    (line,) = found("rewards={frozen_answerer: {model_name_or_path: ./nowhere}}")
    assert line.startswith("rewards.frozen_answerer: ")
    with pytest.raises(RunError, match="corpus none.jsonl: cannot be read"):
        align.run("r.yaml", ["tools.search.path=none.jsonl", "train.report_to=none"])
    write(home, [{"prompt": f"plain text {n}", "answer": "x"} for n in range(3)])
    assert found() == ["data.train: the prompts are plain text, and calls of tools are messages of a chat"]


class Silent:
    """An environment without a reward, which serves rows that have a `level`."""

    def reset(self, level, **_):
        self.level = level

    def look(self) -> str:
        """Look around."""
        return "nothing"


def test_environments_serve_rows_that_name_them(home, monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "silent", Silent)
    both = ("environments={search: {path: ./corpus.jsonl}, silent: null}", "tools=null")
    (line, *_) = found(*both)
    assert "environments.silent: `reset` fails on the first row that it serves: TypeError" in line
    assert any(
        "no column 'environment', which says which of the environments search, silent" in e for e in found(*both)
    )
    write(home, [QUESTIONS[0] | {"environment": "search", "level": None}, QUESTIONS[1] | {"environment": "silent", "level": 1},
                 QUESTIONS[2] | {"environment": "sielnt", "level": 1}])  # fmt: skip
    (line,) = found(*both)
    assert line == "data.train: 1 of 3 rows have an 'environment' that is none of search, silent"
    write(home, [row | {"level": 1} for row in QUESTIONS])
    (line,) = found("environments=[silent]", "tools=null", "rewards=null")
    assert line == "environments: none of them owns a reward (`get_reward`), and there are no `rewards`"


def test_one_environment_serves_all_rows_unless_the_data_say_which(home):
    recipe = load_recipe("r.yaml", ["environments={search: {path: ./corpus.jsonl}}"])
    alone, by_row = (
        called_by(recipe, tiny_tokenizer(), columns)["environment_factory"]
        for columns in (["prompt"], ["prompt", "environment"])
    )
    assert callable(alone)
    assert list(by_row) == ["search"]


def test_a_run_is_of_its_tools_and_of_what_the_corpus_holds(home):
    recipe = load_recipe("r.yaml")
    before = settings_of(recipe)["tools"]["search"]
    assert set(before) == {"sha256"}
    assert yaml.safe_load(recipe.resolved_yaml())["tools"] == {"search": {"path": str(home / "corpus.jsonl")}}
    (home / "corpus.jsonl").write_text('{"text": "The lamp is green."}\n')
    after = settings_of(load_recipe("r.yaml", ["tools.search.passages=2"]))["tools"]["search"]
    assert after["passages"] == 2
    assert after["sha256"] != before["sha256"]


def test_a_run_trains_with_an_environment_and_keeps_the_template(home):
    done = align.run(
        "r.yaml",
        ["environments={search: {path: ./corpus.jsonl}}", "tools=null", "train.report_to=none", "train.max_completion_length=8",
         "train.estimator=stratified", "train.estimator_options={key: tool_calls}"],
    )  # fmt: skip
    record = json.loads((done.path / "metrics.jsonl").read_text().splitlines()[0])
    assert {"objectives/fewer_calls", "objectives/SearchEnvironment", "tools/call_frequency"} <= set(record)
    assert done.trainer.columns.objectives == ["fewer_calls", "SearchEnvironment"]
    saved = type(done.trainer.processing_class).from_pretrained(done.path / "adapter")
    assert saved.chat_template.startswith("{#- alignkit: tools as text -#}")

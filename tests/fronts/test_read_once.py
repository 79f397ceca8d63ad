"""Rows are read once before rounds or a front begin, although checks and digests both need them."""

import pytest

from align.data import loading
from align.fronts.run import run_front
from align.recipe.loading import load_recipe
from align.rounds.run import run_rounds

BEST = ["rounds.take=best", "data.eval.tiny.path=recipes/data/tiny-prompts.jsonl", "eval.generate.prompts=4"]


class Begun(BaseException):
    pass


@pytest.mark.parametrize(
    ("runner", "module", "name", "words"),
    [
        (run_front, "fronts", "fronts/tiny", []),
        (run_rounds, "rounds", "rounds/tiny", []),
        (run_rounds, "rounds", "rounds/tiny", BEST),
    ],
)
def test_each_file_is_read_once(tmp_path, monkeypatch, runner, module, name, words):
    reads, original = [], loading.read

    def begin(*_, **__):
        raise Begun

    monkeypatch.setattr(
        loading, "read", lambda source, *rest, **more: reads.append(source) or original(source, *rest, **more)
    )
    monkeypatch.setattr(f"align.{module}.run.begin", begin)
    recipe = load_recipe(name, [f"train.output_dir={tmp_path}/run", *words])
    with pytest.raises(Begun):
        runner(recipe, None, resume=False)
    assert len(reads) == 1 + len(recipe.data.eval or {})

"""Groups of annotators who judge texts: planted ones are found by adapters on one base, and doubted where there are none."""

import json

import numpy as np
import pytest
import yaml

from align import cli
from align.annotators import em
from align.annotators.em import FILE, annotated, features, margins, run_em
from align.errors import DataError, RunError
from align.recipe.loading import load_recipe
from align.train import run
from align.weighting.groups import Groups, adjusted_rand, groups_by_features

PEOPLE, NOUNS = 10, ["sky", "sea", "rose", "wall", "hat", "boat", "fish", "door"]


def written(folder, pairs, strength=4.0, **train):
    """People whose names' parity says whether they like what is blue or what is red, and a recipe of their pairs."""
    rng = np.random.default_rng(0)
    rows = []
    for person in range(PEOPLE):
        for _ in range(pairs):
            one, other = rng.choice(len(NOUNS), 2)
            answers = [f"a blue {NOUNS[one]}", f"a red {NOUNS[other]}"]
            first = rng.random() < 1 / (1 + np.exp(-strength * (-1) ** person))
            chosen, rejected = answers if first else answers[::-1]
            rows.append({"prompt": "say: ", "chosen": chosen, "rejected": rejected, "annotator": f"p{person}"})
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "method": "reward_model",
        "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
        "lora": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
        "data": {"train": {"path": str(folder / "pairs.jsonl")}},
        "train": {
            "output_dir": "run", "learning_rate": 0.01, "max_steps": 20, "per_device_train_batch_size": 8,
            "gradient_checkpointing": False, "use_cpu": True, "bf16": False, "report_to": "none", "seed": 0,
        } | train,
    }  # fmt: skip
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.fixture(autouse=True)
def below(tmp_path, monkeypatch):
    """A recipe's file writes below the working directory."""
    monkeypatch.chdir(tmp_path)


TRUTH = np.arange(PEOPLE) % 2


def found_in(record):
    return np.array([np.argmax(record["annotators"][f"p{k}"]) for k in range(PEOPLE)])


@pytest.mark.parametrize("soft", [False, True])
def test_groups_are_found_on_features_at_twenty_pairs_and_doubted_where_there_are_none(tmp_path, soft):
    recipe = load_recipe(written(tmp_path, 20))
    data = annotated(recipe)
    x = features(recipe, data.rows)
    assert x.shape[1] == 4  # one direction for each 50 of 200 pairs
    np.testing.assert_allclose((x**2).mean(axis=0), 1)
    found = groups_by_features(data.annotator, x, 2, rng=np.random.default_rng(0), soft=soft)
    assert adjusted_rand(TRUTH, found.members) > 0.9
    assert found.doubt is None
    nobody = np.random.default_rng(1).choice([-1.0, 1.0], size=(len(x), 1)) * x
    assert "two halves" in str(groups_by_features(data.annotator, nobody, 2, rng=np.random.default_rng(0)).doubt)
    few = data.annotator[:: 20 // 4], x[:: 20 // 4]
    assert "4 pairs an annotator" in str(groups_by_features(*few, 2, rng=np.random.default_rng(0)).doubt)


def test_the_command_trains_an_adapter_for_each_group_and_tells_who_is_of_which(tmp_path, capsys):
    recipe = written(tmp_path, 20, max_steps=8, learning_rate=0.03)
    assert cli.main(["groups", str(recipe), "--rounds", "2"]) == 0
    record = json.loads((tmp_path / "run" / FILE).read_text())
    assert adjusted_rand(TRUTH, found_in(record)) > 0.9
    assert "groups of 5, 5 annotators" in capsys.readouterr().out
    last = record["rounds"][-1]
    assert (last["moved"], last["sizes"]) == (0, [5, 5])
    data = annotated(load_recipe(recipe))
    under = margins([tmp_path / "run" / path for path in record["adapters"]], data.rows)
    own = under[found_in(record)[data.annotator], np.arange(len(data.rows))]
    assert (own > 0).mean() > 0.9 > 0.2 > (under.sum(axis=0) - own > 0).mean()
    assert record["log_likelihood"] == pytest.approx(-np.logaddexp(0, -own).sum())
    assert cli.main(["groups", str(recipe)]) == 2
    assert "is not empty; go on with --resume auto" in capsys.readouterr().err
    before = (tmp_path / "run" / FILE).read_bytes()
    assert cli.main(["groups", str(recipe), "--rounds", "2", "--resume", "auto"]) == 0
    assert (tmp_path / "run" / FILE).read_bytes() == before


@pytest.mark.slow
def test_wrong_beginnings_are_mended_by_the_adapters(tmp_path, monkeypatch):
    """Round 0 puts two annotators on the wrong side; their own choices bring them back."""
    wrong = np.where(np.arange(PEOPLE) < 2, 1 - TRUTH, TRUTH)

    def begun(annotator, x, groups, **kw):
        return Groups(np.zeros((2, x.shape[1])), np.eye(2)[wrong], 0.0, None)

    monkeypatch.setattr(em, "groups_by_features", begun)
    record = run_em(load_recipe(written(tmp_path, 20, max_steps=30)), run, rounds=2)
    assert record["rounds"][1]["moved"] == 2
    assert adjusted_rand(TRUTH, found_in(record)) == 1
    assert record["same_as_at_the_beginning"] < 0.5


@pytest.mark.slow
def test_soft_groups_are_drawn_and_end_in_probabilities(tmp_path):
    record = run_em(load_recipe(written(tmp_path, 20)), run, rounds=2, soft=True)
    assert adjusted_rand(TRUTH, found_in(record)) > 0.9
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in record["annotators"].values())


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("train.reference_column=reference", RunError, "answers are compared without a reference here"),
        ("method=gpm", RunError, "groups are found by reward models, got 'gpm'"), ("lora=null", RunError, "lora: missing section"),
        ("data.train.columns={annotator: nobody}", DataError, "nobody"),
    ],
)  # fmt: skip
def test_what_has_no_groups_is_told_before_anything_is_loaded(tmp_path, monkeypatch, override, error, message):
    monkeypatch.setattr(em, "load_preference_base", lambda *_, **__: pytest.fail("loaded"))
    with pytest.raises(error, match=message):
        run_em(load_recipe(written(tmp_path, 2), [override]), run)
    with pytest.raises(RunError, match="--groups: from 2 to 10 annotators"):
        run_em(load_recipe(tmp_path / "recipe.yaml"), run, groups=11)


def test_rows_that_are_left_out_are_told_and_held_out_prompts_are_not_trained_on(tmp_path, caplog):
    path = written(tmp_path, 4)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    rows = [row | {"prompt": f"say {k % 8}: "} | ({"chosen": None} if k < 3 else {}) for k, row in enumerate(rows)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = annotated(load_recipe(path, ["data.unusable=drop"]))
    assert len(data.rows) == 37
    assert "3 of 40 rows cannot be used and are dropped" in caplog.text
    kept = annotated(load_recipe(path, ["data.unusable=drop", "data.holdout=2"])).rows
    assert len({row["prompt"] for row in kept}) == 6
    assert len(annotated(load_recipe(path, ["data.unusable=drop", "data.train.max_rows=20"])).rows) == 20


def test_a_group_that_is_too_small_is_found_before_any_is_trained(tmp_path, monkeypatch):
    alone = np.minimum(np.arange(PEOPLE), 1)  # one annotator, with one pair
    monkeypatch.setattr(
        em, "groups_by_features", lambda *_, **__: Groups(np.zeros((2, 4)), np.eye(2)[alone], 0.0, None)
    )
    with pytest.raises(RunError, match="a group is left with 1 pairs; take fewer groups"):
        run_em(load_recipe(written(tmp_path, 1)), lambda *_, **__: pytest.fail("trained"))


def test_that_annotators_moved_after_the_last_training_is_said(tmp_path, monkeypatch, capsys):
    record = {
        "rounds": [{"round": 1, "sizes": [2, 4], "moved": 5}],
        "annotators": dict.fromkeys("abcdef"),
        "doubt": None,
    }
    monkeypatch.setattr("align.annotators.command.run_em", lambda *_, **__: record)
    assert cli.main(["groups", str(written(tmp_path, 1))]) == 0
    assert "not settled: 5 of 6 annotators moved after the last training" in capsys.readouterr().out

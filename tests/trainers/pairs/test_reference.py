"""The reference of a recipe: what each kind means in training, how it is recorded, and that evaluation agrees."""

import json
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

import align
from align.models.loading import load_model, weights_digest
from align.models.tiny import tiny_model, tiny_tokenizer
from eval.__main__ import main as evaluate

FAST = ("train.max_steps=2", "train.logging_steps=1", 'train.save_strategy="no"')


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    path = tmp_path_factory.mktemp("first") / "run"
    align.run("dpo/tiny", [*FAST, f"train.output_dir={path}"])
    return path


def recorded(run):
    return json.loads((run / "env.json").read_text())["ref"]


def first_step(done, key):
    return next(r[key] for r in done.trainer.state.log_history if key in r)


def test_base_is_the_model_without_adapters(first):
    recipe = align.load_recipe(first / "recipe.resolved.yaml")
    assert recorded(first) == {
        "kind": "base", "model": "tiny-random", "digest": weights_digest(load_model(recipe.model)),
    }  # fmt: skip


def test_adapter_goes_on_from_a_frozen_copy(first, tmp_path, capsys):
    run = tmp_path / "second"
    done = align.run(
        "dpo/tiny", [*FAST, "lora=null", f"ref={{kind: adapter, path: {first / 'adapter'}}}", f"train.output_dir={run}"]
    )
    assert first_step(done, "loss") == pytest.approx(0.693147, abs=1e-5)
    assert recorded(run)["kind"] == "adapter"
    assert recorded(run)["digest"] == recorded(first)["digest"]
    assert not (run / "adapter" / "ref").exists()
    before, after = (load_file(r / "adapter" / "adapter_model.safetensors") for r in (first, run))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert evaluate([str(run)]) == 0  # its reference is the first adapter, and is found to be the recorded one
    shutil.copytree(first, tmp_path / "moved")
    weights = tmp_path / "moved" / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\x3f")
    text = (run / "recipe.resolved.yaml").read_text()
    (run / "recipe.resolved.yaml").write_text(text.replace(str(first), str(tmp_path / "moved")))
    assert evaluate([str(run)]) == 2
    assert "trained against another reference" in capsys.readouterr().err


def test_another_model(tmp_path):
    other = tmp_path / "other"
    model = tiny_model(tiny_tokenizer(), seed=5)
    model.save_pretrained(other)
    tiny_tokenizer().save_pretrained(other)
    done = align.run("rpo/tiny", [*FAST, f"ref={{kind: model, path: {other}}}", f"train.output_dir={tmp_path / 'run'}"])
    assert recorded(tmp_path / "run")["digest"] == weights_digest(model)
    assert abs(first_step(done, "log_ratio/chosen")) > 1e-2
    assert evaluate([str(tmp_path / "run")]) == 0


def test_cached_values_come_with_the_data(tmp_path, capsys):
    data = tmp_path / "cached.jsonl"
    rows = [row | {"ref_chosen_logps": -40.0, "ref_rejected_logps": -41.5} for row in tiny.pairs()]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = f"data={{train: {{path: {data}}}, eval: {{x: {{path: {data}}}}}}}"
    done = align.run("dpo/tiny", [*FAST, source, "ref.kind=cached", f"train.output_dir={tmp_path / 'run'}"])
    shift = first_step(done, "logps/chosen") - first_step(done, "log_ratio/chosen")
    assert shift == pytest.approx(-40.0, abs=1e-3)
    assert evaluate([str(tmp_path / "run")]) == 2
    assert "the data's values cannot generate answers" in capsys.readouterr().err
    assert evaluate([str(tmp_path / "run"), "ref.kind=base"]) == 0


def test_precomputed_equals_computed_on_the_way(tmp_path):
    runs = [
        align.run("rpo/tiny", [*FAST, f"train.precompute_ref_log_probs={on}", f"train.output_dir={tmp_path / on}"])
        for on in ("true", "false")
    ]
    for key in ("loss", "rewards/margins"):
        assert first_step(runs[0], key) == pytest.approx(first_step(runs[1], key), abs=1e-6)

"""The reference of a recipe: what each kind means in training, how it is recorded, and that evaluation agrees."""

import json
import logging
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file

import align
from align.models.identity import model_identity, weights_digest
from align.models.loading import load_model
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
        "kind": "base", "model": "tiny-random", **model_identity(load_model(recipe.model)),
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


# --- kept values ---------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A reference store of one's own."""
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))


KEPT = (*FAST, "train.precompute_ref_log_probs=true", "train.shared_prefix=false")


def test_evaluation_finds_every_value_that_training_kept(cache, tmp_path, caplog):
    run = tmp_path / "run"
    align.run("dpo/tiny", [*KEPT, f"train.output_dir={run}"])
    with caplog.at_level(logging.INFO, logger="eval.pairs.logps"):
        assert evaluate([str(run)]) == 0
    assert "20 of 20 answers were in" in caplog.text


def test_another_configuration_of_the_same_weights_is_another_reference(cache, tmp_path):
    """The first log-ratio of a fresh adapter is 0: no value of the model as it was before is taken for one of it now."""
    model = tmp_path / "model"
    tiny_model(tiny_tokenizer()).save_pretrained(model)
    tiny_tokenizer().save_pretrained(model)
    options = [*KEPT, f"model.model_name_or_path={model}"]
    align.run("dpo/tiny", [*options, f"train.output_dir={tmp_path / 'before'}"])
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.1}))
    done = align.run("dpo/tiny", [*options, f"train.output_dir={tmp_path / 'after'}"])
    assert first_step(done, "rewards/margins") == pytest.approx(0, abs=1e-6)
    assert first_step(done, "loss") == pytest.approx(0.693147, abs=1e-5)


def test_another_scale_of_the_same_adapter_is_another_reference(cache, first, tmp_path):
    adapter = tmp_path / "adapter"
    shutil.copytree(first / "adapter", adapter)
    options = [*KEPT, "lora=null", f"ref={{kind: adapter, path: {adapter}}}"]
    align.run("dpo/tiny", [*options, f"train.output_dir={tmp_path / 'before'}"])
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 8 * settings["lora_alpha"]}))
    done = align.run("dpo/tiny", [*options, f"train.output_dir={tmp_path / 'after'}"])
    assert first_step(done, "rewards/margins") == pytest.approx(0, abs=1e-6)
    assert first_step(done, "loss") == pytest.approx(0.693147, abs=1e-5)


def test_a_run_without_the_newer_digests_is_still_evaluated(first, tmp_path, capsys):
    run = tmp_path / "old"
    shutil.copytree(first, run)
    record = json.loads((run / "env.json").read_text())
    record["ref"] = {key: record["ref"][key] for key in ("kind", "model", "digest")}
    (run / "env.json").write_text(json.dumps(record))
    assert evaluate([str(run)]) == 0
    record["ref"]["config_digest"] = "0" * 64
    (run / "env.json").write_text(json.dumps(record))
    assert evaluate([str(run)]) == 2
    assert "which differs in configuration" in capsys.readouterr().err

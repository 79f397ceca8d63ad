"""What training begins with, and what it is held against: two things."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model, load_peft_weights
from recipes_under_test import problems
from trl import ModelConfig

from align.building import build_trainer
from align.check.model import read_model
from align.data import load_data
from align.errors import RunError
from align.models.loading import load_model
from align.models.start import adapter_folder, starting_config, trained_on_another
from align.recipe.loading import load_recipe
from align.scoring.completions import completion_logps
from align.train import run

MODEL = ModelConfig(model_name_or_path="tiny-random", dtype="float32")
QUICK = ["lora=null", "data.eval={}", "train.save_strategy='no'", "train.max_steps=1"]
RECIPES = {"pairs": "dpo/tiny", "completions": "supervised/tiny", "prompts": "online/tiny-grpo"}


def adapter(path, seed, **changed):
    settings = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | changed
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(seed)
        model = get_peft_model(load_model(MODEL), LoraConfig(**settings))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.5)
    model.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {name: adapter(folder / name, seed) for seed, name in enumerate("ab")}


def settings(two, start, ref, *more):
    words = [*QUICK, *more]
    words += [f"start={{adapter: {two[start]}}}"] if start else []
    return [*words, f"ref={{kind: adapter, path: {two[ref]}}}"] if ref else words


def logps(folder, batch):
    model = load_model(MODEL, adapter=None if folder is None else str(folder)).eval()
    sequences = [
        (ids[mask.bool() & ~own.bool()].tolist(), ids[own.bool()].tolist())
        for ids, mask, own in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True)
    ]
    return torch.tensor([float(row.sum()) for row in completion_logps(model, sequences, pad_token_id=0)])


@pytest.mark.parametrize(("start", "ref"), [("a", None), ("a", "b"), ("b", "a"), ("a", "a"), (None, "a")])
def test_the_first_log_ratio_is_that_of_start_and_reference(two, tmp_path, start, ref):
    recipe = load_recipe("dpo/tiny", settings(two, start, ref, f"train.output_dir={tmp_path}"))
    data = load_data(recipe.data)
    trainer, _ = build_trainer(recipe, data.train, {})
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    begun = two[start or ref]
    policy, reference = logps(begun, batch), logps(two.get(ref), batch)
    assert (start == ref or start is None) == bool(torch.equal(policy, reference))
    trainer.sums.take("train")
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch)
    found = trainer.sums.take("train")
    expected = (policy - reference).chunk(2)
    assert found["log_ratio/chosen"] == pytest.approx(float(expected[0].mean()), abs=1e-4)
    assert found["log_ratio/rejected"] == pytest.approx(float(expected[1].mean()), abs=1e-4)


def test_a_stored_reference_is_that_of_the_reference_and_not_of_the_start(two, tmp_path):
    words = settings(two, "a", "b", f"train.output_dir={tmp_path}", "train.precompute_ref_log_probs=true")
    recipe = load_recipe("dpo/tiny", words)
    trainer, _ = build_trainer(recipe, load_data(recipe.data).train, {})
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(3)])
    stored = torch.cat([batch["ref_chosen_logps"], batch["ref_rejected_logps"]])
    torch.testing.assert_close(stored, logps(two["b"], batch), atol=1e-4, rtol=0)


@pytest.mark.parametrize("rows", ["completions", "prompts"])
def test_other_methods_begin_with_it_too(two, tmp_path, rows):
    recipe = load_recipe(RECIPES[rows], settings(two, "a", None, f"train.output_dir={tmp_path}"))
    trainer, _ = build_trainer(recipe, load_data(recipe.data, rows=recipe.rows).train, {})
    own = {name: weight for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    saved = load_peft_weights(str(two["a"]), device="cpu")
    assert len(own) == len(saved)
    for name, weight in saved.items():
        layer, kind = name.rsplit(".", 1)
        assert torch.equal(own[f"{layer}.default.{kind}"], weight)


def test_a_run_directory_is_enough_and_its_adapter_is_not_changed(two, tmp_path, caplog):
    first, second = tmp_path / "one", tmp_path / "two"
    run("dpo/tiny", [*settings(two, "a", None), f"train.output_dir={first}"])
    before = {path.name: path.read_bytes() for path in (first / "adapter").iterdir() if path.is_file()}
    run("dpo/tiny", [*QUICK, f"start={{adapter: {first}}}", f"train.output_dir={second}"])
    assert f"training begins with the adapter {first / 'adapter'}; the reference is the model without" in caplog.text
    assert before == {path.name: path.read_bytes() for path in (first / "adapter").iterdir() if path.is_file()}
    one, other = (load_peft_weights(str(path / "adapter"), device="cpu") for path in (first, second))
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """The two shipped stages, one after the other."""
    home = tmp_path_factory.mktemp("stages")
    with pytest.MonkeyPatch.context() as moved:
        moved.chdir(home)
        for name in ("sft", "dpo"):
            run(f"stages/tiny-{name}", ["train.save_strategy='no'", "train.max_steps=2"])
    return home / "runs"


def test_two_stages_and_what_the_second_began_with(stages, monkeypatch):
    env = json.loads((stages / "tiny-dpo" / "env.json").read_text())
    first = json.loads((stages / "tiny-sft" / "env.json").read_text())
    digest = env["start"].pop("digest")
    assert env["start"] == {"adapter": "runs/tiny-sft/adapter", "run": first["run"], "step": 2}
    assert len(digest) == 64
    assert env["ref"]["digest"] == first["ref"]["digest"]
    assert "start" not in first
    assert "Training began with `tiny-sft`." in (stages / "tiny-dpo" / "README.md").read_text()
    monkeypatch.chdir(stages.parent)
    with pytest.raises(RunError, match=r"start.adapter: .* is part of the run in .*, which --overwrite would delete"):
        run("stages/tiny-dpo", ["train.output_dir=runs/tiny-sft"], overwrite=True)


def test_an_adapter_that_is_not_what_its_run_wrote_is_refused(stages, tmp_path):
    damaged = shutil.copytree(stages / "tiny-sft" / "adapter", tmp_path / "adapter")
    weights = damaged / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(RunError, match=r"adapter_model.safetensors is damaged: its sha256"):
        starting_config(damaged)


def test_it_is_said_that_an_adapter_was_trained_on_another_base(stages, tmp_path):
    known = shutil.copytree(stages / "tiny-sft" / "adapter", tmp_path / "adapter")
    reference = json.loads((known / "reference.json").read_text())
    assert trained_on_another(known, reference["digest"]) is None
    assert "it was trained on tiny-random, whose weights are not those" in trained_on_another(known, "0" * 64)
    (known / "reference.json").write_text(json.dumps(reference | {"kind": "model"}))
    assert trained_on_another(known, "0" * 64) is None
    (known / "reference.json").unlink()
    assert trained_on_another(known, "0" * 64) is None


def test_what_cannot_be_begun_with_is_told_before_weights_are_loaded(two, tmp_path):
    other = adapter(tmp_path / "c", 2, r=2)
    with pytest.raises(RunError, match=r"another shape of adapter than the reference's.*r: 2 here, 4 there"):
        starting_config(other, str(two["a"]))
    with pytest.raises(RunError, match="no such folder"):
        adapter_folder(tmp_path / "nowhere")
    (tmp_path / "whole" / "model").mkdir(parents=True)
    with pytest.raises(RunError, match=r"named by model\.model_name_or_path"):
        adapter_folder(tmp_path / "whole")
    found = read_model(load_recipe("dpo/tiny", [*QUICK, f"start={{adapter: {tmp_path}}}"]))
    assert (found.level, found.where) == ("error", "start.adapter")
    fine = read_model(load_recipe("dpo/tiny", settings(two, "a", "b")))
    assert fine.adapter.r == 4


def test_a_recipe_with_two_beginnings_is_refused(tmp_path):
    text = "method: dpo\nmodel: {model_name_or_path: tiny-random}\nlora: {r: 4}\nstart: {adapter: ./runs/a}\n"
    text += "data: {train: {path: x.jsonl}}\ntrain: {output_dir: runs/x, use_cpu: true, bf16: false}\n"
    (said,) = problems(tmp_path, text)
    assert f"lora: contradicts start: training begins with the adapter {tmp_path}/runs/a; remove `lora`" in said
    (said,) = problems(tmp_path, text, "lora=null", "method=reward_model")
    assert "start: method 'reward_model' begins with a new head" in said
    (said,) = problems(tmp_path, text, "lora=null", "start={adaptor: x, adapter: y}")
    assert "start.adaptor: unknown key, got 'x'; did you mean 'adapter'?" in said

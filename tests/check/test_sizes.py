"""How large a run is: adapted layers, trainable parameters, steps, and bytes on disk."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from recipes_under_test import GOOD, load
from stored_world import read_lines
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MixtralConfig

from align.check import sizes
from align.check.schedule import Plan, inspect_held_out, inspect_schedule, logged_names, plan
from align.check.sizes import Size, checkpoint_bytes, inspect_adapter, inspect_disk
from align.errors import RunError
from align.recipe.loading import load_recipe
from align.train import run

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 2}
LLAMA = LlamaConfig(vocab_size=100, intermediate_size=32, **SMALL)


def lora(**settings):
    return LoraConfig(task_type="CAUSAL_LM", r=2, **settings)


def inspected(settings, config=LLAMA):
    found, size = inspect_adapter(config, lora(**settings) if isinstance(settings, dict) else settings)
    return {finding.level: finding for finding in found}, size


# --- adapter -----------------------------------------------------------------------------------------


def test_all_linear_layers_and_their_parameters_are_counted_by_hand():
    """A layer has four 16x16 maps and three of 16x32: rank 2 adds 2 (in + out) each."""
    found, size = inspected({"target_modules": "all-linear"})
    assert size._replace(shapes={}) == Size(
        parameters=2 * 1600 + 4 * (4 * 256 + 3 * 512 + 32) + 16,
        trainable=4 * 2 * (4 * 32 + 3 * 48),
        layers=28,
        adapted=28,
    )
    assert "28 of 28 linear layers (100%), 2,176 of 13,584 parameters trainable" in found["note"].message


def test_weights_are_never_made(monkeypatch):
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    huge = LlamaConfig(vocab_size=100_000, hidden_size=16_384, intermediate_size=65_536, num_hidden_layers=9)
    _, size = inspected({"target_modules": "all-linear", "init_lora_weights": "corda"}, huge)
    assert size.parameters > 30e9


@pytest.mark.parametrize(
    ("settings", "adapted", "level"),
    [
        ({"target_modules": ["q_proj", "v_proj"]}, 8, "note"),
        ({"target_modules": ["q_proj"]}, 4, "warning"),
        ({"target_modules": ["q_proj", "v_proj"], "layers_to_transform": [0]}, 2, "warning"),
        ({"target_modules": r".*\.self_attn\..*_proj"}, 16, "note"),
        ({"target_modules": ["q_proj", "v_proj", "embed_tokens"]}, 8, "note"),
    ],
)
def test_few_adapted_layers_are_a_warning(settings, adapted, level):
    found, size = inspected(settings)
    assert size.adapted == adapted
    assert f"{adapted} of 28 linear layers" in found[level].message


def test_layers_of_other_kinds_count_too():
    """GPT-2's maps are convolutions of width one; Mixtral's experts are two tensors a layer, unseen by LoRA."""
    _, gpt2 = inspected({"target_modules": "all-linear"}, GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2))
    assert (gpt2.layers, gpt2.adapted) == (8, 8)
    experts = MixtralConfig(vocab_size=100, intermediate_size=32, num_local_experts=4, **SMALL)
    _, mixtral = inspected({"target_modules": ["q_proj"]}, experts)
    assert (mixtral.layers, mixtral.adapted) == (4 * (4 + 2), 4)


@pytest.mark.parametrize("targets", [["qproj"], "nothing.*", ["layers"]])
def test_an_adapter_that_hits_nothing_is_an_error_with_the_names_there_are(targets):
    found, size = inspected({"target_modules": targets})
    assert size is None
    assert found["error"].rule == "lora-coverage"
    assert "down_proj, gate_proj, k_proj" in found["error"].remedy


def test_a_name_that_hits_nothing_among_others_is_a_warning():
    found, _ = inspected({"target_modules": ["q_proj", "v_proj", "out_proj"]})
    assert "no layer is called out_proj" in found["warning"].message


@pytest.mark.parametrize("targets", [".*(q_proj|lm_head)", ".*head", r".*\.q_proj|lm_head"])
def test_a_pattern_that_hits_the_output_layer_is_an_error(targets):
    found, _ = inspected({"target_modules": targets})
    assert found["error"].rule == "lora-output-layer"


def test_the_output_layer_may_be_trained_whole():
    found, size = inspected({"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["lm_head"]})
    assert "error" not in found
    assert size.trainable == 4 * 2 * 2 * 32 + 1600


def test_without_an_adapter_all_is_trained():
    assert inspect_adapter(LLAMA, None) == ([], Size(13_584, 13_584, 28, 0))


def test_an_adapter_that_was_saved_frozen_counts_as_trained():
    _, size = inspected({"target_modules": ["q_proj", "v_proj"], "inference_mode": True})
    assert size.trainable == 4 * 2 * 2 * 32


# --- schedule ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "processes", "expected"),
    [
        ([], 1, Plan(39, 13)),  # 100 pairs, 8 at a time, 3 epochs
        (["train.max_steps=5"], 1, Plan(5, 13)),
        (["train.gradient_accumulation_steps=5"], 1, Plan(9, 3)),
        (["train.gradient_accumulation_steps=5"], 2, Plan(6, 2)),
        (["train.global_batch_size=16"], 2, Plan(21, 7)),
        (["train.dataloader_drop_last=true"], 1, Plan(36, 12)),
        (["train.num_train_epochs=0.5"], 1, Plan(7, 13)),
    ],
)
def test_steps_are_counted_as_the_trainer_does(folder, overrides, processes, expected):
    assert plan(load(folder, GOOD, *overrides), 100, processes) == expected


@pytest.mark.parametrize(
    ("overrides", "evals", "rules"),
    [
        ([], [], []),
        (["train.eval_strategy=epoch"], ["test"], []),
        (["train.eval_strategy=epoch"], [], ["eval-without-sets"]),
        (["train.load_best_model_at_end=true", 'train.save_strategy="no"'], ["test"], ["best-without-eval"]),
        (["train.save_strategy=best", "train.metric_for_best_model=test_loss"], ["test"], ["best-without-eval"]),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=loss"], ["test"], ["best-metric"]),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=eval_test_loss"], ["test"], []),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=a_loss"], ["a", "a_b"], []),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=a_b_loss"], ["a", "a_b"], []),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=test_rewards/accuracy"], ["test"], ["best-metric"]),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=test_loss/preference"], ["test"], ["best-metric"]),
        (["train.eval_strategy=epoch", "train.metric_for_best_model=test_gold"], ["test"], ["best-metric"]),
        (["train.warmup_steps=40"], [], ["warmup"]),
        (["train.warmup_steps=39"], [], []),
        (["train.warmup_steps=0.5"], [], []),
        (["train.save_steps=40"], [], ["save-steps"]),
        (["train.save_steps=39"], [], []),
        (["train.save_steps=40", 'train.save_strategy="no"'], [], []),
        (["train.max_steps=0"], [], ["max-steps"]),
    ],
)
def test_settings_that_do_not_fit_the_steps_or_sets_are_told(folder, overrides, evals, rules):
    recipe = load(folder, GOOD, "train.save_steps=10", *overrides)
    found = inspect_schedule(recipe, Plan(39, 13), evals, rows=100, processes=1)
    assert [finding.rule for finding in found] == rules
    assert all(finding.remedy for finding in found)


@pytest.mark.parametrize(("alone", "rules"), [(5, []), (6, ["critic-warmup"])])
def test_a_value_head_that_is_trained_alone_to_the_end_is_told(alone, rules):
    recipe = load_recipe("online/tiny-tppo", [f"train.critic_warmup={alone}", "train.save_steps=2"])
    found = inspect_schedule(recipe, Plan(6, 2), [], rows=32, processes=1)
    assert [finding.rule for finding in found] == rules


def test_the_metric_that_is_suggested_is_the_one_that_works(tmp_path):
    """With named evaluation sets the Trainer's own default, `loss`, would end in a KeyError at the first evaluation."""
    words = [
        "train.eval_strategy=steps",
        "train.eval_steps=2",
        "train.save_steps=2",
        "train.load_best_model_at_end=true",
    ]
    words += [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=2"]
    (finding,) = inspect_schedule(load_recipe("rpo/tiny", words), Plan(2, 5), ["tiny"], rows=10, processes=1)
    with pytest.raises(RunError, match="'loss' is never logged"):
        run("rpo/tiny", words)
    metric = finding.remedy.split()[1]
    assert run("rpo/tiny", [*words, f"train.metric_for_best_model={metric}"], overwrite=True).trainer.state.best_metric


@pytest.mark.parametrize(
    "name",
    ["dpo/tiny", "kto/tiny", "supervised/tiny", "preference_model/tiny", "online/tiny-grpo", "online/tiny-online-dpo"],
)
def test_the_names_that_a_check_knows_are_those_that_are_logged(tmp_path, name):
    """Of each family: a name is taken as it stands, and one that is nearly it is said to be meant."""
    words = [
        "train.eval_strategy=steps",
        "train.eval_steps=1",
        "train.max_steps=1",
        'train.save_strategy="no"',
    ]
    run(name, [*words, f"train.output_dir={tmp_path / 'run'}"])
    recipe = load_recipe(name, words)
    rows = 64 if name.startswith("online") else 10
    of_set = next(iter(recipe.data.eval))
    told = [record for record in read_lines(tmp_path / "run" / "metrics.jsonl") if f"eval_{of_set}_loss" in record]
    missing = [one for one in logged_names(recipe) if f"eval_{of_set}_{one}" not in told[0]]
    assert missing == []
    for one in logged_names(recipe):
        chosen = load_recipe(name, [*words, f"train.metric_for_best_model=tiny_{one}"])
        assert inspect_schedule(chosen, Plan(1, 1), ["tiny"], rows=rows, processes=1) == []
    wrong = load_recipe(name, [*words, f"train.metric_for_best_model=tiny_{logged_names(recipe)[1]}x"])
    (finding,) = inspect_schedule(wrong, Plan(1, 1), ["tiny"], rows=rows, processes=1)
    assert finding.level == "error"
    assert f"did you mean tiny_{logged_names(recipe)[1]}?" in finding.message
    for key in (key.removeprefix(f"eval_{of_set}_") for key in told[0] if key.startswith(f"eval_{of_set}_")):
        chosen = load_recipe(name, [*words, f"train.metric_for_best_model=tiny_{key}"])
        found = inspect_schedule(chosen, Plan(1, 1), ["tiny"], rows=rows, processes=1)
        assert all(finding.level == "warning" for finding in found), key


def test_held_out_rows_of_one_prompt_are_told():
    rows = Dataset.from_list([{"prompt": "a"}, {"prompt": "b"}, {"prompt": "a"}])
    sets = {"data.train": rows.select([0]), "data.eval.x": rows, "data.eval.y": rows.select([0, 2])}
    found = inspect_held_out(sets | {"data.eval.z": rows.select([1])})
    assert [finding.where for finding in found] == ["data.eval.y", "data.eval.z"]
    assert [finding.message.partition(" of")[0] for finding in found] == ["2 rows", "1 row"]


# --- disk --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [["lora.r=64"], ["lora=null"], ["train.save_only_model=true", "lora.r=64"], ["lora=null", "train.optim=sgd"]],
)
def test_the_bytes_of_a_checkpoint_are_those_that_are_written(tmp_path, overrides):
    words = [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1", *overrides]
    finished = run("rpo/tiny", words)
    recipe = load_recipe("rpo/tiny", words)
    model = finished.trainer.model
    size = inspect_adapter(model.config, recipe.lora)[1]
    checkpoint, final = checkpoint_bytes(recipe, size, None)
    kept = ("adapter_model.safetensors", "model.safetensors", "optimizer.pt")
    written = sum(p.stat().st_size for p in (tmp_path / "run" / "checkpoint-1").iterdir() if p.name in kept)
    assert checkpoint <= written < 1.15 * checkpoint  # names and shapes weigh something beside tiny tensors
    saved = next((tmp_path / "run").glob("*/*model.safetensors"))
    assert final <= saved.stat().st_size < 1.15 * final


@pytest.mark.parametrize(
    ("overrides", "checkpoint", "final"),
    [
        ([], 1200, 400),
        (["model.load_in_4bit=true"], 600, 200),  # TRL keeps these adapters in bfloat16
        (["model.dtype=bfloat16"], 1200, 400),  # PEFT keeps these in float32
        (["lora=null", "ref={kind: adapter, path: x}"], 1600, 400),  # with the frozen copy
        (["train.optim=adamw_bnb_8bit"], 600, 400),
        (["train.optim=adafactor"], 400, 400),
    ],
)
def test_an_adapter_of_a_hundred_parameters_by_hand(folder, overrides, checkpoint, final):
    assert checkpoint_bytes(load(folder, GOOD, *overrides), Size(999, 100, 1, 1), None) == (checkpoint, final)


def at(folder, *overrides):
    return load(folder, GOOD, f"train.output_dir={folder / 'not' / 'yet'}", "lora=null", *overrides)


@pytest.mark.parametrize(
    ("overrides", "bytes_needed"),
    [
        (["train.save_steps=10"], 4 * 1200 + 400),
        (["train.save_steps=10", "train.save_total_limit=2"], 3 * 1200 + 400),
        (["train.save_steps=10", "train.save_total_limit=9"], 4 * 1200 + 400),
        (["train.save_strategy=epoch"], 3 * 1200 + 400),
        (['train.save_strategy="no"'], 400),
        (["train.save_steps=10", "train.save_only_model=true"], 5 * 400),
        (["train.save_steps=10", "model.dtype=bfloat16"], 4 * 600 + 200),
        (["train.save_steps=0.5"], 2 * 1200 + 400),
        (["train.save_steps=10", "model.dtype=auto"], 4 * 600 + 200),
    ],
)
def test_what_is_needed_is_compared_with_what_is_free(tmp_path, monkeypatch, overrides, bytes_needed):
    """100 parameters of four bytes, two states each; 39 steps of three epochs."""

    def finding(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free) if path == tmp_path else None)
        return inspect_disk(at(tmp_path, *overrides), Size(100, 100, 1, 0), Plan(39, 13), torch.bfloat16)

    assert [finding(bytes_needed + more).level for more in (-1, 0, bytes_needed - 1, bytes_needed)] == [
        "error", "warning", "warning", "note",
    ]  # fmt: skip


def test_sizes_are_told_in_units():
    assert [sizes._bytes(n) for n in (10, 999, 1234, 5.6e6, 7.89e9, 2e12)] == [
        "0.01 kB", "0.999 kB", "1.23 kB", "5.6 MB", "7.89 GB", "2 TB",
    ]  # fmt: skip

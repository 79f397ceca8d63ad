"""Every shipped recipe parses as it stands and takes one real step on a tiny model and tiny data."""

import json

import pytest
import tiny
import yaml
from accelerate.commands.config.config_args import load_config_from_file

import align
from align.recipe import load_recipe, recipes_dir

ALL = sorted(str(p.relative_to(recipes_dir()).with_suffix("")) for p in recipes_dir().rglob("*.yaml"))
RECIPES = [name for name in ALL if not name.startswith("accelerate/")]
ON_CPU = ("train.use_cpu=true", "train.bf16=false")


def test_the_promised_recipes_are_there():
    promised = {f"{m}/{kind}" for m in ("dpo", "rpo", "fdpo") for kind in ("tiny", "smollm2-ultrafeedback")}
    promised |= {
        "quickstart",
        "papers/rpo-zephyr-beta",
        "papers/rpo-zephyr-gemma",
        "papers/rpo-average",
        "papers/fdpo-hh",
    }
    assert set(RECIPES) == promised


@pytest.mark.parametrize("name", RECIPES)
def test_parses_and_says_what_it_reproduces(name):
    recipe = load_recipe(name, ON_CPU)
    first = recipe.path.read_text().splitlines()[0]
    assert first.startswith("# ")
    head = " ".join(line for line in recipe.path.read_text().splitlines() if line.startswith("#"))
    assert any(word in head for word in ("Reproduces", "Paper", "published", "variant"))


@pytest.mark.parametrize("name", RECIPES)
def test_dry_runs(name, tmp_path):
    data = tmp_path / "pairs.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in tiny.pairs()))
    lora = ["lora.layers_to_transform=null"] if load_recipe(name, ON_CPU).lora else []
    settings = {"train": {"path": str(data)}, "eval": {"x": {"path": str(data)}}}
    done = align.run(
        name,
        [
            *ON_CPU, *lora, "model.model_name_or_path=tiny-random", "model.dtype=float32", f"data={yaml.safe_dump(settings, default_flow_style=True).strip()}",
            "train.per_device_train_batch_size=2", "train.global_batch_size=2", "train.max_steps=1", f"train.output_dir={tmp_path / 'run'}",
        ],
    )  # fmt: skip
    assert done.trainer.state.global_step == 1
    assert (done.path / ("adapter" if lora or load_recipe(name, ON_CPU).lora else "model")).is_dir()


@pytest.mark.parametrize("path", sorted((recipes_dir() / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.distributed_type in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    assert "num_processes" not in yaml.safe_load(path.read_text())  # said on the command line, not in a file

"""Every shipped recipe parses as it stands and takes one real step on a tiny model and tiny data."""

import json
from pathlib import Path

import pytest
import scored
import tiny
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from tiny import sparing

import align
from align.data.loading import load_data
from align.recipe.loading import load_recipe
from align.recipe.shipped import recipes_dir
from eval.verify import verify

ALL = sorted(str(p.relative_to(recipes_dir()).with_suffix("")) for p in recipes_dir().rglob("*.yaml"))
RECIPES = [name for name in ALL if not name.startswith("accelerate/")]
IN_ROUNDS = {name for name in RECIPES if "\nrounds:" in (recipes_dir() / f"{name}.yaml").read_text()}
"""Those that tests/rounds runs."""
FRONTS = {"fronts/tiny", "fronts/manifold-tiny", "fronts/c-morl-tiny", "tools/tiny-front", "tools/search-planner"}
"""Several policies: tests/fronts makes them (of tools/search-planner the small kin)."""
FIRST = {"stages/tiny-dpo": ["stages/tiny-sft"], "meet/tiny": ["meet/tiny-good", "meet/tiny-bad"]}
"""Begins with another's run: tests/models/test_start.py and tests/trainers/completions/test_meet.py run all of a chain."""
DRY = [name for name in RECIPES if name not in IN_ROUNDS | FIRST.keys() | FRONTS]
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
    promised |= {f"papers/dynamic-reward-weighting-{rule}" for rule in ("hypervolume", "gradient")}
    promised |= {
        f"online/tiny-{kind}" for kind in ("grpo", "rloo", "reinforce", "single-stream", "hpt", "tspmo", "fdpg", "tppo")
    }
    promised |= {f"online/tiny-{kind}" for kind in ("online-dpo", "online-ipo", "egpo", "nash-md", "xpo")}
    promised |= {"online/smollm2-online-dpo"}
    promised |= {f"pairwise/{kind}" for kind in ("tiny", "tiny-scored", "copg-ultrafeedback", "simpo-ultrafeedback")}
    promised |= {
        "preference_model/tiny",
        "preference_model/polar-tiny",
        "preference_model/smollm2-human-pairs",
        "srpo/tiny",
    }
    promised |= {f"supervised/{kind}" for kind in ("tiny", "asft-math", "dft-math")}
    promised |= {
        f"supervised/{kind}-tiny" for kind in ("awr", "conditional", "extend", "fsft", "poft", "rwr", "unlikelihood")
    }
    promised |= {
        f"rounds/{kind}tiny" for kind in ("", "dno-", "gpo-", "irpo-", "rejection-", "ric-", "self-rewarding-")
    }
    promised |= {
        "stages/tiny-sft",
        "stages/tiny-dpo",
        "preference_model/groups-tiny",
        "online/tiny-order-preserving",
        "online/tiny-trajectory-balance",
        "meet/tiny-good",
        "meet/tiny-bad",
        "meet/tiny",
        "kto/tiny",
        "bco/tiny",
        "bco/tiny-density-ratio",
        "aot/tiny",
        "beta_dpo/tiny",
        "tdpo/tiny",
        "papers/kto-zephyr-beta",
        "tools/tiny",
        "tools/tiny-environment",
    } | FRONTS
    promised |= {f"papers/{name}" for name in ("dno-prct", "iterative-rpo", "gpo-gpm")}
    assert set(RECIPES) == promised


@pytest.mark.parametrize("name", RECIPES)
def test_parses_and_says_what_it_reproduces(name):
    recipe = load_recipe(name, ON_CPU)
    first = recipe.path.read_text().splitlines()[0]
    assert first.startswith("# ")
    head = " ".join(line for line in recipe.path.read_text().splitlines() if line.startswith("#"))
    assert any(word in head for word in ("eproduces", "Paper", "published", "variant"))


def rows_for(recipe):
    """Ten rows of the recipe's kind, with the columns that it asks for."""
    if recipe.rows == "pairs":
        kept = ("prompt", "chosen", "rejected", *recipe.columns)
        rows = [{name: value for name, value in row.items() if name in kept} for row in scored.pairs()]
        return [row | dict.fromkeys(recipe.texts, "What one could say.") for row in rows]
    asked = [{"prompt": row["prompt"]} for row in tiny.pairs()]
    if recipe.rows == "prompts":
        texts = dict.fromkeys(recipe.texts, "What one could say.")
        kept = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
        return [row | {"answer": str(n)} | kept | texts for n, row in enumerate(asked)]
    if recipe.rows == "labels":
        pairs = tiny.pairs()
        return [
            row | {"completion": pair[s], "label": s == "chosen"}
            for row, pair in zip(asked, pairs, strict=True)
            for s in ("chosen", "rejected")
        ]
    numbers = dict.fromkeys(recipe.columns, 0.5)
    return [row | {"completion": pair["chosen"]} | numbers for row, pair in zip(asked, tiny.pairs(), strict=True)]


@pytest.mark.parametrize("name", sparing(DRY, *{name.split("/")[0]: name for name in DRY}.values()))
def test_dry_runs(name, tmp_path):
    recipe = load_recipe(name, ON_CPU)
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows_for(recipe)))
    lora = ["lora.layers_to_transform=null"] if recipe.lora else []
    settings = {"train": {"path": str(data)}, "eval": {"x": {"path": str(data)}}}
    small = ["train.per_device_train_batch_size=2", "train.warmup_steps=0"]
    small += (
        ["train.global_batch_size=2"]
        if hasattr(recipe.train, "global_batch_size")
        else ["train.gradient_accumulation_steps=1"]
    )
    small += ["train.critic_warmup=0"] if getattr(recipe.train, "critic_warmup", 0) else []  # one step is taken
    if recipe.rows == "prompts":
        alone = recipe.train.one_answer
        small += [
            f"train.num_generations={1 if alone else 2}",
            "train.max_completion_length=8",
            "train.generation_batch_size=null",
        ]
        if isinstance(getattr(recipe.train, "gradient_layers", None), str):  # FIRST-LAST, and the model has two
            small += ["train.gradient_layers=0-1"]
    done = align.run(
        name,
        [
            *ON_CPU, *lora, "model.model_name_or_path=tiny-random", "model.dtype=float32", f"data={yaml.safe_dump(settings, default_flow_style=True).strip()}",
            *small, "train.max_steps=1", f"train.output_dir={tmp_path / 'run'}",
        ],
    )  # fmt: skip
    assert done.trainer.state.global_step == 1
    assert (done.path / ("adapter" if recipe.lora else "model")).is_dir()


@pytest.mark.parametrize("name", RECIPES)
def test_rows_that_are_shipped_can_be_read(name):
    recipe = load_recipe(name, ON_CPU)
    sources = recipe.data.train if isinstance(recipe.data.train, list) else [recipe.data.train]
    if not all(Path(source.path).is_file() for source in sources):
        pytest.skip("its rows are not shipped")
    data = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    assert len(data.train) > 0


EXPECTING = [name for name in RECIPES if "tiny" in name and load_recipe(name, ON_CPU).expect]


def test_make_verify_holds_all_that_expect_something():
    makefile = (recipes_dir().parent / "Makefile").read_text().replace("\\\n", "")
    (line,) = (line for line in makefile.splitlines() if line.startswith("VERIFIED := "))
    assert sorted(line.split()[2:]) == sorted([*EXPECTING, "quickstart"])


@pytest.mark.parametrize("name", sparing(EXPECTING, "kto/tiny", "supervised/tiny"))
@pytest.mark.parametrize("learns", [True, False])
def test_what_a_recipe_expects_holds_and_not_without_training(name, learns, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for before in FIRST.get(name, ()):
        align.run(before)
    still = [] if learns else ["train.learning_rate=0"]
    done = align.run(name, [f"train.output_dir={tmp_path / 'run'}", *still])
    checked = verify(done.path)
    assert checked
    assert [one.holds for one in checked] == [learns] * len(checked)


@pytest.mark.parametrize("path", sorted((recipes_dir() / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_accelerate_reads_its_configurations(path):
    config = load_config_from_file(str(path))
    assert config.distributed_type in ("MULTI_GPU", "FSDP", "DEEPSPEED")
    assert "num_processes" not in yaml.safe_load(path.read_text())  # said on the command line, not in a file

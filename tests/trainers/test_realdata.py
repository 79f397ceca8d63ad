"""SmolLM2 on real pairs, through the shipped recipes with only `data` and `train` overrides: a few steps each.

The recorded runs are longer: recipes/README.md has the command and the figures.
"""

import json
import math

import pytest
import smollm2

import align
from align.data.split import prompt_position
from align.recipe.shipped import recipes_dir
from align.rewards import positive_sentiment

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.usefixtures("all_threads"),
    smollm2.needed,
]


def train(recipe, path, tmp_path, *more):
    return align.run(
        recipe,
        [
            f"data={{train: {{path: {path}, split: 'train[:24]'}}, holdout: 0.2, unusable: drop}}", f"train.output_dir={tmp_path / 'run'}",
            "train.max_steps=2", "train.per_device_train_batch_size=1", "train.global_batch_size=1", "train.max_length=256",
            "train.learning_rate=2e-4", "train.warmup_steps=0", 'train.eval_strategy="no"', 'train.save_strategy="no"', "train.logging_steps=1",
            "train.gradient_checkpointing=false", "train.use_cpu=true", "train.bf16=false", *more,
        ],
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "name"),
    [
        ("dpo", "pandalm_human"),
        ("rpo", "hh_harmless"),
        ("fdpo", "ultrafeedback_1k"),
    ],
)
def test_a_real_model_on_real_pairs(shared_data, tmp_path, method, name):
    done = train(f"{method}/smollm2-ultrafeedback", shared_data / name / "train.jsonl.gz", tmp_path)
    first, second = [r for r in done.trainer.state.log_history if "loss/preference" in r][:2]
    assert first["loss/preference"] == pytest.approx(math.log(2), abs=1e-4)
    assert first["log_ratio/chosen"] == pytest.approx(0.0, abs=1e-3)
    assert all(math.isfinite(v) for v in second.values())
    assert second["log_ratio/chosen"] != 0.0
    assert (done.path / "adapter" / "adapter_model.safetensors").stat().st_size > 1_000_000


def test_the_quickstart_pairs_are_what_their_settings_say():
    """The committed pairs against the gold reward that ranked them."""
    made = json.loads((recipes_dir() / "data" / "quickstart.json").read_text())
    prompts = {}
    for split in ("train", "test"):
        rows = [
            json.loads(line) for line in (recipes_dir() / "data" / f"quickstart-{split}.jsonl").read_text().splitlines()
        ]
        assert len(rows) == made[split]["pairs"]
        for row in rows:
            high, low = positive_sentiment([row["chosen"], row["rejected"]])
            assert high == pytest.approx(row["reward_chosen"], abs=1e-4)
            assert low == pytest.approx(row["reward_rejected"], abs=1e-4)
            assert high - low >= made["min_reward_gap"][split] - 1e-9
        prompts[split] = {row["prompt"][0]["content"] for row in rows}
        positions = [prompt_position(row["prompt"]) for row in rows]
        assert positions == sorted(positions)
    assert not prompts["train"] & prompts["test"]

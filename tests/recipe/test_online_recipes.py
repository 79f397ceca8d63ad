"""Settings of the shipped recipes with several objectives are ones that their configurations take."""

from pathlib import Path

import pytest
import yaml

from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig, ReinforceConfig
from align.weighting import make_rule

RECIPES = Path(__file__).parents[2] / "recipes"
CONFIGS = {"dynamic_grpo": DynamicGRPOConfig, "dynamic_rloo": DynamicRLOOConfig, "reinforce": ReinforceConfig}
SEVERAL = [path for path in RECIPES.glob("online/*.yaml") if yaml.safe_load(path.read_text())["method"] in CONFIGS]
SHIPPED = sorted([*SEVERAL, *RECIPES.glob("papers/dynamic-reward-weighting-*.yaml")])


def settings_of(path):
    recipe = yaml.safe_load(path.read_text())
    return recipe, CONFIGS[recipe["method"]](**recipe["train"] | {"use_cpu": True, "bf16": False})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_settings_of_shipped_recipes_are_taken(path):
    if "hypervolume" in path.stem:
        pytest.importorskip("moocore")
    recipe, config = settings_of(path)
    base = config.reward_weights or [1 / len(recipe["rewards"])] * len(recipe["rewards"])
    assert len(base) == len(recipe["rewards"])
    make_rule(config.weighting, base=base, **config.weighting_options)
    assert config.columns() == ()


def test_the_papers_batches_are_64_prompts_of_8_completions():
    pytest.importorskip("moocore")
    papers = [settings_of(path)[1] for path in SHIPPED if path.parent.name == "papers"]
    assert len(papers) == 2
    assert sorted(config.epsilon for config in papers) == [0.2, 100.0]  # clipped there, and not here
    for config in papers:
        assert (config.generation_batch_size, config.num_generations, config.learning_rate) == (512, 8, 1e-6)
        assert (config.beta, config.max_completion_length) == (0.001, 2048)

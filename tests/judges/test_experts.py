"""Reward models of capabilities as one, by a network for each category."""

import numpy as np
import pytest
import torch
from reward_models import SEQ_CLS, trained

from align.errors import RunError
from align.judges.experts import Combined, Experts, load_experts, train_experts
from align.models.preference_model import load_preference_model

ANSWERS = ["c", "d e", "f"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    for name, steps in (("a", 2), ("b", 4)):
        trained(folder / f"t-{name}", dimension=1, max_steps=steps, lora=SEQ_CLS).save_model(str(folder / name))
    return [folder / "a", folder / "b"]


def test_one_expert_without_a_bend_is_the_reward_model_itself(folders):
    member = load_preference_model(folders[0])
    head = next(p for n, p in member.model.named_parameters() if "score" in n and "modules_to_save" in n)
    network = Combined(head.shape[1], head.shape[1])
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.eye(head.shape[1]))
        network.layers[0].bias.zero_()
        network.layers[1].weight.fill_(1.0)
        network.layers[2].weight.copy_(head)
        network.layers[2].bias.zero_()
    experts = Experts([member], {"any": network})
    rewards = member.score("a b", ANSWERS)
    assert experts.score("a b", ANSWERS, category="any") == pytest.approx(rewards, abs=1e-5)
    odds = 1 / (1 + np.exp(rewards[1] - rewards[0]))
    assert experts.prefer("a b", ANSWERS, category="any")[0, 1] == pytest.approx(odds, abs=1e-5)
    with pytest.raises(ValueError, match="category: must be one of any, got None"):
        experts.score("a b", ANSWERS)


def test_categories_learn_opposite_wishes_from_the_same_frozen_models(folders, tmp_path):
    pairs = [{"prompt": f"a {k}", "chosen": "b c", "rejected": "d e f"} for k in range(4)]
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs]
    rows = [row | {"category": "short"} for row in pairs] + [row | {"category": "long"} for row in turned]
    made = train_experts(folders, rows, tmp_path / "out", width=8, steps=100, learning_rate=1e-2)
    assert made.combined["short"].layers[0].in_features == 2 * made.members[0].model.config.hidden_size
    for category, sign in (("short", 1), ("long", -1)):
        rewards = made.score("a 1", ["b c", "d e f"], category=category)
        assert sign * (rewards[0] - rewards[1]) > 1
    again = load_experts(tmp_path / "out")
    assert (again.score("a 9", ANSWERS, category="long") == made.score("a 9", ANSWERS, category="long")).all()
    for others in (again.members[::-1], again.members[:1] * 2):  # their order counts, and so does each of them
        rewards = Experts(others, again.combined).score("a 9", ANSWERS, category="long")
        assert np.abs(rewards - again.score("a 9", ANSWERS, category="long")).max() > 1e-6


def test_what_is_no_category_or_no_folder_is_refused(folders, tmp_path):
    with pytest.raises(RunError, match="row 1 has none"):
        train_experts(folders, [{"prompt": "a", "chosen": "b", "rejected": "c"}], tmp_path / "out")
    with pytest.raises(RunError, match=r"no experts.json there"):
        load_experts(tmp_path)

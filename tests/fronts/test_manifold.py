"""A manifold: parts of one gated adapter are K adapters, mixed by the weights of the step; its fixed point; its front."""

import json

import numpy as np
import pytest
import tiny
import torch
import yaml
from peft import LoraConfig, get_peft_model

from align.errors import RecipeError
from align.fronts.run import MEMBERS, run_front
from align.merging.adapters import load_adapter_factors, soup
from align.models.gated import Gated, parts
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.train import run
from align.trainers.online.objectives import MultiObjective

IDS = torch.arange(5, 45).reshape(2, 20)


def gated(rank=6, members=3):
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA | {"r": rank, "lora_alpha": 2 * rank}))
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    return model, Gated(model, members)


def test_a_gated_adapter_is_the_weighted_sum_of_its_parts():
    model, gate = gated()
    weights = [0.2, 0.5, 0.3]
    gate.at([2.0, 5.0, 3.0])
    with torch.no_grad():
        mixed = model(input_ids=IDS).logits
        with model.disable_adapter():
            base = model(input_ids=IDS).logits
    plain = tiny_model(tiny_tokenizer())
    torch.testing.assert_close(base, plain(input_ids=IDS).logits)
    factors = {
        name: (module.lora_A["default"].weight.detach(), module.lora_B["default"].weight.detach() * 2)
        for name, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    modules = dict(plain.named_modules())
    for member, weight in zip(parts(factors, 3), weights, strict=True):
        for name, (a, b) in member.items():
            assert len(a) == 2
            modules[name.removeprefix("base_model.model.")].weight.data += weight * (b @ a)
    torch.testing.assert_close(mixed, plain(input_ids=IDS).logits, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="multiple of the 4 rewards"):
        Gated(model, 4)
    with pytest.raises(ValueError, match="on linear layers"):
        Gated(plain, 2)


@pytest.mark.parametrize("name", ["same", "turned"])
def test_the_manifold_of_two_quadratics_is_the_segment_that_its_moments_say(name):
    """Gated factors under Σ w_k L_k at ΔW(w), w uniform by quadrature. One curvature: the segment between the minimisers."""
    goals = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    curved = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    if name == "turned":
        curved = torch.stack([torch.diag(torch.tensor([4.0, 0.5])), torch.diag(torch.tensor([0.5, 4.0]))]).double()
    model = get_peft_model(
        torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False)), LoraConfig(r=2, lora_alpha=2, target_modules=["0"])
    ).double()
    gate = Gated(model, 2)
    nodes, masses = np.polynomial.legendre.leggauss(4)
    layer = model.base_model.model[0]
    layer.get_base_layer().weight.data.zero_()
    layer.lora_A["default"].weight.data = torch.ones(2, 1, dtype=torch.float64)
    optimizer = torch.optim.LBFGS(
        [layer.lora_B["default"].weight],
        max_iter=200,
        tolerance_grad=1e-13,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        total = torch.zeros((), dtype=torch.float64)
        for node, mass in zip((nodes + 1) / 2, masses / 2, strict=True):
            gate.at([node, 1 - node])
            theta = model(torch.ones(1, 1, dtype=torch.float64))[0]
            for weight, goal, h in zip((node, 1 - node), goals, curved, strict=True):
                total = total + mass * weight * 0.5 * (theta - goal) @ h @ (theta - goal)
        total.backward()
        return total

    for _ in range(5):
        optimizer.step(closure)
    ends = layer.lora_B["default"].weight.detach().T
    want = goals if name == "same" else torch.tensor([[1.072165, 0.57732], [0.57732, 1.072165]], dtype=torch.float64)
    torch.testing.assert_close(ends, want, atol=1e-5, rtol=0)


def test_a_front_of_a_manifold_is_its_ends_and_sums_of_them(world):
    made = run_front(world.load(name="fronts/manifold-tiny"), world.train, resume=False)
    told = json.loads((made / MEMBERS).read_text())
    assert [one["name"] for one in told["members"]] == ["end-1", "end-2", "soup-00"]
    assert told["fronts"] == [["end-1", "end-2"], ["end-1", "end-2", "soup-00"]]
    assert world.trained == [("ends", None)]
    recipe = yaml.safe_load((made / "policies/ends/recipe.yaml").read_text())
    assert (recipe["lora"]["r"], recipe["lora"]["lora_alpha"]) == (
        8,
        16,
    )  # each end: rank 4, scale 2, as the recipe says
    assert recipe["train"]["weighting_options"] == {"concentration": 1.0, "seed": 0}
    whole, *ends = (load_adapter_factors(made / path) for path in (
        "policies/ends/train/adapter", *(one["adapter"] for one in told["members"])))  # fmt: skip
    for module, (a, b) in whole.factors.items():
        assert [len(end.factors[module][0]) for end in ends[:2]] == [2, 2]
        total = sum(end.factors[module][1] @ end.factors[module][0] for end in ends[:2])
        torch.testing.assert_close(total, b @ a, atol=1e-5, rtol=1e-5)
        half = soup(ends[:2], [0.5, 0.5])[module]
        torch.testing.assert_close(ends[2].factors[module][1] @ ends[2].factors[module][0], half[1] @ half[0])


def test_every_step_samples_and_learns_under_its_own_weights(tmp_path, monkeypatch):
    seen, calculate = [], MultiObjective._calculate_rewards

    def watched(self, *args, **kw):
        seen.append(self.gated.weights.tolist())
        return calculate(self, *args, **kw)

    monkeypatch.setattr(MultiObjective, "_calculate_rewards", watched)
    words = ["train.weighting=dirichlet", "train.manifold=true", "lora.r=6", "train.gradient_layers=4", "fronts=null"]
    made = run("fronts/tiny", [*words, f"train.output_dir={tmp_path / 'run'}", "train.max_steps=3"])
    logged = [row for row in made.trainer.state.log_history if "weights/clarity" in row]
    assert len({row["weights/clarity"] for row in logged}) == 3
    for weights, row in zip(seen, logged, strict=True):
        assert weights == pytest.approx([row["weights/repetition"], row["weights/clarity"]], abs=1e-6)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("fronts.weights=[[1, 0], [0, 1]]", "fronts.weights: does nothing with kind 'manifold'"),
        ("fronts.concentration=0", "concentration: must be positive"), ("lora.use_rslora=true", "lora.use_rslora: contradicts kind manifold"),
    ],
)  # fmt: skip
def test_what_is_no_manifold_is_refused(word, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("fronts/manifold-tiny", [word])
    with pytest.raises(RecipeError, match="use weighting: dirichlet"):
        load_recipe("fronts/tiny", ["fronts=null", "train.manifold=true", "train.weighting=upgrad"])

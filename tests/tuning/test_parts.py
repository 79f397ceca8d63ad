"""A part of the weights moves: half of the modules by HFT's table, a few layers, or B; the rest is as it was, to the bit."""

import contextlib
import random
from types import SimpleNamespace

import pytest
import supervised_worker
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback

from align import DPOConfig, DPOTrainer, DynamicGRPOConfig
from align.configs import ConfigError
from align.errors import RecipeError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.trainers.online.extragradient import half_step
from align.tuning.parts import TrainedPart, left_out_half

ATTENTION, FEED = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")
HALF = {"trained_part": "half", "redraw_every": 2}


def names(layers):
    return [
        f"base_model.model.model.layers.{layer}.{parent}.{each}"
        for layer in range(layers)
        for parent, members in (("self_attn", ATTENTION), ("mlp", FEED))
        for each in members
    ]


def half(listed, seed):
    return left_out_half(random.Random(seed), dict.fromkeys(listed, False))


@pytest.mark.parametrize(("layers", "feed"), [(32, 48), (31, 46)])
def test_the_counts_are_the_authors(layers, feed):
    frozen = half(names(layers), 0)
    assert sum("self_attn" in name for name in frozen) == 2 * layers
    assert sum("mlp" in name for name in frozen) == feed
    per_layer = [sum(f".{layer}.mlp" in name for name in frozen) for layer in range(layers)]
    assert sorted(per_layer) == [1] * (layers - layers // 2) + [2] * (layers // 2)
    assert {sum(f".{layer}.self_attn" in name for name in frozen) for layer in range(layers)} == {2}
    assert frozen == half(names(layers)[::-1], 0)
    assert frozen != half(names(layers), 1)


def test_every_module_is_drawn_as_often():
    counts = dict.fromkeys(names(4), 0)
    for seed in range(400):
        for name in half(names(4), seed):
            counts[name] += 1
    assert all(150 < count < 250 for count in counts.values())


def part(model, kind, **kw):
    given = {"seed": 0, "redraw_every": 2, "drawn_layers": 1, "where": "DPOTrainer"}
    return TrainedPart(model, kind, **given | kw)


def with_lora(**kw):
    return get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA | kw))


def test_without_an_adapter_norms_are_drawn_among_norms_and_what_is_no_layer_moves():
    frozen = part(tiny_model(tiny_tokenizer()), "half").left_out(0)
    for layer in range(2):
        here = [name for name in frozen if f".{layer}." in name]
        assert sum("self_attn" in name for name in here) == 2
        assert sum("norm" in name for name in here) == 1
    assert sum("mlp" in name for name in frozen) == 3
    assert not [name for name in frozen if ".layers." not in name]


class Deep(torch.nn.Module):
    """Six layers with norms among the projections, as Qwen3 has them, and a head."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.ModuleDict({"attention": self.attention()}) for _ in range(6))
        self.head = torch.nn.Linear(2, 2)

    def attention(self):
        norms = {name: torch.nn.RMSNorm(2) for name in ("q_norm", "k_norm")}
        return torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ATTENTION} | norms)


def test_of_many_layers_a_few_are_kept_and_norms_beside_projections_are_drawn_apart():
    kept = {n for n, _ in Deep().named_parameters()} - part(Deep(), "layers", drawn_layers=2).left_out(0)
    assert len({name.split(".")[1] for name in kept if "layers" in name}) == 2
    assert {name for name in kept if "layers" not in name} == {"head.weight", "head.bias"}
    for step in range(0, 20, 2):
        frozen = part(Deep(), "half").left_out(step)
        counts = {
            (layer, sum(f"layers.{layer}." in n and n.endswith("norm.weight") for n in frozen)) for layer in range(6)
        }
        assert counts == {(layer, 1) for layer in range(6)}
        assert sum("proj.weight" in n for n in frozen) == 12


def test_layers_are_drawn_and_the_draw_has_no_state():
    model = with_lora()
    drawn, other = part(model, "layers"), part(model, "layers")
    sets = [drawn.left_out(step) for step in range(40)]
    assert [other.left_out(step) for step in reversed(range(40))] == sets[::-1]
    assert all(sets[step] == sets[step + 1] for step in range(0, 40, 2))
    assert {len({name.split(".layers.")[1][0] for name in each}) for each in sets} == {1}
    assert len(set(sets)) == 2
    assert [part(model, "layers", seed=1).left_out(step) for step in range(40)] != sets


class Moves(TrainerCallback):
    """What each optimizer step moved, and the norm it was clipped by."""

    def __init__(self):
        self.moved, self.norms = [], []

    def on_train_begin(self, args, state, control, model=None, **_):
        self.before = {n: p.detach().clone() for n, p in model.named_parameters()}

    def on_step_end(self, args, state, control, model=None, **_):
        now = {n: p.detach().clone() for n, p in model.named_parameters()}
        self.moved.append({n for n, p in now.items() if not torch.equal(p, self.before[n])})
        self.before = now

    def on_log(self, args, state, control, logs=None, **_):
        if "grad_norm" in logs:
            self.norms.append(logs["grad_norm"])


def trained(tmp_path, resume=None, **kw):
    seen = Moves()
    settings = {"max_steps": 6, "weight_decay": 0.1, "gradient_checkpointing": True, "callbacks": [seen]}
    made = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, **settings | kw)
    made.train(resume_from_checkpoint=resume)
    return made, seen


def adapted(model):
    return {n for n, _ in model.named_parameters() if ".lora_" in n}


def test_what_is_not_drawn_stays_to_the_bit_and_the_run_begins_at_the_reference(tmp_path):
    made, seen = trained(tmp_path, **HALF)
    all_of_it = adapted(made.model)
    sets = [made.part.left_out(step) for step in range(6)]
    assert sets[0] != sets[2]
    for step, moved in enumerate(seen.moved):
        assert moved <= all_of_it - sets[step]
        assert {n for n in all_of_it - sets[step] if "lora_B" in n} <= moved
        assert len({n.partition(".lora_")[0] for n in sets[step]}) == 7
    assert tiny.losses(made)[0] == pytest.approx(0.6931472, abs=1e-6)


def test_gradients_are_taken_away_before_they_are_clipped(tmp_path):
    _, seen = trained(tmp_path / "part", max_steps=1, **HALF)
    _, whole = trained(tmp_path / "whole", max_steps=1)
    assert 0 < seen.norms[0] < 0.95 * whole.norms[0]


def test_b_alone_moves_against_an_a_that_stays(tmp_path):
    made, seen = trained(tmp_path, max_steps=3, trained_part="b", lora={"use_dora": True})
    assert all({n for n in moved if "lora_A" in n} == set() for moved in seen.moved)
    assert {n for n in adapted(made.model) if "lora_A" not in n} == seen.moved[-1]
    assert tiny.losses(made)[0] == pytest.approx(0.6931472, abs=1e-6)


def test_of_an_embedding_the_factor_that_begins_random_stays():
    left_out = part(with_lora(target_modules=["embed_tokens", "q_proj"]), "b").left_out(0)
    assert {name.partition(".lora_")[2].split(".")[0] for name in left_out} == {"A", "embedding_B"}


def test_without_an_adapter_the_half_moves_too(tmp_path):
    seen = Moves()
    made = supervised_worker.trainer(tmp_path, max_steps=3, model=tiny_model(tiny_tokenizer()), **HALF)
    made.add_callback(seen)
    made.train()
    for step, moved in enumerate(seen.moved):
        assert not moved & made.part.left_out(step)
        assert "model.embed_tokens.weight" in moved
        assert len(moved) > 10


def test_a_resumed_run_draws_the_same(tmp_path):
    settings = HALF | {
        "save_strategy": "steps",
        "save_steps": 3,
    }  # in the middle of a period, and before the third draw
    whole, _ = trained(tmp_path / "whole", **settings)
    again, _ = trained(tmp_path / "again", resume=str(tmp_path / "whole" / "checkpoint-3"), **settings)
    for name, weight in tiny.weights(whole).items():
        assert torch.equal(weight, tiny.weights(again)[name])


def test_accumulation_changes_nothing(tmp_path):
    one, _ = trained(
        tmp_path / "one", per_device_train_batch_size=4, gradient_accumulation_steps=1, max_steps=3, **HALF
    )
    two, seen = trained(
        tmp_path / "two", per_device_train_batch_size=2, gradient_accumulation_steps=2, max_steps=3, **HALF
    )
    assert all(not moved & two.part.left_out(step) for step, moved in enumerate(seen.moved))
    for name, weight in tiny.weights(one).items():
        assert torch.allclose(weight, tiny.weights(two)[name], atol=2e-5)


def refusal(kind, model, **kw):
    with pytest.raises(ValueError) as told:  # noqa: PT011 - the callers look at the text
        part(model, kind, **kw)
    return str(told.value)


def test_a_part_of_nothing_is_refused():
    assert refusal("b", tiny_model(tiny_tokenizer())).startswith(
        "DPOTrainer: trained_part: 'b' is a factor of LoRA, and no"
    )
    assert refusal("layers", with_lora(), drawn_layers=2) == (
        "DPOTrainer: drawn_layers: must be below the model's 2 layers, got 2"
    )
    frozen = with_lora(target_modules=["embed_tokens"])
    assert "draws among numbered layers, and nothing" in refusal("half", frozen)


@pytest.mark.parametrize(("fields", "told"), [
    ({"trained_part": "third"}, "trained_part: must be one of all, half, layers, b, got 'third'"),
    ({"redraw_every": 3}, "redraw_every: trained_part 'all' draws nothing; leave it out"),
    ({"trained_part": "half", "redraw_every": 0}, "redraw_every: must be at least 1, got 0"),
    ({"trained_part": "layers"}, "redraw_every: missing; without it trained_part 'layers' would train the same few layers"),
    ({"trained_part": "b", "drawn_layers": 3}, "drawn_layers: trained_part 'b' draws no layers; leave it out"),
    ({"drawn_layers": 2}, "drawn_layers: trained_part 'all' draws no layers; leave it out"),
    ({"trained_part": "half", "optim": "schedule_free_adamw"}, "trained_part: optim=schedule_free_adamw moves weights in a"),
    ({"loraplus_lr_ratio": 16.0, "optim": "lomo"}, "loraplus_lr_ratio: optim=lomo moves weights in a way of its own"),
    ({"loraplus_lr_ratio": 0.0}, "loraplus_lr_ratio: must be positive and finite, got 0.0"),
])  # fmt: skip
def test_settings_that_draw_nothing_are_refused(fields, told):
    with pytest.raises(ConfigError) as refused:
        DPOConfig("unused", use_cpu=True, bf16=False, **fields)
    assert told in str(refused.value)


def test_rules_that_read_gradients_are_refused():
    settings = {"weighting": "upgrad", "num_generations": 2, "use_cpu": True, "bf16": False} | HALF
    with pytest.raises(ConfigError, match="trained_part: .* weighs by the gradients of all that is trained"):
        DynamicGRPOConfig("unused", **settings)
    DynamicGRPOConfig("unused", gram="advantages", **settings)


def test_a_manifold_of_adapters_is_refused():
    with pytest.raises(RecipeError, match=r"train\.loraplus_lr_ratio: contradicts kind manifold"):
        load_recipe("fronts/manifold-tiny", ["train.loraplus_lr_ratio=16"])


def test_the_draw_is_made_again_for_a_half_step():
    """EGPO's half step clips gradients of its own."""
    held = []
    trainer = SimpleNamespace(
        model_wrapped=torch.nn.Linear(1, 1), accelerator=SimpleNamespace(backward=lambda loss: loss.backward()),
        compute_loss_context_manager=contextlib.nullcontext, compute_loss=lambda model, _: model(torch.ones(1)).sum(),
        hold_back=lambda: held.append(trainer.model_wrapped.weight.grad is not None),
        guard=SimpleNamespace(what_is_wrong=lambda *_: None), args=SimpleNamespace(max_grad_norm=None),
    )  # fmt: skip
    trainer.optimizer = torch.optim.SGD(trainer.model_wrapped.parameters(), lr=0.1)
    with half_step(trainer, [{}]):
        assert held == [True]

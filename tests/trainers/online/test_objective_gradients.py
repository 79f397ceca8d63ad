"""The gradient that is learnt from is the weighted sum of the objectives', and the Gram matrix is theirs."""

import pytest
import torch
from objectives import Oracle, Told, dynamic, first, flat, low, vowels
from tiny import sparing
from torch.testing import assert_close

from align.configs.online import DynamicGRPOConfig, DynamicRLOOConfig
from align.trainers.online.gradients import advantage_gram, differentiated, token_mask
from align.trainers.online.multi_objective import DynamicGRPOTrainer, DynamicRLOOTrainer
from align.weighting.base import Statistics
from align.weighting.rules import make_rule

GRPO, RLOO = (DynamicGRPOTrainer, DynamicGRPOConfig), (DynamicRLOOTrainer, DynamicRLOOConfig)
WEIGHTS = [0.5, 0.2, 0.9]


def watched(kind, tmp_path, **kw):
    rule = Told([1 / 3] * 3, WEIGHTS)
    trainer = dynamic(*kind, tmp_path, rule=rule, **{"gradient_layers": "all", "max_steps": 2} | kw)
    oracle = Oracle(trainer)
    trainer.add_callback(oracle)
    trainer.train()
    return rule, oracle, trainer


CASES = {
    "dr_grpo": (GRPO, {"loss_type": "dr_grpo", "beta": 0.1}),
    "dapo": (GRPO, {"loss_type": "dapo", "beta": 0.1}),
    "cispo": (GRPO, {"loss_type": "cispo", "epsilon_high": 5.0}),
    "sapo": (GRPO, {"loss_type": "sapo"}),
    "sequence ratios": (GRPO, {"loss_type": "grpo", "importance_sampling_level": "sequence"}),
    "entropy bonus": (GRPO, {"entropy_coef": 0.1}),
    "rloo": (RLOO, {}),
    "checkpointing": (GRPO, {"gradient_checkpointing": True}),
    "rloo, checkpointing": (RLOO, {"gradient_checkpointing": True}),
    "packed": (GRPO, {"shared_prefix": "on"}),
}


@pytest.mark.parametrize("parts", sparing([2, 1], 2))
@pytest.mark.parametrize("name", sparing(CASES, "dr_grpo", "rloo, checkpointing", "packed"))
def test_backward_leaves_the_weighted_sum_of_the_objectives_gradients(tmp_path, name, parts):
    kind, settings = CASES[name]
    batches = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}
    rule, oracle, _ = watched(kind, tmp_path, **settings | batches)
    assert len(oracle.steps) == 2
    for (seen, (*of_each, rest), weights), stats in zip(oracle.steps, rule.told, strict=True):
        own = torch.stack([g - rest for g in of_each])
        assert min(g.norm() for g in own) > 1e-4
        assert_close(seen, rest + weights @ own, rtol=0, atol=1e-6)
        assert_close(stats.gram, (own @ own.T).double(), rtol=1e-4, atol=1e-9)


def test_weights_of_a_batch_are_those_of_its_own_gradients(tmp_path):
    _, oracle, trainer = watched(GRPO, tmp_path)
    assert_close(oracle.steps[0][2], torch.tensor(WEIGHTS) * 1.1)
    assert trainer.state.log_history[1]["weights/low"] == pytest.approx(0.2 * 1.2)


def test_lagged_weights_are_those_of_the_batch_before(tmp_path):
    rule, _, trainer = watched(GRPO, tmp_path, weighting_timing="lagged", max_steps=3)
    logged = [r["weights/low"] for r in trainer.state.log_history if "weights/low" in r]
    assert logged == pytest.approx([1 / 3, 0.2 * 1.1, 0.2 * 1.2])
    assert rule.count == 3


def test_a_rule_may_be_asked_at_every_second_generation(tmp_path):
    rule, _, trainer = watched(GRPO, tmp_path, gradient_every=2, max_steps=4)
    logged = [r["weights/low"] for r in trainer.state.log_history if "weights/low" in r]
    assert logged == pytest.approx([0.2 * 1.1, 0.2 * 1.1, 0.2 * 1.2, 0.2 * 1.2])
    assert [stats.step for stats in rule.told] == [0, 2]


def test_gradients_of_the_last_layer_only(tmp_path):
    rule, oracle, trainer = watched(GRPO, tmp_path, gradient_layers=1)
    named = [(n, p) for n, p in trainer.model.named_parameters() if p.requires_grad]
    inside = torch.cat([torch.full((p.numel(),), "layers.1." in n) for n, p in named])
    assert 0 < inside.sum() < len(inside)
    for (_, (*of_each, rest), _), stats in zip(oracle.steps, rule.told, strict=True):
        own = torch.stack([g - rest for g in of_each])[:, inside]
        assert_close(stats.gram, (own @ own.T).double(), rtol=1e-4, atol=1e-9)
    assert [p.numel() for p in differentiated(trainer.model, 9)] == [p.numel() for _, p in named]


def test_layers_that_no_parameter_is_in_are_refused():
    for layers in (1, "0-3"):
        with pytest.raises(ValueError, match=f"gradient_layers: {layers!r}, and no trainable parameter lies in such"):
            differentiated(torch.nn.Linear(2, 2), layers)


def test_layers_may_be_named_from_the_first_to_the_last():
    model = torch.nn.ModuleDict(
        {"layers": torch.nn.ModuleList(torch.nn.Linear(1, n + 1, bias=False) for n in range(5))}
    )
    sizes = [[p.numel() for p in differentiated(model, layers)] for layers in ("1-3", "3-9", 2, "all")]
    assert sizes == [[2, 3, 4], [4, 5], [4, 5], [1, 2, 3, 4, 5]]
    for wrong in ("3-1", "10-", "-1", "1-2-3", "1.5-2", "last", True, 0, None, 2.0):
        with pytest.raises(
            ValueError, match="gradient_layers: must be a whole number from 1, 'all', or FIRST-LAST, got"
        ):
            DynamicGRPOConfig("unused", use_cpu=True, bf16=False, gradient_layers=wrong)


class Authors(Oracle):
    """The authors' `compute_gradients`, anew: of each objective's loss, KL penalty and all, `backward` over the micro-batches one
    after another, PyTorch's clipping of the whole model's `.grad`, and only then the layers."""

    def on_pre_optimizer_step(self, args, state, control, **_):
        trainer, rows, norms = self.trainer, [], []
        named = [(name, p) for name, p in trainer.model.named_parameters() if p.requires_grad]
        kept = [None if p.grad is None else p.grad.clone() for _, p in named]
        for column in self.advantages.float().T:
            trainer.model.zero_grad()
            for batch in trainer._buffered_inputs:
                loss = trainer._compute_loss(trainer.model, batch | {"advantages": column[batch["row"]]})
                (loss * (args.gradient_accumulation_steps if trainer.loss_is_scaled_for_ga else 1)).backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_([p for _, p in named], 1.0)))
            rows.append(torch.cat([p.grad.flatten() for name, p in named if "layers.1." in name]))
        for (_, p), grad in zip(named, kept, strict=True):
            p.grad = grad
        rows = torch.stack(rows)
        self.steps.append((rows @ rows.T, norms))


@pytest.mark.parametrize("parts", [1, 4])
def test_gradients_as_published_are_clipped_over_the_model_after_their_sum_and_then_cut_to_layers(tmp_path, parts):
    rule = Told([1 / 3] * 3)
    rule.as_published = True
    settings = {
        "gradient_layers": "1-1",
        "max_steps": 2,
        "loss_type": "dr_grpo",
        "beta": 20.0,
        "estimator_options": {"scale": "none"},
    }
    batches = {"per_device_train_batch_size": 8 // parts, "gradient_accumulation_steps": parts}

    def loud(completion_ids, **_):
        return [300 * value for value in first(completion_ids)]

    trainer = dynamic(*GRPO, tmp_path, rule=rule, rewards=[loud, low, vowels], **settings, **batches)
    oracle = Authors(trainer)
    trainer.add_callback(oracle)
    trainer.train()
    for (gram, norms), stats in zip(oracle.steps, rule.told, strict=True):
        assert norms[0] > 1.0 > norms[1]
        assert_close(stats.gram, gram.double(), rtol=1e-3, atol=1e-8)
        assert stats.halves is None


def test_influence_as_published_takes_its_gradients_as_they_come():
    gram = torch.tensor([[4.0, 1.0], [1.0, 2.0]]).double()
    stats = Statistics(means=torch.zeros(2).double(), step=0, gram=gram)
    rule = make_rule("gradient_influence", base=[0.5, 0.5], step=0.1, as_published=True)
    assert_close(
        rule.update(stats).weights.double(), torch.tensor([0.5, 0.3]).double().softmax(0), rtol=1e-6, atol=1e-8
    )
    for wrong in ({"normalisation": "unit"}, {"estimator": "split"}):
        with pytest.raises(ValueError, match="as_published: is with normalisation 'clip' and estimator 'plugin'"):
            make_rule("gradient_influence", base=[0.5, 0.5], as_published=True, **wrong)


def test_gradients_as_published_are_none_of_advantages(tmp_path):
    options = {"weighting": "gradient_influence", "weighting_options": {"as_published": True}}
    with pytest.raises(ValueError, match="gram: 'advantages' has no norms, which GradientInfluence asks for"):
        dynamic(*GRPO, tmp_path, gram="advantages", **options)
    trainer = dynamic(*GRPO, tmp_path, max_steps=1, **options)
    trainer.train()
    assert trainer.weighting.weights.sum().item() == pytest.approx(1.0)


class Halves(Oracle):
    """The gradients on the completions of the prompts of even number alone, and of odd number."""

    def on_pre_optimizer_step(self, args, state, control, **_):
        trainer = self.trainer
        parameters = [p for p in trainer.model.parameters() if p.requires_grad]
        (batch,) = trainer._buffered_inputs
        for parity in (0, 1):
            own = (batch["row"] // 4) % 2 == parity
            half = {name: value[own] for name, value in batch.items() if value.dim()}
            columns = self.advantages[half["row"]].float().T
            losses = [trainer._compute_loss(trainer.model, half | {"advantages": column}) for column in columns]
            self.steps.append(torch.stack([flat(torch.autograd.grad(x, parameters), parameters) for x in losses]))


def test_halves_are_inner_products_across_the_halves_of_the_prompts(tmp_path):
    """Of three prompts, the first and the last make one half: the gradient of each half is a mean over its completions."""
    rule = Told([1 / 3] * 3)
    rule.split = True
    settings = {"gradient_layers": "all", "max_steps": 1, "per_device_train_batch_size": 12, "loss_type": "dr_grpo"}
    trainer = dynamic(*GRPO, tmp_path, rule=rule, **settings)
    oracle = Halves(trainer)
    trainer.add_callback(oracle)
    trainer.train()
    one, other = oracle.steps
    (stats,) = rule.told
    assert_close(stats.halves, ((one @ other.T + other @ one.T) / 2).double(), rtol=1e-4, atol=1e-9)
    whole = (2 * one + other) / 3
    assert_close(stats.gram, (whole @ whole.T).double(), rtol=1e-4, atol=1e-9)


def test_the_gram_of_advantages_needs_no_backward_pass(tmp_path, monkeypatch):
    monkeypatch.setattr("align.trainers.online.objectives.grams", None)
    rule = Told([1 / 3] * 3)
    trainer = dynamic(*GRPO, tmp_path, rule=rule, gram="advantages", max_steps=1)
    oracle = Oracle(trainer)
    trainer.train()
    assert_close(rule.told[0].gram, oracle.advantages.T @ oracle.advantages / 8)
    assert_close(advantage_gram(torch.tensor([[1.0, 2.0], [3.0, 4.0]])), torch.tensor([[5.0, 7.0], [7.0, 10.0]]))


def test_passes_for_the_weights_are_not_logged(tmp_path):
    one = dynamic(*GRPO, tmp_path / "a", rule=Told([1 / 3] * 3), max_steps=1, logging_steps=1)
    counts = {}
    kept = one._note
    one._note = lambda *args: counts.update({k: len(v) for k, v in one._metrics["train"].items()}) or kept(*args)
    one.train()
    assert "entropy" not in counts
    assert counts["reward"] == 1


def test_a_token_mask_keeps_the_first_tokens_and_a_share_of_the_rest():
    mask = token_mask(torch.ones(200, 50, dtype=torch.long), always=5, share=0.3)
    assert (mask[:, :5] == 1).all()
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask[:, 5:].mean().item() == pytest.approx(0.3, abs=0.02)


def test_masked_tokens_are_not_learnt_from(tmp_path):
    """With one token learnt from, the loss changes with the log-probability of the first token only."""
    trainer = dynamic(*GRPO, tmp_path, token_share=1e-9, token_prefix=1, loss_type="dr_grpo", max_steps=1)
    trainer.train()
    (batch,) = trainer._buffered_inputs
    advantages = batch["advantages"]
    assert advantages.shape == batch["completion_mask"].shape
    assert (advantages[:, 1:] == 0).all()
    assert advantages[:, 0].abs().max() > 0.1

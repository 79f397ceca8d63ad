"""No objective depends on how its pairs are put into batches, rows, parts or processes."""

import json

import pairwise_worker
import pytest
import scored
import tiny
import torch
from launching import WORKERS, finished
from tiny import sparing
from torch.testing import assert_close

from align.configs.pairwise import PairwiseConfig
from align.trainers.pairs.pairwise import PairwiseTrainer

ALONE = [*scored.OBJECTIVES, *pairwise_worker.OWN]
"""All whose loss depends on each pair alone."""


def made(tmp_path, name, **kw):
    cls, config, settings = pairwise_worker.OWN.get(name) or (PairwiseTrainer, PairwiseConfig, scored.OBJECTIVES[name])
    return tiny.trainer(cls, config, tmp_path, data=scored.pairs(8), **settings | kw)


def perturbed(tmp_path, name, **kw):
    """A policy that differs from its reference."""
    trainer = made(tmp_path, name, **kw)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                weight.copy_(0.1 * torch.randn(weight.shape, generator=g))
    return trainer


def one_step(trainer, batch):
    """Loss and gradient of a batch."""
    trainer.model.zero_grad()
    with trainer.compute_loss_context_manager():
        loss = trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch))
    loss.backward()
    trainer.sums.take("train")
    gradient = torch.cat([p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None])
    return loss.item(), gradient


def padded_left(batch):
    """The same rows, moved to the right ends of longer ones."""
    moved = dict(batch)
    for name in ("input_ids", "attention_mask", "completion_mask"):
        rows = batch[name]
        out = rows.new_zeros(rows.size(0), rows.size(1) + 3)
        for i, real in enumerate(batch["attention_mask"].sum(1).tolist()):
            out[i, out.size(1) - real :] = rows[i, :real]
        moved[name] = out
    return moved


@pytest.mark.parametrize("name", ALONE)
def test_order_padding_and_half_precision(tmp_path, name):
    """Permuted to the last digits; padded on the left to 1e-4; under bf16 autocast to 3% (the weights stay fp32)."""
    trainer = perturbed(tmp_path, name)
    rows = [trainer.train_dataset[i] for i in range(8)]
    loss, gradient = one_step(trainer, trainer.data_collator(rows))
    shuffled, same = one_step(trainer, trainer.data_collator([rows[i] for i in (5, 2, 7, 0, 1, 6, 3, 4)]))
    assert shuffled == pytest.approx(loss, rel=1e-5)
    assert_close(same, gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item())
    left, same = one_step(trainer, padded_left(trainer.data_collator(rows)))
    assert left == pytest.approx(loss, rel=1e-4)
    assert (same - gradient).norm() < 1e-3 * gradient.norm()
    half = perturbed(tmp_path / "half", name, bf16=True)
    coarse, near = one_step(half, half.data_collator(rows))
    assert coarse == pytest.approx(loss, rel=3e-2)
    assert torch.nn.functional.cosine_similarity(near, gradient, dim=0) > 0.99


KEPT = ("copg", "irpo", "sigmoid_norm", "wpo")  # weights of rows, a likelihood, mean log-ratios, weights of batches


@pytest.mark.parametrize("name", sparing(ALONE, *KEPT, "tdpo2"))
def test_four_accumulated_batches_equal_one(tmp_path, name):
    kw = {"max_steps": 2, "learning_rate": 0.003}
    one = made(tmp_path / "a", name, per_device_train_batch_size=8, **kw)
    many = made(tmp_path / "b", name, per_device_train_batch_size=2, global_batch_size=8, **kw)
    one.train()
    many.train()
    assert many.args.gradient_accumulation_steps == 4
    assert tiny.losses(many) == pytest.approx(tiny.losses(one), rel=1e-4)
    assert tiny.losses(many, "rewards/margins") == pytest.approx(tiny.losses(one, "rewards/margins"), abs=1e-3)
    for key, weight in tiny.weights(one).items():  # Adam divides by gradients that are nearly zero
        assert (tiny.weights(many)[key] - weight).norm() < 2e-3 * weight.norm(), key


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("two") / "results.json"
    finished(2, WORKERS / "pairwise_worker.py", out)
    return json.loads(out.read_text())


@pytest.mark.ddp
@pytest.mark.parametrize("name", sparing(pairwise_worker.NAMES, *KEPT, "aot_unpaired", "beta_dpo_filtered", "tdpo2"))
def test_two_processes_equal_one(two, tmp_path, name):
    one, both = pairwise_worker.outcome(name, tmp_path, processes=1), two[name]
    assert both["loss"] == pytest.approx(one["loss"], rel=1e-4)
    assert both["margins"] == pytest.approx(one["margins"], abs=1e-3)
    assert both["eval"] == pytest.approx(one["eval"], rel=1e-3, abs=1e-4)
    assert "eval_b_loss" in both["eval"]
    for key, weight in one["weights"].items():
        difference = torch.tensor(both["weights"][key]) - torch.tensor(weight)
        assert difference.norm() < 2e-3 * torch.tensor(weight).norm(), key

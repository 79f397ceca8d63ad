"""Same data, seed and adapter as TRL 1.16, for each loss it also has; where definitions differ, the test says how."""

from types import SimpleNamespace

import pytest
import scored
import tiny
import torch
from tiny import sparing
from torch.testing import assert_close
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from align import DPOConfig, DPOTrainer
from align.configs.pairwise import PairwiseConfig
from align.losses import (
    Pair,
    discopop_loss,
    dpo_loss,
    hinge_loss,
    implicit_rewards,
    odds_ratio_loss,
    per_token,
    simpo_loss,
)
from align.trainers.pairs import pairwise
from align.trainers.pairs.pairwise import PairwiseTrainer
from align.trainers.shared import trl_contract


@pytest.fixture
def trl_head(monkeypatch):
    """With TRL's own head and padded rows, sums are taken in TRL's order."""
    monkeypatch.setattr(trl_contract, "_Head", trl_contract.CHUNKED_HEAD)


def ours(tmp_path, **kw):
    made = tiny.trainer(PairwiseTrainer, PairwiseConfig, tmp_path / "ours", shared_prefix="off", **kw)
    made.train()
    return made


def theirs(tmp_path, **kw):
    made = tiny.trainer(TRLDPOTrainer, TRLDPOConfig, tmp_path / "theirs", **kw)
    made.train()
    return made


@pytest.mark.parametrize(
    ("mine", "trl", "shared"),
    sparing([
        ({"objective": {"sigmoid": 1.0}}, {}, {}),
        ({"objective": {"robust": 1.0}}, {"loss_type": ["robust"]}, {"label_smoothing": 0.1}),
        ({"objective": {"ipo_mean": 1.0}}, {"loss_type": ["ipo"]}, {}),
        ({"objective": {"sigmoid_norm": 1.0}}, {"loss_type": ["sigmoid_norm"]}, {"beta": 2.0}),
        ({"objective": {"discopop": 1.0}}, {"loss_type": ["discopop"]}, {"discopop_tau": 0.1}),
        ({"objective": {"hinge": 1.0}}, {"loss_type": ["hinge"]}, {}),
        ({"objective": {"exo_pair": 1.0}}, {"loss_type": ["exo_pair"]}, {"label_smoothing": 1e-3}),
        ({"objective": {"nca_pair": 1.0}}, {"loss_type": ["nca_pair"]}, {}),
        ({"objective": {"bco_pair": 1.0}}, {"loss_type": ["bco_pair"]}, {}),
        ({"objective": {"sppo_hard": 1.0}}, {"loss_type": ["sppo_hard"]}, {}),
        ({"objective": {"apo_zero": 1.0}}, {"loss_type": ["apo_zero"]}, {}),
        ({"objective": {"apo_down": 1.0}}, {"loss_type": ["apo_down"]}, {}),
        ({"objective": {"sigmoid": 0.8, "bco_pair": 0.2, "nll": 1.0}}, {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}, {"per_device_train_batch_size": 1}),
        ({"objective": {"sigmoid": 1.0}}, {}, {"use_weighting": True}),
        ({"objective": {"ipo_mean": 1.0}}, {"loss_type": ["ipo"]}, {"use_weighting": True}),
        ({"objective": {"sigmoid": 1.0}}, {}, {"ld_alpha": 0.5}),
        ({"objective": {"apo_zero": 1.0}}, {"loss_type": ["apo_zero"]}, {"ld_alpha": 0.0}),
        ({"objective": {"sigmoid": 0.5, "sigmoid_norm": 2.0}}, {"loss_type": ["sigmoid", "sigmoid_norm"], "loss_weights": [0.5, 2.0]}, {}),
        ({"objective": {"sigmoid": 1.0, "nll": 0.5}}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}, {"per_device_train_batch_size": 1}),
    ], 2, 12, 13, 15),
)  # fmt: skip
def test_five_steps_equal_trl(tmp_path, trl_head, mine, trl, shared, monkeypatch):
    monkeypatch.setattr(pairwise, "LARGEST", float("inf"))  # TRL leaves WPO's upper bound out
    mine, trl = ours(tmp_path, **mine, **shared), theirs(tmp_path, **trl, **shared)
    assert tiny.losses(mine) == pytest.approx(tiny.losses(trl), rel=2e-6, abs=1e-6)
    assert tiny.losses(mine)[-1] != tiny.losses(mine)[0]
    for name, weight in tiny.weights(trl).items():
        assert_close(tiny.weights(mine)[name], weight, rtol=1e-4, atol=1e-6)


def test_a_pair_weighs_at_most_one_under_wpo():
    """Weights e^0.2 and e^-0.1 of a pair's answers are 1 together, e^-0.5 and e^0.1 are e^-0.4."""
    trainer = object.__new__(PairwiseTrainer)
    trainer.args = PairwiseConfig("unused", use_cpu=True, bf16=False)
    logps = torch.tensor([[0.2], [-0.5], [-0.1], [0.1]])
    given = SimpleNamespace(token_logps=logps, log_sum_sq_probs=torch.zeros(4, 1), mask=torch.ones(4, 1).bool())
    assert_close(trainer.loss_columns({}, given)["wpo_weight"], torch.tensor([0.0, -0.4]).exp())


def test_irpo_differs_from_trl_by_the_mean_it_takes(tmp_path, trl_head):
    """At two pairs a batch TRL's `sft` is a mean over both answers' tokens; ours, the paper's, of each answer's mean."""
    one = ours(tmp_path, objective={"sigmoid": 1.0, "nll": 1.0}, max_steps=1)
    other = theirs(tmp_path, loss_type=["sigmoid", "sft"], max_steps=1)
    first = one.state.log_history[0]
    over_tokens = -first["logps/chosen"] / first["length/chosen"]  # ratio of sums
    assert tiny.losses(other)[0] == pytest.approx(first["loss/sigmoid"] + over_tokens, abs=1e-5)
    assert abs(first["loss/nll"] - over_tokens) > 1e-3


def test_ipo_differs_from_trl_by_the_length(tmp_path, trl_head):
    """Summed log-ratios here, length-mean ones there: equal at the start, where both are 0, and not after."""
    one = ours(tmp_path, objective={"ipo": 1.0})
    other = theirs(tmp_path, loss_type=["ipo"])
    assert tiny.losses(one)[0] == pytest.approx(tiny.losses(other)[0], rel=1e-5)
    assert abs(tiny.losses(one)[-1] - tiny.losses(other)[-1]) > 1e-2


def test_conservative_dpo_differs_from_trl_which_ignores_the_smoothing(tmp_path, trl_head):
    one = ours(tmp_path, label_smoothing=0.2)
    same = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "dpo", label_smoothing=0.2, shared_prefix="off")
    same.train()
    assert tiny.losses(one) == tiny.losses(same)
    smoothed, plain = theirs(tmp_path, label_smoothing=0.2), theirs(tmp_path)
    assert tiny.losses(smoothed) == tiny.losses(plain)
    assert tiny.losses(one)[1] != pytest.approx(tiny.losses(plain)[1], abs=1e-4)


def test_trls_discopop_is_not_finite_where_ours_is():
    margin = torch.tensor([-100.0])
    assert discopop_loss(Pair(margin, torch.zeros(1)), tau=0.05).item() == pytest.approx(100.0)
    trls = -torch.nn.functional.logsigmoid(margin) * (1 - torch.sigmoid(margin / 0.05))
    trls = trls + torch.exp(-margin) * torch.sigmoid(margin / 0.05)
    assert not trls.isfinite().all()


def sums_and_means():
    g = torch.Generator().manual_seed(0)
    logps = Pair(*(-10 * torch.rand(2, 6, generator=g)))
    return logps, per_token(logps, Pair(*torch.randint(1, 9, (2, 6), generator=g).float()))


def stub_of(trainer, **settings):
    stub = trainer.__new__(trainer)
    vars(stub).update(accelerator=SimpleNamespace(device="cpu"), label_smoothing=0.0, alpha=0.0, **settings)
    return stub


def test_orpo_equals_the_odds_ratio_of_trls_trainer():
    """TRL's function returns the negative of the addend; its likelihood also covers the prompt, and ours the answer."""
    _, mean = sums_and_means()
    losses, chosen, _, _, _ = stub_of(ORPOTrainer, beta=0.3).odds_ratio_loss(*mean)
    assert_close(odds_ratio_loss(mean, beta=0.3), -losses)
    assert_close(implicit_rewards(mean, beta=0.3).chosen, chosen)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cpo_and_slic_equal_the_losses_of_trls_cpo_trainer(smoothing):
    logps, _ = sums_and_means()
    rewards = implicit_rewards(logps, beta=0.3)
    stub = stub_of(CPOTrainer, beta=0.3, loss_type="sigmoid")
    stub.label_smoothing = smoothing
    assert_close(dpo_loss(rewards, label_smoothing=smoothing), stub.cpo_loss(*logps)[0])
    stub.loss_type = "hinge"
    assert_close(hinge_loss(rewards), stub.cpo_loss(*logps)[0])


def test_simpo_equals_the_loss_of_trls_cpo_trainer():
    """TRL has SimPO in its CPO trainer, whose tokenization is its own: the losses of the same sums are compared."""
    stub = stub_of(CPOTrainer, beta=2.0, simpo_gamma=0.7, loss_type="simpo")
    _, mean = sums_and_means()
    expected, chosen, rejected = stub.cpo_loss(mean.chosen, mean.rejected)
    rewards = implicit_rewards(mean, beta=2.0)
    assert_close(simpo_loss(rewards, gamma=0.7), expected)
    assert_close(rewards.chosen, chosen)
    assert_close(rewards.rejected, rejected)


def test_the_pairwise_sigmoid_is_dpo_to_the_bit(tmp_path):
    one = tiny.trainer(PairwiseTrainer, PairwiseConfig, tmp_path / "a", data=scored.pairs())
    other = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "b")
    one.train()
    other.train()
    assert tiny.losses(one) == tiny.losses(other)
    for name, weight in tiny.weights(other).items():
        assert_close(tiny.weights(one)[name], weight, rtol=0, atol=0)

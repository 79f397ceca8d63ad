"""Losses on online pairs: numbers by hand, tables whose optimum is known, and EGPO's path with the parts of its trainer."""

import math

import pytest
import torch
from torch.testing import assert_close
from transformers import set_seed

from align.losses import Pair, PairBatch
from align.losses.online import labels, nash_md_loss, online_pair_loss, optimism_loss, win_rates
from align.losses.pairwise import ipo_loss, soft_dpo_loss
from align.losses.preference import dpo_loss
from align.trainers.online.extragradient import put_back

F64 = torch.float64
RPS = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=F64)
EG_REF = torch.tensor([0.3, 0.0, -0.3], dtype=F64).log_softmax(0)
CIRCLE = torch.tensor(
    [[0.5 if i == j else 0.9 if (j - i) % 5 in (1, 2) else 0.1 for j in range(5)] for i in range(5)], dtype=F64
)
CIRCLE_REF = torch.tensor([0.9, 0.1, -0.4, 0.3, -0.9], dtype=F64).log_softmax(0)
REF = torch.tensor([0.35, 0.25, 0.20, 0.12, 0.08], dtype=F64)
REWARD = torch.tensor([1.0, 0.4, -0.2, -0.7, -1.3], dtype=F64) + 0.16
PREFERRED = torch.sigmoid(REWARD[:, None] - REWARD[None])
OPTIMUM = (REF.log() + REWARD / 0.5).log_softmax(0)


def all_pairs(logits, ref, preference, objective, *, beta, **settings):
    """The loss of every ordered pair of answers, a matrix."""
    n, log_pi = len(ref), logits.log_softmax(0)
    i, j = (index.flatten() for index in torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"))
    scores = win_rates(preference.flatten())
    batch = PairBatch(
        Pair(log_pi[i], log_pi[j]), Pair(ref[i], ref[j]), Pair(torch.ones_like(log_pi[i]), torch.ones_like(log_pi[i])),
        {"chosen_reward": scores[:, 0], "rejected_reward": scores[:, 1]},
    )  # fmt: skip
    return online_pair_loss(batch, objective, preference.flatten(), beta=beta, **settings).losses.unflatten(0, (n, n))


def slope(log_pi, ref, preference, objective, **settings):
    """Gradient in the logits of the expected loss on the policy's own pairs, whose law is held."""
    logits, law = log_pi.clone().requires_grad_(), log_pi.softmax(0)
    loss = (law[:, None] * law[None] * all_pairs(logits, ref, preference, objective, **settings)).sum()
    return torch.autograd.grad(loss, logits)[0]


def test_a_pair_by_hand():
    batch = PairBatch(
        Pair(torch.tensor([-3.0]), torch.tensor([-5.0])), Pair(torch.tensor([-4.2]), torch.tensor([-4.3])),
        Pair(torch.tensor([2.0]), torch.tensor([4.0])),
        {"chosen_reward": torch.tensor([2.0]), "rejected_reward": torch.tensor([0.5])},
    )  # fmt: skip
    p = torch.tensor([0.8])

    def loss(objective, **settings):
        return float(online_pair_loss(batch, objective, p, beta=0.1, label_smoothing=0.0, **settings).losses)

    sp = lambda x: math.log1p(math.exp(x))  # noqa: E731
    assert loss({"sigmoid": 1.0}) == pytest.approx(0.8 * sp(-0.19) + 0.2 * sp(0.19), abs=1e-6)
    assert loss({"ipo": 2.0}) == pytest.approx(2 * (0.8 * (1.9 - 5) ** 2 + 0.2 * (-1.9 - 5) ** 2), rel=1e-6)
    assert loss({"copg": 1.0}) == pytest.approx((0.19 - 1.5) ** 2, abs=1e-6)  # the order does not matter
    assert loss({"soft_sigmoid": 1.0}) == loss({"sigmoid": 1.0})
    offset = [-sp(-(0.19 - 0.1 * 0.05 * 1.5)), -sp(0.19 - 0.1 * 0.05 * 1.5)]
    assert loss({"reverse_po": 1.0}, margin_scale=0.05) == pytest.approx(-0.8 * offset[0] - 0.2 * offset[1], abs=1e-6)
    assert loss({"nll": 1.0}) == pytest.approx(0.8 * 1.5 + 0.2 * 1.25, abs=1e-6)
    assert loss({"nash_md": 1.0}) == pytest.approx(-(0.3 - 0.1 * 1.2) * -3.0, abs=1e-6)
    both = online_pair_loss(batch, {"sigmoid": 1.0}, p, beta=0.1, label_smoothing=0.0, optimism=0.02)
    assert set(both.components) == {"sigmoid", "optimism"}
    assert_close(both.losses, both.components["sigmoid"] + 0.02 * -5.0)
    assert_close(both.rewards.chosen - both.rewards.rejected, torch.tensor([0.19]))


def test_a_label_that_is_certain_is_the_loss_of_that_label():
    policy, ref = (Pair(*torch.randn(2, 6, generator=torch.Generator().manual_seed(n), dtype=F64)) for n in (0, 1))
    batch = PairBatch(policy, ref, policy, {"chosen_reward": ref.chosen, "rejected_reward": ref.rejected})
    turned = Pair(policy.rejected, policy.chosen), Pair(ref.rejected, ref.chosen)
    for p, (mine, other) in ((1.0, (policy, ref)), (0.0, turned)):
        ours = online_pair_loss(batch, {"ipo": 1.0}, torch.full((6,), p, dtype=F64), beta=0.2).losses
        assert_close(ours, ipo_loss(Pair(mine.chosen - other.chosen, mine.rejected - other.rejected), beta=0.2))
    p = torch.linspace(0, 1, 6, dtype=F64)
    rewards = Pair(0.3 * (policy.chosen - ref.chosen), 0.3 * (policy.rejected - ref.rejected))
    ours = online_pair_loss(batch, {"sigmoid": 1.0}, p, beta=0.3, label_smoothing=0.0)
    assert_close(ours.losses, soft_dpo_loss(rewards, p))
    assert_close(ours.rewards.chosen, rewards.chosen)
    assert not torch.allclose(ours.losses, dpo_loss(rewards))


def test_labels_are_preferences_draws_or_the_likelier_side():
    p = torch.tensor([0.0, 0.3, 0.5, 0.7, 1.0])
    assert labels(p, "expected") is p
    assert labels(p, "likelier").tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    set_seed(0)
    drawn = torch.stack([labels(p, "sampled") for _ in range(2000)])
    assert set(drawn.unique().tolist()) == {0.0, 1.0}
    assert_close(drawn.mean(0), p, atol=4 * 0.5 / 2000**0.5, rtol=0)
    assert_close(win_rates(p), torch.stack([(0.5 + p) / 2, (1.5 - p) / 2], dim=1))


def test_online_dpo_rests_at_the_tilted_reference_unless_the_likelier_side_is_taken():
    settings = {"beta": 0.5, "label_smoothing": 0.0}
    assert slope(OPTIMUM, REF.log(), PREFERRED, {"sigmoid": 1.0}, **settings).abs().max() < 1e-12
    hard = slope(OPTIMUM, REF.log(), labels(PREFERRED.flatten(), "likelier").view(5, 5), {"sigmoid": 1.0}, **settings)
    expected = 2 * torch.tensor([-0.027499, 0.021823, 0.004785, 0.000792, 0.000099], dtype=F64)  # of ordered pairs
    assert_close(hard, expected, atol=3e-6, rtol=0)


def test_online_ipo_is_ipo_in_expectation_over_the_label():
    log_pi = torch.tensor([0.2, -0.5, 0.7, 0.1, -0.3], dtype=F64).log_softmax(0)
    expected = torch.tensor([-0.941408, -0.463073, 1.248150, -0.202220, 0.358550], dtype=F64)
    assert_close(slope(log_pi, CIRCLE_REF, CIRCLE, {"ipo": 1.0}, beta=0.3), expected, atol=1e-6, rtol=0)
    copg = slope(log_pi, CIRCLE_REF, CIRCLE, {"copg": 1.0}, beta=0.3) / 0.3**2  # on the judge's win rates
    assert_close(copg, expected, atol=1e-6, rtol=0)
    rest = torch.tensor([0.360129, 0.172707, 0.092116, 0.290842, 0.084206], dtype=F64).log()
    assert slope(rest, CIRCLE_REF, CIRCLE, {"ipo": 1.0}, beta=0.3).abs().max() < 1e-5


def test_nash_md_rests_against_the_mixture():
    """Policy gradient on y from π and y' from the mixture with share one half."""
    rest = torch.tensor([0.374038, 0.157953, 0.082584, 0.295725, 0.089699], dtype=F64).log()

    def gradient(log_pi, share):
        mixture = ((1 - share) * log_pi + share * CIRCLE_REF).softmax(0)
        logits = log_pi.clone().requires_grad_()
        losses = nash_md_loss(logits.log_softmax(0), CIRCLE_REF, CIRCLE @ mixture, beta=0.3)
        return torch.autograd.grad((log_pi.exp() * losses).sum(), logits)[0]

    assert gradient(rest, 0.5).abs().max() < 1e-6
    equilibrium = torch.tensor([0.360129, 0.172707, 0.092116, 0.290842, 0.084206], dtype=F64).log()
    assert gradient(equilibrium, 0.0).abs().max() < 1e-6
    assert gradient(equilibrium, 0.5).abs().max() > 1e-3


def test_xpo_by_hand_and_on_the_table():
    won, lost, of_reference = torch.tensor([1.2]), torch.tensor([-0.7]), torch.tensor([-20.0])
    value = dpo_loss(Pair(0.1 * won, 0.1 * lost)) + optimism_loss(of_reference, alpha=1e-5)
    assert float(value) == pytest.approx(0.602453, abs=1e-6)
    logits = OPTIMUM.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=1e-16, line_search_fn="strong_wolfe")  # fmt: skip

    def closure():
        optimizer.zero_grad()
        pairs = all_pairs(logits, REF.log(), PREFERRED, {"sigmoid": 1.0}, beta=0.5, label_smoothing=0.0)
        loss = (pairs * (1 - torch.eye(5))).sum() / 20 + (REF * optimism_loss(logits.log_softmax(0), alpha=0.02)).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    expected = torch.tensor([0.882026, 0.091625, 0.020776, 0.004647, 0.000926], dtype=F64)
    assert_close(logits.detach().softmax(0), expected, atol=3e-6, rtol=0)


# EGPO on rock, paper, scissors: uniform pairs, opponent as given, with the trainer's loss and its half step.


def egpo(beta, iterations, make, *, restored=True, half=True):
    """Residuals by iteration: L1 distance of π to softmax(log π_ref + P π / β)."""
    z = torch.nn.Parameter(torch.tensor([2.0, 0.0, -1.0], dtype=F64).log_softmax(0))
    optimizer, seen = make([z]), [0.0]

    def step(opponent):
        optimizer.zero_grad()
        against = RPS @ opponent
        target = 0.5 + against[:, None] - against[None]  # two answers of the opponent's own law, in expectation
        all_pairs(z, EG_REF, target, {"ipo": 1.0}, beta=beta).mean().backward()
        optimizer.step()

    def policy():
        return z.detach().softmax(0)

    for _ in range(iterations):
        opponent = policy()
        if half and restored:
            with put_back([z], optimizer):
                step(opponent)
                opponent = policy()
            assert z.grad is None
        elif half:
            step(opponent)
            opponent = policy()
        step(opponent)
        best = (EG_REF + RPS @ policy() / beta).softmax(0)
        seen.append(float((best - policy()).abs().sum()))
    return seen


def sgd(beta, momentum=0.0):
    rate = (1 - momentum) * 0.5 * beta * 3 / 4
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=momentum)


@pytest.mark.slow
def test_egpos_last_iterate_converges():
    ours = egpo(0.01, 3000, sgd(0.01))
    assert ours[1000] == pytest.approx(0.000324, abs=1e-6)
    assert ours[3000] < 1e-11


def test_egpo_goes_another_way_than_mirror_descent_which_cycles():
    ours = egpo(0.01, 100, sgd(0.01))
    figures = {1: 1.901055, 2: 1.883147, 3: 1.861769, 10: 1.57026, 100: 1.406156}
    assert {t: ours[t] for t in figures} == pytest.approx(figures, abs=1e-6)
    mirror = egpo(0.01, 100, sgd(0.01), half=False)
    assert [mirror[t] for t in (1, 2, 3, 100)] == pytest.approx([1.901937, 1.885023, 1.864759, 1.917307], abs=1e-6)
    kept = egpo(0.01, 100, sgd(0.01), restored=False)
    assert [kept[t] for t in (1, 2, 3, 100)] == pytest.approx([1.885023, 1.840615, 1.778398, 1.811449], abs=1e-6)
    milder = egpo(0.1, 100, sgd(0.1))
    assert [milder[t] for t in (1, 3, 100)] == pytest.approx([1.676716, 1.640772, 0.00945], abs=1e-6)


@pytest.mark.parametrize(
    ("beta", "make", "figures"),
    [
        (0.01, sgd(0.01, 0.9), [1.914649, 1.912055, 1.908212, 1.838321]),
        (0.1, sgd(0.1, 0.9), [1.679478, 1.679852, 1.679759, 1.608468]),
        (0.1, lambda p: torch.optim.Adam(p, lr=0.05), [1.671723, 1.663592, 1.654672, 1.563689]),
    ],
    ids=["momentum, small beta", "momentum", "adam"],
)
def test_the_optimizers_state_is_put_back(beta, make, figures):
    ours = egpo(beta, 10, make)
    assert [ours[t] for t in (1, 2, 3, 10)] == pytest.approx(figures, abs=1e-6)


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("kind", ["SGD", "AdamW", "Adagrad"])
def test_weights_moments_counts_and_rates_are_put_back_to_the_bit(kind, steps):
    set_seed(0)
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    settings = {"momentum": 0.9} if kind == "SGD" else {}
    optimizer = getattr(torch.optim, kind)(weights, lr=0.1, **settings)

    def step(rate=0.1):
        for weight in weights:
            weight.grad = torch.randn_like(weight)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()

    def now():
        state = [{k: v.clone() if torch.is_tensor(v) else v for k, v in optimizer.state[w].items()} for w in weights]
        groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return [w.detach().clone() for w in weights], state if optimizer.state else [], groups

    for _ in range(steps):
        step()
    with_state = bool(optimizer.state)
    before = now() if with_state else ([w.detach().clone() for w in weights], None, None)

    def fails_on_the_way():
        with put_back(weights, optimizer):
            step(rate=7.0)
            optimizer.param_groups[0]["new"] = 1
            raise RuntimeError("on the way")

    with pytest.raises(RuntimeError, match="on the way"):
        fails_on_the_way()
    assert "new" not in optimizer.param_groups[0]
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert all(weight.grad is None for weight in weights)
    if not with_state:
        assert not optimizer.state
        assert all(torch.equal(a, b.detach()) for a, b in zip(before[0], weights, strict=True))
        return
    after = now()
    assert all(torch.equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    for mine, theirs in zip(before[1], after[1], strict=True):
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(torch.as_tensor(mine[k]), torch.as_tensor(theirs[k])) for k in mine)
    assert before[2] == after[2]

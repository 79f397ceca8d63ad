"""The table of objectives and its weighted sum: what each reads, what is logged, and what happens at the extremes."""

import pytest
import torch
from torch.testing import assert_close

from align.configs.pairwise import SMOOTHED
from align.losses import OBJECTIVES, Pair, PairBatch, dpo_loss, implicit_rewards, pairwise_loss, per_token
from align.losses.objectives import COLUMNS

SETTINGS = {
    "label_smoothing": 0.1,
    "discopop_tau": 0.05,
    "margin_scale": 0.7,
    "reward_scale": 0.6,
    "simpo_gamma": 0.5,
    "modpo_weight": 0.5,
}
CHANGED = {
    "label_smoothing": 0.3,
    "discopop_tau": 0.2,
    "margin_scale": 2.0,
    "reward_scale": 2.0,
    "simpo_gamma": 1.5,
    "modpo_weight": 0.8,
}
GIVEN = {name: [0.3, 0.9] for name in COLUMNS if name != "weight"} | {
    "chosen_reward": [2.0, 0.5], "rejected_reward": [1.0, 1.5], "margin": [1.0, 2.0], "preference": [0.8, 0.6],
}  # fmt: skip
BOUNDED = ("soft_sigmoid", "dno", "reward_aware_rpo", "ipo", "ipo_mean", "copg", "trajectory_balance")
"""Those that a margin can be too large for."""
ANCHORED = ("nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "cal_dpo")
"""Those that judge each answer by itself; `test_anchored_losses.py` has their extremes."""
VANISHING = ("exo_pair",)
"""Its slope is e^-10000 where a pair is far wrong, as the formula says."""


def batch(policy_w=(-4.0, -9.0), policy_l=(-8.0, -6.0), *, weights=None, dtype=torch.float64, **columns):
    policy = Pair(*(torch.tensor(v, dtype=dtype, requires_grad=True) for v in (policy_w, policy_l)))
    ref = Pair(torch.full_like(policy.chosen, -5.0).detach(), torch.full_like(policy.chosen, -7.0).detach())
    n = len(policy_w)
    tokens = Pair(torch.tensor([3.0, 4.0][:n], dtype=dtype), torch.tensor([2.0, 5.0][:n], dtype=dtype))
    given = {k: torch.tensor(v[:n], dtype=dtype) for k, v in (GIVEN | columns).items()}
    return PairBatch(policy, ref, tokens, given, None if weights is None else torch.tensor(weights, dtype=dtype))


def losses(name, made, beta=0.2, **settings):
    objective = {name: 1.0} if OBJECTIVES[name].rewards else {"sigmoid": 1.0, name: 1.0}
    return pairwise_loss(made, objective, beta=beta, **SETTINGS | settings).components[name]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_reads_what_the_table_says(name):
    plain = losses(name, batch())
    for setting, value in CHANGED.items():
        moved = bool((losses(name, batch(), **{setting: value}) != plain).all())
        assert moved == (setting in OBJECTIVES[name].reads), setting
    for column in GIVEN:
        moved = bool((losses(name, batch(**{column: [0.1, 0.2]})) != plain).all())
        assert moved == (column in OBJECTIVES[name].columns), column
    only = batch()
    kept = {c: v for c, v in only.columns.items() if c in OBJECTIVES[name].columns}
    assert_close(losses(name, only._replace(columns=kept)), plain)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_beta_matters_to_all_that_have_rewards(name):
    moved = bool((losses(name, batch(), beta=0.4) != losses(name, batch())).all())
    assert moved == (OBJECTIVES[name].rewards is not None)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_reference_matters_to_those_that_say_so(name):
    """Where it is not a number, so is the loss, and the rewards; else neither."""
    made = batch()
    unknown = made._replace(ref=Pair(*(torch.full_like(side, float("nan")) for side in made.ref)))
    entry = OBJECTIVES[name]
    value = entry.loss(
        None if entry.rewards is None else entry.rewards(unknown, 0.2), unknown,
        **{key: {"beta": 0.2, **SETTINGS}[key] for key in entry.reads},
    )  # fmt: skip
    assert bool(value.isnan().all()) == bool(value.isnan().any()) == entry.reference
    if entry.rewards is not None:
        assert bool(entry.rewards(unknown, 0.2).chosen.isnan().all()) == entry.reference


@pytest.mark.parametrize("name", OBJECTIVES)
def test_pairs_do_not_know_of_each_other(name):
    both = losses(name, batch())
    flipped = losses(name, PairBatch(*[
        Pair(p.chosen.flip(0), p.rejected.flip(0)) for p in batch()[:3]], {k: v.flip(0) for k, v in batch().columns.items()},
    ))  # fmt: skip
    assert_close(flipped.flip(0), both)
    alone = losses(name, batch((-4.0,), (-8.0,)))
    assert_close(alone, both[:1])


def test_the_sum_its_addends_and_the_logged_rewards():
    made = batch()
    result = pairwise_loss(made, {"nll": 0.5, "simpo": 2.0, "sigmoid": 1.0}, beta=0.2, **SETTINGS)
    assert list(result.components) == ["nll", "simpo", "sigmoid"]
    assert_close(result.losses, sum(result.components.values()))
    assert_close(result.components["nll"], 0.5 * -made.policy.chosen / made.tokens.chosen)
    assert_close(result.components["simpo"], 2.0 * losses("simpo", made))
    assert_close(result.rewards.chosen, 0.2 * made.policy.chosen / made.tokens.chosen)  # SimPO's, named first
    assert result.diagnostics == {}


def test_length_normalised_objectives_use_mean_rewards():
    made = batch()
    mean = implicit_rewards(per_token(made.log_ratio, made.tokens), beta=0.2)
    assert_close(losses("sigmoid_norm", made), dpo_loss(mean))
    result = pairwise_loss(made, {"ipo_mean": 1.0}, beta=0.2)
    assert_close(result.rewards.rejected, mean.rejected)
    assert_close(pairwise_loss(made, {"ipo": 1.0}, beta=0.2).rewards.chosen, 0.2 * made.log_ratio.chosen)


def test_weights_multiply_everything_and_are_logged():
    weighted = pairwise_loss(batch(weights=[3.0, 0.0]), {"sigmoid": 1.0, "nll": 1.0}, beta=0.2, label_smoothing=0.0)
    plain = pairwise_loss(batch(), {"sigmoid": 1.0, "nll": 1.0}, beta=0.2, label_smoothing=0.0)
    for name in ("sigmoid", "nll"):
        assert_close(weighted.components[name], plain.components[name] * torch.tensor([3.0, 0.0]).double())
    assert_close(weighted.losses, plain.losses * torch.tensor([3.0, 0.0]).double())
    assert weighted.diagnostics["pair_weight"].tolist() == [3.0, 0.0]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_those_of_the_formula(name):
    made = batch()

    def of(chosen, rejected):
        return losses(name, made._replace(policy=Pair(chosen, rejected)))

    assert torch.autograd.gradcheck(of, (made.policy.chosen, made.policy.rejected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("margin", [-1e4, 1e4])
@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name not in ("nll", *ANCHORED)])
def test_finite_and_rightly_signed_at_ten_thousand_nats(name, margin, dtype):
    """Log-ratios of ±10⁴ on either side: no NaN; never dead while it costs; too low is pushed up, too high down."""
    for chosen, rejected in ((margin, 0.0), (0.0, -margin), (margin / 2, -margin / 2)):
        made = batch((chosen,), (rejected,), dtype=dtype)
        value = losses(name, made, beta=1.0, label_smoothing=0.1 if name in SMOOTHED else 0.0)
        value.sum().backward()
        slope = (made.policy.chosen.grad.item(), made.policy.rejected.grad.item())
        assert value.isfinite().all()
        assert all(torch.isfinite(torch.tensor(slope)))
        assert any(slope) or value.item() < 1e-3 or name in VANISHING
        if name in VANISHING:
            assert slope[0] <= 0
        elif margin < 0:
            assert slope[0] < 0
        elif name in BOUNDED:
            assert slope[0] > 0
        else:
            assert slope[0] <= 0
        assert slope[1] * slope[0] <= 0


def test_every_column_has_a_reader_or_is_the_weight():
    assert set(COLUMNS) == {c for o in OBJECTIVES.values() for c in o.columns} | {"weight"}


def test_columns_reach_their_formula_by_hand():
    """β = 0.2: margins 0.4 and -1; gaps of scores 1 and -1; asked-for log-ratios 0.7 and 1.4; shares 0.8 and 0.6."""
    made = batch()
    assert losses("copg", made).tolist() == pytest.approx([0.36, 0.0])
    soft, logit = torch.nn.functional.softplus, torch.tensor([0.4, -1.0]).double()
    assert_close(losses("reverse_po", made), soft(-(logit - 0.2 * torch.tensor([0.7, 1.4]).double())))
    share = torch.tensor([0.8, 0.6]).double()
    assert_close(losses("soft_sigmoid", made), share * soft(-logit) + (1 - share) * soft(logit))
    target = torch.sigmoid(torch.tensor([1.0, -1.0]).double())
    assert_close(losses("dno", made), target * soft(-logit) + (1 - target) * soft(logit))

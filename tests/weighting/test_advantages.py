"""Advantage estimators: by hand, against TRL's formulas, and what holds for all of them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from align.weighting.advantages import ESTIMATORS, estimator_options, make_estimator
from align.weighting.estimator import moments

NAN = math.nan


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def advantages(name, rewards, group_size=2, aux=None, **options):
    return make_estimator(name, **options)(rewards, group_size=group_size, aux=aux or {})


def aux_of(rewards):
    rows = torch.arange(len(rewards), dtype=torch.float64)
    return {"stratum": rows % 2, "prompt": rows}


TWO_PROMPTS = table([1, 5], [3, 5], [0, 1], [0, 3])


def test_group_by_hand():
    expected = table([-1, 0], [1, 0], [0, -1], [0, 1])
    assert_close(advantages("group", TWO_PROMPTS, scale="none"), expected)
    std = math.sqrt(2) + 1e-4  # of two values one apart from their mean, with n - 1
    assert_close(advantages("group", TWO_PROMPTS, scale="group"), expected / std)
    spread = torch.stack([table([1, 0], [-1, 0])[:, 0].new_tensor([-1.0, 1, 0, 0]), torch.tensor([0, 0, -1.0, 1])], 1)
    column = torch.tensor([TWO_PROMPTS[:, k].std() for k in range(2)]) + 1e-4
    assert_close(advantages("group", TWO_PROMPTS, scale="batch"), spread.double() / column)


def test_leave_one_out_subtracts_the_mean_of_the_others():
    rewards = torch.rand(12, 3, dtype=torch.float64)
    ours = advantages("leave_one_out", rewards, group_size=4)
    for row in range(12):
        others = [r for r in range(row // 4 * 4, row // 4 * 4 + 4) if r != row]
        assert_close(ours[row], rewards[row] - rewards[others].mean(dim=0))


def test_missing_rewards_have_no_advantage_and_are_left_out_of_means():
    rewards = table([1, NAN], [3, 2], [NAN, 7], [8, 9])
    ours = advantages("leave_one_out", rewards, group_size=4)
    assert_close(ours[:, 0], table([1 - 5.5, 3 - 4.5, 0, 8 - 2])[0])
    assert_close(ours[:, 1], table([0, 2 - 8, 7 - 5.5, 9 - 4.5])[0])
    grouped = advantages("group", rewards, group_size=4, scale="none")
    assert_close(grouped[:, 0], table([-3, -1, 0, 4])[0])
    assert_close(moments(rewards, torch.zeros(4, dtype=torch.long)).std[:, 1], rewards[1:, 1].std().expand(4))


def test_reinforce_plus_plus_whitens_the_batch():
    rewards = torch.rand(6, 2, dtype=torch.float64)
    ours = advantages("batch", rewards, group_size=1)
    assert_close(ours, (rewards - rewards.mean(0)) / (rewards.std(0) + 1e-4))


def test_a_running_baseline_comes_from_the_batches_before():
    estimator = make_estimator("batch", baseline="running", decay=0.5, scale="none")
    batches = [table([1, 0], [3, NAN]), table([4, NAN], [6, NAN]), table([0, 2], [0, 4])]
    ours = [estimator(rewards, group_size=1, aux={}) for rewards in batches]
    assert_close(ours[0], table([-1, 0], [1, 0]))
    assert_close(ours[1], table([2, 0], [4, 0]))  # baseline 2
    assert_close(ours[2], table([-3.5, 2], [-3.5, 4]))  # 2 and 5 averaged; nothing new of the second objective
    assert_close(estimator.running, table([1.75, 1.5])[0])


def test_strata_by_hand_and_the_variance_they_take_out():
    """The variance of A_group is that of A_stratum plus that of the strata's means."""
    rewards, kinds = torch.rand(8, 1, dtype=torch.float64), torch.tensor([0.0, 0, 0, 1, 1, 1, 1, 1]).double()
    rewards[3:] += 2
    settings = {"group_size": 8, "aux": {"stratum": kinds}, "scale": "none"}
    within, group = (advantages("stratified", rewards, alpha=a, **settings) for a in (1.0, 0.0))
    means = torch.cat([rewards[:3].mean().expand(3), rewards[3:].mean().expand(5)])[:, None]
    assert_close(within, rewards - means)
    assert_close(group, rewards - rewards.mean())
    assert_close(group.var(correction=0), within.var(correction=0) + means.var(correction=0))
    assert_close(advantages("stratified", rewards, alpha=0.3, **settings), 0.3 * within + 0.7 * group)


def test_a_completion_alone_in_its_stratum_is_compared_with_its_group_only():
    rewards = table([1], [2], [6], [0])
    aux = {"tools": table([3, 0, 0, 0])[0]}
    ours = advantages("stratified", rewards, group_size=4, aux=aux, key="tools", alpha=0.5)
    group = advantages("group", rewards, group_size=4)
    assert_close(ours[0], 0.5 * group[0])
    assert (ours[1:] != 0.5 * group[1:]).all()


def test_strata_do_not_reach_over_prompts():
    rewards = table([1], [2], [60], [70])
    ours = advantages("stratified", rewards, aux={"stratum": torch.zeros(4).double()}, alpha=1.0, scale="none")
    assert_close(ours, table([-0.5], [0.5], [-5], [5]))


def test_single_stream_follows_the_discounted_mean_of_each_prompt():
    """With constant rho, v is the mean of prior and rewards, discounted, also for two objectives."""
    estimator = make_estimator("single_stream", rho=0.9, scale="none")
    rewards = torch.tensor([[1.0, 0.25], [0.0, 0.5], [1.0, 1.0], [1.0, 0.0]]).double()
    weight, value = torch.ones(2).double(), torch.full((2,), 0.5).double()
    for reward in rewards:
        other = torch.full((1, 2), 0.5).double()
        both = estimator(
            torch.cat([reward[None], other]), group_size=1, aux={"prompt": torch.tensor([7.0, 8.0]).double()}
        )
        assert_close(both, torch.stack([reward - value, torch.zeros(2).double()]), atol=1e-12, rtol=0)
        weight = 0.9 * weight + 1
        value = value + (reward - value) / weight


def test_single_stream_whitens_and_forgets_nothing_that_is_missing():
    estimator = make_estimator("single_stream")
    rewards = torch.tensor([[1.0, NAN], [0.0, 1.0], [1.0, 0.0]]).double()
    aux = {"prompt": torch.tensor([1.0, 2.0, 3.0]).double()}
    ours = estimator(rewards, group_size=1, aux=aux)
    gained = rewards - 0.5
    expected = (gained - gained.nanmean(0)) / (torch.stack([gained[:, 0].std(), gained[1:, 1].std()]) + 1e-4)
    assert_close(ours, expected.nan_to_num())
    assert_close(estimator.table[1], table([0.45 + 1, 0.5], [0.45, 0.5]))


def test_a_deterministic_reward_has_no_advantage_in_the_end():
    estimator = make_estimator("single_stream", scale="none")
    for _ in range(200):
        last = estimator(table([1.0]), group_size=1, aux={"prompt": torch.ones(1).double()})
    assert abs(last.item()) < 0.06
    assert last.item() > 0


@pytest.mark.parametrize("wrong", [-0.01, 1.01])
def test_single_stream_refuses_rewards_that_are_no_shares(wrong):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\], got"):
        advantages("single_stream", table([0.5], [wrong]), aux={"prompt": torch.zeros(2).double()})


def test_pareto_ranks_of_a_hand_made_group():
    """(3, 0), (0, 3) and (2, 2) are the front, (1, 1) is behind it, (0, 0) behind that; a clone shares its rank."""
    rewards = table([3, 0], [0, 3], [2, 2], [1, 1], [0, 0], [1, 1])
    ranks = torch.tensor([0.0, 0, 0, 1, 2, 1]).double()
    expected = (ranks.mean() - ranks)[:, None].expand(6, 2)
    assert_close(advantages("pareto_rank", rewards, group_size=6, scale="none"), expected)
    assert_close(advantages("pareto_rank", rewards, group_size=6), expected / (ranks.std() + 1e-4))


def test_ranks_count_all_the_fronts_above():
    rewards = table([0, 0], [1, 1], [2, 2], [3, 3], [4, 4])
    ours = advantages("pareto_rank", rewards, group_size=5, scale="none")
    assert ours[:, 1].tolist() == [-2, -1, 0, 1, 2]


def test_a_completion_without_any_reward_has_no_rank():
    rewards = table([3, 0], [NAN, NAN], [1, NAN], [0, 0])
    ours = advantages("pareto_rank", rewards, group_size=4, scale="none")
    assert ours[1].tolist() == [0, 0]
    # the missing reward of the third counts as the mean, 0: it lies behind the first and before the last
    assert_close(ours[:, 0], table([1, 0, 0, -1])[0])


@given(st.integers(0, 1000))
def test_pareto_ranks_do_not_change_with_the_scale_of_a_reward(seed):
    rewards = torch.randint(0, 4, (8, 3), generator=torch.Generator().manual_seed(seed)).double()
    bent = torch.stack([rewards[:, 0].exp(), rewards[:, 1] * 1e3 - 7, rewards[:, 2].pow(3)], dim=1)
    assert_close(advantages("pareto_rank", rewards, 4), advantages("pareto_rank", bent, 4))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_is_finite_where_rewards_are_missing_equal_or_extreme(name):
    for rewards in (
        torch.full((4, 2), NAN), torch.zeros(4, 2), table([NAN, 1], [0, 1], [1, 0], [0, NAN]),
        torch.full((4, 2), 0.1) if name == "single_stream" else torch.tensor([[1e30, 0], [-1e30, 0], [0, 1e-30], [1, 0]]),
    ):  # fmt: skip
        rewards = rewards.double()
        ours = advantages(name, rewards, aux=aux_of(rewards))
        assert ours.shape == rewards.shape
        assert ours.isfinite().all()
        if ESTIMATORS[name].per_objective:
            assert (ours[rewards.isnan()] == 0).all()


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if ESTIMATORS[n].per_objective])
def test_a_column_does_not_depend_on_the_others(name):
    rewards = torch.rand(8, 3, generator=torch.Generator().manual_seed(1)).double()
    whole = advantages(name, rewards, aux=aux_of(rewards))
    for k in range(3):
        assert_close(advantages(name, rewards[:, [k]], aux=aux_of(rewards))[:, 0], whole[:, k])


@pytest.mark.parametrize("name", ["group", "leave_one_out", "batch", "stratified"])
def test_without_scale_a_column_is_linear(name):
    options = {} if name == "leave_one_out" else {"scale": "none"}
    one, other = torch.rand(2, 8, 2, generator=torch.Generator().manual_seed(1)).double()
    ours = [advantages(name, r, aux=aux_of(r), **options) for r in (one, other, 2 * one - 3 * other)]
    assert_close(ours[2], 2 * ours[0] - 3 * ours[1])


@pytest.mark.parametrize("name", [n for n in ESTIMATORS if n != "single_stream"])
def test_estimators_know_whether_a_factor_on_rewards_is_lost(name):
    rewards = torch.rand(8, 2, generator=torch.Generator().manual_seed(1)).double() / 2
    for option in ("group", "batch", "none"):
        try:
            estimator = make_estimator(name, scale=option)
        except ValueError:
            continue
        one, two = (make_estimator(name, scale=option)(f * rewards, group_size=2, aux=aux_of(rewards)) for f in (1, 2))
        assert estimator.scale_free == bool((one - two).abs().max() < 0.02 * one.abs().max())


@pytest.mark.parametrize("name", ["batch", "single_stream"])
def test_what_an_estimator_remembers_can_be_saved(name, tmp_path):
    options = {"baseline": "running"} if name == "batch" else {}
    rewards = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(1)).double()
    whole = make_estimator(name, **options)
    expected = [whole(r, group_size=1, aux=aux_of(r)) for r in rewards]
    first, second = make_estimator(name, **options), make_estimator(name, **options)
    second.load_state_dict(first.state_dict())
    first = second
    first(rewards[0], group_size=1, aux=aux_of(rewards[0]))
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = make_estimator(name, **options)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert all(
        (second(r, group_size=1, aux=aux_of(r)) == e).all() for r, e in zip(rewards[1:], expected[1:], strict=True)
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("grup", {}, "estimator: unknown, got 'grup'; did you mean 'group'"),
        ("group", {"scal": "none"}, "option of group: unknown, got 'scal'; did you mean 'scale'"),
        ("leave_one_out", {"scale": "none"}, "option of leave_one_out: unknown, got 'scale'; known: none"),
        ("group", {"scale": "groups"}, "scale: unknown, got 'groups'; did you mean 'group'"),
        ("batch", {"decay": 1.0}, r"decay: must be a number in \[0, 1\), got 1.0"),
        ("batch", {"baseline": "median"}, "baseline: unknown, got 'median'"),
        ("stratified", {"alpha": 1.1}, r"alpha: must be a number in \[0, 1\], got 1.1"),
        ("single_stream", {"rho": 0.0}, r"rho: must be a number in \(0, 1\], got 0.0"),
        ("single_stream", {"prior_count": math.nan}, "prior_count: must be a number"),
        ("single_stream", {"prior": -0.1}, "prior: must be a number"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        make_estimator(name, **options)


def test_options_are_listed_with_their_defaults():
    assert estimator_options("stratified") == {"key": "stratum", "alpha": 0.5, "scale": "group"}

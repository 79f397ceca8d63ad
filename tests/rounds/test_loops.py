"""Loops on tables: which weights and reference a round gets is said by the code that runs rounds, losses are the package's."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from align.data.making.selectors import verified
from align.judges.scorers import TableScorer
from align.judges.scoring import By, score_rows
from align.losses import Pair
from align.losses.objectives import PairBatch, pairwise_loss
from align.recipe.loading import load_recipe
from align.rounds.plan import Place, round_recipe

RUN = Path("run")
REWARD = torch.tensor(
    [[1.0, 0.2, 0.6, -0.5, 0.0], [0.0, 0.3, 0.9, 0.8, -1.0], [0.1, -0.2, 0.0, 0.4, 0.5]], dtype=torch.float64
)
LOGITS = torch.tensor(
    [[0.0, 1.0, 0.3, 0.5, -0.5], [0.8, 0.0, -0.4, 0.2, 0.6], [0.0, 0.0, 1.0, -1.0, 0.2]], dtype=torch.float64
)
RPS = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=torch.float64)


def weights_of(recipe, number, made, first):
    """What a round begins with and is held against, from its recipe; adapters are tables, by the round that made them."""
    raw = round_recipe(recipe, Place(RUN, number))
    by_path = {str(RUN / f"round-{n}" / "train"): table for n, table in enumerate(made, start=1)} | {
        str(RUN / "first"): first
    }
    begun = by_path[raw["start"]["adapter"]] if "start" in raw else first
    held = by_path[raw["ref"]["path"].removesuffix("/adapter")] if raw["ref"]["kind"] == "adapter" else first
    return begun.clone(), held.clone()


def loss_of(objective, z, ref, scores, weights, beta, preference=None):
    """The expected loss of ordered pairs i, j of every prompt; z, ref and scores are (prompts, answers)."""
    n = z.size(-1)
    i, j = (torch.tensor(side) for side in zip(*itertools.product(range(n), repeat=2), strict=True))
    policy, held = z.log_softmax(-1), ref.log_softmax(-1)

    def pair(x):
        return Pair(x[..., i].flatten(), x[..., j].flatten())

    columns = {"chosen_reward": pair(scores).chosen, "rejected_reward": pair(scores).rejected}
    columns["preference"] = torch.sigmoid(columns["chosen_reward"] - columns["rejected_reward"])
    ones = torch.ones_like(columns["preference"])
    batch = PairBatch(pair(policy), pair(held), Pair(ones, ones), columns)
    losses = pairwise_loss(batch, {objective: 1.0}, beta=beta).losses
    return (losses * weights.flatten()).sum() / z.size(0)


def descended(objective, z, ref, scores, weights, *, beta, steps, rate):
    for _ in range(steps):
        z = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss_of(objective, z, ref, scores, weights, beta), z)
        z = z - rate * slope
    return z.detach()


def to_the_end(objective, z, ref, scores, beta, weights=None):
    z = z.detach().clone().requires_grad_()
    weights = torch.ones(z.size(0), z.size(1) ** 2).double() if weights is None else weights
    optimiser = torch.optim.LBFGS(
        [z], lr=1, max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = loss_of(objective, z, ref, scores, weights, beta)
        loss.backward()
        return loss

    optimiser.step(closure)
    return z.detach()


FIGURES = {
    ("copg", "previous", "previous"): (0.416599, 0.595358, 0.690665),
    ("copg", "previous", "first"): (0.416599, 0.468404, 0.477725),
    ("copg", "first", "previous"): (0.416599, 0.542562, 0.646319),
    ("copg", "first", "first"): (0.416599, 0.365295, 0.438888),
    ("soft_sigmoid", "previous", "previous"): (0.420129, 0.602021, 0.696349),
    ("soft_sigmoid", "previous", "first"): (0.420129, 0.469048, 0.477069),
    ("soft_sigmoid", "first", "previous"): (0.420129, 0.5606, 0.656088),
    ("soft_sigmoid", "first", "first"): (0.420129, 0.373414, 0.437058),
}


@pytest.mark.parametrize("combination", FIGURES)
def test_start_and_reference_are_two_things(combination):
    objective, start, reference = combination
    recipe = load_recipe(
        "rounds/tiny",
        [
            "rounds.count=3",
            "rounds.prompts=all",
            "train.learning_rate=0.1",
            f"rounds.start={start}",
            f"rounds.reference={reference}",
        ],
    )
    made, newest = [], LOGITS
    for number in (1, 2, 3):
        z, ref = weights_of(recipe, number, made, LOGITS)
        law = newest.softmax(-1)
        pairs = (law[:, :, None] * law[:, None, :]).flatten(1)
        rate = 1.0 if objective == "copg" else 10.0  # 20 where a pair counts once, and not in both orders
        newest = descended(objective, z, ref, REWARD, pairs, beta=0.5, steps=25, rate=rate)
        made.append(newest)
    rewards = [float((z.softmax(-1) * REWARD).sum(-1).mean()) for z in made]
    assert rewards == pytest.approx(FIGURES[combination], abs=1e-6)


def exploitability(p):
    return float((RPS @ p).max()) - 0.5


def test_dno_on_a_cyclic_game_goes_further_out_while_its_average_comes_nearer_later():
    recipe = load_recipe("rounds/tiny", ["method=dno", "rounds.count=3", "train.learning_rate=0.1"])
    first = torch.tensor([[1.0, 0.0, -0.5]], dtype=torch.float64)
    made, policies = [], [first[0].softmax(-1)]
    for number in (1, 2, 3):
        z, ref = weights_of(recipe, number, made, first)
        scores = (RPS @ policies[-1])[None]
        made.append(to_the_end("dno", z, ref, scores, beta=2.0))
        policies.append(made[-1][0].softmax(-1))
    assert [exploitability(p) for p in policies] == pytest.approx((0.158923, 0.171865, 0.182327, 0.190257), abs=1e-6)
    averages = [exploitability(torch.stack(policies[: n + 1]).mean(0)) for n in range(4)]
    assert averages == pytest.approx((0.158923, 0.165394, 0.171038, 0.175843), abs=1e-6)


def test_the_scores_of_a_judge_are_the_mean_over_the_policys_answers_itself_among_them():
    """With answers drawn in proportion 5 : 3 : 2 the score is P π, which DNO takes."""
    drawn = [0] * 5 + [1] * 3 + [2] * 2
    row = {"prompt": "q", "completions": [str(k) for k in drawn]}
    judge = TableScorer(["0", "1", "2"], RPS.tolist())
    (scored,) = score_rows([row], [By("j", "judge", lambda: judge)]).rows
    expected = RPS.numpy() @ np.array([0.5, 0.3, 0.2])
    assert [one["j"] for one in scored["rewards"]] == pytest.approx(expected[drawn].tolist())


def test_gpo_takes_scores_and_not_probabilities():
    angles, lengths = np.deg2rad([0.0, 120.0, 240.0]), np.array([1.0, 0.8, 1.2])
    v = lengths[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)
    score = np.outer(v[:, 0], v[:, 1]) - np.outer(v[:, 1], v[:, 0])
    judge = TableScorer(["0", "1", "2"], 1 / (1 + np.exp(-score)))
    row = {"prompt": "q", "completions": ["0", "1", "2"]}
    (scored,) = score_rows([row], [By("j", "judge", lambda: judge, log_odds=True)]).rows
    assert [one["j"] for one in scored["rewards"]] == pytest.approx(score.mean(axis=1).tolist())
    recipe = load_recipe("rounds/tiny", ["method=gpo", "rounds.count=3", "train.learning_rate=0.1"])
    first, made, told = torch.tensor([[0.5, 0.0, -0.2]], dtype=torch.float64), [], []
    newest = first
    for number in (1, 2, 3):
        z, ref = weights_of(recipe, number, made, first)
        s = (torch.tensor(score) @ newest[0].softmax(-1))[None]
        newest = to_the_end("copg", z, ref, s, beta=1.0)
        made.append(newest)
        told.append(newest[0].softmax(-1).tolist())
    assert told[0] == pytest.approx((0.49263, 0.326132, 0.181238), abs=1e-5)
    assert told[1] == pytest.approx((0.469045, 0.390127, 0.140828), abs=1e-5)
    assert told[2] == pytest.approx((0.408539, 0.473511, 0.11795), abs=1e-5)


@pytest.mark.parametrize(
    ("alpha", "lengths", "figures"),
    [
        (0.0, (1, 1), (0.872727, 0.990968, 0.999431)),
        (1.0, (1, 1), (0.817976, 0.904167, 0.929312)),
        (1.0, (2, 8), (0.90838, 0.989889, 0.998878)),
    ],
)
def test_iterative_rpo_with_a_verifier_that_errs(alpha, lengths, figures):
    """One right and one wrong answer; one label in five is turned round."""
    (choice,) = verified([1, 0], np.random.default_rng(0))
    assert (choice.chosen, choice.rejected) == (0, 1)
    recipe = load_recipe("rounds/irpo-tiny", ["rounds.count=3"])
    first = torch.tensor([[np.log(0.3 / 0.7), 0.0]], dtype=torch.float64)
    made, found = [], []
    for number in (1, 2, 3):
        z, ref = weights_of(recipe, number, made, first)
        u = (z[0, 0] - z[0, 1]).requires_grad_()
        held = ref[0].log_softmax(-1)
        optimiser = torch.optim.LBFGS(
            [u], max_iter=500, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
        )

        def closure(u=u, held=held, optimiser=optimiser):
            optimiser.zero_grad()
            policy = torch.stack([u, torch.zeros_like(u)]).log_softmax(-1)
            total = torch.zeros((), dtype=torch.float64)
            for right, share in ((0, 0.8), (1, 0.2)):
                wrong = 1 - right
                tokens = [torch.tensor([float(lengths[k])], dtype=torch.float64) for k in (right, wrong)]
                batch = PairBatch(
                    Pair(policy[right, None], policy[wrong, None]),
                    Pair(held[right, None], held[wrong, None]),
                    Pair(*tokens),
                    {},
                )
                objective = {"sigmoid": 1.0} | ({"nll": alpha} if alpha else {})
                total = total + share * pairwise_loss(batch, objective, beta=0.5, label_smoothing=0.0).losses.sum()
            total.backward()
            return total

        optimiser.step(closure)
        made.append(torch.tensor([[float(u.detach()), 0.0]], dtype=torch.float64))
        found.append(float(torch.sigmoid(u.detach())))
    assert found == pytest.approx(figures, abs=1e-5)


def test_replay_of_stored_scores_makes_a_cycle_worse():
    first = torch.tensor([[1.0, 0.0, -0.5]], dtype=torch.float64)
    for shares, figures in (
        ((), (0.182327, 0.190257)),
        ((0.3,), (0.18267, 0.190982)),
        ((0.3, 0.15), (0.18267, 0.191332)),
    ):
        recipe = load_recipe(
            "rounds/tiny",
            ["method=copg", "rounds.count=3", "train.learning_rate=0.1", f"rounds.keep={{earlier: {list(shares)}}}"],
        )
        made, stored, found = [], [], []
        for number in (1, 2, 3):
            z, ref = weights_of(recipe, number, made, first)
            stored.insert(0, (RPS @ (made[-1] if made else first)[0].softmax(-1))[None])
            given = recipe.rounds.keep.shares()[: number - 1]
            scores = (1 - sum(given)) * stored[0] + sum(
                share * old for share, old in zip(given, stored[1:], strict=False)
            )
            made.append(to_the_end("copg", z, ref, scores, beta=2.0))
            found.append(exploitability(made[-1][0].softmax(-1)))
        assert found[1:] == pytest.approx(figures, abs=1e-6)

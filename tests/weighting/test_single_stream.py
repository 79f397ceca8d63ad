"""Single-stream policy optimisation: values, what they begin with, how fast they fade, what prompts are drawn by."""

import json
import math
from itertools import permutations

import numpy as np
import pytest
import torch

from align.trainers.online.streams.draws import drawn
from align.weighting.advantages import make_estimator
from align.weighting.single_stream import prompt_number


def stream(**options):
    return make_estimator("single_stream", scale="none", **options)


def step(estimator, prompts, rewards, drift=None):
    aux = {"prompt": torch.tensor(prompts).double()}
    if drift is not None:
        aux["drift"] = torch.tensor(drift).double()
    return estimator(torch.tensor(rewards).double(), group_size=1, aux=aux)


def scored(tmp_path, rows):
    path = tmp_path / "scored.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def of(prompt, rewards, name="right"):
    return {"prompt": prompt, "completions": ["x"] * len(rewards), "rewards": [{name: r} for r in rewards]}


def test_the_papers_example_by_hand(tmp_path):
    """Three of eight solved: a 3.1111, b 4.8889, v .38889; then a success at D .005, where rho is .94387."""
    path = scored(tmp_path, [of("one", [1, 0, 0, 1, 0, 0, 1, 0]), of("none", []), of("unscored", [None])])
    estimator = stream(rho="kl", prior_count=8.0, initial=path)
    estimator.begin(["right"])
    number = prompt_number("one")
    assert estimator.table[number].flatten().tolist() == pytest.approx([3.111111, 4.888889], abs=1e-6)
    assert step(estimator, [number], [[1.0]], [0.005]).item() == pytest.approx(1 - 0.3888889, abs=1e-6)
    a, b = estimator.table[number].flatten().tolist()
    assert (a, b) == pytest.approx((0.943874 * 3.111111 + 1, 0.943874 * 4.888889), abs=1e-5)
    assert estimator.table[prompt_number("unscored")].flatten().tolist() == [4.0, 4.0]
    assert prompt_number("none") not in estimator.table


@pytest.mark.parametrize(("drift", "rho"), [(0, 0.96), (0.003, 0.96), (0.005, 0.94387), (0.01, 0.8909), (0.06, 0.875)])
def test_values_fade_by_how_far_the_policy_moved(drift, rho):
    estimator = stream(rho="kl")
    step(estimator, [7, 8], [[0.0], [0.0]], [drift, 0.0])
    assert estimator.table[7].flatten().tolist() == pytest.approx([0.5 * rho, 0.5 * rho + 1], abs=1e-5)
    assert estimator.table[8].flatten().tolist() == pytest.approx([0.48, 1.48])


def test_half_of_a_value_fades_at_the_drift_that_is_asked_for():
    estimator = stream(rho="kl", halving_drift=0.6)
    step(estimator, [7], [[0.0]], [0.06])
    assert estimator.table[7].flatten()[0].item() == pytest.approx(0.5 * 2**-0.1)


def test_answers_before_are_of_each_objective_and_every_row_counts(tmp_path):
    both = {"prompt": "one", "completions": ["x"], "rewards": [{"right": 1.0, "short": 0.25}]}
    estimator = stream(initial=scored(tmp_path, [both, of("one", [0.0])]))
    with pytest.raises(ValueError, match="initial: has no rewards named kind; there are right, short; score"):
        estimator.begin(["right", "kind"])
    estimator.begin(["short", "right"])
    assert estimator.table[prompt_number("one")].T.tolist() == [[0.75 / 2, 1.25 / 2], [0.5, 0.5]]


def test_a_batch_in_another_order_gives_the_same_values():
    prompts, rewards, drift = [1, 2, 3, 4], torch.rand(4, 2).tolist(), [0.0, 0.004, 0.006, 0.02]
    one, other, order = stream(rho="kl"), stream(rho="kl"), [2, 0, 3, 1]
    first = step(one, prompts, rewards, drift)
    second = step(other, *([each[k] for k in order] for each in (prompts, rewards, drift)))
    assert torch.equal(first[order], second)
    assert all(torch.equal(one.table[p], other.table[p]) for p in prompts)


def test_prompts_are_drawn_by_the_most_uncertain_objective():
    estimator = stream(prompts="uncertain", prior=0.1)
    estimator.table = {n: torch.tensor([[v], [1 - v]]).double() for n, v in enumerate((0.0, 0.1, 0.5, 0.9, 1.0))}
    assert estimator.uncertainty(range(5)).tolist() == pytest.approx([0.05, 0.35, 0.55, 0.35, 0.05])
    assert estimator.uncertainty([99]).tolist() == pytest.approx([0.35])
    estimator.table = {1: torch.tensor([[8.0, 1.0], [2.0, 1.0]]).double()}
    assert estimator.uncertainty([1]).tolist() == pytest.approx([0.55])


def test_draws_without_replacement_have_the_law_of_drawing_one_after_another():
    weights = np.array([0.05, 0.35, 0.55])
    seen = [tuple(drawn(weights, 2, [0, number])) for number in range(6000)]
    for one, other in permutations(range(3), 2):
        share = weights[one] / weights.sum() * weights[other] / (weights.sum() - weights[one])
        assert seen.count((one, other)) / 6000 == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 6000))
    assert drawn(weights, 3, [1, 2]) == drawn(weights, 3, [1, 2])
    assert sorted(drawn(weights, 3, [1, 2])) == [0, 1, 2]
    assert len({tuple(drawn(np.ones(9), 9, key)) for key in ([0, 1], [1, 0], [0, 2])}) == 3


def test_the_last_answers_are_saved(tmp_path):
    one, other = stream(rho="kl"), stream(rho="kl")
    one.answers[5] = torch.tensor([3, 4]).int(), torch.tensor([-1.0, math.nan])
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.answers[5][0].tolist() == [3, 4]
    assert "answers" not in stream().state_dict()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": "lk"}, r"rho: must be a number in \(0, 1\] or 'kl', got 'lk'"),
        ({"prompts": "uncertian"}, "prompts: unknown, got 'uncertian'; did you mean 'uncertain'"),
        ({"halving_drift": 0.1}, "halving_drift: only rho 'kl' reads it; leave it out"),
        ({"rho": "kl", "halving_drift": 0.0}, r"halving_drift: must be a number in \(0, inf\), got 0.0"),
        ({"initial": "absent.jsonl"}, "initial: no such file, got 'absent.jsonl'; write it by `alignkit sample`"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        stream(**options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "scored.jsonl:1: must be a row of `alignkit score`"),
        ({"prompt": "x", "rewards": [0.5]}, "scored.jsonl:1: must be a row of `alignkit score`"),
        ([1], "scored.jsonl:1: must be a row of `alignkit score`"),
        (of("x", [1.5]), r"scored.jsonl:1: right: must be a number in \[0, 1\], got 1.5"),
        (of("x", [math.nan]), r"scored.jsonl:1: right: must be a number in \[0, 1\], got nan"),
    ],
)
def test_files_that_hold_no_shares_are_refused(tmp_path, row, message):
    with pytest.raises(ValueError, match=message):
        stream(initial=scored(tmp_path, [row]))

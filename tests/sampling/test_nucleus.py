"""Nucleus sampling: which tokens, and how often."""

import numpy as np
import pytest
import torch

from align.sampling.generate import Decoding, generate, nucleus
from align.scoring.completions import prompt_ids


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, [1]),
        (0.5, [1]),
        (0.51, [1, 3]),
        (0.75, [1, 3]),
        (0.76, [0, 1, 3]),
        (0.875, [0, 1, 3]),
        (0.876, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_the_nucleus_is_the_fewest_tokens_that_reach_top_p(top_p, kept):
    logits = torch.log(torch.tensor([[0.125, 0.5, 0.125, 0.25]], dtype=torch.float64)).float()
    got = nucleus(logits, top_p)
    assert torch.isfinite(got[0]).nonzero().flatten().tolist() == kept
    assert (got[0, kept] == logits[0, kept]).all()


def test_a_share_that_is_reached_exactly_takes_no_token_more():
    got = nucleus(torch.zeros(1, 4), 0.5)  # each exactly a quarter; the first of equals stay
    assert torch.isfinite(got[0]).nonzero().flatten().tolist() == [0, 1]


def test_draws_follow_the_softmax_within_the_nucleus_at_this_temperature(model, tokenizer):
    n, ids = 1000, prompt_ids(tokenizer, "the sky")
    with torch.no_grad():
        p = (model(input_ids=torch.tensor([ids])).logits[0, -1] / 1.5).softmax(-1).double().numpy()
    order = np.argsort(-p)
    size = int(np.searchsorted(np.cumsum(p[order]), 0.6)) + 1
    assert 2 <= size < len(p)
    share = np.zeros(len(p))
    share[order[:size]] = p[order[:size]] / p[order[:size]].sum()
    rows = generate(model, tokenizer, ["the sky"], Decoding(1, 1.5, top_p=0.6), samples=n, batch_size=n)[0]
    counts = np.bincount([row.completion_ids[0] for row in rows], minlength=len(p))
    assert counts[share == 0].sum() == 0
    assert (np.abs(counts / n - share) <= 4 * np.sqrt(share * (1 - share) / n) + 2 / n).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"top_p": 0.0}, "above 0 and at most 1, got 0"), ({"top_p": 1.1}, "above 0 and at most 1, got 1.1"),
     ({"top_p": 0.9, "temperature": 0.0}, "top_p must be 1 where temperature is 0"), ({"top_p": float("nan")}, "got nan")],
)  # fmt: skip
def test_a_nucleus_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**settings)

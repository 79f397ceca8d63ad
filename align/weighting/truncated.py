"""Advantages of a part of an answer, which may go on later: extended generalised advantages (T-PPO, arXiv:2506.15050)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def extended_gae(
    values: Float[Tensor, "rows time"],
    rewards: Float[Tensor, "rows time"],
    window: Bool[Tensor, "rows time"],
    finished: Bool[Tensor, " rows"],
    *,
    gamma: float,
    lam: float,
) -> Float[Tensor, "rows time"]:
    """A_t = Σ_{i≥t} (γλ)^(i-t) δ_i over the rest of the window, δ_i = r_i + γ V(s_{i+1}) - V(s_i); 0 outside of it.

    After a window's last token V is 0 where the answer is finished, and V(s_{l-1}), the value of the last state that was
    measured, where it goes on. So at γ = 1 the last token of a window that goes on has the advantage 0 but for its own
    reward, and where V is 0 everywhere nothing is learnt from such a window. Against the true V(s_l) the advantage at t is
    off by γ (γλ)^(l-1-t) (V(s_{l-1}) - V(s_l)).

    With V = 0, λ = 1 and a window that is a finished answer, these are its discounted returns.

    Source: the paper's equations as two digests and its reviews give them; its text was not read.

    Args:
        values: V(s_t), of the state before token t. Anything outside the window.
        rewards: r_t of token t, likewise.
        window: The tokens of each row, next to each other.
        finished: Whether the answer ends with its window.
        gamma: γ in (0, 1].
        lam: λ in [0, 1].
    """
    advantages, time = torch.zeros_like(values), values.size(1)
    after = following = torch.zeros_like(values[:, 0])
    later = torch.zeros_like(finished)
    for t in reversed(range(time)):
        inside, value = window[:, t], values[:, t]
        following = following.where(later, value.masked_fill(finished, 0.0))
        after = (rewards[:, t] + gamma * following - value + gamma * lam * after).masked_fill(~inside, 0.0)
        advantages[:, t] = after
        following, later = value, inside
    return advantages

"""Each loss, trained to convergence on a softmax over a few answers, reaches the optimum solved independently."""

import itertools

import oracles
import pytest
import torch

from align.losses import Pair, divergence, f_dpo_loss, implicit_rewards, log_ratios, rpo_loss

R = (1.0, 0.3, -0.5, -1.2)
REF = (0.4, 0.3, 0.2, 0.1)
BETA = 0.5
FIVE_R = (1.0, 0.4, 0.0, -0.6, -1.1)
FIVE_REF = (0.3, 0.25, 0.2, 0.15, 0.1)
GOLDEN = {  # oracle F6
    "reverse_kl": (0.824463, 0.152483, 0.020524, 0.002531),
    "forward_kl": (0.766776, 0.156115, 0.056791, 0.020318),
    "jensen_shannon": (0.929428, 0.062494, 0.007212, 0.000866),
    "alpha=0.3": (0.807966, 0.150530, 0.033459, 0.008045),
    "alpha=0.5": (0.796048, 0.151142, 0.040991, 0.011818),
    "alpha=0.7": (0.784110, 0.152709, 0.047780, 0.015402),
    "chi_squared_kl": (0.662258, 0.265078, 0.063001, 0.009664),
}


def train(loss_of_pair, rewards, ref):
    """Minimise the population loss Σ p(i > j) loss(i, j) over softmax logits with L-BFGS in float64."""
    logits = torch.tensor(ref, dtype=torch.float64).log().requires_grad_()
    ref_logps = torch.tensor(ref, dtype=torch.float64).log()
    pairs = list(itertools.permutations(range(len(ref)), 2))
    winners, losers = (torch.tensor(side) for side in zip(*pairs, strict=True))
    values = torch.tensor(rewards, dtype=torch.float64)
    weight = torch.sigmoid(values[winners] - values[losers])
    optimiser = torch.optim.LBFGS(
        [logits],
        max_iter=2000,
        tolerance_grad=1e-14,
        tolerance_change=1e-18,
        line_search_fn="strong_wolfe",
        history_size=50,
    )

    def closure():
        optimiser.zero_grad()
        logps = logits.log_softmax(0)
        losses = loss_of_pair(Pair(logps[winners], logps[losers]), Pair(ref_logps[winners], ref_logps[losers]))
        total = (weight * losses).sum() / len(pairs)
        total.backward()
        return total

    for _ in range(5):
        optimiser.step(closure)
    return logits.detach().softmax(0).tolist()


def f_of(name):
    kind, _, value = name.partition("=")
    return divergence(kind, alpha=float(value) if value else None)


@pytest.mark.parametrize("name", GOLDEN)
def test_f_dpo_reaches_its_optimum(name):
    """π_i = ref_i (f')^-1((R_i - λ)/β); reverse KL is DPO. Five answers against the solver, four against known values."""
    f = f_of(name)
    loss = lambda policy, ref: f_dpo_loss(log_ratios(policy, ref), beta=BETA, f=f, beta_scaling="raw").losses  # noqa: E731
    expected = oracles.f_dpo_optimum(FIVE_R, FIVE_REF, BETA, name)
    assert train(loss, FIVE_R, FIVE_REF) == pytest.approx(expected, abs=1e-6)
    assert train(loss, R, REF) == pytest.approx(GOLDEN[name], abs=2e-6)
    assert oracles.f_dpo_optimum(R, REF, BETA, name) == pytest.approx(GOLDEN[name], abs=1e-6)


def rpo_optimum(rewards, ref, beta, eta):
    """Stationary point of Σ p_ij [softplus(-β(h_i - h_j)) - ηβ log π_i] by Newton's method on the logits, from scratch."""
    n = len(ref)
    p = torch.sigmoid(torch.tensor([[a - b for b in rewards] for a in rewards], dtype=torch.float64))
    p.fill_diagonal_(0.0)
    q = torch.tensor(ref, dtype=torch.float64)
    h = torch.zeros(n, dtype=torch.float64)  # log-ratio up to a constant; π = softmax(log q + h)
    share = p.sum(1)

    def gradient(h):
        pull = p * torch.sigmoid(-beta * (h[:, None] - h[None, :]))
        preference = -beta * (pull.sum(1) - pull.sum(0))
        policy = torch.softmax(q.log() + h, 0)
        return preference + eta * beta * (policy * share.sum() - share)

    for _ in range(100):
        jacobian = torch.autograd.functional.jacobian(gradient, h)
        h = h - torch.linalg.lstsq(jacobian, gradient(h), driver="gelsd").solution
    return torch.softmax(q.log() + h, 0).tolist()


@pytest.mark.parametrize("eta", [0.0, 0.005, 0.1, 1.0])
def test_rpo_reaches_its_optimum(eta):
    def loss(policy, ref):
        rewards = implicit_rewards(log_ratios(policy, ref), beta=BETA)
        return rpo_loss(rewards, policy.chosen, torch.ones_like(policy.chosen), beta=BETA, eta=eta).losses

    assert train(loss, FIVE_R, FIVE_REF) == pytest.approx(rpo_optimum(FIVE_R, FIVE_REF, BETA, eta), abs=1e-6)


@pytest.mark.parametrize(
    ("eta", "h"), [(0.0, 2.197225), (0.005, 2.194893), (0.1, 2.157392), (1.0, 2.032054), (10.0, 1.958250)]
)
def test_rpo_two_arms(eta, h):
    """Oracle R6: p = .75, β = .5, ref_1 = .3; the trained log-ratio difference solves the one-dimensional equation."""
    logit = torch.tensor(0.3).logit().item()
    assert oracles.rpo_two_arms(0.75, 0.5, eta, logit) == pytest.approx(h, abs=1e-5)

    def loss(policy, ref):
        rewards = implicit_rewards(log_ratios(policy, ref), beta=0.5)
        return rpo_loss(rewards, policy.chosen, torch.ones_like(policy.chosen), beta=0.5, eta=eta).losses

    first, second = train(loss, (torch.tensor(0.75).logit().item(), 0.0), (0.3, 0.7))
    trained = torch.tensor(first / second).log().item() - logit
    assert trained == pytest.approx(h, abs=1e-4)

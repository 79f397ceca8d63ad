"""Slow restatements of the pairwise papers in plain floats, and solvers of their optima. No code is shared with align/."""

import math

import torch


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def cross_entropy(a, x):
    """-a log σ(x) - (1 - a) log σ(-x)."""
    return -a * math.log(sigmoid(x)) - (1 - a) * math.log(1 - sigmoid(x))


def bernoulli_kl(p, q):
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def discopop(x, tau=0.05):
    """Lu et al. 2024, eq. 5."""
    g = sigmoid(x / tau)
    return (1 - g) * math.log(1 + math.exp(-x)) + g * math.exp(-x)


def wpo(distributions, tokens):
    """Zhou et al. 2024, eq. 2 with sampled alignment: geometric mean over t of π(y_t) / Σ_v π(v)²."""
    ratios = [row[token] / sum(p * p for p in row) for row, token in zip(distributions, tokens, strict=True)]
    return math.prod(ratios) ** (1 / len(ratios))


def leave_one_out(values):
    """Each value less the mean of the others."""
    return [v - (sum(values) - v) / (len(values) - 1) for v in values]


def bisect(function, low=-60.0, high=60.0):
    """A zero of a falling function."""
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) > 0 else (low, middle)
    return (low + high) / 2


def two_arms_with_margin(p, gap):
    """Minimum over m of -p log σ(m - gap) - (1 - p) log σ(-m - gap)."""
    return bisect(lambda m: p * sigmoid(gap - m) - (1 - p) * sigmoid(gap + m))


def ipo_mean_optimum(preference, ref, lengths, beta):
    """log π_i = log ref_i + |y_i| (mean_j p_ij / β + c), c by normalisation."""
    gain = [sum(row) / len(row) / beta for row in preference]

    def mass(c):
        return 1 - sum(q * math.exp(n * (g + c)) for q, n, g in zip(ref, lengths, gain, strict=True))

    c = bisect(mass, -20.0, 20.0)
    return [q * math.exp(n * (g + c)) for q, n, g in zip(ref, lengths, gain, strict=True)]


def minimise(population_loss, start):
    """Softmax probabilities that minimise a function of log-probabilities; L-BFGS in float64."""
    logits = torch.tensor(start, dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=2000, tolerance_grad=1e-15, tolerance_change=1e-20, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = population_loss(logits.log_softmax(0))
        loss.backward()
        return loss

    for _ in range(5):
        optimiser.step(closure)
    return logits.detach().softmax(0).tolist()


def tilted(ref, gain):
    """softmax(log ref + gain)."""
    weights = [q * math.exp(g) for q, g in zip(ref, gain, strict=True)]
    return [w / sum(weights) for w in weights]

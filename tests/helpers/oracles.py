"""Slow, obvious restatements of the papers, in plain Python floats. They share no code with align/."""

import math


def dpo(policy_w, policy_l, ref_w, ref_l, beta):
    """Rafailov et al. 2023, eq. 7, written with probability ratios instead of log-ratios."""
    ratio_w = math.exp(policy_w - ref_w)
    ratio_l = math.exp(policy_l - ref_l)
    preferred = 1 / (1 + (ratio_l / ratio_w) ** beta)  # σ(β log a - β log b) = 1 / (1 + (b/a)^β)
    return -math.log(preferred)


def dpo_gradient(policy_w, policy_l, ref_w, ref_l, beta):
    """Section 4, "What does the DPO update do?", with respect to log π(y_w|x): -β σ(r_l - r_w)."""
    margin = beta * ((policy_w - ref_w) - (policy_l - ref_l))
    return -beta / (1 + math.exp(margin))


# f and f' of the f-DPO paper as functions of u = π/π_ref, normalised to f(1) = f'(1) = 0.
GENERATORS = {
    "reverse_kl": (lambda u: u * math.log(u) - u + 1, lambda u: math.log(u)),
    "forward_kl": (lambda u: -math.log(u) + u - 1, lambda u: 1 - 1 / u),
    "jensen_shannon": (
        lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
        lambda u: math.log(2 * u / (1 + u)),
    ),
    "alpha=0.3": (lambda u: (u**0.7 - 0.7 * u - 0.3) / (0.3 * -0.7), lambda u: (1 - u**-0.3) / 0.3),
    "alpha=0.5": (lambda u: (u**0.5 - 0.5 * u - 0.5) / (0.5 * -0.5), lambda u: (1 - u**-0.5) / 0.5),
    "alpha=0.7": (lambda u: (u**0.3 - 0.3 * u - 0.7) / (0.7 * -0.3), lambda u: (1 - u**-0.7) / 0.7),
    "chi_squared_kl": (lambda u: (u - 1) ** 2 / 2 + u * math.log(u) - u + 1, lambda u: u - 1 + math.log(u)),
}


def f_dpo(r_w, r_l, beta, name):
    """Wang et al. 2023: -log σ(β f'(u_w) - β f'(u_l)), log-ratios in, softplus spelled out."""
    f_prime = GENERATORS[name][1]
    return math.log1p(math.exp(-beta * (f_prime(math.exp(r_w)) - f_prime(math.exp(r_l)))))


def inverse_f_prime(name, s):
    """u with f'(u) = s, by bisection on log u."""
    f_prime = GENERATORS[name][1]
    low, high = -60.0, 60.0
    for _ in range(300):
        middle = (low + high) / 2
        low, high = (middle, high) if f_prime(math.exp(middle)) < s else (low, middle)
    return math.exp((low + high) / 2)


def f_dpo_optimum(rewards, ref, beta, name):
    """max_π E_π[R] - β D_f(π‖ref): π_i = ref_i (f')^-1((R_i - λ)/β), λ by bisection on Σ π = 1."""
    low, high = min(rewards) - 60 * beta, max(rewards) + 60 * beta

    def total(lam):
        return sum(q * inverse_f_prime(name, (r - lam) / beta) for q, r in zip(ref, rewards, strict=True))

    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) > 1 else (low, middle)
    lam = (low + high) / 2
    return [q * inverse_f_prime(name, (r - lam) / beta) for q, r in zip(ref, rewards, strict=True)]


def rpo_two_arms(p, beta, eta, ref_logit):
    """core oracle R6: (p - σ(βh)) + η (p - σ(h + z_ref)) = 0, solved for the log-ratio difference h."""
    sigmoid = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    low, high = -40.0, 40.0
    for _ in range(200):
        middle = (low + high) / 2
        value = (p - sigmoid(beta * middle)) + eta * (p - sigmoid(middle + ref_logit))
        low, high = (middle, high) if value > 0 else (low, middle)
    return (low + high) / 2

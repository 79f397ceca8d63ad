"""Claims on trial about f-DPO: which divergence reaches the most, is the most diverse, and is calibrated best."""

from typing import Any

from verdicts import Claim, Figure, measured, of_seeds, read

OTHERS = {
    "jensen_shannon": "Jensen-Shannon",
    "forward_kl": "forward KL",
    "alpha": "α = 0.5",
    "chi_squared_kl": "χ² + KL",
}
KL, SOURCE, CURVATURE = "dpo", "Wang et al. 2023 (f-DPO)", 0.1


def at_one_curvature() -> Claim:
    """Gold reward at three β, two seeds."""
    told = read("sentiment_frontier")
    figures = [measured(f"over {name}", one, "prompts") for name, one in told["reverse_kl_minus_other"].items()]
    return Claim(
        SOURCE, "Of the divergences, reverse KL reaches the highest reward.",
        "SmolLM2-135M, 24 steps of 16 pairs, β f''(1) as named; two seeds averaged, so that other seeds may fall otherwise", figures,
        "python scripts/bench/quality/sentiment_frontier.py DATA OUT", "sentiment_frontier", "sentiment_frontier.png",
    )  # fmt: skip


def less(one: dict[str, Any], other: dict[str, Any], measure: str, what: str, *, sign: int = 1) -> Figure:
    """A measure of one policy less that of another, seed by seed."""
    values = zip(one[measure]["each"], other[measure]["each"], strict=False)
    return of_seeds(what, [sign * (mine - theirs) for mine, theirs in values])


def of_diversity(setting: str, command: str) -> list[Claim]:
    """In the bench of methods, three seeds at one curvature."""
    told = read("methods")["methods"]
    forward, between = told["forward_kl"], told["jensen_shannon"]
    others = {"reverse KL (DPO)": told[KL]} | {name: told[key] for key, name in OTHERS.items() if key != "forward_kl"}
    diverse = [
        less(forward, one, "distinct", f"distinct bigrams, less those of {name}") for name, one in others.items()
    ]
    diverse += [
        less(forward, one, "self_bleu", f"self-BLEU, of {name} less its own", sign=-1) for name, one in others.items()
    ]
    middle = [
        less(between, forward, "gold", "gold reward, less that of forward KL"),
        less(told[KL], between, "gold", "gold reward, of reverse KL less its own"),
        less(between, told[KL], "distinct", "distinct bigrams, less those of reverse KL"),
        less(forward, between, "distinct", "distinct bigrams, of forward KL less its own"),
    ]
    return [
        Claim(SOURCE, "Of the divergences, forward KL is the most diverse.", setting, diverse, command, "methods"),
        Claim(SOURCE, "Jensen-Shannon lies between reverse and forward KL, in reward and in diversity.", setting, middle, command, "methods"),
    ]  # fmt: skip


def of_calibration() -> list[Claim]:
    """Both calibration errors: of the margin in the bench of methods, of the likelihood with five divergences at one curvature."""
    told = read("methods")["methods"]
    margins = [
        measured(
            f"error of σ(margin), of reverse KL less that of {name}", told[key][f"ece, less {KL}"], "seeds", sign=-1
        )
        for key, name in OTHERS.items()
    ]
    by_seed: dict[str, dict[int, float]] = {}
    for run in read("sentiment_frontier")["runs"]:
        if run["beta_at_matched_curvature"] == CURVATURE:
            by_seed.setdefault(run["divergence"], {})[run["seed"]] = run["ece_of_likelihood"]
    own = by_seed["reverse_kl"]
    likelihoods = [
        of_seeds(
            f"error of the likelihood, of reverse KL less that of {name}", [own[seed] - by_seed[key][seed] for seed in sorted(own)]
        )
        for key, name in OTHERS.items()
    ]  # fmt: skip
    setting = (
        f"SmolLM2-135M continues reviews by 20 tokens, β f''(1) = {CURVATURE}; of the margin after 210 steps of 4 pairs, three seeds, on 128 "
        "held-out pairs, without what chance adds; of the likelihood, as in the paper's figures, after 24 steps of 16 pairs, two seeds, on 163"
    )
    return [
        Claim("after Wang et al. 2023 (f-DPO), whose bound on the calibration error grows with the divergence", "Reverse KL, which goes furthest from the reference, has the largest calibration error.", setting, [*margins, *likelihoods], "python scripts/studies/methods.py DATA OUT; python scripts/bench/quality/sentiment_frontier.py DATA OUT", "methods"),
    ]  # fmt: skip

"""Claims on trial that were tried on continuations of reviews: what DPO does to a policy, and what is made of several."""

from verdicts import Claim, Figure, over, read

UNITS = {"pairs": ("pairs", "over prompts"), "prompts": ("prompts", "over prompts")}
ON = "SmolLM2-135M continues reviews by 20 tokens"
SEEDS = "over seeds where n counts them, else of the seeds that were run"
GOLD = "gold reward by a better classifier on 256 others"


def of_overoptimisation() -> list[Claim]:
    """A policy that learns long from a weak judge's pairs."""
    told, unit = read("overoptimisation")["policies"], UNITS["prompts"]
    setting = (
        "SmolLM2-135M continues reviews; 240 steps of 4 of 120 pairs that a weak classifier ranked, β = 0.02; gold reward in [-1, 1] by a "
        f"lexicon that minds repetition, on 96 others; {SEEDS}"
    )
    command, fell = "python scripts/studies/reviews/overoptimisation.py DATA OUT", "gold, end less best"
    lost = [over("dpo: gold reward, best checkpoint less the last", told["dpo"][fell], *unit, sign=-1)]
    mended = [
        over(f"{name}: {what}, less that of dpo", one[f"{key}, less that of dpo"], *unit)
        for name, one in told.items() if name != "dpo"
        for what, key in (("gold reward at the end", "gold at the end"), ("gold reward, end less best", fell))
    ]  # fmt: skip
    return [
        Claim("Gao et al. 2023; Rafailov et al. 2024", "A policy that learns on from a weak judge's pairs loses reward by a better one (over-optimisation).", setting, lost, command, "overoptimisation", "overoptimisation.png"),
        Claim("Liu et al. 2024 (RPO)", "The likelihood term mitigates over-optimisation.", setting, mended, command, "overoptimisation"),
    ]  # fmt: skip


def of_sweet_spot() -> list[Claim]:
    """Which of many answers to reject."""
    told = read("sweet_spot")
    apart = 1 - told["pairs"]["two deviations below"]["rejected is the worst"]
    setting = (
        f"SmolLM2-135M continues reviews; 120 pairs of 64 answers each, of which {apart:.0%} differ between the rules; 120 steps of 4; "
        f"gold reward by a better classifier on 128 others; {SEEDS}"
    )
    one = told["rules"]["two deviations below"]
    figures = [
        over(f"{told['measures'][measure]}, less that of rejecting the worst", one[f"{measure}, less that of worst"], "prompts", "over prompts")
        for measure in ("gold", "proxy")
    ]  # fmt: skip
    return [
        Claim("Xiao et al. 2025 (sweet spot)", "Rejecting the answer two deviations below the mean reaches more than rejecting the worst.", setting, figures, "python scripts/studies/reviews/sweet_spot.py DATA OUT", "sweet_spot", "sweet_spot.png"),
    ]  # fmt: skip


def of_averages() -> list[Claim]:
    """What three adapters make together."""
    told = read("averages")
    setting = (
        f"{ON}; DPO, 210 steps of 4 pairs, ranked by a weak classifier; {told['runs of a group']} runs of other seeds a group, no run in two "
        f"groups; {GOLD}; over groups where n counts seeds"
    )
    command = "python scripts/studies/reviews/averages.py DATA OUT"

    def figures(name: str) -> list[Figure]:
        one = told["policies"][name]
        return [
            over("gold reward, less that of its runs", one["gold, less that of dpo"], *UNITS["prompts"]),
            over(
                "KL, of its runs less its own, nats an answer", one["kl, less that of dpo"], *UNITS["prompts"], sign=-1
            ),
        ]

    return [
        Claim("Wortsman et al. 2022 (model soups); Ramé et al. 2024 (WARP)", "The mean of three runs' adapters reaches more than they do on average, nearer to the reference.", setting, figures("soup"), command, "averages", "averages.png"),
        Claim("Jang et al. 2024 (model stock)", "Model stock reaches more than its three runs do on average, nearer to the reference.", setting, figures("model stock"), command, "averages"),
    ]  # fmt: skip


def of_squeezing() -> list[Claim]:
    """Where the probability goes that DPO takes from answers."""
    told, command = read("squeezing")["conditions"], "python scripts/studies/reviews/squeezing.py DATA OUT"
    setting = f"{ON}; 210 steps of 4 pairs of its own answers; 128 held-out pairs, token by token; {SEEDS}"
    dpo, extended = told["dpo"], told["extend, then dpo"]
    squeezed = [
        over(
            "log-probability of the likeliest token, end less beginning, nats",
            dpo["peak, end less begin"],
            *UNITS["pairs"],
        ),
        over(
            "chosen answers' log-probability, beginning less end, nats",
            dpo["chosen, end less begin"],
            *UNITS["pairs"],
            sign=-1,
        ),
    ]
    cured = [
        over(
            "chosen answers' log-probability, end less beginning of DPO, less that of dpo alone",
            extended["chosen, end less begin, less that of dpo"],
            *UNITS["pairs"],
        ),
        over(
            "chosen answers' log-probability at the end, less that of dpo alone",
            extended["chosen at the end, less that of dpo"],
            *UNITS["pairs"],
        ),
    ]
    source = "Ren and Sutherland 2024 (learning dynamics)"
    return [
        Claim(source, "DPO squeezes: chosen answers lose probability, and the likeliest token gains it.", setting, squeezed, command, "squeezing", "squeezing.png"),
        Claim(source, "Learning both sides by likelihood first mends it: chosen answers fall less in DPO, and end likelier.", setting, cured, command, "squeezing"),
    ]  # fmt: skip


def of_single_stream() -> list[Claim]:
    """One answer to a prompt against groups."""
    told = read("single_stream")["policies"]
    setting = (
        f"{ON}; 150 steps of 8 answers to 150 beginnings, the reward a weak classifier; {GOLD}; values begin at 0.5 without answers of their "
        f"own, which the paper has; {SEEDS}"
    )
    figures = [
        over(f"{said}, less that of groups of four", told["single stream"][f"{measure}, less that of groups"], *UNITS["prompts"])
        for measure, said in (("gold", "gold reward"), ("proxy", "proxy reward, which is learned from"))
    ]  # fmt: skip
    return [
        Claim("Xu and Ding 2025 (single-stream policy optimization)", "One answer to a prompt, against what that prompt earned before, reaches more than groups with as many tokens.", setting, figures, "python scripts/studies/reviews/single_stream.py DATA OUT", "single_stream", "single_stream.png"),
    ]  # fmt: skip

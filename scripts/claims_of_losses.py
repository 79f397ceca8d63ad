"""Claims on trial about what losses on rows teach: supervised ones, and those that learn to revise."""

from verdicts import Claim, Figure, over, read

NAMES = {"dpo": "DPO", "reference": "the model as it comes"}


def of_supervised() -> list[Claim]:
    """Losses on worked solutions, clean and noisy."""
    told = read("supervised")
    setting = (
        "SmolLM2-135M, 40 steps of 8 easy word problems with equations; 96 held-out problems of the same collection and 96 of another; "
        "SFT on the same rows; over seeds where n counts them, else of the seeds that were run"
    )
    trials = {  # those that were not run yet are left out
        "clean, dft": ("Wu et al. 2025 (DFT)", "DFT generalises better than SFT."),
        "cold, dft": ("the same", "So it does where the model has not seen such answers before."),
        "clean, asft": ("Zhu et al. 2025 (ASFT)", "ASFT, which is DFT with a pull to the reference, generalises better than SFT."),
        "noisy, poft": (
            "Fan et al. 2024 (PoFT)",
            f"Where rows are noisy ({told['share of wrong rows']:.0%} of the equations are wrong here), weighing them by what aligned models find likely reaches more than SFT.",
        ),
    }  # fmt: skip

    def of(condition: str) -> list[Figure]:
        return [
            over(f"{said}, {of_set}", told["less sft"][condition][f"{measure}, {name}"], "problems", "over problems, as one family")
            for name, of_set in told["sets"].items() for measure, said in told["measures"].items()
        ]  # fmt: skip

    return [
        Claim(source, says, setting, of(condition), "python scripts/studies/supervised.py DATA OUT", "supervised", "supervised.png" if condition == "clean, dft" else None)
        for condition, (source, says) in trials.items() if condition in told["less sft"]
    ]  # fmt: skip


def of_revisions() -> list[Claim]:
    """Answers that a policy is shown as drafts, twice."""
    told = read("revisions")["policies"]
    setting = (
        "SmolLM2-135M, 22 steps of 4 of the quickstart's pairs; 100 other prompts answered and twice revised at temperature 0.7; "
        "gold reward in [-1, 1]; over seeds where n counts them, else of the seeds that were run"
    )

    command, own, unit = "python scripts/studies/revisions.py OUT", told["srpo"], ("prompts", "over prompts")
    gained = [
        over("gold reward, last revision less first answer", own["last less first"], *unit),
        over(
            "win rate of the last revision against the first answer",
            own["last against first, win rate"],
            *unit,
            bar=0.5,
        ),
    ]
    beyond = [
        over(f"gold reward, last revision less first answer, less that of {NAMES[name]}", own[key], *unit)
        for name in NAMES if (key := f"last less first, less that of {name}") in own
    ]  # fmt: skip
    return [
        Claim("Choi et al. 2024 (SRPO)", "A policy trained by SRPO makes its answers better when it revises them.", setting, gained, command, "revisions", "revisions.png"),
        Claim("the same", "It gains more by its revisions than what has not learnt to revise.", setting, beyond, command, "revisions"),
    ]  # fmt: skip

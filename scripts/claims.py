"""What papers claim and what alignkit claims, each with its figure, interval and verdict; `claims_page.py` shows them.

The verdict follows from the interval: the claim *held* if all of it lies on the claim's side of the bar, it *did not hold* if all
of it lies on the other, and else it *cannot be told* at this size. The size that would tell is that at which an interval of this
kind, around a value as large as the one measured, ends at the bar: a guess from the value measured, which is uncertain itself.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eval.statistics.intervals import over_seeds, t_quantile

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "scripts" / "bench" / "results"
HELD, NOT, OPEN = "held", "did not hold", "cannot be told at this size"
LEVEL = 0.95
MOST_SEEDS = 1000


class Figure(NamedTuple):
    """A measured value, with its interval."""

    what: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    """What n counts: seeds, prompts, pairs, problems, rounds; or nothing, where the value is exact."""
    bar: float = 0.0
    """The claim says that the value is above it."""

    @property
    def verdict(self) -> str:
        """By the interval alone."""
        return HELD if self.low > self.bar else NOT if self.high < self.bar else OPEN

    @property
    def enough(self) -> str:
        """How many would tell, if the value is as measured."""
        half, away = (self.high - self.low) / 2, abs(self.value - self.bar)
        if self.verdict != OPEN or not self.unit:
            return ""
        if away < half / 100:
            return "no size, if it is as small as this"
        if self.unit != "seeds":
            return f"{math.ceil(self.n * (half / away) ** 2)} {self.unit}"
        deviation = half * math.sqrt(self.n) / t_quantile(LEVEL, self.n)
        seeds = (n for n in range(2, MOST_SEEDS) if t_quantile(LEVEL, n) * deviation / math.sqrt(n) < away)
        return f"{next(seeds, f'over {MOST_SEEDS}')} seeds"

    def told(self) -> str:
        """With its interval, and of how many."""
        interval = "" if self.low == self.high else f" [{self.low:.3g}, {self.high:.3g}]"
        return f"{self.value:.3g}{interval}{f', {self.n} {self.unit}' if self.unit else ''}"


class Claim(NamedTuple):
    """What is said, by whom, and what was measured."""

    source: str
    says: str
    setting: str
    figures: list[Figure]
    command: str
    result: str
    """File of `scripts/bench/results`."""
    picture: str | None = None


def measured(what: str, one: dict[str, Any], unit: str, *, bar: float = 0.0, sign: int = 1) -> Figure:
    """A figure of a result file: value, low, high and n."""
    low, high = sorted((sign * one["low"], sign * one["high"]))
    return Figure(what, sign * one["value"], low, high, one.get("n", 0), unit, bar)


def of_seeds(what: str, values: list[float]) -> Figure:
    """The mean over seeds, by Student's t."""
    one = over_seeds(np.array(values), level=LEVEL)
    return Figure(what, one.value, one.low, one.high, one.n, "seeds")


def read(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


NAMES = {"dpo": "DPO", "irpo": "Iterative RPO", "dno": "DNO"}
STUDIED = {
    "rounds_against_one": "continuations of reviews, classifier",
    "rounds_against_one_math": "word problems, right answers",
}
"""Result files of rounds against one shot, and what was answered."""


def of_rounds() -> list[Claim]:
    """Rounds against one shot, by task and method."""
    against, gained = [], []
    for result, task in STUDIED.items():
        for method, told in read(result).items() if (RESULTS / f"{result}.json").is_file() else ():
            seeds = list(told["seeds"].values())
            what = f"{NAMES[method]}, {task}"
            against.append(of_seeds(what, [one["three rounds minus one"]["gold"]["value"] for one in seeds]))
            gained.append(of_seeds(what, [one["three rounds minus beginning"]["value"] for one in seeds]))
    setting = "SmolLM2-135M; three rounds of 48 prompts, or one of 144, four answers each; gold reward on 192 others"
    command = "python scripts/studies/rounds_against_one.py DATA OUT --seeds 3"
    return [
        Claim("Rosset et al. 2024 (DNO), Pang et al. 2024 (Iterative RPO)", "Several rounds give a better policy than one round of the same prompts, answers and pairs.", setting, against, command, "rounds_against_one", "rounds_against_one.png"),
        Claim("the same", "Three rounds raise the reward over what training began with.", setting, gained, command, "rounds_against_one"),
    ]  # fmt: skip


def of_fronts() -> list[Claim]:
    """Several policies, or one that is conditioned, against fixed weights."""
    figures = [
        measured(f"{method}: {indicator}", one[indicator]["minus fixed weights, over seeds"], "seeds")
        for method, one in read("fronts")["methods"].items()
        for indicator in ("hypervolume", "expected utility")
        if "minus fixed weights, over seeds" in one.get(indicator, {})
    ]
    return [Claim(
        "C-MORL, Pareto manifolds, rewarded soups, conditioned policies, UPGrad", "Each reaches more than fixed weights with as many answers sampled in training.",
        "SmolLM2-135M on easy word problems, 21 steps of 8 answers, three rewards; three seeds", figures,
        "python scripts/studies/fronts.py DATA OUT --seeds 3", "fronts", "fronts.png",
    )]  # fmt: skip


def of_divergences() -> list[Claim]:
    """f-DPO at matched curvature."""
    told = read("sentiment_frontier")
    figures = [measured(f"over {name}", one, "prompts") for name, one in told["reverse_kl_minus_other"].items()]
    return [Claim(
        "Wang et al. 2023 (f-DPO)", "Of the divergences, reverse KL reaches the highest reward.",
        "SmolLM2-135M, 24 steps of 16 pairs, β f''(1) as named; two seeds averaged, so that other seeds may fall otherwise", figures,
        "python scripts/bench/quality/sentiment_frontier.py DATA OUT", "sentiment_frontier", "sentiment_frontier.png",
    )]  # fmt: skip


def of_weights() -> list[Claim]:
    """Moving weights against fixed ones."""
    told = read("math_objectives")
    figures = [
        measured(one["second"], one | {"n": 48}, "problems", sign=-1)
        for one in told["differences_at_end"]
        if one["first"] == "fixed"
    ]
    return [Claim(
        "Lu et al. 2025 (dynamic reward weighting); UPGrad of Quinton and Rey 2024",
        "Weights that move while training reach more hypervolume than fixed ones in as many steps.",
        "SmolLM2-135M on easy word problems, 16 steps of 2 prompts with 8 answers, three rewards; these three seeds", figures,
        "python scripts/bench/quality/math_objectives.py DATA OUT", "math_objectives", "math_objectives_front.png",
    )]  # fmt: skip


def of_suboptimal() -> list[Claim]:
    """On-policy samples and a negative gradient, exactly."""
    told = read("suboptimal")["reward_after_steps"]["tilted"]
    at = {name: by_step["20"] for name, by_step in told.items()}
    both, parts = at["on, push ½"], max(at["on, push 0"], at["off, push ½"])
    exact = [
        Figure(
            "both less the better of the two, reward after 20 steps", both - parts, both - parts, both - parts, 0, ""
        )
    ]
    return [Claim(
        "Tajwar et al. 2024 (suboptimal, on-policy data)", "On-policy samples and a negative gradient help each by itself, and add up.",
        "a bandit whose data lie far from its best arm, tilted start; without noise", exact, "python scripts/studies/suboptimal.py OUT",
        "suboptimal", "suboptimal.png",
    )]  # fmt: skip


def of_rankings() -> list[Claim]:
    """Whether a reference ranks people's pairs."""
    runs = {run["data"]: run for run in read("realdata")["runs"] if run["method"] == "dpo"}
    figures = []
    for data, run in runs.items():
        right = run["estimates"]["ref_ranking_accuracy/logp"]
        wrong = {"value": 1 - right["value"], "low": 1 - right["low"], "high": 1 - right["high"], "n": right["n"]}
        figures.append(measured(f"{data}: share ranked wrongly", wrong, "pairs", bar=0.5))
    return [Claim(
        "Chen et al. 2024 (preference rankings)", "A reference model ranks more than half of people's pairs wrongly by log-probability.",
        "SmolLM2-135M, held-out pairs", figures, "python scripts/bench/quality/realdata.py DATA OUT", "realdata",
    )]  # fmt: skip


def of_ours() -> list[Claim]:
    """What alignkit says of itself."""
    steps = read("step")["steps"]
    speed = [
        Figure(f"prompt:answer {shape}", each["trl_best"]["times_ours"], each["trl_best"]["times_ours_min"], each["trl_best"]["times_ours_max"], each["trl_best"]["rounds"], "rounds", 1.1)
        for shape, each in steps.items() if each["trl_best"]["rounds"] > 1
    ]  # fmt: skip
    online = read("online")["rows"]
    steps_online = []
    for row in online:
        ratios = row["times_ours"]["trl_default"]
        if len(ratios) > 1:
            what = f"prompt:answer {row['prompt']}:{row['answer']}"
            steps_online.append(
                Figure(what, float(np.median(ratios)), min(ratios), max(ratios), len(ratios), "rounds", 1.0)
            )
    cells = [row["coverage"] for row in read("coverage")["coverage"]]
    sets = read("coverage")["sets"]
    covering = Figure(
        "share of kinds and sizes that cover at least 90%", float(np.mean([one >= 90 for one in cells])), 0, 0, 0, ""
    )
    covering = covering._replace(low=covering.value, high=covering.value, bar=0.9)
    kills = read("kills")["methods"].values()
    equal = sum(one["kills"] * one["weights_equal_to_the_bit"] for one in kills)
    killed = Figure(
        "killed runs that ended as runs that were not, to the bit",
        equal / sum(one["kills"] for one in kills),
        0,
        0,
        0,
        "",
    )
    killed = killed._replace(low=killed.value, high=killed.value, bar=0.99)
    return [
        Claim("prefix sharing: Wang and Hegde 2024; alignkit", "Sharing a pair's prompt makes a step 1.1 to 1.6 times as fast (bar: 1.1 times, against TRL's best setting; range over rounds).", "SmolLM2-135M, 2 CPU cores", speed, "python scripts/bench/speed/step.py", "step", "step.png"),
        Claim("alignkit", "An online step takes less CPU time than TRL's GRPO (times ours; range over rounds).", "SmolLM2's width, 8 layers, groups of 8, one thread", steps_online, "python scripts/bench/speed/online.py", "online"),
        Claim("alignkit", "An interval of a report holds the truth in about 95% of samples.", f"{len(cells)} kinds of data and sizes, {sets} samples each; the rest are KLs of heavy tails, which the report names", [covering], "python scripts/bench/quality/coverage.py", "coverage"),
        Claim("alignkit", "A run that is killed goes on to the same weights.", f"{sum(one['kills'] for one in read('kills')['methods'].values())} SIGKILLs, five methods, tiny model", [killed], "python scripts/bench/safety/kills.py", "kills"),
    ]  # fmt: skip


UNTRIED = {
    "RPO keeps chosen answers likely, and mitigates over-optimisation": "rpo/smollm2-ultrafeedback",
    "SRPO's revisions raise the win rate": "srpo/tiny",
    "DFT and ASFT generalise better than SFT": "supervised/dft-math, supervised/asft-math",
    "CoPG learns from off-policy data": "pairwise/copg-ultrafeedback",
    "Many rewards: max-min raises the worst group": "online/tiny-grpo with weighting: max_min",
}
"""Claims without a study, and the recipes that would be one."""


def claims() -> list[Claim]:
    return [*of_rounds(), *of_divergences(), *of_weights(), *of_fronts(), *of_suboptimal(), *of_rankings(), *of_ours()]

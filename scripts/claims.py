"""What papers claim and what alignkit claims, each with its figures; `verdicts.py` says when one held, `claims_page.py` shows them."""

import numpy as np
from claims_of_divergences import at_one_curvature, of_calibration, of_diversity
from claims_of_instructions import of_instructions
from claims_of_losses import of_revisions, of_supervised
from claims_of_reviews import of_averages, of_overoptimisation, of_single_stream, of_squeezing, of_sweet_spot
from verdicts import RESULTS, Claim, Figure, measured, of_seeds, read

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


FRONTS = {
    "fronts": ("math", "easy word problems, 21 steps of 8 answers, three rewards"),
    "fronts_dialogue": ("dialogue", "sentences of a booking assistant, 20 steps of 8 answers, two reward models of people's ratings"),
}  # fmt: skip
"""Result files of ways to a front, with task and setting."""


def of_fronts() -> list[Claim]:
    """Several policies, or one that is conditioned, against fixed weights."""
    made = []
    for result, (task, setting) in FRONTS.items():
        if not (RESULTS / f"{result}.json").is_file():
            continue
        methods, figures = read(result)["methods"], []
        for method, one in methods.items():
            for indicator in ("hypervolume", "expected utility") if method != "before" else ():
                less = {
                    key: one.get(indicator, {}).get(f"minus fixed weights, over {key}") for key in ("seeds", "prompts")
                }
                unit = "seeds" if less["seeds"] else "prompts"
                if less[unit]:
                    figures.append(measured(f"{method}: {indicator}", less[unit], unit))
        seeds = max(one["seeds"] for one in methods.values())
        made.append(Claim(
            "C-MORL, Pareto manifolds, rewarded soups, conditioned policies, UPGrad", "Each reaches more than fixed weights with as many answers sampled in training.",
            f"SmolLM2-135M on {setting}; {seeds} seed{'s' * (seeds > 1)}", figures,
            f"python scripts/studies/fronts.py DATA OUT --task {task} --seeds 3", result, f"{result}.png",
        ))  # fmt: skip
    return made


def of_groups() -> list[Claim]:
    """People of two kinds."""
    told = read("groups")
    setting = "SmolLM2-135M on PandaLM's prompts and answers; 12 simulated people who like long answers, 4 who like short ones, 16 pairs each; three seeds"
    command = "python scripts/studies/planted_groups.py DATA OUT --seeds 3"
    over = told["over seeds"]
    found = [
        measured(f"adjusted Rand at {pairs} pairs", told["by pairs"][pairs], "drawings", bar=0.9)
        for pairs in ("8", "16")
    ]
    ranked = measured("", over["groups found minus pooled, the worst group ranked right"], "seeds")
    won = measured("", over["max-min minus pooled, the smaller group"], "seeds")
    return [
        Claim("alignkit (after Park et al. 2024, Chakraborty et al. 2024)", "Groups of people are found from their choices alone (adjusted Rand above 0.9).", setting, found, command, "groups", "groups.png"),
        Claim("Chakraborty et al. 2024 (MaxMin-RLHF)", "A reward model for each group ranks the worse served group's pairs better than one for all.", setting, [ranked._replace(what="share ranked right, groups found less pooled")], command, "groups"),
        Claim("the same", "A policy trained for the worst group serves the smaller group better than one trained on the pooled reward.", f"{setting}; GRPO, 8 steps of 8 answers", [won._replace(what="win rate of the smaller group, max-min less pooled")], command, "groups"),
    ]  # fmt: skip


def of_tools() -> list[Claim]:
    """Policies that call tools."""
    told = read("tool_calls")["stratified minus group"]
    figures = [
        measured(f"{who}: share answered rightly", told[policy]["right"], "questions")
        for who, policy in (("weighing right answers alone", "first-1"), ("weighing few calls, too", "first-2"))
    ]
    return [Claim(
        "Zhu et al. 2025 (stratified GRPO)", "Comparing the answers to a question with those that call tools as often makes a better searcher than comparing all.",
        "SmolLM2-135M as planner and frozen answerer, invented facts, 12 steps of 8 answers; over questions, given these seeds", figures,
        "python scripts/studies/tool_calls.py OUT --seeds 3", "tool_calls", "tool_calls.png",
    )]  # fmt: skip


def of_methods() -> list[Claim]:
    """The bench in which methods can differ."""
    told = read("methods")["methods"]

    def less(name: str, measure: str, *, sign: int = 1) -> Figure:
        """Less DPO's; over seeds where there are three, else over beginnings or pairs."""
        one, unit = told[name], "pairs" if measure in ("chosen", "rejected") else "prompts"
        seeds = one["seeds"] > 2
        found = one[f"{measure}, less dpo" if seeds else f"{measure}, less dpo, over items"]
        what = f"{name}: {measure}, {'less that of dpo' if sign > 0 else 'of dpo less its own'}"
        return measured(what, found, "seeds" if seeds else unit, sign=sign)

    def of_dpo(measure: str, sign: int) -> Figure:
        return measured(
            f"dpo: {measure}{', below its beginning' if sign < 0 else ''}",
            told["dpo"][f"{measure}, over items"],
            "pairs",
            sign=sign,
        )

    setting = (
        "SmolLM2-135M continues reviews by 20 tokens; 210 steps of 4 pairs, ranked by a weak classifier; gold reward by a better one on 256 "
        "others, log-ratios in nats on 128 held-out pairs; over seeds where n counts them, else of the seeds that were run"
    )
    command = "python scripts/studies/methods.py DATA OUT"
    etas = [name for name in told if name.startswith("rpo")]
    divergences = [name for name in ("jensen_shannon", "forward_kl", "alpha", "chi_squared_kl") if name in told]
    made = [
        Claim("Rafailov et al. 2024; Pal et al. 2024", "DPO makes the chosen answers less likely, too.", setting, [of_dpo("chosen", -1)], command, "methods", "methods.png"),
        Claim("Liu et al. 2024 (RPO)", "The likelihood term keeps chosen answers more likely than DPO does.", setting, [less(name, "chosen") for name in etas], command, "methods"),
        Claim("Liu et al. 2024 (RPO)", "It reaches a higher gold reward than DPO, where the reward that is learned from is a proxy.", setting, [less(name, "gold") for name in etas], command, "methods"),
        Claim("Wang et al. 2023 (f-DPO)", "At the same curvature reverse KL (DPO) reaches the highest reward.", setting, [less(name, "gold", sign=-1) for name in divergences], command, "methods"),
    ]  # fmt: skip
    others = {
        "copg": ("Flet-Berliac et al. 2024 (CoPG)", "CoPG on off-policy pairs reaches more than DPO.", "gold"),
        "discopop": ("Lu et al. 2024 (DiscoPOP)", "The loss that was found by a search reaches more than DPO.", "gold"),
        "simpo": ("Meng et al. 2024 (SimPO)", "Without a reference, by length-normalised likelihood, more is reached than by DPO.", "gold"),
        "kto": ("Ethayarajh et al. 2024 (KTO)", "Labels of single answers reach more than pairs.", "gold"),
        "extend, then dpo": ("Ren and Sutherland 2024 (learning dynamics)", "Learning both sides by likelihood first keeps the chosen answers more likely.", "chosen"),
        "dpo in rounds": ("Rosset et al. 2024 (DNO), and others", "Pairs that are sampled anew in rounds reach more than pairs of the reference.", "gold"),
        "grpo": ("Tajwar et al. 2024, and others", "Learning online from the reward reaches more than pairs of the reference.", "gold"),
    }  # fmt: skip
    made += [
        Claim(source, says, setting, [less(name, measure)], command, "methods")
        for name, (source, says, measure) in others.items()
        if name in told
    ]
    return [*made, *of_diversity(setting, command)]


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
    told = read("rankings")
    figures = [
        measured(f"{name}: share ranked wrongly", one["share ranked wrongly"]["logp"], "prompts", bar=0.5)
        for name, one in told["sets"].items()
    ]
    return [Claim(
        "Chen et al. 2024 (preference rankings)", "A reference model ranks more than half of people's pairs wrongly by log-probability.",
        "SmolLM2-135M-Instruct in float32; pairs with sides of at most 512 tokens, intervals over prompts", figures,
        "python scripts/studies/rankings.py DATA OUT", "rankings", "rankings.png",
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


def claims() -> list[Claim]:
    return [
        *of_methods(),
        *of_rounds(),
        *of_instructions(),
        at_one_curvature(),
        *of_calibration(),
        *of_weights(),
        *of_fronts(),
        *of_groups(),
        *of_tools(),
        *of_suboptimal(),
        *of_rankings(),
        *of_supervised(),
        *of_revisions(),
        *of_overoptimisation(),
        *of_sweet_spot(),
        *of_averages(),
        *of_squeezing(),
        *of_single_stream(),
        *of_ours(),
    ]

"""Claims on trial that were tried on instructions that rules check."""

from verdicts import Claim, Figure, measured, over, read

COMMAND, RESULT = "python scripts/studies/checked/instructions.py DATA OUT", "instructions"
SETTING = (
    "SmolLM2-135M, 150 steps of 4 pairs of its own short answers, paired by the constraints that they keep and by whether they end (KTO 4 answers "
    "a step, GRPO 8); 192 other requests, 96 of them also with forms that training has not; intervals over seeds where n counts seeds, else over "
    "requests with the seeds held fixed"
)
ENOUGH = -0.05
"""As much as DPO, where a paper says so: not more than this below it."""


def of_instructions() -> list[Claim]:
    """What is learnt from a checker's pairs, or from the checker."""
    told = read(RESULT)
    said = told["measures"]

    def less(name: str, measure: str, *, of: str = "dpo", sign: int = 1, bar: float = 0.0) -> Figure:
        first, second = (name, of) if sign > 0 else (of, name)
        unit = "pairs" if measure in ("chosen", "rejected") else "prompts"
        of_both = f"{measure}, less that {'of ' * (of != 'before')}{of}"
        what = f"{first}: {said[measure]}, less that {'of ' * (second != 'before')}{second}"
        found = told["methods"][name][of_both]
        if of == "before":  # which is one draw for all seeds: they do not show its noise
            return measured(what, found["over prompts"], unit, bar=bar, sign=sign)
        return over(what, found, unit, "over prompts", bar, sign)

    learners = ("dpo", "dpo in rounds", "grpo")
    carried = [less(name, "form, unseen", of="before") for name in learners]
    fell = [less(name, "relevance", of="before", sign=-1) for name in learners]
    trials: list[tuple[str, str, list[Figure]]] = [
        ("Rafailov et al. 2023 (DPO)", "Learning from pairs reaches more than learning the chosen answers alone.", [less("sft", "kept", sign=-1)]),
        ("after Pang et al. 2024 (Iterative RPO)", "Where answers can be checked, a likelihood term raises what DPO reaches.", [less("rpo 0.5", "kept")]),
        ("Liu et al. 2024 (RPO)", "The likelihood term keeps chosen answers likely, and the judge is gamed less: answers stay relevant to the request.", [less("rpo 0.5", one) for one in ("chosen", "relevance")]),
        ("Ethayarajh et al. 2024 (KTO)", "KTO, which reads no pairs, and here half as many answers, reaches as much as DPO (bar: 0.05 below).", [less("kto", "kept", bar=ENOUGH)]),
        ("Wang et al. 2023 (f-DPO)", "Jensen-Shannon reaches as much as reverse KL (bar: 0.05 below), from nearer to the reference.", [less("jensen_shannon", "kept", bar=ENOUGH), less("jensen_shannon", "kl", sign=-1)]),
        ("Rosset et al. 2024 (DNO), Pang et al. 2024 (Iterative RPO)", "Several rounds reach more than one.", [less("dpo in rounds", "kept")]),
        ("after Pyatkin et al. 2025 (IFBench)", "Learning to keep seven forms helps with three that training has not.", carried),
        ("after Gao et al. 2023 (over-optimisation)", "What the judge does not read suffers: answers become less relevant to the request.", fell),
    ]  # fmt: skip
    return [Claim(source, says, SETTING, figures, COMMAND, RESULT, f"{RESULT}.png" if place == 0 else None) for place, (source, says, figures) in enumerate(trials)]  # fmt: skip

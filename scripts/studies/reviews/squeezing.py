"""Asks where the probability goes that DPO takes from answers: to the likeliest token (squeezing), and whether learning both sides first mends it.

Run: python scripts/studies/reviews/squeezing.py DATA_FOLDER OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; what was
killed goes on, and an OUT_FOLDER of `methods.py` or `averages.py` lends its runs. After every run squeezing.json and squeezing.png are
written anew.

Runs are two conditions of `methods.py`: DPO, 210 steps of 4 pairs; and the same after both sides of all pairs were learnt by likelihood
(extend, 70 steps of 8 answers). When DPO begins, half way and at the end, 128 held-out pairs are read token by token: `chosen` and
`rejected` are the log-probability of an answer, and `peak` that of the likeliest token, the mean over the tokens of both answers.
An answer's end is left out: it was cut, and not written by anyone.

After Ren and Sutherland 2024, "Learning dynamics of LLM finetuning" (arXiv:2407.10490), which has models of up to 2.8B, pairs that the
policy did not write, and watches the answers of training. Here the reference wrote the pairs, and they are held out.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import methods
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from study_parts.as_json import over, over_less
from study_parts.results import arguments, held_out_pairs, made_on, once, records_of, write_results

from align.models.loading import load_tokenizer
from align.sampling.policy import Policy, policy_of
from align.scoring.completions import Sequences, pair_ids

BEGINS = {"dpo": None, "extend, then dpo": methods.WARM}
COLOURS = {"dpo": "#9a6700", "extend, then dpo": "#1f6feb"}
POINTS, AGAINST, RESULT = ("begin", "half", "end"), "dpo", "squeezing"
MEASURES = {
    "chosen": "chosen answers' log-probability, nats",
    "rejected": "rejected answers' log-probability, nats",
    "peak": "log-probability of the likeliest token, nats a token",
}
Points = Float[np.ndarray, "seeds points pairs"]


def tokens_of(model: Any, prompt: list[int], answer: list[int]) -> tuple[list[float], list[float]]:
    """Log-probabilities of an answer's tokens, and of the likeliest token in the place of each; the last is left out."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + answer], device=model.device)
        logps = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -2].float().log_softmax(-1)
    own = logps.gather(-1, ids[0, len(prompt) : -1, None]).squeeze(-1)
    return own.tolist(), logps.max(-1).values.tolist()


def read_pairs(model: Any, pairs: list[Sequences]) -> dict[str, list[float]]:
    """The measures of each pair."""
    found: dict[str, list[float]] = {measure: [] for measure in MEASURES}
    for pair in pairs:
        sides = [tokens_of(model, *side) for side in pair]
        for side, (own, _) in zip(("chosen", "rejected"), sides, strict=True):
            found[side].append(round(sum(own), 4))
        found["peak"].append(round(float(np.mean([one for _, peaks in sides for one in peaks])), 5))
    return found


def points_of(name: str, seed: int, out: Path, ref: Policy) -> dict[str, Policy]:
    """The policy when DPO begins, half way and at the end; what is there is not trained again."""
    later = methods.trained(name, seed, out)
    begin = BEGINS[name]
    if begin is None:
        return {"begin": ref, **later}
    return {"begin": policy_of(str(out / methods.as_file(name) / f"seed-{seed}" / begin)), **later}


def measured(policies: dict[str, Policy], ref: Policy, out: Path) -> dict[str, Any]:
    """The measures of held-out pairs by every policy."""
    tokenizer: Any = load_tokenizer(ref.settings)
    pairs = [pair_ids(tokenizer, row["prompt"], row["chosen"], row["rejected"]) for row in held_out_pairs(out)]
    found = {}
    for when, policy in policies.items():
        with policy.load()() as model:
            found[when] = read_pairs(model, pairs)
    return found


def summary(found: dict[str, dict[str, Points]]) -> dict[str, Any]:
    """By condition: each measure at every point, what DPO changed, and both less those of DPO alone."""
    told: dict[str, Any] = {}
    changes = {
        name: {key: rows[:, -1] - rows[:, 0] for key, rows in measures.items()} for name, measures in found.items()
    }
    unbounded = (-np.inf, np.inf)
    for name, measures in found.items():
        one: dict[str, Any] = {"at": {}}
        for measure, rows in measures.items():
            one["at"][measure] = {when: over(rows[:, at], unbounded) for at, when in enumerate(POINTS)}
            one[f"{measure}, end less begin"] = over(changes[name][measure], unbounded)
            if name != AGAINST and AGAINST in found:
                gap = over_less(changes[name][measure], changes[AGAINST][measure], unbounded)
                one[f"{measure}, end less begin, less that of {AGAINST}"] = gap
                gap = over_less(rows[:, -1], found[AGAINST][measure][:, -1], unbounded)
                one[f"{measure} at the end, less that of {AGAINST}"] = gap
        told[name] = one
    return told


def drawn(told: dict[str, Any]) -> Figure:
    """Each measure from the beginning of DPO to its end; intervals over pairs."""
    figure = Figure(figsize=(9, 3.2), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(MEASURES))
    for axes, (measure, said) in zip(panels, MEASURES.items(), strict=True):
        for name, one in told.items():
            points = [one["at"][measure][when]["over prompts"] for when in POINTS]
            axes.plot(POINTS, [each["value"] for each in points], "o-", color=COLOURS[name], markersize=4, label=name)
            lows, highs = ([each[end] for each in points] for end in ("low", "high"))
            axes.fill_between(POINTS, lows, highs, color=COLOURS[name], alpha=0.12, linewidth=0)
        axes.set_title(said.replace(", ", ",\n"), fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
    return figure


def written(out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    records = records_of(out, [f"squeezing {name}" for name in BEGINS])
    found = {
        name.removeprefix("squeezing "): {
            measure: np.array([[one[when][measure] for when in POINTS] for one in some]) for measure in MEASURES
        }
        for name, some in records.items()
    }
    told = summary(found)
    write_results(RESULT, {**made_on(), "measures": MEASURES, "conditions": told}, drawn(told), results)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, seed by seed."""
    options = arguments(main.__doc__, "data", "out").parse_args(argv)
    out = options.out.absolute()
    ref = methods.begun(options.data, out)
    for seed in range(options.seeds):
        for name in BEGINS:
            once(
                out / "records" / f"squeezing {name}-{seed}.json",
                lambda name=name, seed=seed: measured(points_of(name, seed, out, ref), ref, out),
            )
            written(out, options.results)


if __name__ == "__main__":
    main()

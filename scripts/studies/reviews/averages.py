"""Asks whether the mean of three runs' adapters (a soup) and model stock reach more than the three runs do on average.

Run: python scripts/studies/reviews/averages.py DATA_FOLDER OUT_FOLDER [--seeds N] [-o RESULTS]. What is there is not done again; what was
killed goes on, and an OUT_FOLDER of `methods.py` lends its runs. After every group averages.json and averages.png are written anew.

Runs are DPO's of `methods.py`: 210 steps of 4 pairs that a weak classifier (the proxy) ranked. A group is three of them that differ in
their seed, which draws the first weights of LoRA and the order of the pairs; no run is in two groups, and N counts groups. Weight
changes are averaged, not the factors. 256 other beginnings are continued by each run and by what was made of it with the same noise.

After Wortsman et al. 2022, "Model soups" (arXiv:2203.05482), and Jang et al. 2024, "Model stock" (arXiv:2403.19522), which average all
weights of image models. LoRA's changes are averaged here.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import methods
from study_parts.policies import MEASURES, Rows, compared, ends_of, gold_against_kl
from study_parts.results import (
    arguments,
    before_training,
    made_on,
    once,
    records_of,
    write_results,
)

from align.merging.command import main as merge
from align.sampling.policy import policy_of

EACH, MEMBER, RESULT = 3, "dpo", "averages"
WAYS = {  # how `alignkit merge` makes it, and the folder that it writes
    "soup": (["--weights", ",".join([str(1 / EACH)] * EACH)], "soup-00"),
    "model stock": (["--stock"], "stock"),
}
COLOURS = {MEMBER: "#9a6700", "soup": "#1f6feb", "model stock": "#bf3989"}


def seeds_of(group: int) -> range:
    """The runs of a group."""
    return range(EACH * group, EACH * (group + 1))


def merged(way: str, group: int, out: Path) -> Path:
    """The adapter that is made of a group; what is there stays."""
    folder, (words, made) = out / methods.as_file(way) / f"group-{group}", WAYS[way]
    if not folder.is_dir():
        members = [str(out / MEMBER / f"seed-{seed}" / "adapter") for seed in seeds_of(group)]
        merge([*members, *words, "--out", str(folder)])
    return folder / made / "adapter"


def by_group(members: Rows) -> Rows:
    """The mean over the runs of each group; runs beyond the last whole group are left out."""
    groups = len(members) // EACH
    return members[: EACH * groups].reshape(groups, EACH, -1).mean(axis=1)


def written(out: Path, results: Path) -> None:
    """Figures and picture of what is there."""
    records, start = records_of(out, (MEMBER, *WAYS)), before_training(out)
    found = ends_of(records)
    found[MEMBER] = {measure: by_group(rows) for measure, rows in found[MEMBER].items()}
    told = compared(found, MEMBER)
    spent = sum(record["cpu_seconds"] for record in records[MEMBER])
    result = {**made_on(spent), "runs of a group": EACH, "measures": MEASURES, "reference": start, "policies": told}
    write_results(RESULT, result, gold_against_kl(told, start, COLOURS), results)


def main(argv: list[str] | None = None) -> None:
    """Run what is missing, group by group."""
    options = arguments(main.__doc__, "data", "out").parse_args(argv)
    out = options.out.absolute()
    ref = methods.begun(options.data, out)
    for group in range(options.seeds):
        for seed in seeds_of(group):
            methods.run_of(MEMBER, seed, ref, options.data, out)
        for way in WAYS:
            folder = merged(way, group, out)
            made = {"end": policy_of(str(folder))}
            once(
                out / "records" / f"{way}-{group}.json", lambda made=made: methods.record(made, ref, options.data, out)
            )
        written(out, options.results)


if __name__ == "__main__":
    main()

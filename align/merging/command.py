"""Merges LoRA adapters of one base, for `alignkit merge`.

Rewarded soups (weighted sums of the adapters' weight changes), model stock and SLERP are exact and need no base
(`align.merging.adapters`); so do TIES and DARE, cut to a rank (`align.merging.pruned`). Greedy soup, Frank-Wolfe and Fisher merging
load the base to measure mixes (`align.merging.measured`).
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from align.errors import DataError, RunError
from align.files import check_writable, new_folder, write_text
from align.models.identity import same_identity
from align.runs.contents import REFERENCE_FILE

from .adapters import Adapter, Factors, load_adapter_factors, save_merged, slerp, soup, stock
from .measured import MEASURED, How
from .pruned import KINDS, pruned

MERGE_FILE = "merge.json"


def check_mergeable(adapters: Sequence[Adapter]) -> str:
    """Refuse adapters that do not change the same weights.

    Returns:
        By what the bases were found to be the same: "digest" of the references, or "name" where no adapter has one.

    Raises:
        RunError: If there are fewer than two, or their bases, references or modules differ.
    """
    if len(adapters) < 2:
        raise RunError(f"merging needs at least 2 adapters, got {len(adapters)}")
    first = adapters[0]
    known = [adapter.reference is not None for adapter in adapters]
    if any(known) and not all(known):
        raise RunError(
            f"{adapters[known.index(False)].path}: no {REFERENCE_FILE} there, so its base cannot be compared with the others'"
        )
    for other in adapters[1:]:
        if other.factors.keys() != first.factors.keys() or _shapes(other) != _shapes(first):
            raise RunError(f"{other.path}: adapts other modules than {first.path}; merge adapters of one lora section")
        if not _same_base(other, first):
            if _base_digests(other) == _base_digests(first) is not None:
                raise RunError(
                    f"{other.path}: trained against another reference than {first.path}, on the same base; a merged adapter is "
                    "held against one: of rounds, merge those of `reference: first`"
                )
            raise RunError(
                f"{other.path}: of another base or reference ({_shown(other)}) than {first.path} ({_shown(first)}); a soup "
                "needs one base"
            )
    return "digest" if all(known) else "name"


Way = Callable[[Sequence[Adapter]], tuple[Factors, dict[str, Any]]]
"""Makes one adapter of several, and says what of it is to be written down."""


def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[Sequence[float]] = (),
    ways: Mapping[str, Way] | None = None,
) -> dict[str, Any]:
    """Merge adapters into a folder for each weight vector, and one for each further way.

    Args:
        paths: Adapter folders.
        out: New folder; it gets soup-00/adapter and so on for `weights`, NAME/adapter of `ways`, and merge.json.
        weights: For each soup one weight for each adapter, not negative, of sum 1.
        ways: By name, further merges: `stocked`, `summed`, `arc`, and those of `align.merging.pruned` and `align.merging.measured`.

    Returns:
        What merge.json holds.

    Raises:
        RunError: If the adapters do not belong together, weights are not as said, or `out` is not empty.
    """
    out = Path(out)
    check_writable(out, folder=True)
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: is not empty; choose another folder")
    vectors = [_checked(vector, len(paths)) for vector in weights]
    adapters = [load_adapter_factors(path) for path in paths]
    record: dict[str, Any] = {"same_base_by": check_mergeable(adapters)}
    record["adapters"] = [
        {"path": str(a.path), "sha256": a.digest, "run": a.run, "step": a.step, "reference": a.reference}
        for a in adapters
    ]
    record["merged"] = []
    made = {name: way(adapters) for name, way in (ways or {}).items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as folder:
        for number, vector in enumerate(vectors):
            name = f"soup-{number:02}"
            digest = save_merged(folder / name / "adapter", adapters[0], soup(adapters, vector))
            record["merged"].append({"adapter": f"{name}/adapter", "weights": vector, "sha256": digest})
        for name, (factors, told) in made.items():
            digest = save_merged(folder / name / "adapter", adapters[0], factors)
            record["merged"].append({"adapter": f"{name}/adapter", **told, "sha256": digest})
        write_text(folder / MERGE_FILE, json.dumps(record, indent=1) + "\n")
    return record


def stocked(adapters: Sequence[Adapter]) -> tuple[Factors, dict[str, Any]]:
    """Model stock; see `stock`.

    Raises:
        RunError: If the adapters go on from another one.
    """
    if any((adapter.reference or {}).get("kind") == "adapter" for adapter in adapters):
        raise RunError(
            "--stock: the adapters go on from another adapter, so their common part is no agreement; use --weights"
        )
    factors, ratios = stock(adapters)
    return factors, {"stock_ratios": ratios}


def summed(adapters: Sequence[Adapter]) -> tuple[Factors, dict[str, Any]]:
    """The sum of all, each with weight 1: what adapters that were trained one on another do together."""
    ones = [1.0] * len(adapters)
    return soup(adapters, ones), {"weights": ones}


def arc(share: float) -> Way:
    """The point at a share of the arc between two adapters; see `slerp`. It raises RunError where there is none."""

    def way(adapters: Sequence[Adapter]) -> tuple[Factors, dict[str, Any]]:
        if len(adapters) != 2 or not 0 <= share <= 1:
            raise RunError(
                f"--slerp: a share from 0 to 1 of the arc between two adapters, got {share} for {len(adapters)}"
            )
        return slerp(adapters[0], adapters[1], share), {"slerp": share}

    return way


def main(argv: Sequence[str] | None = None) -> int:
    """`alignkit merge ADAPTER ADAPTER ... --weights 0.3,0.7 | --sweep 11 | --stock | ... --out DIR`."""
    options = _parser().parse_args(argv)
    try:
        vectors = [] if options.weights is None else [_numbers(options.weights, "--weights")]
        if options.sweep is not None:
            vectors = sweep(len(options.adapters), options.sweep)
        record = merge(options.adapters, options.out, weights=vectors, ways=_ways(options))
    except (RunError, DataError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command line's own message
        return 2
    for made in record["merged"]:
        if {"loss", "largest_lost"} & set(made):
            print(_told(made))  # noqa: T201
    print(f"{len(record['merged'])} merged adapters: {Path(options.out) / MERGE_FILE}")  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alignkit merge", description=__doc__, allow_abbrev=False)
    parser.add_argument("adapters", nargs="+", metavar="ADAPTER", help="a run's adapter/ folder")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--weights", metavar="W,W,...", help="one soup: a weight for each adapter, of sum 1")
    how.add_argument("--sweep", type=int, metavar="N", help="soups at N weights from 0 to 1 along each edge")
    how.add_argument(
        "--stock", action="store_true", help="model stock: the share that the adapters agree on, by module"
    )
    how.add_argument(
        "--slerp", type=float, metavar="T", help="the point at T of the arc between two adapters, by module"
    )
    how.add_argument(
        "--sum", action="store_true", help="the sum of all, as one that was trained on top of others needs"
    )
    for kind in KINDS:
        how.add_argument(f"--{kind}", metavar="W,W,...", help=f"{kind}, a weight for each adapter; see --density")
    how.add_argument("--greedy", type=Path, metavar="ROWS", help="the greedy soup by the loss on pairs or completions")
    how.add_argument("--frank-wolfe", type=Path, metavar="ROWS", help="the soup of coefficients of least loss on rows")
    how.add_argument("--fisher", type=Path, metavar="ROWS", help="Fisher-weighted, by answers to the rows' prompts")
    parser.add_argument("--density", type=float, default=0.2, help="ties, dare: the share of ΔW's entries that is kept")
    parser.add_argument("--rank", type=int, help="ties, dare, fisher: of the adapter; default: the largest there is")
    parser.add_argument("--seed", type=int, default=0, help="dare: of what is kept")
    parser.add_argument("--rows", type=int, default=256, metavar="N", help="at most so many rows are used")
    parser.add_argument("--beta", type=float, default=0.1, help="of the DPO loss of pairs")
    parser.add_argument("--steps", type=int, default=10, help="frank-wolfe: how many")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="fisher: of an answer")
    parser.add_argument("--batch-size", type=int, default=4, help="rows of a forward pass")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    return parser


def _ways(options: argparse.Namespace) -> dict[str, Way]:
    """The further ways that the command line names."""
    given: dict[str, Any] = vars(options)
    ways: dict[str, Way] = {}
    if options.stock:
        ways["stock"] = stocked
    if options.sum:
        ways["sum"] = summed
    if options.slerp is not None:
        ways["slerp"] = arc(options.slerp)
    for kind in KINDS:
        text = given[kind.replace("-", "_")]
        if text is not None:
            numbers = _numbers(text, f"--{kind}")
            ways[kind] = partial(
                pruned, kind=kind, weights=numbers, density=options.density, rank=options.rank, seed=options.seed
            )
    for name, way in MEASURED.items():
        rows = given[name.replace("-", "_")]
        if rows is not None:
            how = How(
                rows, most=options.rows, batch=options.batch_size, beta=options.beta, steps=options.steps,
                max_new_tokens=options.max_new_tokens, rank=options.rank,
            )  # fmt: skip
            ways[name] = partial(way, how=how)
    return ways


def _told(made: Mapping[str, Any]) -> str:
    """What was found, in one line."""
    chosen = next((made[name] for name in ("greedy", "frank_wolfe") if name in made), None)
    if chosen is None:
        return f"{made['adapter']}: of a module's ΔW up to {made['largest_lost']:.1%} is cut by the rank"
    weights = ", ".join(f"{weight:.4g}" for weight in chosen)
    gap = f", at most {made['gap']:.3g} above the least if it is convex" if "gap" in made else ""
    return f"{made['adapter']}: weights {weights}; loss {made['loss']:.6g} on the rows it was chosen by{gap}"


def sweep(adapters: int, points: int) -> list[list[float]]:
    """All weight vectors over multiples of 1 / (points - 1): from the last adapter alone to the first alone.

    Raises:
        RunError: If there are fewer than two points.
    """
    if points < 2:
        raise RunError(f"--sweep: must be at least 2 (both ends), got {points}")
    steps = points - 1

    def parts(total: int, count: int) -> list[list[int]]:
        if count == 1:
            return [[total]]
        return [[head, *tail] for head in range(total + 1) for tail in parts(total - head, count - 1)]

    return [[part / steps for part in vector] for vector in parts(steps, adapters)]


def _shapes(adapter: Adapter) -> list[tuple[int, int]]:
    return [(b.shape[0], a.shape[1]) for _, (a, b) in sorted(adapter.factors.items())]


def _same_base(one: Adapter, other: Adapter) -> bool:
    """Whether two adapters belong to one base; its name decides where no digest is one of the base."""
    mine, theirs = one.reference or {}, other.reference or {}
    names = [adapter.config.base_model_name_or_path for adapter in (one, other)]
    return same_identity(mine, theirs) and (mine.get("kind") in ("base", "adapter") or names[0] == names[1])


def _base_digests(adapter: Adapter) -> tuple[Any, Any] | None:
    """Digests of the base, where the reference is made of it."""
    found = adapter.reference or {}
    return (found.get("digest"), found.get("config_digest")) if found.get("kind") in ("base", "adapter") else None


def _shown(adapter: Adapter) -> str:
    reference = adapter.reference or {
        "kind": "base",
        "model": adapter.config.base_model_name_or_path,
        "digest": "unknown",
    }
    return f"{reference.get('kind')} {reference.get('model')}, {str(reference.get('digest'))[:12]}"


def _numbers(text: str, where: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RunError(f"{where}: must be numbers with commas between them, got {text!r}") from None


def _checked(weights: Sequence[float], adapters: int) -> list[float]:
    if len(weights) != adapters:
        raise RunError(f"--weights: must be one for each of the {adapters} adapters, got {list(weights)}")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
        raise RunError(f"--weights: must not be negative and sum to 1, got {list(weights)}")
    return [float(w) for w in weights]

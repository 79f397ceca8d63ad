"""Merges LoRA adapters of one base, for `alignkit merge`.

Rewarded soups (weighted sums of the adapters' weight changes) and model stock, exactly; see `align.merging.adapters`.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.errors import RunError
from align.files import check_writable, new_folder, write_text
from align.models.identity import same_identity
from align.runs.contents import REFERENCE_FILE

from .adapters import Adapter, load_adapter_factors, save_merged, slerp, soup, stock

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
            raise RunError(
                f"{other.path}: of another base or reference ({_shown(other)}) than {first.path} ({_shown(first)}); a soup "
                "needs one base"
            )
    return "digest" if all(known) else "name"


def merge(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    weights: Sequence[Sequence[float]] = (),
    with_stock: bool = False,
    arc: float | None = None,
    total: bool = False,
) -> dict[str, Any]:
    """Merge adapters into a folder for each weight vector, and one for the model stock.

    Args:
        paths: Adapter folders.
        out: A new folder. Each merged adapter is in `OUT/soup-NN/adapter`, `OUT/stock/adapter`, `OUT/slerp/adapter` or
            `OUT/sum/adapter`.
        weights: For each soup one weight per adapter, not negative, of sum 1.
        with_stock: Make the model stock too.
        arc: Make the point at this share of the arc from the first of two adapters to the second, too.
        total: Make the sum of all, each with weight 1, too: what adapters that were trained one on another do together.

    Returns:
        What `OUT/merge.json` holds: the adapters with their digests, and each merged one with weights and digest.

    Raises:
        RunError: If the adapters cannot be merged, the weights are not as said, or `out` is taken.
    """
    out = Path(out)
    check_writable(out, folder=True)
    if out.exists() and any(out.iterdir()):
        raise RunError(f"--out: {out} is not empty; choose another folder")
    vectors = [_checked(vector, len(paths)) for vector in weights]
    if arc is not None and (len(paths) != 2 or not 0 <= arc <= 1):
        raise RunError(f"--slerp: a share from 0 to 1 of the arc between two adapters, got {arc} for {len(paths)}")
    adapters = [load_adapter_factors(path) for path in paths]
    record: dict[str, Any] = {"same_base_by": check_mergeable(adapters)}
    if with_stock and any((adapter.reference or {}).get("kind") == "adapter" for adapter in adapters):
        raise RunError(
            "--stock: the adapters go on from another adapter, so their common part is no agreement; use --weights"
        )
    record["adapters"] = [
        {"path": str(a.path), "sha256": a.digest, "run": a.run, "step": a.step, "reference": a.reference}
        for a in adapters
    ]
    record["merged"] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as folder:
        for number, vector in enumerate(vectors):
            name = f"soup-{number:02}"
            digest = save_merged(folder / name / "adapter", adapters[0], soup(adapters, vector))
            record["merged"].append({"adapter": f"{name}/adapter", "weights": vector, "sha256": digest})
        if with_stock:
            factors, ratios = stock(adapters)
            digest = save_merged(folder / "stock" / "adapter", adapters[0], factors)
            record["merged"].append({"adapter": "stock/adapter", "stock_ratios": ratios, "sha256": digest})
        if arc is not None:
            digest = save_merged(folder / "slerp" / "adapter", adapters[0], slerp(adapters[0], adapters[1], arc))
            record["merged"].append({"adapter": "slerp/adapter", "slerp": arc, "sha256": digest})
        if total:
            ones = [1.0] * len(adapters)
            digest = save_merged(folder / "sum" / "adapter", adapters[0], soup(adapters, ones))
            record["merged"].append({"adapter": "sum/adapter", "weights": ones, "sha256": digest})
        write_text(folder / MERGE_FILE, json.dumps(record, indent=1) + "\n")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """`alignkit merge ADAPTER ADAPTER ... --weights 0.3,0.7 | --sweep 11 | --stock | --slerp 0.5 | --sum --out DIR`."""
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
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder")
    options = parser.parse_args(argv)
    try:
        if options.weights is not None:
            vectors = [_numbers(options.weights)]
        else:
            vectors = sweep(len(options.adapters), options.sweep) if options.sweep is not None else []
        record = merge(
            options.adapters, options.out, weights=vectors, with_stock=options.stock, arc=options.slerp, total=options.sum
        )  # fmt: skip
    except (RunError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 - the command line's own message
        return 2
    print(f"{len(record['merged'])} merged adapters: {Path(options.out) / MERGE_FILE}")  # noqa: T201
    return 0


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


def _shown(adapter: Adapter) -> str:
    reference = adapter.reference or {
        "kind": "base",
        "model": adapter.config.base_model_name_or_path,
        "digest": "unknown",
    }
    return f"{reference.get('kind')} {reference.get('model')}, {str(reference.get('digest'))[:12]}"


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise RunError(f"--weights: must be numbers with commas between them, got {text!r}") from None


def _checked(weights: Sequence[float], adapters: int) -> list[float]:
    if len(weights) != adapters:
        raise RunError(f"--weights: must be one for each of the {adapters} adapters, got {list(weights)}")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or abs(sum(weights) - 1) > 1e-6:
        raise RunError(f"--weights: must not be negative and sum to 1, got {list(weights)}")
    return [float(w) for w in weights]

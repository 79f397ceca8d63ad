"""Finds the policy of a front for somebody's preferences, for `alignkit pick`."""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.errors import RunError
from align.files import check_writable, read_json
from align.merging.adapters import WEIGHTS_FILE
from align.merging.command import merge
from align.sampling.preferred import preferences

FRONT = "front.json"


def worth(front: Mapping[str, Any], prefer: Mapping[str, float]) -> dict[str, float]:
    """The share of each reward, in the order of the front; one that is not named is worth 0, and only ratios matter.

    Raises:
        RunError: If there is no such reward, or the numbers are no preferences.
    """
    names = list(front["objectives"])
    other = [name for name in prefer if name not in names]
    if other:
        raise RunError(f"--prefer: no reward {other[0]!r} in this front; there are {', '.join(names)}")
    total = sum(prefer.values())
    if not all(0 <= number < math.inf for number in prefer.values()) or not 0 < total < math.inf:
        raise RunError(f"--prefer: must be finite, not negative and not all 0, got {dict(prefer)}")
    return {name: prefer.get(name, 0.0) / total for name in names}


def picked(front: Mapping[str, Any], prefer: Mapping[str, float]) -> tuple[dict[str, Any], float]:
    """The member with the greatest utility, and that: the sum of p_k (v_k - low_k) / (high_k - low_k).

    The scales are those of the front: a reward's own range or, where it states none, the least and the most that was seen.
    Of equal ones the first is taken.
    """
    shares = worth(front, prefer)

    def utility(member: Mapping[str, Any]) -> float:
        scaled = {k: (member["values"][k] - low) / (high - low) for k, (low, high) in front["scales"].items()}
        return sum(share * scaled[name] for name, share in shares.items())

    best = max((member for member in front["members"] if member["on_front"]), key=utility)
    return dict(best), utility(best)


def mixture(folder: Path, front: Mapping[str, Any], prefer: Mapping[str, float], out: Path) -> Path:
    """The soup with the preferences as weights of the policies that learnt one reward each.

    Raises:
        RunError: If the front has no policy for one reward alone, or `out` is taken.
    """
    shares = worth(front, prefer)
    alone: dict[str, str] = {}
    for member in front["members"]:
        weights = member["made"].get("weights") or []
        used = [name for name, weight in zip(front["objectives"], weights, strict=False) if weight]
        if len(used) == 1:
            alone.setdefault(used[0], member["adapter"])
    lacking = [name for name in shares if name not in alone]
    if lacking:
        raise RunError(f"--mix: no policy of {folder} learnt {lacking[0]!r} alone; pick a member, without --mix")
    merge([folder / alone[name] for name in shares], out, weights=[list(shares.values())])
    return out / "soup-00" / "adapter"


def main(argv: Sequence[str]) -> int:
    """`alignkit pick FRONT --prefer a=0.7,b=0.3 [--mix --out DIR]`: the adapter for a preference."""
    parser = argparse.ArgumentParser(prog="alignkit pick", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("front", type=Path, metavar="FRONT", help="the directory of a front")
    parser.add_argument("--prefer", required=True, metavar="NAME=NUMBER,...", help="what each reward is worth")
    parser.add_argument("--mix", action="store_true", help="mix the policies of single rewards by these weights")
    parser.add_argument("--out", type=Path, metavar="DIR", help="a new folder for the mixture")
    options = parser.parse_args(argv)
    if options.mix != (options.out is not None):
        raise RunError("--mix and --out belong together: a mixture is written, a member is there already")
    if options.mix:
        check_writable(options.out, folder=True)
    if not (options.front / FRONT).is_file():
        raise RunError(f"{options.front}: no {FRONT} there; name what `alignkit front` has finished")
    front, prefer = read_json(options.front / FRONT), preferences(options.prefer)
    if options.mix:
        print(mixture(options.front, front, prefer, options.out))  # noqa: T201 - the command line's own
        return 0
    member, utility = picked(front, prefer)
    adapter = options.front / member["adapter"]
    if not (adapter / WEIGHTS_FILE).is_file():
        raise RunError(
            f"{adapter}: {member['name']} is the best for this, and is not there; `alignkit front RECIPE --resume auto` makes it again"
        )
    values = ", ".join(f"{name} {value:.4g}" for name, value in member["values"].items())
    print(adapter)  # noqa: T201
    print(f"{member['name']}: {values}; utility {utility:.4g}", file=sys.stderr)  # noqa: T201
    return 0

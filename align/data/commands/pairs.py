"""Makes, for `alignkit data pairs`, preference pairs from several completions of each prompt.

Rows are those of `align.data.rows.scored`. For `--select reverse` a row holds a prompt without the constraints, completions (or
`chosen` and `rejected`), and the constraints as `instruction_id_list` and `kwargs`, as in IFEval's data.
"""

import argparse
import inspect
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from align.data.loading import DataSource, read
from align.data.making.constraints import Constraint
from align.data.making.reverse import reverse_constraints
from align.data.making.selectors import (
    Choice,
    NoPair,
    accepted,
    all_pairs,
    best,
    best_sigma,
    best_worst,
    best_worst_of,
    has_reward,
    margin,
    verified,
)
from align.data.rows.columns import TEMPLATE
from align.data.rows.completions import read_completion
from align.data.rows.kinds import KINDS
from align.data.rows.messages import RowError
from align.data.rows.pairs import read_row
from align.data.rows.scored import Scored, completions_of, prompt_of, read_scored, text_of
from align.data.split import prompt_position
from align.errors import DataError
from align.files import refuse_out, write_rows
from align.findings import printable, shown

SELECTORS: dict[str, Callable[..., list[Choice]]] = {
    select.__name__: select
    for select in (best_worst, best_sigma, best_worst_of, margin, verified, all_pairs, best, accepted)
}
REVERSE = "reverse"
OPTIONS = ("sigmas", "k", "min_gap", "min_reward", "most", "beta", "most_reward")
"""Numbers that one selector or another reads."""
ALONE, ALONE_AS = (best.__name__, accepted.__name__), "chosen"
"""The selectors that make no pairs, and what their rows are written as."""
COMPLETION = {"prompt": "prompt", "completion": "chosen"}
PAIR = {name: name for name in ("prompt", "chosen", "rejected")}
SHOWN = 10


class Built(NamedTuple):
    """What became of the rows."""

    pairs: list[dict[str, Any]]
    """`prompt`, `chosen`, `rejected`, `chosen_reward`, `rejected_reward`, their difference `margin`, and for `all_pairs`
    `weight`."""
    without: Counter[str]
    """Why how many prompts have no pair."""
    refused: Counter[str]
    """Why how many pairs were left out that training would refuse."""
    unscored: int
    """Completions without a reward."""


def build(
    rows: Iterable[Mapping[str, Any]],
    select: str,
    *,
    seed: int = 0,
    weights: Mapping[str, float] | None = None,
    answer: str | None = None,
    where: str = "data",
    **options: Any,
) -> Built:
    """Pairs of every row, in the order of the rows.

    Args:
        rows: Scored completions, in the layouts of `align.data.rows.scored`; messages count them from 1.
        select: A key of `SELECTORS`, or `reverse`.
        seed: With the prompt, what is drawn; the order of rows and other rows do not matter.
        weights: For named scores, what each counts in the reward.
        answer: The column of the right answer; rewards are then whether the last number of a completion is the answer's.
        where: What to call the source.
        options: Of the selector.

    Raises:
        DataError: Naming the rows that hold no scored completions.
    """
    pairs: list[dict[str, Any]] = []
    without, refused, problems = Counter[str](), Counter[str](), dict[str, list[int]]()
    unscored = number = 0
    for number, row in enumerate(rows, start=1):
        try:
            if select == REVERSE:
                made = _reversed(row)
            else:
                scored = read_scored(row, weights, answer)
                unscored += sum(not has_reward(reward) for reward in scored.rewards)
                made = _selected(scored, select, seed, options)
        except NoPair as reason:
            without[str(reason)] += 1
            continue
        except ValueError as error:  # RowError, and what selectors and constraints say of their arguments
            problems.setdefault(printable(str(error), 300), []).append(number)
            continue
        template = {name: row[name] for name in TEMPLATE if row.get(name) is not None}
        made = _each_once(made) if select == "verified" else made
        kept = [pair | template for pair in made if _is_fit(pair, refused, alone=select in ALONE)]
        pairs += kept
        if not kept:
            without["training would refuse its pairs"] += 1
    if problems:
        told = [f"{reason}{shown(numbers)}" for reason, numbers in problems.items()]
        more = f"\n  ... and {len(told) - SHOWN} reasons more" if len(told) > SHOWN else ""
        bad = sum(map(len, problems.values()))
        raise DataError(f"{where}: {bad} of {number} rows cannot be used:\n  " + "\n  ".join(told[:SHOWN]) + more)
    return Built(pairs, without, refused, unscored)


def _selected(scored: Scored, select: str, seed: int, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    selector = partial(SELECTORS[select], **options)
    if "rng" in inspect.signature(SELECTORS[select]).parameters:
        position = int(prompt_position(scored.prompt) * 2**56)
        selector = partial(selector, rng=np.random.default_rng([seed, position]))
    pairs: list[dict[str, Any]] = []
    for chosen, rejected, weight in selector(scored.rewards):
        high, low = (float(scored.rewards[index] or 0) for index in (chosen, rejected))  # or 0: -0.0, and never None
        pair = {"prompt": scored.prompt, "chosen": scored.completions[chosen], "rejected": scored.completions[rejected]}
        pair |= {"chosen_reward": high, "rejected_reward": low, "margin": high - low}
        pairs.append(pair if weight is None else pair | {"weight": weight})
    return pairs


def _reversed(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    kinds, arguments = row.get("instruction_id_list"), row.get("kwargs")
    if not isinstance(kinds, list) or not isinstance(arguments, list) or len(kinds) != len(arguments):
        raise RowError("missing-value", "instruction_id_list and kwargs must be lists of the same length")
    if not all(isinstance(kind, str) for kind in kinds) or not all(isinstance(one or {}, Mapping) for one in arguments):
        raise RowError("wrong-type", "instruction_id_list must hold text, and kwargs objects")
    constraints = [Constraint(kind, given or {}) for kind, given in zip(kinds, arguments, strict=True)]
    if row.get("completions") is None and row.get("responses") is None:
        row = {**row, "completions": [row.get("chosen"), row.get("rejected")]}
    return reverse_constraints(prompt_of(row), constraints, completions_of(row), text_of)


def _each_once(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pairs without those that another has said: several samples may be the same text."""
    return list({json.dumps([pair["chosen"], pair["rejected"]]): pair for pair in pairs}.values())


def _is_fit(pair: Mapping[str, Any], refused: Counter[str], *, alone: bool) -> bool:
    """Whether training reads it."""
    try:
        if not math.isfinite(pair["margin"]):
            raise RowError("wrong-type", "the rewards are too far apart for a number")
        read_completion(pair, COMPLETION) if alone else read_row(pair, PAIR)
    except RowError as error:
        refused[str(error)] += 1
        return False
    return True


def main(argv: Sequence[str]) -> int:
    """Make preference pairs from several completions of each prompt, and say what became of the rest."""
    parser = argparse.ArgumentParser(prog="alignkit data pairs", allow_abbrev=False, description=main.__doc__)
    parser.add_argument("source", help="a file, a folder, or a hub id; see align/data/README.md for what a row is")
    parser.add_argument("--select", required=True, choices=(*SELECTORS, REVERSE), help="which completions become pairs")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="must not exist")
    parser.add_argument("--split", default="train")
    parser.add_argument("--as", dest="kind", choices=tuple(KINDS), default="pairs", help="rows for supervised training; completions: both sides of each pair, labels: with their labels, chosen: the better alone")  # fmt: skip
    parser.add_argument("--weights", type=_weights, metavar="NAME=W,...", help="of several scores, what each counts in the reward")  # fmt: skip
    parser.add_argument("--answer", metavar="COLUMN", help="reward 1 where a completion's last number is that column's, else 0")  # fmt: skip
    parser.add_argument("--seed", type=_count, help="of what best_worst_of and verified draw; default: 0")
    parser.add_argument("--sigmas", type=_finite, help="best_sigma: the rejected's place in standard deviations from the mean; default: -2")  # fmt: skip
    parser.add_argument("--k", type=_positive, help="best_worst_of: how many are drawn; default: 5")
    parser.add_argument("--min-gap", type=_finite, help="margin: what rewards must differ by; default: 2")
    parser.add_argument("--min-reward", type=_finite, help="margin: what the chosen must have; default: 5")
    parser.add_argument("--most", type=_positive, help="verified: pairs of one prompt; default: 10")
    parser.add_argument("--beta", type=_finite, help="accepted: weight of the KL; default: 0.5")
    parser.add_argument("--most-reward", type=_finite, help="accepted: the greatest that a reward can be; default: 1")
    options = parser.parse_args(argv)
    given = {name: getattr(options, name) for name in ("seed", *OPTIONS, "weights", "answer")}
    given = {name: value for name, value in given.items() if value is not None}
    if (options.select in ALONE) > (options.kind == ALONE_AS):
        raise DataError(f"--select {options.select}: makes no pairs; add --as {ALONE_AS}")
    _refuse(Path(options.source), options.out, options.select, given)
    where = printable(options.source, 200)
    try:
        rows = read(DataSource(options.source, split=options.split))
    except Exception as error:
        raise DataError(f"{where}: cannot be read: {printable(str(error), 500)}") from error
    try:
        built = build(cast(Iterable[Mapping[str, Any]], rows), options.select, where=where, **given)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: a text is not UTF-8; write the file again as UTF-8") from error
    if not built.pairs:
        raise DataError(
            f"{where}: of {len(rows)} prompts none yields a pair: {_counted(built.without)}{_refused(built)}"
        )
    made = list(KINDS[options.kind](built.pairs))
    write_rows(made, options.out)
    print(_told(options.out, options.kind, len(made), len(rows), built))  # noqa: T201 - the command's result
    return 0


def _refuse(source: Path, out: Path, select: str, given: Mapping[str, Any]) -> None:
    """What cannot be meant, before anything is read."""
    takes = {"weights", "answer"} if select != REVERSE else set()
    parameters = inspect.signature(SELECTORS[select]).parameters if select != REVERSE else {}
    takes |= {"seed" if name == "rng" else name for name in parameters} - {"rewards"}
    idle = [f"--{name.replace('_', '-')}" for name in given if name not in takes]
    if idle:
        raise DataError(f"{', '.join(idle)}: would do nothing with --select {select}; leave it out")
    if {"weights", "answer"} <= given.keys():
        raise DataError("--weights, --answer: rewards come from scores or from the answer; leave one out")
    refuse_out(out)
    if source.is_dir() and source.resolve() in out.resolve().parents:
        raise DataError(f"{out}: lies in the source {source}, of which it would become a part; name another place")


def _told(out: Path, kind: str, made: int, prompts: int, built: Built) -> str:
    without = built.without.total()
    parts = [f"{out}: {made} {kind} of {prompts - without} of {prompts} prompts"]
    if without:
        parts.append(f"{without} prompts without a pair: {_counted(built.without)}")
    if built.unscored:
        parts.append(f"{built.unscored} completions without a reward")
    return "; ".join(parts) + _refused(built)


def _refused(built: Built) -> str:
    if not built.refused:
        return ""
    return f"; {built.refused.total()} pairs left out that training would refuse: {_counted(built.refused)}"


def _counted(reasons: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common()) or "no rows"


def _finite(word: str) -> float:
    value = float(word)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be finite, got {word}")
    return value


def _count(word: str) -> int:
    if int(word) < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {word}")
    return int(word)


def _positive(word: str) -> int:
    if int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {word}")
    return int(word)


def _weights(word: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in word.split(","):
        name, _, value = part.partition("=")
        try:
            weight = _finite(value)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected NAME=NUMBER,..., got {word!r}") from None
        if not name or name in weights:
            raise argparse.ArgumentTypeError(
                f"{'a name is missing' if not name else f'{name!r} is named twice'}, got {word!r}"
            )
        weights[name] = weight
    return weights

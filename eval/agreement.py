"""Holds judges, rewards and preference models against people: accuracy, kappa and agreement, by category too."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from trl import ModelConfig

from align.commands.score import read_by
from align.data.loading import DataSource, read
from align.data.rows.messages import RowError
from align.data.rows.scored import prompt_of
from align.errors import DataError, RunError
from align.files import refuse_input, write_text
from align.findings import printable
from align.judges.from_recipe import MakeScorer, prepare_judges
from align.judges.protocol import judge_all
from align.own_code import allow_file_argument
from align.recipe.sections import EvalConfig, Generate
from eval.pairs.calibration import calibration_estimates
from eval.report.tables import count, ends, markdown_table
from eval.report.write import as_json
from eval.statistics.agreement import agreement_estimates
from eval.statistics.comparisons import prompt_labels
from eval.statistics.groups import WORST, agreement_of_groups, group_shares
from eval.statistics.intervals import Estimate, claimed, win_scores
from eval.verdicts import columns_of

HEAD = ("judge", "of", "figure", "value", "95% interval", "n")
ALL = "all"
ABOUT = (
    "n counts prompts. accuracy: the judge prefers the answer that people preferred; a tie counts one half. kappa: above "
    "chance, 1 at best. with_person, between_people: how often judge and person, or two people, say the same of a pair; "
    "above_people: the former less the latter. Of judges that give probabilities brier, nll, ece (without the bias of few pairs) and "
    "temperature, by which log-odds would have to be divided, are held against the same preferences. worst: of the category with the least accuracy, by an interval that allows for the choice. within, "
    "between: how often two people say the same of a pair, of one category or of two. Intervals of categories hold each by itself."
)


class Pair(NamedTuple):
    """Two answers of which people preferred the first."""

    prompt: Any
    chosen: str
    rejected: str
    votes: list[int]
    columns: dict[str, Any]


def agreement_table(argv: Sequence[str] | None = None, *, prog: str = "alignkit judge-agreement") -> str:
    """A table of how well judges agree with people.

    Raises:
        RunError, DataError: If the file holds no pairs, or a judge cannot be made or may not be asked.
    """
    about = "Hold judges against what people preferred: accuracy, kappa, and how often people agree with each other."
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument(
        "file", metavar="FILE", help="rows of prompt, chosen and rejected; votes, a list, if there are any"
    )
    judge_arguments(parser)
    parser.add_argument(
        "--category", metavar="COLUMN", help="a column whose values are told apart, such as subset or group"
    )
    parser.add_argument(
        "--annotator", metavar="COLUMN", help="who said it: how far people within a category and between them agree"
    )
    allow_file_argument(parser)
    options = parser.parse_args(argv)
    makers = judges_of(options)
    pairs = read_pairs(Path(options.file), options.category, options.annotator)
    found, notes = {}, [ABOUT]
    if options.annotator is not None:
        if options.category is None:
            raise RunError("--annotator: people of which groups? name their column with --category")
        people = agreement_of_people(pairs, options.annotator, options.category)
        notes += ["No two people judged the same answers, so their agreement is not known."] * (not people)
        found["people"] = {options.category: people}
    for name, make in makers.items():
        judged = judge_all(
            make(),
            [p.prompt for p in pairs],
            [[p.chosen, p.rejected] for p in pairs],
            [columns_of(p.columns) for p in pairs],
        )
        preferred = judged.preferences[:, 0, 1]
        failed = int(np.isnan(preferred).sum())
        notes += [f"{name}: {failed} of {len(pairs)} pairs have no verdict; they are in no figure."] * (failed > 0)
        found[name] = by_category(pairs, preferred, options.category)
    return told_of(HEAD, found, notes, options.out)


def told_of(
    head: tuple[str, ...],
    found: Mapping[str, Mapping[str, Mapping[str, Estimate]]],
    notes: Sequence[str],
    out: Path | None,
) -> str:
    """A table of figures by who judged and of what, with notes below; written as JSON too, if a file is named."""
    found = claimed(found)
    if out is not None:
        write_text(out, json.dumps(as_json(found), indent=2) + "\n")
    rows = [
        (name, of, figure, f"{e.value:.3f}", ends(e), count(e.n))
        for name, parts in found.items()
        for of, figures in parts.items()
        for figure, e in figures.items()
    ]
    return f"{markdown_table(head, rows, texts=3)}\n\n" + "\n".join(notes)


def judge_arguments(parser: argparse.ArgumentParser) -> None:
    """The options by which a command names judges, and where its figures go; its FILE is another."""
    parser.add_argument(
        "--by", action="append", required=True, metavar="NAME={kind: ...}", help="as in eval.judges; may be repeated"
    )
    parser.add_argument("--dtype", default="auto", help="precision of a language model that judges; default: its own")
    parser.add_argument("--allow", action="append", default=[], metavar="MODULE:FUNCTION|[VARIABLE@]HOST")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.json", help="write the figures there too")


def judges_of(options: argparse.Namespace) -> dict[str, MakeScorer]:
    """What makes the judges that `judge_arguments` read.

    Raises:
        RunError: If one cannot be made or may not be asked.
    """
    if options.out is not None:
        refuse_input(options.out, options.file)
    config = read_by(options.by, None, "win_rate")
    if config.rewards:
        name = next(iter(config.rewards))
        raise RunError(f"--by {printable(name)}: name a judge, --by '{printable(name)}={{kind: reward, reward: ...}}'")
    beside = Path(options.file) if options.out is None else options.out
    ledgers = beside.with_name(f"{beside.stem}-judges")
    asked = EvalConfig(judges=config.judges, generate=Generate())
    return prepare_judges(asked, ModelConfig(dtype=options.dtype), allow=options.allow, ledgers=ledgers)


def by_category(
    pairs: Sequence[Pair], preferred: np.ndarray, category: str | None = None
) -> dict[str, dict[str, Estimate]]:
    """Figures of all pairs, and of those of each category that has two prompts or more.

    Raises:
        RunError: If too few pairs have a verdict.
    """
    known = ~np.isnan(preferred)
    labels = prompt_labels([pair.prompt for pair in pairs])
    groups = {ALL: known}
    of = np.array(["" if category is None else str(pair.columns[category]) for pair in pairs])
    if category is not None:
        groups |= {f"{category} {value}": known & (of == value) for value in sorted(set(of.tolist()))}
    if len(set(labels[known].tolist())) < 2:
        raise RunError(f"an interval needs verdicts on pairs of at least 2 prompts, got {int(known.sum())} verdicts")
    found = {
        group: agreement_estimates(
            preferred[members], labels[members], [pairs[i].votes for i in np.flatnonzero(members).tolist()]
        )
        | _calibration(preferred[members], labels[members])
        for group, members in groups.items()
        if len(set(labels[members].tolist())) > 1
    }
    told = np.isin(of, [value for value in set(of.tolist()) if f"{category} {value}" in found]) & known
    if len(found) > 2:
        right = win_scores(preferred[told], np.full(int(told.sum()), 0.5))
        found[f"worst {category}"] = {"accuracy": group_shares(right, of[told], labels[told])[WORST]}
    return found


def _calibration(preferred: np.ndarray, labels: np.ndarray) -> dict[str, Estimate]:
    """Of a judge that gives probabilities; of one that says 0 and 1 for certain there is none."""
    if not ((preferred > 0) & (preferred < 1)).all() or (preferred == 0.5).all():
        return {}
    return calibration_estimates(np.log(preferred) - np.log1p(-preferred), labels)


def agreement_of_people(pairs: Sequence[Pair], annotator: str, group: str) -> dict[str, Estimate]:
    """How far annotators agree who judged the same two answers to a prompt, within groups and between them."""
    said: dict[tuple[str, ...], list[tuple[str, str, int]]] = {}
    for pair in pairs:
        sides = sorted((pair.chosen, pair.rejected))
        who = (str(pair.columns[annotator]), str(pair.columns[group]), sides.index(pair.chosen))
        said.setdefault((json.dumps(pair.prompt), *sides), []).append(who)
    return agreement_of_groups(list(said.values()), prompt_labels([prompt for prompt, *_ in said]))


def read_pairs(path: Path, category: str | None = None, annotator: str | None = None) -> list[Pair]:
    """Pairs of answers with what people said of them.

    Raises:
        DataError: If the file cannot be read, or a row is no such pair; it says which.
    """
    try:
        rows = read(DataSource(str(path))).to_list()
    except Exception as error:
        raise DataError(f"{printable(str(path))}: cannot be read: {printable(str(error), 500)}") from error
    pairs = []
    for number, row in enumerate(rows, start=1):
        where = f"{printable(str(path))}: row {number}"
        for column in ("prompt", "chosen", "rejected", *(name for name in (category, annotator) if name is not None)):
            if row.get(column) is None:
                raise DataError(f"{where}: no {column!r}; there are {', '.join(map(printable, row))}")
        chosen, rejected = (_text(row[side], f"{where}: {side}") for side in ("chosen", "rejected"))
        columns = {key: value for key, value in row.items() if key not in ("prompt", "chosen", "rejected", "votes")}
        try:
            prompt = prompt_of(row)
        except RowError as error:
            raise DataError(f"{where}: {error}") from None
        pairs.append(Pair(prompt, chosen, rejected, _votes(row.get("votes"), where), columns))
    return pairs


def _text(answer: Any, where: str) -> str:
    if isinstance(answer, list) and answer and isinstance(answer[-1], dict):
        answer = answer[-1].get("content")
    if not isinstance(answer, str):
        raise DataError(f"{where}: must be text, or messages that end with it")
    return answer


def _votes(votes: Any, where: str) -> list[int]:
    """1 for each vote of the majority, whose answer is the chosen one, 0 for each tie, -1 for the others."""
    if votes is None:
        return []
    sides = Counter(vote for vote in votes if not _is_tie(vote)).most_common(2) if isinstance(votes, list) else []
    if not sides or (len(sides) == 2 and sides[0][1] == sides[1][1]):
        raise DataError(
            f"{where}: votes must be a list in which most are for the chosen answer, got {printable(str(votes))}"
        )
    return [0 if _is_tie(vote) else 1 if vote == sides[0][0] else -1 for vote in votes]


def _is_tie(vote: Any) -> bool:
    """0, null or "tie"; false is the vote for the other answer, though Python takes it for 0."""
    return vote in (None, "tie") or (vote == 0 and not isinstance(vote, bool))

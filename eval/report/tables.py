"""Puts a report into words and rows: the verdict, and the tables that Markdown, terminal and HTML share."""

import math
import re
from collections.abc import Iterator

import numpy as np

from align.findings import printable
from eval.measures.divergence import Carried, carried_by
from eval.statistics.intervals import Estimate
from eval.statistics.power import detectable
from eval.statistics.ratings import elo

from .results import Report

INTERVALS = (
    "95% intervals, over prompts. Shares: Wilson's score interval; with ties, and for differences of shares, Tango's; both "
    "over the design effect of prompts with several items. Other means: the hull of Student's t and of Hall's, which sees "
    "skewness. Divergences: means of terms of both sides' answers that are never negative. Calibration error: without what "
    "chance adds to it. Temperature and ratings: profile likelihood. Fronts: corrected for the luck of the front. Distinct "
    "n-grams: leaving out groups of answers; self-BLEU: over groups of 8 answers (diversity is that of the first 1000 "
    "prompts' first answers at most). Fewer than 5 prompts have no interval. To be seen: the least true difference that these prompts show in 8 of 10 cases. "
    "Units: log-probabilities, entropy and divergences in nats per answer."
)
COMPARED = (
    "Paired by prompt. All differences here are one family: intervals hold at once, and a p-value is at most 0.05 where the "
    "interval leaves out 0 (least p-values under random signs of the prompts). Of win rates, the difference is the share won "
    "less the share lost."
)
JUDGING = (
    "Both orders are judged and averaged; ties count one half. Length-controlled: at equal length in characters, by a "
    "logistic model of the verdicts. The longer answer wins: what a judge who looks at length alone would give."
)
EVIDENCE = ("measure", "verdict", "figure and 95% interval", "to be seen")
READING = (
    "The policy is what was trained, the reference what it is held against. The two numbers in brackets are an interval: in 95 of 100 evaluations like this one it holds the truth. n: prompts. To be "
    "seen: a true difference that these prompts would show in 8 of 10 cases; smaller ones can go unseen."
)
GROUPS = {
    "Whose answers are better": "A difference above 0, or a win rate above one half, speaks for the policy.",
    "Held-out pairs": "Whether the policy prefers the answers that were preferred, and whether it is as sure as it is right.",
    "Held-out completions": "Negative log-likelihood, nats per token: lower is better; difference: policy less reference.",
    "Held-out labels": "Told apart: how often an answer labelled desirable is above one that is not; one half says nothing.",
    "What it cost": "How far the policy is from the reference, and how long and how varied its answers are.",
}
COSTS = (
    "length_",
    "cut_off",
    "calls",
    "failed_calls",
    "kl",
    "forward_kl",
    "jensen_shannon",
    "entropy",
    "distinct_",
    "self_bleu",
)
ESTIMATE = ("estimate", "value", "95% interval", "to be seen", "n")
WITHOUT_DIFFICULTY = "without the difficulty of instructions; on AlpacaEval that is 5 points off the published figures on average, up to 18"
COMPARISON = ("measure", "first - second", "difference", "joint 95% interval", "p, corrected", "to be seen", "n")
JUDGED = ("judge", "policy", "win rate", "length-controlled", "longer answer wins", "won / tied / lost", "failed")
RATED = ("judge", "who", "strength, nats", "95% interval", "Elo")
BEST = ("chosen by: answers of", "k", "reward", "95% interval", "n")
SHOWN_FAILURES = 5
MUCH = 0.2
FEW = 20
"""Below so many items an interval is marked as one of few."""


def interval(e: Estimate) -> str:
    """A value with its interval."""
    return f"{e.value:.3f} {ends(e)}"


def ends(e: Estimate, form: str = ".3f") -> str:
    """Both ends, or that there is no interval: see `claimed`, and of values without bounds that are all alike."""
    if math.isinf(e.low) and math.isinf(e.high):
        return "no interval"
    return f"[{e.low:{form}}, {e.high:{form}}]"


def count(n: int) -> str:
    """How many independent items, and whether they are few."""
    return f"{n} (few)" if n < FEW else str(n)


def estimate_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells under `ESTIMATE`; below them the notes, with nothing beside them."""
    rows = []
    for name, e in report.estimates.items():
        seen = f"{detectable(e):.3f}" if name.endswith("/difference") and math.isfinite(detectable(e)) else ""
        rows.append((name, f"{e.value:.3f}", ends(e), seen, count(e.n)))
    return rows + [(note, "", "", "", "") for note in estimate_notes(report)]


def estimate_notes(report: Report) -> list[str]:
    """What else is to be said of sets of pairs, and of KLs that few prompts carry."""
    notes = [f"{name}: {told}" for name, told in report.left_out.items()]
    notes += [
        f"{name if len(by) == 1 else f'{who}/{name}'}: {beside}"
        for name, by in report.calibration.items()
        for who, beside in by.items()
    ]
    for who, carried in few_prompts(report).items():
        name = "kl" if who == report.name else f"{who}/kl"
        claim = (
            "; such an interval holds the truth in 85 to 93% of cases"
            if math.isfinite(report.estimates[name].low)
            else ""
        )
        notes.append(
            f"{name}: prompt {carried.prompt + 1} alone holds {carried.largest:.0%} of it, the median prompt has "
            f"{carried.median:.3f}{claim}"
        )
    return notes


def few_prompts(report: Report) -> dict[str, Carried]:
    """The policies of whose KL one prompt holds more than a fifth, with how it is spread."""
    found = {
        who: carried_by(np.array(of["log_ratio"]), np.array(of["ref_log_ratio"]))
        for who, of in report.measured.items()
        if "log_ratio" in of
    }
    return {who: carried for who, carried in found.items() if carried.largest > MUCH}


def owner_of(name: str, report: Report) -> tuple[str, str]:
    """The policy whose estimate it is, and what it is called without that."""
    others = {who for sets in (report.pairs, report.completions, report.labels) for by in sets.values() for who in by}
    others |= {who for row in report.answers[:1] for who in row.get("others", {})}
    for who in sorted(others - {report.name}, key=len, reverse=True):
        if name.startswith(f"{who}/") and _is_of(who, name, report):
            return who, name.removeprefix(f"{who}/")
    return report.name, name.removeprefix(f"{report.name}/")  # beside others the first policy is named too


def _is_of(who: str, name: str, report: Report) -> bool:
    """Whether a name that begins with a policy's is of its estimates: a policy may be called as a set or a measure is."""
    rest = name.removeprefix(f"{who}/")
    if rest in report.estimates:
        return True
    return not any(key.startswith(f"{who}/{who}/") for key in report.estimates)


def comparison_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells under `COMPARISON`."""
    return [
        (
            measure, f"{row.first} - {row.second}", f"{e.value:+.3f}", ends(e, "+.3f"), f"{row.p_value:.4f}",
            f"{row.detectable:.3f}" if math.isfinite(row.detectable) else "", count(e.n),
        )
        for measure, rows in report.comparisons.items()
        for row in rows
        for e in [row.difference]
    ]  # fmt: skip


def judge_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells under `JUDGED`; a win rate stands beside what the longer answer alone would reach."""
    rows = []
    for name, judged in report.judged.items():
        for who, rate in judged.win_rates.items():
            controlled = judged.length_controlled.get(who)
            rows.append(
                (
                    name,
                    who,
                    interval(rate.win_rate),
                    "n/a" if controlled is None else interval(controlled),
                    interval(judged.longer_wins[who]),
                    f"{rate.wins} / {rate.ties} / {rate.losses}",
                    str(rate.failed),
                )
            )
    return rows


def rating_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells under `RATED`, the strongest first."""
    return [
        (name, who, f"{e.value:+.3f}", ends(e, "+.3f"), f"{elo(e).value:.0f}")
        for name, judged in report.judged.items()
        for who, e in sorted(judged.ratings.items(), key=lambda item: -item[1].value)
    ]


def best_rows(report: Report) -> list[tuple[str, ...]]:
    """The cells under `BEST`."""
    return [
        (name, str(k), f"{e.value:.3f}", ends(e), count(e.n))
        for name, curve in report.best_of_k.items()
        for k, e in curve.items()
    ]


def judge_notes(report: Report) -> Iterator[str]:
    """Sentences on what a table of judges cannot hold: bias, cycles, what is missing, what failed."""
    for name, judged in report.judged.items():
        bias = judged.position_bias
        if bias is not None:
            yield (
                f"{name}: the answer shown first wins {interval(bias.first_preference)}; the order decides "
                f"{interval(bias.flips)} of the pairs."
            )
        for who, source in judged.difficulty_from.items():
            if who in judged.length_controlled:
                told = f"with the difficulty of each instruction from {source}" if source else WITHOUT_DIFFICULTY
                yield f"{name}: {who}'s length-controlled win rate is {told}."
        if judged.one_scale_p is not None and judged.one_scale_p <= 0.05:
            yield f"{name}: one scale does not explain these win rates (p = {judged.one_scale_p:.3f})."
        for circle in judged.circles:
            beaten = " > ".join([*circle, circle[0]])
            yield f"{name}: preferences are cyclic: {beaten}, each beyond doubt."
        if judged.exploitability:
            mixture = ", ".join(f"{who} {share:.2f}" for who, share in judged.mixture.items() if share > 0)
            yield (
                f"{name}: everybody is beaten by somebody, the hardest to beat by {judged.exploitability:.3f} over one half; "
                f"nobody beats the mixture {mixture}."
            )
        yield from (f"{name}: {note}." for note in judged.notes)
        if judged.failures:
            yield f"{name}: {len(judged.failures)} questions have no verdict; they are in no other number."
            for failure in judged.failures[:SHOWN_FAILURES]:
                yield (
                    f"{name}: prompt {failure['prompt'] + 1}, answer {failure['sample'] + 1}, {failure['first']} before "
                    f"{failure['second']}: {failure['error']}"
                )
            if len(judged.failures) > SHOWN_FAILURES:
                yield f"{name}: the other {len(judged.failures) - SHOWN_FAILURES} failures are in report.json."


def front_note(report: Report) -> str:
    """Which runs no other run is better than in every objective; empty if there is no front."""
    front = report.front
    if front is None:
        return ""
    names = [who for who, yes in front.on_front.items() if yes]
    return f"On the front of {', '.join(front.objectives)}: {', '.join(names)}."


def markdown_table(head: tuple[str, ...], rows: list[tuple[str, ...]], *, texts: int) -> str:
    """An aligned Markdown table, whose first `texts` columns and intervals are text; empty without rows."""
    if not rows:
        return ""
    dashes = tuple("---" if i < texts or "interval" in title else "--:" for i, title in enumerate(head))
    return _aligned(
        [head, dashes, *[tuple(plain(cell) if i < texts else cell for i, cell in enumerate(r)) for r in rows]]
    )


def table(report: Report) -> str:
    """The estimates as an aligned Markdown table."""
    return markdown_table(ESTIMATE, estimate_rows(report), texts=1)


def comparison_table(report: Report) -> str:
    """Every pair of the runs that were compared, as an aligned Markdown table; empty if none were."""
    return markdown_table(COMPARISON, comparison_rows(report), texts=2)


def judge_tables(report: Report) -> str:
    """Win rates, ratings, best of k, and what is to be said of them, as Markdown; empty if nothing was judged."""
    parts = [
        markdown_table(JUDGED, judge_rows(report), texts=2),
        markdown_table(RATED, rating_rows(report), texts=2),
        markdown_table(BEST, best_rows(report), texts=1),
        "\n".join(f"- {plain(note)}" for note in judge_notes(report)),
    ]
    return "\n\n".join(part for part in parts if part)


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w, "-" if cell and set(cell) <= {"-", ":"} and not cell.endswith(":") else " ")
            for cell, w in zip(row, widths, strict=True)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def unmarked(text: str) -> str:
    """What `plain` made, for where no Markdown is read."""
    return re.sub(r"\\([\\`*<>|\[\]&#~])", r"\1", text)


def plain(text: str) -> str:
    """Text of strangers in Markdown and in a terminal: one line, no markup, no control character."""
    return re.sub(r"([\\`*<>|\[\]&#~])", r"\\\1", printable(text, len(text)))

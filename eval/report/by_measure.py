"""Arranges the estimates of a report as one reads them: a measure a row, a policy a column, in plain words."""

import math
import re
from typing import NamedTuple

from eval.statistics.intervals import Estimate
from eval.statistics.names import REFERENCE
from eval.statistics.power import detectable

from .results import Report
from .tables import COSTS, count, ends, owner_of

ALL = "all together"
"""In the place of a column: what is no policy's own."""
BEST, COST = "Whose answers are better", "What it cost"
OF_SETS = {
    "Held-out pairs": ("ranking_", "ref_ranking_", "alignment_gap", "log_ratio/", "logps", "calibration/"),
    "Held-out completions": ("nll/",),
    "Held-out labels": ("told_apart/", "log_ratio/"),
}
"""By heading, how the measures of an evaluation set begin."""
RANKED = "share of the pairs whose chosen answer is above the other by"
CALLED = (
    (r"gold_reward", "gold reward", "what eval.gold_reward gives an answer, on average; higher is better"),
    (r"gold_reward/win_rate", "wins by gold reward", "share of prompts whose answer has the higher reward; a tie is a half"),
    (r"gold_reward/longer_wins", "wins by length", "what somebody who looks at length alone would give the answers"),
    (r"win_rate/(.+)/group/(.+)", "win rate, judge {0}, group {1}", "the same, on the prompts of one group"),
    (r"win_rate/(.+)/worst_group", "win rate, judge {0}, the worst group", "the least of them; its interval allows for the choice"),
    (r"win_rate/(.+)", "win rate, judge {0}", "share of verdicts won against the reference; a tie is a half"),
    (r"win_rate_lc/(.+)", "win rate at equal length, judge {0}", "by a model of the verdicts; see the judges above"),
    (r"longer_wins/(.+)/agreement", "judge {0} and length", "how often the verdict went to the longer answer"),
    (r"longer_wins/(.+)", "wins by length, for judge {0}", "what a judge who looks at length alone would give"),
    (r"rating/(.+)", "rating, judge {0}", "Bradley-Terry strength in nats; the mean of all is 0"),
    (r"position_bias/(.+)/flips", "judge {0}: order decides", "share of pairs with another verdict in the other order"),
    (r"position_bias/(.+)/first_preference", "judge {0}: first wins", "one half if the order says nothing"),
    (r"objectives/(.+)", "objective {0}", "mean over the answers to which it applies"),
    (r"hypervolume", "hypervolume alone", "volume between the reference point and the policy's own objectives"),
    (r"front/hypervolume_over_seeds/(.+)", "hypervolume, seeds of {0}", "mean over the seeds; the interval is over seeds"),
    (r"front/hypervolume", "hypervolume", "volume between the reference point and the front; higher is better"),
    (r"front/r2", "R2", "distance of the front from the best of all; lower is better"),
    (r"front/expected_utility", "expected utility", "of the best policy for a preference that is drawn evenly"),
    (r"front/sparsity", "sparsity", "how far apart the policies of the front are"),
    (r"instructions/(.+)", "instructions followed, {0}", "share of instructions, or of prompts with all of theirs"),
    (r"refusals/(.+)", "refusals, {0}", "share of answers that refuse, by rules"),
    (r"length_(\w+)", "length, {0}", "of an answer"),
    (r"cut_off", "cut off", "share of answers that reached the greatest length without an end"),
    (r"calls", "calls of tools", "of an answer, those that failed among them"),
    (r"failed_calls", "calls that failed", "of an answer"),
    (r"kl", "KL from the reference", "nats per answer; 0 is the same policy"),
    (r"kl_before", "KL from the one before", "nats per answer"),
    (r"forward_kl", "KL of the reference from it", "nats per answer"),
    (r"jensen_shannon", "Jensen-Shannon divergence", "nats per answer, at most 0.693"),
    (r"entropy", "entropy", "nats per answer; lower is surer of what it says"),
    (r"distinct_1", "distinct words", "share of all words that are different ones"),
    (r"distinct_2", "distinct pairs of words", "share of all neighbouring pairs that are different ones"),
    (r"self_bleu", "self-BLEU", "how alike the answers are; lower is more varied"),
    (r"ranking_accuracy/group/(.+)", "ranked rightly, group {0}", "the same by implicit reward, of one group"),
    (r"ranking_accuracy/worst_group", "ranked rightly, the worst group", "the least of them; its interval allows for the choice"),
    (r"ranking_accuracy/implicit_reward", "ranked rightly", f"{RANKED} its implicit reward"),
    (r"ranking_accuracy/logp", "ranked rightly by log-probability", f"{RANKED} its log-probability"),
    (r"ranking_accuracy/mean_logp", "ranked rightly by log-probability per token", f"{RANKED} that"),
    (r"ranking_accuracy/longer_wins", "ranked rightly by length", f"{RANKED} its length"),
    (r"ranking_accuracy/above_longer_wins", "ranked rightly beyond length", "implicit reward less length, pair by pair"),
    (r"ranking_accuracy/idealised", "best that could be ranked rightly", "by DPO, at the shares of the raters"),
    (r"alignment_gap", "below the best by", "idealised less actual ranking accuracy"),
    (r"log_ratio/(.+)", "log-ratio, {0} answers", "nats by which training made them more likely"),
    (r"logps_chosen_minus_(.+)", "chosen answers, above {0} by", "log-probability in nats"),
    (r"logps/(.+)", "log-probability, {0} answers", "nats"),
    (r"calibration/brier", "Brier score", "mean squared error of the probability that the chosen answer is better"),
    (r"calibration/nll", "calibration, log loss", "nats; lower is better"),
    (r"calibration/temperature", "temperature", "above 1 it is too sure, below 1 not sure enough"),
    (r"calibration/ece", "calibration error", "without what chance adds; 0 is as sure as it is right"),
    (r"nll", "negative log-likelihood", "nats per token; lower is better"),
    (r"told_apart/log_ratio", "told apart by log-ratio", "how often a desirable answer is above another"),
    (r"told_apart", "told apart by likelihood", "the same by log-probability per token"),
)  # fmt: skip
"""Pattern of a measure's name, what it is called, and what it tells."""


class Row(NamedTuple):
    """One measure of all policies."""

    group: str
    title: str
    tells: str
    cells: dict[str, Estimate]
    """By column: a policy, the reference, or `ALL`."""
    difference: bool

    def shown(self, column: str) -> str:
        """A cell: the value with its interval."""
        if column not in self.cells:
            return ""
        e, form = self.cells[column], "+.3f" if self.difference else ".3f"
        return f"{e.value:{form}} {ends(e, form)}"

    def small(self) -> str:
        """What it tells, what is no policy's own, on how many items, and of differences the least true one that every column would show."""
        items = sorted({e.n for e in self.cells.values()})
        n = f"n={count(items[0])}" + (f" to {items[-1]}" if len(items) > 1 else "")
        seen = max(map(detectable, self.cells.values())) if self.difference else math.inf
        return "; ".join(
            filter(None, (self.shown(ALL), self.tells, n, f"to be seen: {seen:.3f}" if math.isfinite(seen) else ""))
        )


def by_measure(report: Report) -> tuple[list[str], list[Row]]:
    """The columns, the policy in question first, and the rows, in the order of the report's estimates."""
    reference = str(report.settings.get("reference", REFERENCE))
    rows: dict[tuple[str, bool], Row] = {}
    policies = {report.name: None}  # in the order of their first estimate
    for name, e in report.estimates.items():
        who, own = owner_of(name, report)
        policies[who] = None
        group, dataset = _set_of(own, report)
        measure, column, difference = _side(own.removeprefix(f"{dataset}/"), who, reference)
        title, tells = called(measure)
        title = f"{dataset}: {title}" if dataset else title
        title = f"{title}, less {reference}'s" if difference else title
        row = rows.setdefault((f"{dataset}/{measure}", difference), Row(group, title, tells, {}, difference))
        row.cells[column] = e
    used = {column for row in rows.values() for column in row.cells}
    return [column for column in (*policies, reference) if column in used], list(rows.values())


def called(measure: str) -> tuple[str, str]:
    """What a measure is called, and what it tells; its name in words where it has no other."""
    after = re.fullmatch(r"after_(\d+)_revisions/(.+)", measure)
    if after:
        title, tells = called(after[2])
        return f"{title}, after {after[1]} revisions", tells
    for pattern, title, tells in CALLED:
        found = re.fullmatch(pattern, measure)
        if found:
            return title.format(*(part.replace("/", ", ").replace("_", " ") for part in found.groups())), tells
    return measure.replace("/", ", ").replace("_", " "), ""


def _set_of(own: str, report: Report) -> tuple[str, str]:
    """The heading of an estimate, and the evaluation set that it is of, if it is of one; a set may be called as a measure is."""
    for group, sets in zip(OF_SETS, (report.pairs, report.completions, report.labels), strict=True):
        for dataset in sorted(sets, key=len, reverse=True):
            if own.startswith(tuple(f"{dataset}/{measure}" for measure in OF_SETS[group])):
                return group, dataset
    return COST if own.startswith(COSTS) else BEST, ""


def _side(own: str, who: str, reference: str) -> tuple[str, str, bool]:
    """The measure of an estimate, its column, and whether it is a difference to the reference."""
    if own.startswith(("front/", "position_bias/")) or (own.endswith("/longer_wins") and own.startswith("ranking")):
        return own, ALL, False
    if own.startswith("ref_ranking_accuracy/"):
        return own.removeprefix("ref_"), reference, False
    measure, _, side = own.rpartition("/")
    sides = {"policy": (who, False), "ref": (reference, False), "difference": (who, True)}
    if measure and side in sides:
        return (measure, *sides[side])
    return own, who, False

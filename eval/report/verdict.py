"""Says in plain words what an evaluation found: better or worse, by what, at what cost, and what is missing."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eval.statistics.comparisons import Comparison
from eval.statistics.intervals import Estimate
from eval.statistics.names import REFERENCE, says_who_is_better
from eval.statistics.power import detectable, equivalent

from .results import Report
from .tables import FEW, ends, few_prompts, interval, plain, unmarked

UNITS = ("tokens", "characters")
LOWER_IS_BETTER = "/nll"
LIKELIER = ("less likely than", "more likely than", "not told apart in likelihood from")


class Evidence(NamedTuple):
    """One measure of whose answers are better, as a difference to the reference."""

    by: str
    difference: Estimate
    shown: str


def verdict(report: Report) -> str:
    """A few sentences, the most important first."""
    return " ".join([*filter(None, [_standing(report)]), *(text for _, text in further(report))])


def headline(report: Report) -> str:
    """The verdict in one short sentence, for somebody who reads no other.

    Of runs that are compared it says which are better than which; of one run, and of the rounds or checkpoints of one, how
    the first is held against the reference.
    """
    evidence = list(_evidence(report))
    better, worse = _sure(evidence)
    reference = str(report.settings.get("reference", REFERENCE))
    among = [row for measure, rows in report.comparisons.items() if says_who_is_better(measure) for row in rows]
    if len(among) > 1 and not report.series:
        return _of_all(among, reference)
    if not evidence and report.completions:
        least = report.estimates[f"{next(iter(report.completions))}/nll/difference"]
        return f"Held-out completions are {_word(least, *LIKELIER)} under {reference}, if {report.name} is asked."
    if not evidence:
        return f"Nothing here says whether the answers of {report.name} are better."
    if better and worse:
        return f"{report.name} is better than {reference} by some measures, and worse by others."
    if not better and not worse:
        return f"{report.name} is not told apart from {reference}: the difference is within noise."
    word = "better" if better else "worse"
    if len(better or worse) < len(evidence):
        return f"{report.name} is {word} than {reference} by {len(better or worse)} of {len(evidence)} measures."
    return f"{report.name} is {word} than {reference}."


def _of_all(rows: Sequence[Comparison], reference: str) -> str:
    """Who is better than whom, of several runs and the reference."""
    beats: dict[str, list[str]] = {who: [] for row in rows for who in (row.first, row.second)}
    for row in rows:
        first, second = _above(row) or ("", "")
        if first and second not in beats[first]:
            beats[first].append(second)
    if not any(beats.values()):
        return f"No run is told apart from another, nor from {reference}: the differences are within noise."
    if any(who in beats[other] for who, others in beats.items() for other in others):
        return "Some runs are better by one measure, and worse by another."
    beaten = {who for others in beats.values() for who in others}
    top = [who for who in beats if who not in beaten]
    said = [f"{who} is better than {_listed(beats[who])}" for who in top if beats[who]]
    apart = f"; {_listed(top)} are not told apart" if len(top) > 1 else ""
    return f"{'; '.join(said)}{apart}."


def _above(row: Comparison) -> tuple[str, str] | None:
    """Who is above whom beyond doubt; None if they are not told apart."""
    if row.p_value > 0.05:
        return None
    return (row.first, row.second) if row.difference.value > 0 else (row.second, row.first)


def _listed(names: Sequence[str]) -> str:
    """Up to four names, and how many more."""
    shown = [*names[:4], *([f"{len(names) - 4} more"] if len(names) > 4 else [])]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def evidence_rows(report: Report) -> list[tuple[str, ...]]:
    """By measure of whose answers are better: what it says, the figure, and what would have been seen."""
    rows = []
    for e in _evidence(report):
        seen = detectable(e.difference)
        word = _word(e.difference, "better", "worse", "not told apart")
        rows.append((unmarked(e.by), word, e.shown, f"{seen:.3f}" if math.isfinite(seen) else ""))
    return rows


def further(report: Report) -> list[tuple[str, str]]:
    """What follows the standing: a label, and a sentence."""
    parts = [
        *(("Compared", text) for text in _beaten(report)),
        *(("Held-out pairs", text) for text in _rankings(report)),
        *(("Held-out completions", text) for text in _likelihoods(report)),
        *(("Held-out labels", text) for text in _told_apart(report)),
        ("Trained against", _trained_against(report)),
        ("Cost", _cost(report)),
        *(("Same", text) for text in _same(report)),
        ("Missing", _missing(report)),
    ]
    return [(label, text) for label, text in parts if text]


def _standing(report: Report) -> str:
    evidence = list(_evidence(report))
    reference = plain(str(report.settings.get("reference", REFERENCE)))
    if not evidence:
        return ""
    better, worse = _sure(evidence)
    open_ = [e for e in evidence if e not in better and e not in worse]
    said = []
    for word, found in (("better", better), ("worse", worse)):
        if found:
            said.append(f"{word} than {plain(reference)} by " + " and ".join(f"{e.by}, {e.shown}" for e in found))
    if open_:
        said.append(f"not told apart from {reference} by " + " or ".join(_open(e) for e in open_))
    return f"{plain(report.name)} is {'; '.join(said)}."


def _sure(evidence: list[Evidence]) -> tuple[list[Evidence], list[Evidence]]:
    """By what it is better beyond noise, and by what worse."""
    better = [e for e in evidence if e.difference.low > 0]
    worse = [e for e in evidence if e.difference.high < 0]
    return better, worse


def _evidence(report: Report) -> Iterator[Evidence]:
    gold = report.estimates.get("gold_reward/difference")
    if gold is not None:
        joint = _joint(report, "gold_reward")
        gold, told = (gold, "") if joint is None else (joint, "; joint interval")
        yield Evidence("gold reward", gold, f"{signed(gold)} (n={gold.n}{told})")
    for name, judged in report.judged.items():
        rate = judged.win_rates.get(report.name)
        if rate is not None:
            won, told = rate.win_rate, f"the longer answer: {judged.longer_wins[report.name].value:.3f}"
            joint = _joint(report, f"win_rate/{name}")  # of what is won less what is lost: twice what is above one half
            if joint is not None:
                won = Estimate(0.5 + joint.value / 2, 0.5 + joint.low / 2, 0.5 + joint.high / 2, joint.n)
                told = f"joint interval; {told}"
            difference = Estimate(won.value - 0.5, won.low - 0.5, won.high - 0.5, won.n)
            yield Evidence(f"judge {plain(name)}", difference, f"win rate {interval(won)} (n={won.n}; {told})")


def _joint(report: Report, measure: str) -> Estimate | None:
    """The difference to the reference as it stands among all that is compared, if it does: nothing has two verdicts."""
    reference = str(report.settings.get("reference", REFERENCE))
    for row in report.comparisons.get(measure, []):
        if (row.first, row.second) == (report.name, reference):
            return row.difference
        if (row.first, row.second) == (reference, report.name):
            return Estimate(-row.difference.value, -row.difference.high, -row.difference.low, row.difference.n)
    return None


def _open(evidence: Evidence) -> str:
    seen = detectable(evidence.difference)
    could = f"; a true difference of {seen:.3f} would be seen in 8 of 10 cases" if math.isfinite(seen) else ""
    return f"{evidence.by}, {evidence.shown}{could}"


def _beaten(report: Report) -> Iterator[str]:
    """Who beats whom, corrected for everything that was compared."""
    rows = [(measure, row) for measure, rows in report.comparisons.items() for row in rows]
    if not rows:
        return
    sure = []
    for measure, row in rows:
        if (above := _above(row)) is not None:
            first, second = above
            said = f"{plain(first)} above {plain(second)} by {abs(row.difference.value):.3f} in {plain(measure)}"
            sure.append(f"{said}, where lower is better" if measure.endswith(LOWER_IS_BETTER) else said)
    corrected = f"corrected for {len(rows)} comparisons"
    yield f"Beyond doubt, {corrected}: {'; '.join(sure)}." if sure else f"No two are told apart, {corrected}."


def _rankings(report: Report) -> Iterator[str]:
    for name in report.pairs:
        accuracy = report.estimates[f"{name}/ranking_accuracy/implicit_reward"]
        half = _word(accuracy, "above", "below", "not told apart from", at=0.5)
        of = "Log-ratio" if "held_against" in report.settings else "Implicit-reward"
        said = f"{of} accuracy on {plain(name)} {interval(accuracy)}, {half} one half"
        longer = report.estimates.get(f"{name}/ranking_accuracy/above_longer_wins")
        if longer is not None:
            baseline = report.estimates[f"{name}/ranking_accuracy/longer_wins"].value
            against = _word(longer, "above", "below", "not told apart from")
            said += f' and {against} "the longer one wins" ({baseline:.3f})'
        left_out = f" ({report.left_out[name]})" if name in report.left_out else ""
        yield f"{said}{left_out}."


def _likelihoods(report: Report) -> Iterator[str]:
    for name in report.completions:
        own, apart = (report.estimates[f"{name}/nll/{side}"] for side in ("policy", "difference"))
        left_out = f" ({report.left_out[name]})" if name in report.left_out else ""
        yield (
            f"Held-out completions: those of {plain(name)} are {_word(apart, *LIKELIER)} under the reference, {interval(own)} nats per token, "
            f"difference {signed(apart)} (n={apart.n}){left_out}."
        )


def _told_apart(report: Report) -> Iterator[str]:
    for name in report.labels:
        share = report.estimates.get(f"{name}/told_apart/log_ratio")
        if share is not None:
            half = _word(share, "above", "below", "not told apart from", at=0.5)
            left_out = f" ({report.left_out[name]})" if name in report.left_out else ""
            yield (
                f"Held-out labels: by its log-ratio a desirable answer of {plain(name)} is above another in {interval(share)} "
                f"of cases, {half} one half (n={share.n}){left_out}."
            )


def _trained_against(report: Report) -> str:
    """What each policy was trained against, where that is not what it is held against here."""
    told = report.settings.get("trained_against", {})
    if "held_against" not in report.settings:
        return ""
    said = "; ".join(f"{plain(who)} against {plain(what)}" for who, what in told.items())
    return f"Trained against: {said}. Here all are held against {report.settings['held_against']}."


def _cost(report: Report) -> str:
    parts = []
    if "kl" in report.estimates:
        few = ", of which one prompt holds more than a fifth" if report.name in few_prompts(report) else ""
        parts.append(f"a KL of {interval(report.estimates['kl'])} nats per answer{few}")
    for unit in UNITS:
        length = report.estimates.get(f"length_{unit}/difference")
        if length is not None:
            word = _word(length, "longer", "shorter", "longer, within noise")
            known = math.isfinite(length.low)
            parts.append(
                f"answers {length.value:+.1f} {ends(length, '+.1f')} {unit} {word}"
                if known
                else f"answers {length.value:+.1f} {unit}"
            )
            break
    diversity = [report.estimates.get(f"distinct_2/{side}") for side in ("policy", "ref")]
    if diversity[0] is not None and diversity[1] is not None:
        parts.append(f"distinct bigrams {diversity[0].value:.3f} where the reference has {diversity[1].value:.3f}")
    cut = report.estimates.get("cut_off/policy")
    if cut is not None and cut.value > 0:
        parts.append(f"{cut.value:.0%} of the answers cut off at their greatest length")
    return f"Cost: {'; '.join(parts)}." if parts else ""


def _same(report: Report) -> Iterator[str]:
    """Equivalence, where somebody said in advance how much does not matter."""
    for measure, margin in report.settings.get("same_within", {}).items():
        difference = report.estimates.get(f"{measure}/difference")
        if difference is None:
            known = [key.removesuffix("/difference") for key in report.estimates if key.endswith("/difference")]
            yield f"{plain(measure)}: no such difference to be the same within ±{margin:g}; there are {', '.join(known)}."
        else:
            word = "the same" if equivalent(difference, margin) else "not shown to be the same"
            yield f"{plain(measure)}: {word} within ±{margin:g}."


def _missing(report: Report) -> str:
    asked = [
        f"judge {plain(name)} gave too few verdicts for a win rate"
        for name, judged in report.judged.items()
        if report.name not in judged.win_rates
    ]
    if not list(_evidence(report)) and not asked:
        asked.append(
            "nothing here says whose answers are better: set eval.generate, and eval.gold_reward or eval.judges"
        )
    few = sorted({e.n for key, e in report.estimates.items() if key.startswith(("gold_reward/", "win_rate/"))})
    if few and few[0] < FEW:
        asked.append(f"{few[0]} prompts are few: `alignkit power` says how many a difference needs")
    return f"Missing: {'; '.join(asked)}." if asked else ""


def _word(e: Estimate, up: str, down: str, none: str, *, at: float = 0.0) -> str:
    return up if e.low > at else down if e.high < at else none


def signed(e: Estimate) -> str:
    """A difference with its interval."""
    return f"{e.value:+.3f} {ends(e, '+.3f')}"

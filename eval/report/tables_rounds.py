"""Puts the rounds of a report into rows and sentences."""

from .results import Report
from .tables import ends, interval, markdown_table, plain

ROUND_COLUMNS = {
    "gold_reward/policy": "gold reward",
    "kl": "KL from the reference",
    "kl_before": "KL from the round before",
    "length_tokens/policy": "length, tokens",
    "distinct_2/policy": "distinct bigrams",
    "self_bleu/policy": "self-BLEU",
}


def round_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and cells of a table with a column a round, of what the report has; win rates are against the reference."""
    titles = ROUND_COLUMNS | {f"win_rate/{name}": f"win rate, {name}" for name in report.judged}
    rows = []
    for key, title in titles.items():
        sides = [report.estimates.get(key if who == report.name else f"{who}/{key}") for who in report.rounds]
        if key.endswith("/policy"):
            sides.insert(0, report.estimates.get(key.removesuffix("policy") + "ref"))
        else:
            sides.insert(0, None)
        if any(sides):
            rows.append((title, *("" if e is None else interval(e) for e in sides)))
    return ("measure", "reference", *report.rounds), rows


def best_round_notes(report: Report) -> list[str]:
    """A sentence for each measure by which the best round was chosen."""
    notes = []
    for measure, best in report.best_round.items():
        e = best.above_first
        found = "" if e is None else f" by {e.value:+.3f} {ends(e, '+.3f')} on the {best.measured_on} others"
        above = (
            "none is above what they began with" if e is None else f"{best.name} is above what they began with{found}"
        )
        notes.append(
            f"Best of {best.candidates} policies by {measure}, chosen on {best.chosen_on} prompts: {above}. Prompts drawn anew choose "
            f"the same in {best.share:.0%} of cases."
        )
    return notes


def rounds_markdown(report: Report) -> str:
    """The table of rounds and what is best, as a section; empty without rounds."""
    if not report.rounds:
        return ""
    notes = "\n".join(f"- {plain(note)}" for note in best_round_notes(report))
    return f"## Rounds\n\n{markdown_table(*round_table(report), texts=1)}\n\n{notes}\n\n"

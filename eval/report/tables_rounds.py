"""Puts the rounds or checkpoints of a report into rows and sentences."""

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
    """Head and cells of a table with a column a policy, of what the report has; win rates are against the reference."""
    titles = ROUND_COLUMNS | {f"win_rate/{name}": f"win rate, {name}" for name in report.judged}
    titles |= {f"objectives/{name}/policy": f"trained on: {name}" for name in trained_on(report)}
    rows = []
    for key, title in titles.items():
        sides = [report.estimates.get(key if who == report.name else f"{who}/{key}") for who in report.series]
        if key.endswith("/policy"):
            sides.insert(0, report.estimates.get(key.removesuffix("policy") + "ref"))
        else:
            sides.insert(0, None)
        if any(sides):
            rows.append((title, *("" if e is None else interval(e) for e in sides)))
    return ("measure", "reference", *report.series), rows


def trained_on(report: Report) -> list[str]:
    """Names of the rewards that were measured because the run was trained on them."""
    middles = [key.split("/") for key in report.estimates if key.startswith("objectives/") and key.endswith("/policy")]
    return ["/".join(parts[1:-1]) for parts in middles]


def series_title(report: Report) -> str:
    """Of the section with the table."""
    return "Rounds" if report.rounds else "Checkpoints"


def best_round_notes(report: Report) -> list[str]:
    """A sentence for each measure by which the best round was chosen."""
    start, notes = "what they began with" if report.rounds else "the reference", []
    for measure, best in report.best_round.items():
        e = best.above_first
        found = "" if e is None else f" by {e.value:+.3f} {ends(e, '+.3f')} on the {best.measured_on} others"
        above = f"none is above {start}" if e is None else f"{best.name} is above {start}{found}"
        notes.append(
            f"Best of {best.candidates} policies by {measure}, chosen on {best.chosen_on} prompts: {above}. Prompts drawn anew choose "
            f"the same in {best.share:.0%} of cases."
        )
    return notes


def rounds_markdown(report: Report) -> str:
    """The table of rounds and what is best, as a section; empty without rounds."""
    if not report.series:
        return ""
    notes = "\n".join(f"- {plain(note)}" for note in best_round_notes(report))
    return f"## {series_title(report)}\n\n{markdown_table(*round_table(report), texts=1)}\n\n{notes}\n\n"

"""Writes a report as one HTML file that opens without a network; every text in it is escaped."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import yaml

from align.findings import printable
from eval.statistics.names import REFERENCE

from .by_measure import by_measure
from .results import Report
from .tables import (
    BEST,
    COMPARED,
    COMPARISON,
    EVIDENCE,
    GROUPS,
    INTERVALS,
    JUDGED,
    JUDGING,
    RATED,
    READING,
    best_rows,
    comparison_rows,
    estimate_notes,
    front_note,
    judge_notes,
    judge_rows,
    rating_rows,
    unmarked,
)
from .tables_rounds import best_round_notes, round_table, series_title
from .verdict import evidence_rows, further, headline

SAMPLES, SHOWN_COMPARISONS = 10, 12
DIFFED_WORDS = 1000
"""What lies beyond in an answer is shown without marks."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # second line of defence: nothing loads or runs
STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --text: #1f2328; --back: #ffffff; --dim: #59636e;
  --new: #d2f4d9; --gone: #ffe1de; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #161b22; --text: #e6edf3; --back: #0d1117; --dim: #9198a1;
  --new: #12401f; --gone: #5a1e1b; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 62rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1rem; margin: 0; color: var(--dim); font-weight: normal; } h2 { font-size: 1.15rem; margin-top: 2rem; }
h3 { font-size: .95rem; margin: 1.2rem 0 .3rem; }
.headline { font-size: 1.5rem; line-height: 1.25; font-weight: 600; margin: .2rem 0 1rem; border-left: 4px solid #1f6feb;
  padding: .2rem .8rem; }
.said { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1rem; } .said dt { color: var(--dim); }
.said dd { margin: 0; } .scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; min-width: 8rem; }
.n { min-width: 0; text-align: right; font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.measures td:first-child { min-width: 15rem; } .measures .n { font-size: .85rem; }
.pictures { columns: 25rem; } figure { margin: 0 0 1rem; break-inside: avoid; } figcaption { font-weight: 600; font-size: .95rem; margin: .6rem 0 .3rem; }
img { width: 100%; max-width: 34rem; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
@media (prefers-color-scheme: dark) { img { filter: invert(.93) hue-rotate(180deg); border-color: #d0d7de; } }
details { margin: .5rem 0; } summary { cursor: pointer; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; margin-bottom: .8rem; } .pair > div { background: var(--soft);
  border: 1px solid var(--line); border-radius: 6px; padding: .6rem; white-space: pre-wrap; }
@media (max-width: 40rem) { .pair, .said { grid-template-columns: 1fr; gap: 0; } .pair { gap: .5rem; }
  .said dd { margin-bottom: .5rem; } .headline { font-size: 1.25rem; } table, tbody, tr { display: block; font-size: .85rem; }
  tr.head { display: none; } tr { border-bottom: 1px solid var(--line); padding: .3rem 0; }
  td, .measures td:first-child { display: block; border: 0; padding: 0; min-width: 0; } td:first-child { font-weight: 600; } .n { text-align: left; }
  td[data-title]::before { content: attr(data-title) ": "; color: var(--dim); } td:empty { display: none; } }
ins { background: var(--new); text-decoration: underline dotted 1px; text-underline-offset: .2em; }
del { background: var(--gone); text-decoration: none; } ul { padding-left: 1.2rem; }
.dim { color: var(--dim); font-size: .85rem; font-weight: normal; } pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def page(title: str, body: str) -> str:
    """A whole page around a body that is HTML already; the title is not."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escaped(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def to_html(report: Report, pictures: dict[str, bytes]) -> str:
    """One file with everything inline: the verdict first, then what it rests on, then everything else."""
    settings = yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True)
    return page(
        report.name,
        f"<h1>Evaluation of {escaped(report.name)}</h1>{_verdict(report)}"
        f"{_rounds(report)}{_compared(report)}{html_pictures(pictures)}{_judges(report)}{_estimates(report)}{_answers(report)}"
        f"{_folded('Settings', f'<pre>{escaped(settings)}</pre>')}",
    )


def _verdict(report: Report) -> str:
    rows = evidence_rows(report)
    table = f"{html_table(EVIDENCE, rows, texts=3)}<p class=dim>{READING}</p>" if rows else ""
    said = "".join(
        f"<dt>{label}</dt><dd>{escaped(unmarked(text.removeprefix(f'{label}: ')))}</dd>"
        for label, text in further(report)
    )
    return f"<p class=headline>{escaped(headline(report))}</p>{table}<dl class=said>{said}</dl>"


def html_pictures(pictures: Mapping[str, bytes]) -> str:
    """Figures by title."""
    figures = "".join(
        f'<figure><figcaption>{escaped(title)}</figcaption><img alt="{escaped(title)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
        for title, png in pictures.items()
    )
    return f"<h2>Pictures</h2><div class=pictures>{figures}</div>" if figures else ""


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """The first `texts` columns hold names, the others numbers. In a narrow window a row is a block of lines.

    A row may have one cell more than the head: what its name means, in small letters below it.
    """
    titles = "".join(f"<th{' class=n' if i >= texts else ''}>{escaped(title)}</th>" for i, title in enumerate(head))
    body, kind = "", ""
    for row in rows:
        means = f"<div class=dim>{escaped(row[-1])}</div>" if len(row) > len(head) else ""
        kind = " class=measures" if means else kind
        names = [_breakable(cell) for cell in row[:texts]]
        cells = [f"<td{_titled(head, i)}>{name}{means if i == 0 else ''}</td>" for i, name in enumerate(names)]
        cells += [f"<td class=n{_titled(head, i)}>{_unbroken(row[i])}</td>" for i in range(texts, len(head))]
        body += f"<tr>{''.join(cells)}</tr>"
    return f"<div class=scroll><table{kind}><tr class=head>{titles}</tr>{body}</table></div>"


def _titled(head: Sequence[str], column: int) -> str:
    return "" if column == 0 else f' data-title="{escaped(head[column])}"'


def _folded(title: str, content: str) -> str:
    """Behind a title that opens; what is searched in the page is found there too."""
    return f"<details><summary>{escaped(title)}</summary>{content}</details>"


def _estimates(report: Report) -> str:
    """In groups, each with a sentence: a measure a row, a policy a column. The names of the estimates are in report.json."""
    columns, rows = by_measure(report)
    notes = "".join(f"<li>{escaped(note)}</li>" for note in estimate_notes(report))
    found = f"<ul class=dim>{notes}</ul>" if notes else ""
    for title, about in reversed(GROUPS.items()):
        of = [row for row in rows if row.group == title]
        if of:
            used = [column for column in columns if any(column in row.cells for row in of)]
            cells = [(row.title, *(row.shown(column) for column in used), row.small()) for row in of]
            found = f"<h3>{title}</h3><p class=dim>{escaped(about)}</p>{html_table(('measure', *used), cells, texts=1)}{found}"
    return f"<h2>Estimates</h2>{found}{_folded('How the intervals are made', f'<p class=dim>{INTERVALS}</p>')}"


def _rounds(report: Report) -> str:
    if not report.series:
        return ""
    head, rows = round_table(report)
    notes = "".join(f"<li>{escaped(note)}</li>" for note in best_round_notes(report))
    return f"<h2>{series_title(report)}</h2>{html_table(head, rows, texts=1)}<ul>{notes}</ul>"


def _judges(report: Report) -> str:
    parts = []
    if report.judged:
        parts.append(f"<h2>Judges</h2>{html_table(JUDGED, judge_rows(report), texts=2)}<p class=dim>{JUDGING}</p>")
        notes = "".join(f"<li>{escaped(note)}</li>" for note in judge_notes(report))
        parts.append(_folded("Notes on the judges", f"<ul class=dim>{notes}</ul>") if notes else "")
    for title, head, rows, texts in (
        ("Ratings", RATED, rating_rows(report), 2), ("Best of k", BEST, best_rows(report), 1),
    ):  # fmt: skip
        parts.append(_folded(title, html_table(head, rows, texts=texts)) if rows else "")
    return "".join(parts)


def _compared(report: Report) -> str:
    rows, front = comparison_rows(report), front_note(report)
    found = f"{html_table(COMPARISON, rows, texts=2)}<p class=dim>{COMPARED}</p>" if rows else ""
    if len(rows) > SHOWN_COMPARISONS:
        found = _folded(f"All {len(rows)} comparisons", found)
    found = f"<h2>Runs compared</h2>{found}" if rows else ""
    return found + (f"<p>{escaped(front)}</p>" if front else "")


def _answers(report: Report) -> str:
    if not report.answers:
        return ""
    shown = report.answers[:SAMPLES]
    heading = (
        f"<h2>Answers side by side</h2><p class=dim>The first {len(shown)} of {len(report.answers)} prompts, not chosen by "
        "hand. Words are marked that the other answer does not have at that place.</p>"
    )
    ref = str(report.settings.get("reference", REFERENCE))
    return heading + "".join(_answer(row, ref) for row in shown)


def _answer(row: dict[str, Any], ref: str) -> str:
    policy, reference = word_diff(row["ref"], row["policy"])
    sides = [_side("policy", policy, row.get("policy_reward")), _side(ref, reference, row.get("ref_reward"))]
    for who, other in row.get("others", {}).items():
        sides.append(_side(who, word_diff(row["ref"], other["text"])[0], other.get("reward")))
    prompt = (
        row["prompt"]
        if isinstance(row["prompt"], str)
        else "\n".join(f"{m['role']}: {m['content']}" for m in row["prompt"])
    )
    return f"<h3 class=dim>{escaped(prompt)}</h3><div class=pair>{''.join(sides)}</div>"


def _side(label: str, answer: str, reward: float | None) -> str:
    gold = "" if reward is None else f" · gold reward {reward:+.3f}"
    return f"<div><span class=dim>{escaped(label)}{gold}</span>\n{answer}</div>"


def word_diff(old: str, new: str) -> tuple[str, str]:
    """Both texts as HTML, the new one first: <ins> what the old one lacks, and in the old one <del> what the new one lacks."""
    words = [re.findall(r"\s+|\S+", text) for text in (old, new)]
    one, two = (side[:DIFFED_WORDS] for side in words)
    before, after = "", ""
    for kind, a, b, c, d in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        gone, come = escaped("".join(one[a:b])), escaped("".join(two[c:d]))
        before += f"<del>{gone}</del>" if gone and kind != "equal" else gone
        after += f"<ins>{come}</ins>" if come and kind != "equal" else come
    rest = [escaped("".join(side[DIFFED_WORDS:])) for side in words]
    return after + rest[1], before + rest[0]


def escaped(text: str) -> str:
    """Text of strangers in HTML: no markup, and no control character but line break and tab."""
    shown = "".join(c if c in "\n\t" or not _CONTROL.match(c) else printable(c) for c in text)
    return html.escape(shown, quote=True)


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def _unbroken(figure: str) -> str:
    """Escaped; a line may end before an interval, not within it."""
    return escaped(figure).replace(", ", ",&nbsp;")


def _breakable(name: str) -> str:
    """Escaped, and free to continue on the next line after a slash or an underscore."""
    return escaped(name).replace("/", "/<wbr>").replace("_", "_<wbr>")

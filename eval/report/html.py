"""Writes a report as one HTML file that opens without a network; every text in it is escaped."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher
from typing import Any

import yaml

from align.findings import printable
from eval.statistics.names import REFERENCE

from .results import Report
from .tables import (
    BEST,
    COMPARED,
    COMPARISON,
    ESTIMATE,
    INTERVALS,
    JUDGED,
    JUDGING,
    RATED,
    best_round_notes,
    best_rows,
    comparison_rows,
    estimate_rows,
    front_note,
    judge_notes,
    judge_rows,
    rating_rows,
    round_table,
)
from .verdict import verdict

SAMPLES = 10
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
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-size: 1.1rem; border-left: 4px solid #1f6feb; padding: .4rem .8rem; background: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: normal; min-width: 5.5rem; }
.n { min-width: 0; text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; margin-bottom: .8rem; } .pair > div { background: var(--soft);
  border: 1px solid var(--line); border-radius: 6px; padding: .6rem; white-space: pre-wrap; }
@media (max-width: 40rem) { .pair { grid-template-columns: 1fr; } table { font-size: .8rem; } th, td { padding: .3rem .25rem; }
  .scroll img { min-width: 36rem; } }
ins { background: var(--new); text-decoration: underline dotted 1px; text-underline-offset: .2em; }
del { background: var(--gone); text-decoration: none; } ul { padding-left: 1.2rem; }
.dim { color: var(--dim); font-size: .85rem; } pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def to_html(report: Report, pictures: dict[str, bytes]) -> str:
    """One file with everything inline."""
    figures = "".join(
        f'<h2>{escaped(title)}</h2><div class=scroll><img alt="{escaped(title)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>'
        for title, png in pictures.items()
    )
    settings = yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{escaped(report.name)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><h1>{escaped(report.name)}</h1>"
        f"<p class=verdict>{escaped(verdict(report))}</p>{_rounds(report)}{_judges(report)}"
        f"<h2>Estimates</h2>{_table(ESTIMATE, estimate_rows(report), texts=1)}"
        f"<p class=dim>{INTERVALS}</p>{_compared(report)}"
        f"{figures}{_answers(report)}<h2>Settings</h2><pre>{escaped(settings)}</pre></body></html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, texts: int) -> str:
    """The first `texts` columns hold names, the others numbers."""
    titles = "".join(f"<th{' class=n' if i >= texts else ''}>{title}</th>" for i, title in enumerate(head))
    body = "".join(
        f"<tr>{''.join(f'<td>{_breakable(c)}</td>' for c in row[:texts])}"
        f"{''.join(f'<td class=n>{escaped(c)}</td>' for c in row[texts:])}</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><tr>{titles}</tr>{body}</table></div>"


def _rounds(report: Report) -> str:
    if not report.rounds:
        return ""
    head, rows = round_table(report)
    notes = "".join(f"<li>{escaped(note)}</li>" for note in best_round_notes(report))
    return f"<h2>Rounds</h2>{_table([escaped(one) for one in head], rows, texts=1)}<ul>{notes}</ul>"


def _judges(report: Report) -> str:
    parts = []
    if report.judged:
        parts.append(f"<h2>Judges</h2>{_table(JUDGED, judge_rows(report), texts=2)}<p class=dim>{JUDGING}</p>")
        notes = "".join(f"<li>{escaped(note)}</li>" for note in judge_notes(report))
        parts.append(f"<ul class=dim>{notes}</ul>" if notes else "")
    for title, head, rows, texts in (
        ("Ratings", RATED, rating_rows(report), 2), ("Best of k", BEST, best_rows(report), 1),
    ):  # fmt: skip
        parts.append(f"<h2>{title}</h2>{_table(head, rows, texts=texts)}" if rows else "")
    return "".join(parts)


def _compared(report: Report) -> str:
    rows, front = comparison_rows(report), front_note(report)
    found = f"<h2>Runs compared</h2>{_table(COMPARISON, rows, texts=2)}<p class=dim>{COMPARED}</p>" if rows else ""
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


def _breakable(name: str) -> str:
    """Escaped, and free to continue on the next line after a slash or an underscore."""
    return escaped(name).replace("/", "/<wbr>").replace("_", "_<wbr>")

"""A report as JSON, Markdown and one HTML file that opens without a network; every text in it is escaped."""

import base64
import html
import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from align.data.findings import printable
from align.rundir import write_text

from .evaluate import Report
from .stats import Estimate

SAMPLES = 10
INTERVALS = (
    "Intervals: percentile bootstrap over prompts or pairs; of distinct n-grams by leaving out groups of answers, of "
    "self-BLEU over groups of 8 answers. Units: log-probabilities, entropy and divergences in nats per answer."
)
HOLM = (
    "Paired by prompt. The intervals of one measure hold together (Bonferroni); p-values are of sign flips, corrected by "
    "Holm for the pairs of runs of that measure."
)
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # second line of defence: nothing loads or runs
STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #f6f8fa; --text: #1f2328; --back: #ffffff; --dim: #59636e; }
@media (prefers-color-scheme: dark) {
  :root { --line: #3d444d; --soft: #161b22; --text: #e6edf3; --back: #0d1117; --dim: #9198a1; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); margin: 0 auto;
  max-width: 62rem; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.verdict { font-size: 1.1rem; border-left: 4px solid #1f6feb; padding: .4rem .8rem; background: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); overflow-wrap: normal; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
img { width: 100%; height: auto; background: #fff; border: 1px solid var(--line); border-radius: 6px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; } .pair > div { background: var(--soft);
  border: 1px solid var(--line); border-radius: 6px; padding: .6rem; white-space: pre-wrap; }
@media (max-width: 40rem) { .pair { grid-template-columns: 1fr; } table { font-size: .8rem; } th, td { padding: .3rem .25rem; }
  .scroll img { min-width: 36rem; } }
.dim { color: var(--dim); font-size: .85rem; } pre { background: var(--soft); padding: .8rem; overflow-x: auto; font-size: .8rem; }
"""


def verdict(report: Report) -> str:
    """One line: what improved, what it cost, what is within noise."""
    parts = []
    gold = report.estimates.get("gold_reward/difference")
    if gold is not None:
        parts.append(f"Gold reward {_direction(gold)}: {_signed(gold)} against the reference")
    for name in report.pairs:
        accuracy = report.estimates[f"{name}/ranking_accuracy/implicit_reward"]
        parts.append(f"implicit-reward accuracy on {_plain(name)} {_interval(accuracy)}")
    if "kl" in report.estimates:
        parts.append(f"at a KL of {_interval(report.estimates['kl'])} nats per answer")
    length = report.estimates.get("length_tokens/difference")
    if length is not None:
        parts.append(f"answers {_direction(length, 'longer', 'shorter', 'of the same length within noise')}")
    line = "; ".join(parts) + "."
    return line[:1].upper() + line[1:]


def _direction(e: Estimate, up: str = "up", down: str = "down", none: str = "within noise") -> str:
    return up if e.low > 0 else down if e.high < 0 else none


def _signed(e: Estimate) -> str:
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}] (n={e.n})"


def _interval(e: Estimate) -> str:
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def to_json(report: Report) -> str:
    """Machine-readable: estimates by name, each value, low, high and n."""
    estimates = {name: _numbers(estimate) for name, estimate in report.estimates.items()}
    compared = {
        name: [{**row._asdict(), "difference": _numbers(row.difference)} for row in rows]
        for name, rows in report.comparisons.items()
    }
    return json.dumps(
        {
            "name": report.name,
            "verdict": verdict(report),
            "estimates": estimates,
            **({"comparisons": compared} if compared else {}),
            "settings": report.settings,
        },
        indent=2,
    )


def _numbers(estimate: Estimate) -> dict[str, Any]:
    """By name; what JSON cannot hold becomes text, as in `metrics.jsonl`: "inf"."""
    return {key: value if math.isfinite(value) else str(value) for key, value in estimate._asdict().items()}


def table(report: Report) -> str:
    """The estimates as an aligned Markdown table."""
    rows = [
        (_plain(k), f"{e.value:.3f}", f"[{e.low:.3f}, {e.high:.3f}]", str(e.n)) for k, e in report.estimates.items()
    ]
    return _aligned([("estimate", "value", "95% interval", "n"), ("---", "--:", "---", "--:"), *rows])


def comparison_table(report: Report) -> str:
    """Every pair of the runs that were compared, as an aligned Markdown table; empty if none were."""
    rows = [(_plain(measure), _plain(pair), *numbers) for measure, pair, *numbers in _comparisons(report)]
    dashes = ("---", "---", "--:", "---", "--:", "--:")
    return _aligned([COMPARISON, dashes, *rows]) if rows else ""


COMPARISON = ("measure", "first - second", "difference", "joint 95% interval", "p (Holm)", "n")


def _comparisons(report: Report) -> list[tuple[str, ...]]:
    return [
        (measure, f"{row.first} - {row.second}", f"{e.value:+.3f}", f"[{e.low:+.3f}, {e.high:+.3f}]", p, str(e.n))
        for measure, rows in report.comparisons.items()
        for row in rows
        for e, p in [(row.difference, f"{row.p_holm:.4f}")]
    ]


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(w, "-" if set(cell) <= {"-", ":"} and not cell.endswith(":") else " ")
            for cell, w in zip(row, widths, strict=True)
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def to_markdown(report: Report) -> str:
    """The verdict, the table and the settings."""
    settings = yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", settings)), default=0))
    compared = f"## Runs compared\n\n{comparison_table(report)}\n\n{HOLM}\n\n" if report.comparisons else ""
    return (
        f"# {_plain(report.name)}\n\n{verdict(report)}\n\n{table(report)}\n\n{INTERVALS}\n\n{compared}"
        f"## Settings\n\n{fence}yaml\n{settings}{fence}\n"
    )


def to_html(report: Report, pictures: dict[str, bytes]) -> str:
    """One file with everything inline."""
    rows = "".join(
        f"<tr><td>{_breakable(name)}</td><td class=n>{e.value:.3f}</td><td class=n>[{e.low:.3f}, {e.high:.3f}]</td><td class=n>{e.n}</td></tr>"
        for name, e in report.estimates.items()
    )
    compared = "".join(
        f"<tr><td>{_breakable(measure)}</td><td>{_breakable(pair)}</td>{''.join(f'<td class=n>{n}</td>' for n in numbers)}</tr>"
        for measure, pair, *numbers in _comparisons(report)
    )
    head = "".join(f"<th{' class=n' if i > 1 else ''}>{title}</th>" for i, title in enumerate(COMPARISON))
    runs = (
        f"<h2>Runs compared</h2><div class=scroll><table><tr>{head}</tr>{compared}</table></div><p class=dim>{HOLM}</p>"
    )
    figures = "".join(
        f'<h2>{_e(title)}</h2><div class=scroll><img alt="{_e(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>'
        for title, png in pictures.items()
    )
    answers = "".join(_answer(row) for row in report.answers[:SAMPLES])
    heading = f"<h2>Answers side by side</h2><p class=dim>The first {min(SAMPLES, len(report.answers))} of {len(report.answers)} prompts, not chosen by hand.</p>"
    settings = yaml.safe_dump(report.settings, sort_keys=False, allow_unicode=True)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}"><title>{_e(report.name)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style></head><body><h1>{_e(report.name)}</h1><p class=verdict>{_e(verdict(report))}</p>"
        f"<h2>Estimates</h2><div class=scroll><table><tr><th>estimate</th><th class=n>value</th><th class=n>95% interval</th><th class=n>n</th></tr>{rows}</table></div>"
        f"<p class=dim>{INTERVALS}</p>{runs if compared else ''}"
        f"{figures}{heading + answers if report.answers else ''}<h2>Settings</h2><pre>{_e(settings)}</pre></body></html>\n"
    )


def _answer(row: dict[str, Any]) -> str:
    def side(who: str, label: str) -> str:
        reward = f" · gold reward {row[f'{who}_reward']:+.3f}" if f"{who}_reward" in row else ""
        return f"<div><span class=dim>{label}{reward}</span>\n{_e(row[who])}</div>"

    prompt = (
        row["prompt"]
        if isinstance(row["prompt"], str)
        else "\n".join(f"{m['role']}: {m['content']}" for m in row["prompt"])
    )
    return f"<h3 class=dim>{_e(prompt)}</h3><div class=pair>{side('policy', 'policy')}{side('ref', 'reference')}</div>"


def _e(text: str) -> str:
    """Text of strangers in HTML: no markup, and no control character but line break and tab."""
    shown = "".join(c if c in "\n\t" or not _CONTROL.match(c) else printable(c) for c in text)
    return html.escape(shown, quote=True)


def _plain(text: str) -> str:
    """Text of strangers in Markdown and in a terminal: one line, no markup, no control character."""
    return re.sub(r"([\\`*<>|\[\]&#~])", r"\\\1", printable(text, len(text)))


_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")


def _breakable(name: str) -> str:
    """Escaped, and free to continue on the next line after a slash or an underscore."""
    return _e(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def write_report(report: Report, pictures: dict[str, bytes], out: Path) -> Path:
    """Write report.json, report.md, report.html and the pictures; returns the HTML's path."""
    write_text(out / "report.json", to_json(report) + "\n")
    write_text(out / "report.md", to_markdown(report))
    write_text(out / "report.html", to_html(report, pictures))
    folder = out / "pictures"
    folder.mkdir(exist_ok=True)
    for title, png in pictures.items():
        (folder / f"{title.lower().replace(' ', '-')}.png").write_bytes(png)
    return out / "report.html"

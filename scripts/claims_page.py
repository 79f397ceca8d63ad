"""Writes `recipes/results.html`, one file with everything inline: the claims of `claims.py` with figures, verdicts and commands.

Run: python scripts/claims_page.py   (seconds; it reads `scripts/bench/results` alone)
"""

import argparse
import base64
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from beyond import PEAK, SAMPLING, TRAINING, rows
from claims import claims
from verdicts import HELD, NOT, OPEN, RESULTS, ROOT, Claim, read

from eval.report.html import escaped, page


def body(made: list[Claim]) -> str:
    """The page, without its frame."""
    rows = "".join(
        f'<tr><td data-title="claim"><a href="#c{number}">{escaped(claim.says)}</a></td>'
        f'<td data-title="source">{escaped(claim.source)}</td><td data-title="verdict">{escaped(of_all(claim))}</td></tr>'
        for number, claim in enumerate(made)
    )
    return (
        "<h1>Claims on trial</h1>"
        f'<p class="headline">{escaped(headline(made))}</p>'
        "<p>A verdict follows from the 95% interval alone: <em>held</em> if all of it is on the claim's side of the bar, <em>did not "
        "hold</em> if all of it is on the other side, else <em>cannot be told</em>. Intervals over prompts, problems or pairs are given "
        "the seeds that were run. A verdict is a figure's own; where a claim has several, Holm's p over them stands beside each, and the table "
        "says how many verdicts do not stay after it.</p>"
        f'<table><tr class="head"><th>claim</th><th>source</th><th>verdict</th></tr>{rows}</table>'
        + "".join(section(number, claim) for number, claim in enumerate(made))
        + beyond()
    )


def beyond() -> str:
    """What the sizes of the papers would cost."""
    made = "".join(
        f'<tr><td data-title="claim">{escaped(claim)}</td><td data-title="command"><code>{escaped(command)}</code></td>'
        f'<td data-title="GPU hours">{escaped(cost)}</td></tr>'
        for claim, command, cost in rows()
    )
    return (
        "<h2>At sizes beyond this machine</h2><p>GPU hours of all runs, from counted FLOPs: LoRA on all linear maps, activations computed "
        f"again in backward, a GPU of {PEAK / 1e12:.0f} TFLOP/s in bf16 (H100) of which training is assumed to reach {TRAINING:.0%} and sampling "
        f"{SAMPLING:.0%}. None was run. Evaluation is not counted. <code>python scripts/beyond.py</code></p>"
        '<table><tr class="head"><th>claim</th><th>command</th><th>GPU hours</th></tr>'
        f"{made}</table>"
    )


def of_all(claim: Claim) -> str:
    """The verdicts of a claim's figures, counted where they differ."""
    found, lost = [one.verdict for one in claim.figures], claim.lost()
    after = f"; {lost} not after Holm's correction" if lost else ""
    if len(set(found)) == 1:
        return found[0] if len(found) == 1 else f"{found[0]} ({len(found)} of {len(found)} figures){after}"
    said = "; ".join(f"{said}: {found.count(said)} of {len(found)}" for said in (HELD, NOT, OPEN) if said in found)
    return said + after


def headline(made: list[Claim]) -> str:
    """How many claims held in every figure, held in none, or are open."""
    found = [{one.verdict for one in claim.figures} for claim in made]
    held, refuted = found.count({HELD}), found.count({NOT})
    return (
        f"Of {len(made)} claims {held} held in every figure, {refuted} did not hold in any, and {len(made) - held - refuted} are "
        "mixed or cannot be told at this size."
    )


def section(number: int, claim: Claim) -> str:
    """One claim with its figures."""
    figures = "".join(
        f'<tr><td data-title="figure">{escaped(one.what)}</td><td data-title="value">{escaped(one.told())}</td>'
        f'<td data-title="verdict">{escaped(one.verdict)}</td><td data-title="Holm">{"" if p is None else f"{p:.2g}"}</td>'
        f'<td data-title="would tell">{escaped(one.enough)}</td></tr>'
        for one, p in zip(claim.figures, claim.holm(), strict=True)
    )
    picture = ""
    if claim.picture is not None and (RESULTS / claim.picture).is_file():
        data = base64.b64encode((RESULTS / claim.picture).read_bytes()).decode()
        picture = f'<img alt="{escaped(claim.says)}" src="data:image/png;base64,{data}">'
    ran = read(claim.result).get("machine")
    machine = f"<dt>machine</dt><dd>{escaped(ran)}</dd>" if isinstance(ran, str) else ""
    result = f"../scripts/bench/results/{claim.result}.json"
    return (
        f'<h2 id="c{number}">{escaped(claim.says)}</h2><dl class="said"><dt>source</dt><dd>{escaped(claim.source)}</dd>'
        f"<dt>setting</dt><dd>{escaped(claim.setting)}</dd><dt>command</dt><dd><code>{escaped(claim.command)}</code></dd>"
        f'<dt>figures</dt><dd><a href="{result}">{claim.result}.json</a></dd>{machine}</dl>'
        '<table><tr class="head"><th>figure</th><th>value, 95% interval</th><th>verdict</th><th>p, Holm</th><th>what would tell</th></tr>'
        f"{figures}</table>{picture}"
    )


def main(argv: list[str] | None = None) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "recipes" / "results.html")
    out = parser.parse_args(argv).out
    out.write_text(page("alignkit: claims on trial", body(claims())), encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()

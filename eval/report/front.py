"""Reports on a front of policies: `front.json`, and `front.html` with the way there."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from align.errors import RunError
from align.files import read_json, write_text
from align.fronts.pick import FRONT
from align.fronts.run import MEMBERS, scores_by_prompt
from align.recipe.loading import load_recipe
from align.runs.contents import METRICS_FILE, RECIPE_FILE
from align.runs.directory import read_metrics
from align.weighting.archive import hypervolume
from eval.fronts.front import Front, front_of
from eval.measures.rewards import range_of, scale_of
from eval.statistics.intervals import Estimate
from eval.statistics.names import REF

from .html import escaped, html_pictures, html_table, page
from .plots_fronts import front_picture, objective_pictures
from .tables import ends

PAGE = "front.html"
INDICATORS = {
    "front/hypervolume": "hypervolume",
    "front/expected_utility": "expected utility",
    "front/sparsity": "sparsity",
    "front/r2": "R2",
}
READ = (
    "Values are means over the prompts of data.eval, brackets 95% intervals over prompts; they do not cover seeds. Hypervolume, "
    "expected utility, sparsity and R2 are of values on the scale of each reward, corrected for the luck of the best. "
    "The way counts each front's own estimates and is not corrected."
)


def write_front(run: Path) -> dict[str, Any]:
    """Write `front.json` and `front.html` of a front whose policies are all estimated.

    Returns:
        What `front.json` holds: members with estimates and how they were made, indicators, scales and reference point.

    Raises:
        RunError: If fewer than two prompts have two rewards for every policy.
    """
    told = read_json(run / MEMBERS)
    names, members = list(told["rewards"]), told["members"]
    tables = {one["name"]: scores_by_prompt(run / one["scores"], names) for one in members}
    tables[REF] = scores_by_prompt(run / told["ref"], names)
    scales = {name: scale_of(name, {who: t[:, k] for who, t in tables.items()}) for k, name in enumerate(names)}
    recipes = {one["name"]: {"name": one["name"]} for one in members}
    corner = told["reference_point"] and {name: float(value) for name, value in told["reference_point"].items()}
    ranges = {name: range_of(name) for name in names}
    front = front_of(tables, scales, ranges=ranges, recipes=recipes, reference_point=corner)
    if front is None:
        raise RunError(
            f"{run}: fewer than two prompts have two rewards for every policy; ask more in eval.generate.prompts"
        )
    found = {
        "kind": told["kind"],
        "objectives": front.objectives,
        "scales": {name: list(scales[name]) for name in front.objectives},
        "reference_point": dict(zip(front.objectives, front.reference, strict=True)),
        "prompts": front.prompts,
        "estimates": {INDICATORS[name]: _plain(front.estimates[name]) for name in INDICATORS},
        "members": [_member(one, front) for one in members],
        "ref": dict(zip(front.objectives, front.points[REF], strict=True)),
        "way": _way(told["fronts"], front, scales),
    }
    write_text(run / FRONT, json.dumps(found, indent=1, allow_nan=False) + "\n")
    write_text(run / PAGE, _page(run, found, front, told["fronts"]))
    return found


def summary(found: Mapping[str, Any]) -> str:
    """A line on what was found."""
    on = sum(member["on_front"] for member in found["members"])
    volume = found["estimates"]["hypervolume"]
    return f"{on} of {len(found['members'])} policies are on the front; hypervolume {_shown(volume)}"


def _member(one: Mapping[str, Any], front: Front) -> dict[str, Any]:
    name = one["name"]
    ranges = zip(front.objectives, front.intervals[name], strict=True)
    return {
        "name": name,
        "made": one["made"],
        "adapter": one["adapter"],
        "values": dict(zip(front.objectives, front.points[name], strict=True)),
        "intervals": {k: [_finite(low), _finite(high)] for k, (low, high) in ranges},
        "on_front": front.on_front[name],
        "share_of_draws": front.share_of_draws[name],
    }


def _way(fronts: list[list[str]], front: Front, scales: Mapping[str, tuple[float, float]]) -> list[dict[str, Any]]:
    """Of each front on the way its policies and their volume on the scales, not corrected."""
    low, high = np.array([scales[name] for name in front.objectives]).T
    zero = (np.array(front.reference) - low) / (high - low)
    return [
        {
            "policies": names,
            "hypervolume": hypervolume((np.array([front.points[n] for n in names]) - low) / (high - low), zero),
        }
        for names in fronts
    ]


def _page(run: Path, found: Mapping[str, Any], front: Front, fronts: list[list[str]]) -> str:
    curves = {
        one["name"]: read_metrics((run / one["adapter"]).parent / METRICS_FILE)
        for one in found["members"]
        if (run / one["adapter"]).parent.joinpath(METRICS_FILE).is_file()
    }
    pictures = objective_pictures(curves, front)
    steps = {_step(found["kind"], k): [np.array([front.points[n] for n in names])] for k, names in enumerate(fronts)}
    pictures = {"The way to the front": front_picture(steps, front.objectives), **pictures}
    heads = ("policy", "made", *map(escaped, front.objectives), "on the front", "share of draws")
    rows = [
        (
            one["name"],
            _made(one["made"]),
            *(f"{one['values'][k]:.3f} {_ends(*one['intervals'][k])}" for k in front.objectives),
            "yes" if one["on_front"] else "no",
            f"{one['share_of_draws']:.2f}",
        )
        for one in found["members"]
    ]
    figures = [(name, _shown(value)) for name, value in found["estimates"].items()]
    way = [
        (_step(found["kind"], k), str(len(step["policies"])), f"{step['hypervolume']:.4f}")
        for k, step in enumerate(found["way"])
    ]
    recipe = load_recipe(run / RECIPE_FILE)
    corner = ", ".join(f"{name} {value:.3f}" for name, value in found["reference_point"].items())
    body = (
        f"<h1>Front of {escaped(run.name)}: {escaped(found['kind'])}, {escaped(recipe.method)} on "
        f"{escaped(str(recipe.model.model_name_or_path))}</h1><p class=headline>{escaped(summary(found))}</p>"
        f"{html_table(('indicator', 'value and 95% interval'), figures, texts=2)}"
        f"<p class=dim>Reference point: {escaped(corner)}. {READ}</p>"
        f"<h2>Policies</h2>{html_table(heads, rows, texts=2)}"
        f"<h2>The way</h2>{html_table(('front', 'policies', 'hypervolume'), way, texts=1)}{html_pictures(pictures)}"
    )
    return page(f"Front of {run.name}", body)


def _step(kind: str, number: int) -> str:
    if kind in ("soups", "manifold"):
        return "with soups" if number else "trained policies"
    return f"extension {number}" if number else "fixed weights"


def _made(made: Mapping[str, Any]) -> str:
    if "weights" in made:
        return "weights " + ", ".join(f"{w:.3g}" for w in made["weights"])
    if "from" in made:
        return f"from {made['from']} towards {made['towards']}"
    return "soup of " + ", ".join(f"{w:.3g} {name}" for name, w in made["soup"].items())


def _plain(e: Estimate) -> dict[str, Any]:
    return {"value": e.value, "low": _finite(e.low), "high": _finite(e.high), "n": e.n}


def _finite(end: float) -> float | None:
    return float(end) if math.isfinite(end) else None


def _shown(value: Mapping[str, Any]) -> str:
    return f"{value['value']:.4f} {_ends(value['low'], value['high'])}"


def _ends(low: float | None, high: float | None) -> str:
    given = Estimate(0.0, -math.inf if low is None else low, math.inf if high is None else high, 0)
    return ends(given)

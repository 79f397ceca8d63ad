"""Writes the figures of a report into the card of the model that it is about, as `model-index` metadata.

Source: the form is that of https://github.com/huggingface/hub-docs/blob/main/modelcard.md, made by `huggingface_hub`.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from align.files import is_local, write_text
from align.runs.contents import CARD, RESULTS
from eval.report.results import Report
from eval.statistics.intervals import Estimate

MEASURES = {
    "ranking_accuracy/implicit_reward": ("accuracy", "Ranking accuracy of the implicit reward"),
    "nll/policy": ("perplexity", "Perplexity per token"),
}
"""Estimates of a data set that have a metric of https://hf.co/metrics: its id, and what it is here."""


def eval_results(report: Report) -> list[EvalResult]:
    """What can be said by names that others know: figures of data sets of the hub, with a metric of the hub.

    Empty if there is none: a file of this machine is no data set by name, and a reward is no metric.
    """
    recipe = report.settings.get("recipe", {})
    sources = recipe.get("data", {}).get("eval", {}) if isinstance(recipe, Mapping) else {}
    return [
        EvalResult(
            task_type="text-generation", task_name="Text Generation", dataset_type=str(source["path"]), dataset_name=str(source["path"]), metric_type=metric,
            metric_value=round(value.value, 4), metric_name=f"{title} (95% interval {value.low:.4f} to {value.high:.4f}, n={value.n})",
            dataset_config=source.get("name"), dataset_split=source.get("split", "train"), dataset_revision=source.get("revision"),
        )
        for name, source in sources.items()
        if _on_a_hub(source)
        for metric, title, value in _figures(report, name)
    ]  # fmt: skip


def _on_a_hub(source: Any) -> bool:
    path = str(source.get("path", "")) if isinstance(source, Mapping) else ""
    return "/" in path and not is_local(path)


def _figures(report: Report, name: str) -> Iterator[tuple[str, str, Estimate]]:
    for key, (metric, title) in MEASURES.items():
        found = report.estimates.get(f"{name}/{key}")
        if found is not None:
            value, low, high = (math.exp(v) if metric == "perplexity" else v for v in found[:3])
            yield metric, title, Estimate(value, low, high, found.n)


def note_in_cards(report: Report, run: Path) -> list[Path]:
    """Put the figures into the cards of a run, in the place of those of an earlier report; returns those that are rewritten."""
    results, written = eval_results(report), []
    for card in (run / CARD, *(run / name / CARD for name in RESULTS)):
        if not card.is_file():
            continue
        read = ModelCard.load(card, ignore_metadata_errors=True)
        data = cast(ModelCardData, read.data)
        if not results and not data.eval_results:
            continue
        data.eval_results = results or None
        data.model_name = data.model_name or report.name
        write_text(card, str(read))
        written.append(card)
    return written

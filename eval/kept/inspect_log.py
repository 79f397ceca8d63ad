"""Writes the answers and scores of a report as logs that Inspect reads: `alignkit inspect-log`.

Source: version 2 of the format of https://inspect.aisi.org.uk/eval-logs.html, as `inspect_ai.log` 0.3.285 declares it. Nothing of
that package is needed to write a log; `inspect view` and `inspect_ai.log.read_eval_log` read it.
"""

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from align.errors import RunError
from align.files import check_writable, digest_of, write_text
from align.runs.contents import REPORT_FILE
from eval.report.write import SCHEMA_VERSION, report_folder
from eval.statistics.names import REF

LOG_VERSION = 2
SCORER = "alignkit"
RESPONSES = "responses.jsonl"


def inspect_log(argv: Sequence[str] | None = None, *, prog: str = "alignkit inspect-log") -> str:
    """Write one log for each policy of a report and for its reference; returns what was written.

    Raises:
        RunError: If the folder holds no report, its report has no answers, or a log is there already.
    """
    about = "Write a report's answers and scores as logs that Inspect reads, one a policy."
    parser = argparse.ArgumentParser(prog=prog, description=about, allow_abbrev=False)
    parser.add_argument("report", type=Path, metavar="RUN", help="a run that was evaluated, or a folder of --out")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FOLDER", help="where the logs go")
    options = parser.parse_args(argv)
    check_writable(options.out, folder=True)
    written = []
    for who, log in logs_of(report_folder(options.report)).items():
        path = options.out / f"{who.replace('/', '_')}.json"
        while path in [other for other, _ in written]:
            path = path.with_stem(f"{path.stem}_")
        if path.exists():
            raise RunError(f"{path}: is there already; name another folder with --out, or remove it")
        written.append((path, log))
    options.out.mkdir(parents=True, exist_ok=True)
    for path, log in written:
        write_text(path, json.dumps(log, ensure_ascii=False, indent=1) + "\n")
    return "\n".join(f"written: {path}" for path, _ in written)


def logs_of(folder: Path) -> dict[str, dict[str, Any]]:
    """By policy, and for the reference, the log of its answers: a sample a prompt, an epoch each of several answers to it.

    Scores of a sample are what the report's figures are made from (`gold_reward`, `tokens`, `log_ratio`, `wins/JUDGE`, …). The
    first policy's log holds all estimates of the report too, each with `value`, `low` and `high`.

    Raises:
        RunError: If there is no report of this version, or one without answers.
    """
    try:
        report = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (folder / RESPONSES).read_text(encoding="utf-8").split("\n") if line]
        first, found = str(report["name"]), report["schema_version"]
    except FileNotFoundError as error:
        raise RunError(f"{error.filename}: not there; make a report with `alignkit eval {folder}`") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise RunError(f"{folder}: holds no report; evaluate again") from None
    if found != SCHEMA_VERSION:
        raise RunError(f"{folder / REPORT_FILE}: is of schema {found}, not {SCHEMA_VERSION}; evaluate again")
    if not rows:
        raise RunError(f"{folder}: the report has no answers; set eval.generate and evaluate again")
    try:
        names = [first, *rows[0].get("others", {}), REF]
        run = digest_of(report)
        return {who: _log(report, rows, who, run) for who in names}
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise RunError(f"{folder}: the report or its answers are damaged ({error!r}); evaluate again") from None


def _log(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], who: str, run: str) -> dict[str, Any]:
    first = str(report["name"])
    samples = [sample for number, row in enumerate(rows, 1) for sample in _samples(row, number, who, first)]
    scores = [_mean(name, samples) for name in dict.fromkeys(key for one in samples for key in one["scores"])]
    if who == first:
        scores += [_estimate(name, values) for name, values in report["estimates"].items()]
    settings = report["settings"]
    decoding, about = settings.get("decoding", {}), settings.get("about", {}).get("policies", {}).get(who, {})
    made = {"report": run, "policy": who}
    return {
        "version": LOG_VERSION,
        "status": "success",
        "eval": {
            "eval_id": digest_of(made)[:22],
            "run_id": run[:22],
            "created": report["date"],
            "task": f"{SCORER}/{first}",
            "task_id": digest_of(made | {"task": True})[:22],
            "task_version": report["schema_version"],
            "dataset": {"name": "prompts", "samples": len(rows), "shuffled": False},
            "model": f"{SCORER}/{who}",
            "model_generate_config": {
                key: decoding[ours]
                for key, ours in {"max_tokens": "max_new_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}.items()
                if ours in decoding
            },
            "config": {"epochs": max(sample["epoch"] for sample in samples)},
            "packages": {"alignkit": version("alignkit"), **report.get("versions", {})},
            "metadata": {"policy": about, "verdict": report["verdict"] if who == first else None},
        },
        "results": {"total_samples": len(samples), "completed_samples": len(samples), "scores": scores},
        "samples": samples,
    }  # fmt: skip


def _samples(row: Mapping[str, Any], number: int, who: str, first: str) -> list[dict[str, Any]]:
    if "samples" in row:
        texts = row["samples"][who]
    elif who in (first, REF):
        texts = [row["policy" if who == first else "ref"]]
    else:
        texts = [row["others"][who]["text"]]
    measured = row.get("measured", {}).get(who, {})
    return [
        {
            "id": number,
            "epoch": epoch,
            "input": row["prompt"],
            "target": "",
            "output": {"model": f"{SCORER}/{who}", "completion": text, "choices": [
                {"message": {"role": "assistant", "content": text}, "stop_reason": _stop(measured, epoch)},
            ]},
            "scores": {name: {"value": value} for name, of in measured.items() if isinstance(value := _of(of, epoch), int | float) and math.isfinite(value)},
        }
        for epoch, text in enumerate(texts, 1)
    ]  # fmt: skip


def _of(values: Any, epoch: int) -> Any:
    """A quantity of one answer; what is of the prompt as a whole stands with its first answer."""
    if isinstance(values, list):
        return values[epoch - 1] if epoch <= len(values) else None
    return values if epoch == 1 else None


def _stop(measured: Mapping[str, Any], epoch: int) -> str:
    cut = _of(measured.get("cut_off"), epoch)
    return "unknown" if cut is None else "max_tokens" if cut else "stop"


def _mean(name: str, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    values = [sample["scores"][name]["value"] for sample in samples if name in sample["scores"]]
    value = math.fsum(map(float, values)) / len(values)
    return {"name": name, "scorer": SCORER, "metrics": {"mean": {"name": "mean", "value": value}},
            "scored_samples": len(values), "unscored_samples": len(samples) - len(values)}  # fmt: skip


def _estimate(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Ends that nothing bounds are left out: the format has no number for them."""
    kept = {key: values[key] for key in ("value", "low", "high") if not isinstance(values[key], str)}
    metrics = {key: {"name": key, "value": value} for key, value in kept.items()}
    return {"name": name, "scorer": SCORER, "metrics": metrics, "params": {"interval": 0.95, "n": values["n"]}}

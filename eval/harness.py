"""Runs standard benchmarks by lm-evaluation-harness, in a process of an environment of its own.

The harness (Gao et al., https://github.com/EleutherAI/lm-evaluation-harness) wants other versions of the same packages;
so it is never imported. `run_harness` calls `python -m lm_eval` of an interpreter that the user names, without a shell,
and reads the results file back. The harness checks its own options and tasks.
"""

import json
import math
import re
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from align.files import write_text
from align.sampling.processes import NoInterpreter, ask_interpreter, last_lines, process_group
from eval.statistics.intervals import Estimate, claimed

LOG_FILE, RECORD_FILE = "lm_eval.log", "harness.json"
RESULTS = "results_*.json"
NORMAL_95 = 1.96
OURS = ("--model", "--model_args", "--tasks", "--output_path")
ASK_VERSIONS = """
import importlib.metadata as m, json, platform
found = {"python": platform.python_version()}
for name in ("lm_eval", "torch", "transformers", "datasets", "vllm"):
    try:
        found[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class HarnessError(RuntimeError):
    """lm-evaluation-harness is missing, failed, or wrote nothing of use. The message says what to do."""


@dataclass(frozen=True)
class Harness:
    """What to run."""

    python: str
    """Interpreter of the environment that lm_eval is installed in: a path, or a name on PATH."""
    tasks: tuple[str, ...]
    """Names of tasks or groups, as `lm_eval` lists them."""
    model_args: Mapping[str, str]
    """For example {"pretrained": "runs/dpo/model", "dtype": "bfloat16"}."""
    model: str = "hf"
    """Kind of model, as `lm_eval` names it."""
    options: tuple[str, ...] = ()
    """Further arguments, passed on as they are: ("--num_fewshot", "5", "--apply_chat_template")."""

    def __post_init__(self) -> None:
        if not self.tasks or not all(re.fullmatch(r"\w[^\s,]*", task) for task in self.tasks):
            raise ValueError(f"tasks must be names without commas or spaces, at least one; got {self.tasks!r}")
        if not re.fullmatch(r"\w[\w.-]*", self.model):
            raise ValueError(f"model must be a kind of model of lm_eval such as 'hf', got {self.model!r}")
        for name, value in self.model_args.items():
            if not name or re.search(r"[,=]", name) or "," in str(value):
                raise ValueError(
                    f"model_args: lm_eval divides them by commas, so none may hold one; got {name}={value}"
                )
        for option in self.options:
            if option.partition("=")[0] in OURS:
                raise ValueError(f"options: {option.partition('=')[0]} has a field of its own")

    def command(self, out: Path) -> list[str]:
        """The process's arguments, for results under `out`."""
        model_args = ",".join(f"{name}={value}" for name, value in self.model_args.items())
        return [
            *(self.python, "-m", "lm_eval", "--model", self.model),
            *(("--model_args", model_args) if model_args else ()),
            *("--tasks", ",".join(self.tasks), "--output_path", str(out)),
            *self.options,
        ]


@dataclass(frozen=True)
class HarnessReport:
    """What the harness measured."""

    estimates: dict[str, Estimate]
    """`<task>/<metric>`, with the filter as `<task>/<metric>,<filter>` if it is not "none". Intervals are value ± 1.96
    standard errors of the harness, not cut to the metric's range; `n` counts its samples."""
    without_interval: dict[str, float]
    """Metrics for which the harness gives no standard error."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Command and versions, and of the results file: its path, few-shot examples, samples and configuration."""


def run_harness(harness: Harness, out: Path, *, timeout_seconds: float | None = None) -> HarnessReport:
    """Run the tasks and read their results.

    Args:
        harness: What to run.
        out: Folder for its results, the log `lm_eval.log` and the record `harness.json`; made if it is missing.
        timeout_seconds: The process and its children are killed after so long.

    Raises:
        HarnessError: If the interpreter or lm_eval is missing, the process fails or takes too long, or there are no
            results of a task.
    """
    versions = _versions(harness.python)
    out.mkdir(parents=True, exist_ok=True)
    before = set(out.rglob(RESULTS))
    command, log = harness.command(out), out / LOG_FILE
    code = _run(command, log, timeout_seconds)
    if code != 0:
        raise HarnessError(f"lm_eval ended with {code}: {last_lines(log)}\nIts whole output is in {log}")
    written = sorted(set(out.rglob(RESULTS)) - before)
    if len(written) != 1:
        what = "no results" if not written else f"{len(written)} results files"
        raise HarnessError(f"lm_eval ended well but wrote {what} under {out}: {last_lines(log)}\nSee {log}")
    report = read_results(written[0])
    missing = [task for task in harness.tasks if not _measured(report, task)]
    if missing:
        raise HarnessError(f"{written[0]}: no results of {', '.join(missing)}; see {log}")
    report.settings.update(command=command, versions=versions | report.settings["versions"])
    write_text(out / RECORD_FILE, json.dumps(asdict(report), indent=1) + "\n")
    return report


def read_results(path: Path) -> HarnessReport:
    """Read a results file that lm_eval 0.4.3 or later wrote.

    Raises:
        HarnessError: If it is not such a file, or a value is not finite.
    """
    try:
        content = json.loads(path.read_bytes())
        results, samples = content["results"], content["n-samples"]
        estimates, without = {}, {}
        for task, metrics in results.items():
            for key, value in metrics.items():
                metric, _, chosen = key.partition(",")
                if not chosen or metric.endswith("_stderr") or not isinstance(value, int | float):
                    continue
                name = f"{task}/{metric}" if chosen == "none" else f"{task}/{key}"
                error = metrics.get(f"{metric}_stderr,{chosen}")
                if not isinstance(error, int | float):
                    without[name] = float(value)
                    continue
                if not math.isfinite(value) or not (math.isfinite(error) and error >= 0):
                    raise HarnessError(f"{path}: {name}: value and standard error must be finite, got {value}, {error}")
                half = NORMAL_95 * error
                n = _samples(task, samples, content.get("group_subtasks", {}))
                estimates[name] = claimed(Estimate(float(value), value - half, value + half, n))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HarnessError(
            f"{path}: not a results file of lm_eval 0.4.3 or later ({type(error).__name__}: {error})"
        ) from error
    settings = {
        "results_file": str(path),
        "versions": {name: content[key] for name, key in VERSION_KEYS.items() if content.get(key) is not None},
        "task_versions": content.get("versions", {}),
        **{key: content[key] for key in SETTING_KEYS if key in content},
    }
    return HarnessReport(estimates, without, settings)


VERSION_KEYS = {"lm_eval": "lm_eval_version", "transformers": "transformers_version"}
SETTING_KEYS = ("git_hash", "n-shot", "n-samples", "config", "chat_template_sha", "system_instruction_sha")


def _measured(report: HarnessReport, task: str) -> bool:
    return any(name.startswith(f"{task}/") for name in (*report.estimates, *report.without_interval))


def _samples(task: str, samples: Mapping[str, Any], groups: Mapping[str, list[str]]) -> int:
    """Samples of a task, or of all tasks of a group."""
    if task in samples:
        return int(samples[task]["effective"])
    if not groups.get(task):
        raise KeyError(f"n-samples has no {task}")
    return sum(_samples(part, samples, {k: v for k, v in groups.items() if k != task}) for part in groups[task])


def _versions(python: str) -> dict[str, str]:
    """Versions in that environment. Nothing heavy is imported there."""
    try:
        found = ask_interpreter(python, ASK_VERSIONS, package="lm_eval")
    except NoInterpreter as error:
        raise HarnessError(str(error)) from error
    if "lm_eval" not in found:
        raise HarnessError(
            f"{python} has no lm_eval: run `{python} -m pip install lm_eval`, or name another interpreter"
        )
    return found


def _run(command: list[str], log: Path, timeout_seconds: float | None) -> int:
    """Exit code of a process whose output goes to `log`. Its children do not outlive it."""
    with process_group(command, log) as process:
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            raise HarnessError(f"lm_eval took more than {timeout_seconds:g} s: {last_lines(log)}\nSee {log}") from error

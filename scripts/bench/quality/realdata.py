"""Short runs of DPO, RPO and f-DPO on real pairs, through the shipped recipes with only `data` and `train` overrides.

Every run is a process of its own, so that peak memory is its own. Writes JSON and prints a Markdown table.

Run (about half an hour on two cores): python scripts/bench/quality/realdata.py DATA_FOLDER scripts/bench/results/realdata.json
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
from children import run_again

SETS = {  # steps, pairs per step, max_length, held-out pairs scored
    "pandalm_human": (40, 1, 256, 60),
    "hh_harmless": (40, 1, 256, 60),
    "ultrafeedback_1k": (5, 1, 512, 24),
}
METHODS = ("dpo", "rpo", "fdpo")
SHOWN = (
    "ref_ranking_accuracy/logp",
    "ref_ranking_accuracy/mean_logp",
    "ranking_accuracy/implicit_reward",
    "ranking_accuracy/longer_wins",
)


def one(method: str, name: str, folder: Path) -> dict:
    """Train and evaluate in this process."""
    from align import run  # noqa: PLC0415 - children only
    from eval.evaluate import evaluate  # noqa: PLC0415
    from eval.subjects import load_subject  # noqa: PLC0415

    steps, batch, length, pairs = SETS[name]
    out = tempfile.mkdtemp()
    began = time.perf_counter()
    done = run(f"{method}/smollm2-ultrafeedback", [
        f"data={{train: {{path: {folder / name / 'train.jsonl.gz'}}}, holdout: 0.15, unusable: drop}}",
        f"train.output_dir={out}/run", f"train.max_steps={steps}", f"train.per_device_train_batch_size={batch}",
        f"train.global_batch_size={batch}", f"train.max_length={length}", "train.learning_rate=2e-4",
        'train.eval_strategy="no"', "train.gradient_checkpointing=false", "train.use_cpu=true", "train.bf16=false",
        "train.save_steps=1000",
    ])  # fmt: skip
    seconds = done.metrics["train_runtime"] / steps
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    subject = load_subject(f"{out}/run", None, ())
    subject.recipe.eval.pairs, subject.recipe.eval.generate = pairs, None
    estimates = evaluate(subject).estimates
    return {
        "method": method, "data": name, "steps": steps, "pairs_per_step": batch, "max_length": length,
        "seconds_per_step": seconds, "peak_mib": peak, "wall_seconds": time.perf_counter() - began,
        "loss": [r["loss"] for r in done.trainer.state.log_history if "loss" in r],
        "estimates": {k: estimates[f"holdout/{k}"]._asdict() for k in (*SHOWN, "log_ratio/chosen", "log_ratio/rejected")},
    }  # fmt: skip


def table(rows: list[dict]) -> str:
    """Markdown, one line a run."""
    lines = [
        "| data | method | steps x pairs | accuracy before: log-prob | before: per token | after: implicit reward | longer wins | chosen, nats | s/step | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    show = lambda e: f"{e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}]"  # noqa: E731
    for row in rows:
        e = row["estimates"]
        lines.append(
            f"| {row['data']} (n={e[SHOWN[0]]['n']}) | {row['method']} | {row['steps']} x {row['pairs_per_step']} | "
            + " | ".join(show(e[k]) for k in SHOWN)
            + f" | {show(e['log_ratio/chosen'])} | {row['seconds_per_step']:.1f} | {row['peak_mib']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="holds NAME/train.jsonl.gz for each data set")
    parser.add_argument("out", type=Path)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "DATA"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        options.out.write_text(json.dumps(one(*options.one, options.folder)))
        return
    jobs = [(method, name) for name in SETS for method in METHODS]

    def child(job: tuple[str, str]) -> dict:
        with tempfile.NamedTemporaryFile() as file:
            run_again(__file__, str(options.folder), file.name, "--one", *job)
            return json.loads(Path(file.name).read_text())

    rows = []
    with ThreadPoolExecutor(2) as pool:
        for row in pool.map(child, jobs):
            rows.append(row)
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    versions = {p: version(p) for p in ("torch", "transformers", "trl", "peft")}
    record = {"versions": versions, "device": "CPU, one thread a run, two runs at a time, float32", "runs": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()

"""Measures what a round costs besides sampling, scoring and training, in CPU seconds.

Run: `python scripts/bench/speed/rounds.py [-o FILE]`. About a minute on one core. One round of 1,000 prompts with 8 answers of
64 tokens: answers are made up and put where sampled ones are kept, the reward counts repetitions, and training does nothing. All
that is left is the cost of rounds. It is held against the cheapest round there is: generating and scoring as many tokens with
the random 2-layer model of the tests, timed on some of the prompts.
"""

import argparse
import json
import random
import resource
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml

from align.files import write_rows
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.rounds import stages
from align.rounds.run import run_rounds
from align.sampling.generate import Decoding, generate

PROMPTS, SAMPLES, TOKENS, TIMED = 1000, 8, 64, 20
WORDS = [
    "the",
    "a",
    "of",
    "to",
    "in",
    "is",
    "it",
    "you",
    "that",
    "he",
    "was",
    "for",
    "on",
    "are",
    "as",
    "with",
    "his",
    "they",
    "at",
    "be",
    "this",
    "have",
    "from",
    "or",
    "one",
    "had",
    "by",
]
RECIPE: dict[str, Any] = {
    "method": "dpo",
    "model": {"model_name_or_path": "tiny-random", "dtype": "float32"},
    "lora": {"r": 4},
    "rounds": {
        "count": 1,
        "sample": {"samples": SAMPLES, "max_new_tokens": TOKENS},
        "score": {"rewards": {"repetition": None}},
    },
}


def cpu() -> float:
    """Seconds of this process so far, user's and system's."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def overhead(folder: Path) -> float:
    """CPU seconds of a round whose answers are there and whose training does nothing."""
    draw = random.Random(0)
    prompts = folder / "prompts.jsonl"
    write_rows(({"prompt": f"question {n}: " + " ".join(draw.choices(WORDS, k=30))} for n in range(PROMPTS)), prompts)
    recipe = dict(
        RECIPE,
        data={"train": {"path": str(prompts)}},
        train={"output_dir": "runs/rounds", "use_cpu": True, "bf16": False, "report_to": "none"},
    )
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def answered(policy: Any, rows: Sequence[Any], how: Any, out: Path, **_: Any) -> int:
        texts = (
            [" ".join(draw.choices(WORDS, k=draw.randint(TOKENS // 2, TOKENS))) for _ in range(SAMPLES)] for _ in rows
        )
        write_rows(
            (
                {**row, "completions": given, "finished": [True] * SAMPLES}
                for row, given in zip(rows, texts, strict=True)
            ),
            out,
        )
        return PROMPTS * SAMPLES

    def trained(made: Any, **_: Any) -> Any:
        adapter = Path(str(made.train.output_dir), "adapter")
        adapter.mkdir(parents=True)
        (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
        return SimpleNamespace(trainer=SimpleNamespace(state=SimpleNamespace(global_step=0)))

    stages.sample_to_file = answered  # type: ignore[assignment]
    (folder / "run").mkdir()
    loaded = load_recipe(path, [f"train.output_dir={folder / 'run'}"])
    begun = cpu()
    run_rounds(loaded, trained, resume=False)
    return cpu() - begun


def sampling() -> float:
    """CPU seconds that the smallest model takes to sample all answers of a round, from those to some of the prompts."""
    tokenizer = tiny_tokenizer()
    model = tiny_model(tokenizer).eval()
    prompts = [f"question {n}: " + " ".join(WORDS) for n in range(TIMED)]
    begun = cpu()
    generate(model, tokenizer, prompts, Decoding(TOKENS), samples=SAMPLES, batch_size=32, desc="sampling")
    return (cpu() - begun) * PROMPTS / TIMED


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--out", type=Path, default=Path(__file__).parents[1] / "results" / "rounds.json")
    out = parser.parse_args(argv).out
    torch.set_num_threads(1)
    costs = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            costs.append(round(overhead(Path(folder)), 2))
    cheapest = round(sampling(), 1)
    found = {
        "prompts": PROMPTS, "answers": SAMPLES, "tokens": TOKENS, "rest_cpu_seconds": costs,
        "sampling_tiny_model_cpu_seconds": cheapest, "torch": torch.__version__,
        "share_of_sampling_tiny_model": round(sorted(costs)[1] / cheapest, 4),
        "round_of_which_it_is_2_percent_seconds": round(sorted(costs)[1] / 0.02),
    }  # fmt: skip
    out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Every command that a README shows is run, on tiny models and with files in the place of its capital words."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from forks import Commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
PAGES += sorted(
    page for folder in ("align", "eval", "recipes", "scripts") for page in (ROOT / folder).rglob("README.md")
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:alignkit|accelerate|python|torchrun) [^`]+)`")
NAMED = re.compile(r"[a-z ]+|(python|torchrun|accelerate launch) -m [a-z.]+|[a-z ]+ --(deep|num_processes 2)")
"""A command spoken of, without what it is to be done to."""
ELSEWHERE = re.compile(r"make |python scripts/(bench|studies)/")
"""What continuous integration runs, and benchmarks of minutes to hours, whose results are committed."""

TINY, B005 = "rpo/tiny train.output_dir=", "train.beta=0.05 train.output_dir=runs/b005"
ROUND, GPM = "runs/rounds-tiny/round-1", "{kind: preference_model, path: runs/gpm-tiny/adapter}"
BEFORE = (
    "alignkit train rpo/tiny",
    "alignkit train preference_model/tiny",
    "alignkit train rounds/tiny",
    "alignkit train rounds/ric-tiny",
    "alignkit train supervised/tiny",
    "alignkit train meet/tiny-good",
    "alignkit train meet/tiny-bad",
    "alignkit train meet/tiny",
)
PLAYED: dict[str, str | Path] = {
    "alignkit --help": "alignkit --help",
    "alignkit recipes": "alignkit recipes",
    "alignkit recipes NAME": "alignkit recipes rpo/tiny",
    "alignkit methods": "alignkit methods",
    "alignkit explain train.beta": "alignkit explain train.beta",
    "alignkit check quickstart": "alignkit check rpo/tiny",
    "alignkit check NAME": "alignkit check dpo/tiny",
    "alignkit check RECIPE": "alignkit check fdpo/tiny",
    "alignkit check quickstart --deep": "alignkit check rpo/tiny --deep",
    "alignkit train quickstart train.beta=0.05": f"alignkit train {TINY}runs/quickstart train.beta=0.05",
    "alignkit train quickstart train.beta=0.05 train.output_dir=runs/b005": f"alignkit train rpo/tiny {B005}",
    "alignkit train quickstart train.output_dir=runs/b005 --resume auto": f"alignkit train rpo/tiny {B005} --resume auto",
    "alignkit sweep quickstart train.beta=0.05,0.1 --seeds 3 -o runs/betas": (
        "alignkit sweep dpo/tiny train.beta=0.05,0.1 train.max_steps=1 --seeds 1 -o runs/betas"
    ),
    "alignkit sweep RECIPE train.beta=0.05,0.1,0.2 train.learning_rate=1e-5,1e-4 --seeds 3 -o FOLDER": (
        ROOT / "tests/commands/daily/test_sweep.py"
    ),
    "alignkit chat runs/b005 --beside ref": "echo hello | alignkit chat runs/b005 --beside ref --max-new-tokens 8",
    "alignkit chat RUN": "alignkit chat runs/quickstart < /dev/null",
    "alignkit train RECIPE": "alignkit train dpo/tiny",
    "alignkit train stages/tiny-sft": "alignkit train stages/tiny-sft",
    "alignkit train stages/tiny-dpo": "alignkit train stages/tiny-dpo",
    "alignkit train --vllm PYTHON": ROOT / "tests/rounds/test_rounds_end.py",
    "alignkit init mine.yaml --model M --data rows.jsonl": "alignkit init mine.yaml --model tiny-random --data people.jsonl",
    "alignkit recipes dpo/tiny > mine.yaml": "alignkit recipes dpo/tiny > copied.yaml && alignkit check copied.yaml",
    "alignkit check mine.yaml --allow-file MINE.py": ROOT / "tests/recipe/test_own_code.py",
    "alignkit train mine.yaml --allow-file MINE.py": ROOT / "tests/recipe/test_own_code.py",
    "alignkit eval runs/mine --allow-file runs/mine/code/MINE.py": ROOT / "tests/recipe/test_own_code.py",
    "alignkit export runs/b005 models/mine": "alignkit export runs/b005 models/mine",
    "alignkit export RUN OUT": "alignkit export runs/dpo-tiny models/dpo",
    "alignkit export RUN OUT --gguf": ROOT / "tests/models/test_export.py",
    "alignkit sample http://localhost:8000/v1 --model OUT --allow localhost:8000 --prompts FILE --out answers.jsonl": (
        ROOT / "tests/rounds/test_sample.py"
    ),
    "alignkit check RECIPE --full": "alignkit check dpo/tiny --full",
    "alignkit check RECIPE --deep": "alignkit check rounds/tiny --deep train.output_dir=runs/not-yet",
    "accelerate launch -m align.train rpo/smollm2-ultrafeedback": f"accelerate launch -m align.train {TINY}runs/launched",
    "torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 --rdzv_id JOB -m align.train RECIPE": (
        ROOT / "tests/trainers/distributed/test_nodes.py"
    ),
    "alignkit train RECIPE --nodes 2 --node-rank 0 --main-address HOST:29500": (
        ROOT / "tests/trainers/distributed/test_nodes.py"
    ),
    "alignkit train NAME --accelerate-config zero3": ROOT / "tests/check/test_preflight.py",
    "alignkit eval RUN": "alignkit eval runs/rounds-tiny",
    "python -m eval RUN": "python -m eval runs/rpo-tiny",
    "alignkit eval runs/b005 runs/quickstart": "alignkit eval runs/b005 runs/quickstart",
    "alignkit compare runs/b005 runs/quickstart -o page.html": "alignkit compare runs/b005 runs/quickstart -o page.html",
    "alignkit compare RUN RUN": "alignkit compare runs/b005 runs/dpo-tiny",
    "alignkit compare a.jsonl b.jsonl c.jsonl --recipe R -o page.html": (
        "alignkit compare a.jsonl b.jsonl c.jsonl --recipe {root}/recipes/rpo/tiny.yaml -o stored.html"
    ),
    "alignkit verify RUN|RECIPE": "alignkit verify expecting.yaml",
    "alignkit power REPORT --difference 0.1": "alignkit power runs/rpo-tiny/report.json --difference 0.1",
    "python scripts/recompute.py RUN/reports/ID": "python {root}/scripts/recompute.py runs/rpo-tiny/reports/newest",
    "alignkit history RUN…": "alignkit history runs/rpo-tiny runs/b005",
    "alignkit inspect-log RUN -o FOLDER": "alignkit inspect-log runs/rpo-tiny -o logs",
    "alignkit judge-agreement FILE --by 'NAME={kind: …}'": f"alignkit judge-agreement people.jsonl --by 'gpm={GPM}'",
    "alignkit replay RUN": ROOT / "tests/runs/test_guard.py",
    "alignkit merge ADAPTER ADAPTER --sweep 11 --out DIR": (
        "alignkit merge runs/b005/adapter runs/quickstart/adapter --sweep 11 --out soups"
    ),
    "alignkit merge runs/meet-tiny/adapter runs/meet-good/adapter --sum --out DIR": (
        "alignkit merge runs/meet-tiny/adapter runs/meet-good/adapter --sum --out meet"
    ),
    "alignkit merge ADAPTER ADAPTER --greedy ROWS --out DIR": (
        "alignkit merge runs/b005/adapter runs/quickstart/adapter --greedy people.jsonl --out greedy"
    ),
    "alignkit experts PAIRS.jsonl --member DIR --member DIR --out DIR": ROOT / "tests/judges/test_experts.py",
    "alignkit groups RECIPE": "alignkit groups preference_model/groups-tiny --rounds 1",
    "alignkit front RECIPE": "alignkit front fronts/tiny fronts.sweep=2",
    "alignkit pick FRONT --prefer helpful=0.7,harmless=0.3": (
        "alignkit pick runs/fronts-tiny --prefer repetition=0.7,clarity=0.3"
    ),
    "alignkit pick FRONT --prefer helpful=0.7,harmless=0.3 --mix --out DIR": (
        "alignkit pick runs/fronts-tiny --prefer repetition=0.7,clarity=0.3 --mix --out mixed"
    ),
    "alignkit data show FILE --recipe mine.yaml": "alignkit data show people.jsonl --recipe mine.yaml",
    "alignkit data show FILE --recipe R": "alignkit data show people.jsonl --recipe dpo/tiny",
    "alignkit data fix SOURCE --out clean.jsonl": "alignkit data fix people.jsonl --out clean.jsonl",
    "alignkit data fix SOURCE --out FILE": "alignkit data fix people.jsonl --out clean-2.jsonl",
    "alignkit data diagnose RUN --out FILE": "alignkit data diagnose runs/asft-tiny --out flags.jsonl",
    "alignkit data diagnose RUN --out flags.jsonl": "alignkit data diagnose runs/asft-tiny --out flags-2.jsonl --drop kept.jsonl",
    "python tests/helpers/malformed.py": "python {root}/tests/helpers/malformed.py",
    "alignkit sample POLICY --prompts FILE --samples 4 --out answers.jsonl": (
        "alignkit sample runs/rpo-tiny --prompts people.jsonl --samples 4 --out answers.jsonl"
    ),
    "alignkit score answers.jsonl --by correctness --by 'j={kind: reward_model, path: DIR}' --column stars --out scores.jsonl": (
        "alignkit score answers.jsonl --by clarity --by 'j=" + GPM + "' --out scores.jsonl"
    ),
    "alignkit data pairs SOURCE --select best_worst --out pairs.jsonl": (
        "alignkit data pairs scores.jsonl --weights clarity=1,j=1 --select best_worst --out pairs.jsonl"
    ),
    "alignkit data pairs SOURCE --select best_worst --out FILE": (
        "alignkit data pairs scores.jsonl --weights j=1 --select best_worst --out pairs-2.jsonl"
    ),
    "alignkit sample RUN/round-1/recipe.yaml --prompts RUN/round-1/prompts.jsonl --samples 6 --out mine/answers/policy.jsonl": (
        f"alignkit sample {ROUND}/recipe.yaml --prompts {ROUND}/prompts.jsonl --samples 6 --out mine/answers/policy.jsonl"
    ),
    "alignkit score mine/answers/policy.jsonl --by 'judge={kind: preference_model, path: models/gpm}' --out mine/scores.jsonl": (
        f"alignkit score mine/answers/policy.jsonl --by 'judge={GPM}' --out mine/scores.jsonl"
    ),
    "alignkit data pairs mine/scores.jsonl --select margin --min-gap 0.2 --min-reward 0.5 --out mine/pairs.jsonl": (
        "alignkit data pairs mine/scores.jsonl --select margin --min-gap 0.0001 --min-reward 0.4 --out mine/pairs.jsonl"
    ),
    "alignkit train RUN/round-1/recipe.yaml data.train.path=mine/pairs.jsonl train.output_dir=mine/train": (
        f"alignkit train {ROUND}/recipe.yaml data.train.path=mine/pairs.jsonl train.output_dir=mine/train"
    ),
    "alignkit sample URL": ROOT / "tests/rounds/test_sample.py",
    "alignkit sample --revisions N": "alignkit sample runs/rpo-tiny --revisions 1 --prompts people.jsonl --out revised.jsonl",
    "alignkit sample RUN --prefer helpful=0.7,harmless=0.3": (
        "alignkit sample runs/ric-tiny --prefer repetition=0.7,clarity=0.3 --prompts people.jsonl --out preferred.jsonl"
    ),
    "alignkit eval RUN --prefer ...": "alignkit eval runs/ric-tiny --prefer repetition=0.7,clarity=0.3",
    "alignkit compare DPO_RUN SFT_RUN": "alignkit compare runs/tiny-dpo runs/tiny-sft",
    "alignkit eval DPO_RUN": "alignkit eval runs/tiny-dpo",
    "alignkit eval RUN --checkpoints": (
        "alignkit eval runs/rpo-tiny --checkpoints eval.gold_reward=clarity 'eval.generate={prompts: 4, max_new_tokens: 8}'"
    ),
    "python scripts/claims_page.py": ROOT / "tests/evaluation/statistics/test_claims.py",
    "python scripts/expected.py RECIPE FOLDER ESTIMATE": ROOT / "tests/evaluation/report/test_verify.py",
    "python scripts/rounding.py quickstart OUT_FOLDER": ROOT / "tests/evaluation/statistics/test_again.py",
    "python scripts/beyond.py": ROOT / "tests/evaluation/statistics/test_claims.py",
    "python -m eval.report.schema report.json": "python -m eval.report.schema runs/rpo-tiny/report.json",
    "alignkit reward-bench FILE --by 'NAME={kind: reward_model, path: RUN/adapter}'": (
        f"alignkit reward-bench people.jsonl --by 'gpm={GPM}'"
    ),
    "alignkit win-rates FILE --published FILE.json": ROOT / "tests/evaluation/statistics/test_annotations.py",
    "alignkit eval https://host/v1 --model NAME --recipe R --allow HOST -o OUT": (
        ROOT / "tests/evaluation/answers/test_eval_endpoint.py"
    ),
}
"""A command of a README, and what is run for it, in this order; or the test that runs it."""


def shown(page: str) -> list[str]:
    """The commands of a page: lines of its blocks for a shell, and those in backticks that say to what they are done."""
    lines = [line for kind, block in FENCE.findall(page) if kind == "bash" for line in block.splitlines()]
    lines += [line for line in INLINE.findall(FENCE.sub("", page)) if not NAMED.fullmatch(" ".join(line.split()))]
    words = [" ".join(re.sub(r"\s+# .*", "", line).split()) for line in lines]
    return [line for line in words if line and not ELSEWHERE.match(line)]


def test_no_command_is_shown_that_is_not_run_here():
    commands = {command for page in PAGES for command in shown(page.read_text(encoding="utf-8"))}
    assert sorted(commands - set(PLAYED)) == [], "say in PLAYED what is run for it"
    assert sorted(set(PLAYED) - commands) == [], "no README shows it any more"


def test_what_is_run_elsewhere_is_run_there():
    for command, test in PLAYED.items():
        if isinstance(test, Path):
            assert command.split()[1] in test.read_text(encoding="utf-8"), command


@pytest.mark.slow
def test_commands_do_what_they_say(tmp_path, tmp_path_factory):
    prompts = [f"how many are {n} and {n}" for n in range(8)]
    for name in "abc":
        rows = [{"prompt": prompt, "response": f"{name} says {len(prompt)}"} for prompt in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rows = [{"prompt": prompt, "chosen": f"{2 * n}", "rejected": "I do not know"} for n, prompt in enumerate(prompts)]
    (tmp_path / "people.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "expecting.yaml").write_text(
        f"extends: {ROOT}/recipes/rpo/tiny.yaml\ntrain: {{output_dir: runs/expecting}}\n"
        "expect: {tiny/ranking_accuracy/implicit_reward: {value: 0.5, tol: 1.0}}\n"
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "ALIGNKIT_CACHE": str(tmp_path / "cache")}
    forks = Commands(tmp_path_factory.mktemp("said"), cwd=tmp_path, **environment)
    for command in (*BEFORE, *(run for run in PLAYED.values() if isinstance(run, str))):
        words = command.replace("{root}", str(ROOT))
        if words.startswith("alignkit ") and not {"&", "<", ">"} & set(words):
            code, said, *_ = forks.run(*shlex.split(words)[1:])
        else:
            done = subprocess.run(
                ["bash", "-c", words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            code, said = done.returncode, done.stdout[-3000:] + done.stderr
        assert code == 0, f"{command}\n{said[-3000:]}"
        assert "Traceback" not in said, command
    forks.close()

"""A day's work on rows of people: recipes are written and checked, two stages trained, compared, exported, talked to."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import smollm2
from forks import Commands
from transformers import AutoModelForCausalLM, AutoTokenizer

from align.runs.directory import read_metrics

ROOT = Path(__file__).parents[3]
MODEL = smollm2.CONFIG.model_name_or_path
FEW = ["train.logging_steps=1", "train.max_length=320"]


@pytest.mark.slow
@pytest.mark.realdata
@smollm2.needed
def test_from_files_of_people_to_a_model_that_is_served(shared_data, tmp_path, tmp_path_factory, capsys):
    env = {
        "PYTHONPATH": str(ROOT),
        "ALIGNKIT_CACHE": os.environ.get("ALIGNKIT_CACHE", str(ROOT / ".cache")),
        "OMP_NUM_THREADS": str(os.cpu_count()),
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    forks, seconds = Commands(tmp_path_factory.mktemp("said"), cwd=tmp_path, **env), {}

    def do(*words, code=0):
        ended, said, _, took = forks.run(*words)
        assert ended == code, f"{words}\n{said[-3000:]}"
        assert "Traceback" not in said
        seconds[" ".join(map(str, words[:2]))] = took
        return said

    solved, preferred = (shared_data / name / "train.jsonl.gz" for name in ("math_easy", "gsm8k_solution_pairs"))
    base = ["--model", MODEL, "--machine", "cpu"]
    source = ["--source", "columns: {prompt: question, completion: solution}", "--source", "ignore: [answer]"]
    said = do("init", "sft.yaml", *base, "--data", solved, "--method", "sft", *source)
    assert said.endswith("next: alignkit train sft.yaml\n")
    do("check", "sft.yaml")
    said = do("train", "sft.yaml", "train.max_steps=12", *FEW)
    assert "alignkit export runs/sft OUT" in said
    losses = [
        record["loss"] for record in read_metrics(tmp_path / "runs" / "sft" / "metrics.jsonl") if "loss" in record
    ]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])

    do("init", "dpo.yaml", *base, "--data", preferred, "--method", "dpo", "--start", "runs/sft")
    do("check", "dpo.yaml")
    do("train", "dpo.yaml", "train.max_steps=6", *FEW)
    record = json.loads((tmp_path / "runs" / "dpo" / "env.json").read_text())
    assert record["start"]["run"] == json.loads((tmp_path / "runs" / "sft" / "env.json").read_text())["run"]

    small = ["eval.pairs=16", "eval.generate={prompts: 8, max_new_tokens: 48}"]
    do("compare", "runs/dpo", "runs/sft", *small, "-o", "day.html")
    page = (tmp_path / "day.html").read_text()
    assert "sft" in page
    assert "dpo" in page

    do("export", "runs/dpo", "models/day")
    record = json.loads((tmp_path / "models" / "day" / "export.json").read_text())
    assert record["greedy"]["same"] == record["greedy"]["prompts"]
    served = AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "day", dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "models" / "day")
    asked = [{"role": "user", "content": "What is two plus three?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = served.generate(**ids, max_new_tokens=24, do_sample=False)[0, ids["input_ids"].shape[1] :]
    expected = tokenizer.decode(answer, skip_special_tokens=True)

    begun = time.monotonic()
    chat = subprocess.run(
        [sys.executable, "-m", "align", "chat", "models/day", "--max-new-tokens", "24", "--temperature", "0"],
        input="What is two plus three?\n/quit\n", capture_output=True, text=True, cwd=tmp_path, env=os.environ | env, check=False,
    )  # fmt: skip
    seconds["chat"] = time.monotonic() - begun
    assert chat.returncode == 0, chat.stderr
    assert chat.stdout.startswith(expected.rstrip("\n"))
    forks.close()
    with capsys.disabled():
        sys.stdout.write("\n" + ", ".join(f"{command}: {took:.0f} s" for command, took in seconds.items()) + "\n")

"""Supervised runs by the likelihood of held-out completions, and base, SFT and DPO in one report against the base."""

import json
import math

import numpy as np
import pytest
import tiny
import torch
import yaml

import align
from align.errors import RunError
from align.models.loading import load_model, load_tokenizer, resolve_model_path
from eval.__main__ import main
from eval.evaluate import evaluate
from eval.pairs.likelihood import CompletionScores, likelihood, per_token
from eval.pairs.logps import completion_ids
from eval.report.html import to_html
from eval.statistics.intervals import mean_estimate
from eval.subjects import load_subject

ROWS = [(row["prompt"], row["chosen"]) for row in tiny.pairs().to_list()]


@pytest.fixture(scope="module")
def runs(home):
    """Beside `rpo`: a supervised run `sft`, and `after`, a run of preferences held against its adapter."""
    rows = [{"prompt": prompt, "completion": chosen} for prompt, chosen in [*ROWS, (ROWS[0][0], ROWS[1][1])]]
    (home / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = yaml.safe_load((home / "recipe.yaml").read_text())
    data = {"path": str(home / "completions.jsonl")}
    del recipe["train"]["eta"], recipe["train"]["beta"], recipe["eval"]
    recipe |= {"method": "sft", "data": {"train": data, "eval": {"held": dict(data)}}}
    (home / "sft.yaml").write_text(yaml.safe_dump(recipe))
    align.run(home / "sft.yaml", [f"train.output_dir={home / 'sft'}"])
    ref = ["ref.kind=adapter", f"ref.path={home / 'sft' / 'adapter'}", "lora=null"]
    align.run(home / "recipe.yaml", [*ref, f"train.output_dir={home / 'after'}"])
    return home


def by_hand(model, tokenizer, rows):
    """Sum of -log π and number of tokens of each completion, one at a time through the model's own loss."""
    found = []
    for prompt, completion in rows:
        start, end = completion_ids(tokenizer, prompt, completion)
        ids = torch.tensor([start + end])
        labels = torch.tensor([[-100] * len(start) + end])
        found.append((float(model(input_ids=ids, labels=labels).loss) * len(end), len(end)))
    return np.array(found)


@pytest.fixture(scope="module")
def report(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("sft")
    assert main([str(runs / "sft"), "-o", str(out)]) == 0
    return out


def test_a_supervised_run_needs_no_answers_to_be_evaluated(report, runs):
    read = json.loads((report / "report.json").read_text())
    found = read["estimates"]
    assert set(found) == {f"held/nll/{side}" for side in ("policy", "ref", "difference")}
    subject = load_subject(str(runs / "sft"))
    rows = [*ROWS, (ROWS[0][0], ROWS[1][1])]
    for side, use in (("policy", subject.policy), ("ref", subject.reference)):
        with use() as model:
            sums = by_hand(model, subject.tokenizer, rows)
        assert found[f"held/nll/{side}"]["value"] == pytest.approx(sums[:, 0].sum() / sums[:, 1].sum(), abs=1e-5)
        assert found[f"held/nll/{side}"]["n"] == len(ROWS)  # two completions of one prompt are not independent
    assert found["held/nll/difference"]["value"] == pytest.approx(
        found["held/nll/policy"]["value"] - found["held/nll/ref"]["value"]
    )
    assert found["held/nll/difference"]["high"] < 0
    assert "Held-out completions: those of held are more likely than under the reference" in read["verdict"]
    assert "Held-out completions are more likely than under reference" in (report / "report.html").read_text()


def test_its_scores_are_kept(report):
    rows = [json.loads(line) for line in (report / "scores.jsonl").read_text().splitlines()]
    assert [row["completion"] for row in rows] == list(range(len(ROWS) + 1))
    assert set(rows[0]) == {"set", "subject", "completion", "policy", "ref", "tokens", "prompt"}


def test_the_mean_over_prompts_is_that_over_tokens():
    rng = np.random.default_rng(0)
    tokens, prompts = rng.integers(1, 9, size=40), np.repeat(np.arange(20), 2)
    each = [rng.exponential(size=n) for n in tokens]
    sums = np.array([values.sum() for values in each])
    got = mean_estimate(per_token(sums, tokens.astype(float), prompts), bounds=(0.0, math.inf))
    want = mean_estimate(np.concatenate(each), np.repeat(prompts, tokens), bounds=(0.0, math.inf))
    assert got == pytest.approx(want)
    scores = {"p": CompletionScores(-sums, -2 * sums, tokens.astype(float))}
    assert likelihood("nll", scores, prompts)["nll/difference"].value == pytest.approx(-want.value)


def test_completions_longer_than_the_context_are_left_out(runs, tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "word " * (2000 if i == 2 else 3)} for i in range(5)]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = evaluate(load_subject(str(runs / "sft"), overrides=(f"data.eval.held.path={tmp_path / 'long.jsonl'}",)))
    assert got.left_out == {"held": "1 of 5 completions left out: longer than the model's context of 512 tokens"}
    assert got.estimates["held/nll/policy"].n == 4


def test_base_sft_and_dpo_are_compared_against_the_base(runs, tmp_path):
    assert main([str(runs / name) for name in ("after", "sft")] + ["-o", str(tmp_path)], compare=True) == 0
    read = json.loads((tmp_path / "report.json").read_text())
    assert read["settings"]["trained_against"] == {
        "after": f"the adapter {runs / 'sft' / 'adapter'}", "sft": "no reference"
    }  # fmt: skip
    assert "Here all are held against the base that they have in common, tiny-random." in read["verdict"]
    assert "Log-ratio accuracy on test" in read["verdict"]
    model = load_model(load_subject(str(runs / "sft")).recipe.model).eval()
    base = by_hand(model, load_tokenizer(load_subject(str(runs / "sft")).recipe.model), ROWS)[:, 0]
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    for who in ("after", "sft"):
        mine = [row for row in rows if row["subject"] == who]
        assert [-row["ref_chosen"] for row in mine] == pytest.approx(base, abs=1e-3)
        assert all("margin" not in row for row in mine)  # of another reference than that of its loss
    pairs = {(row["first"], row["second"]) for row in read["comparisons"]["gold_reward"]}
    assert pairs == {("after", "sft"), ("after", "reference"), ("sft", "reference")}


def test_of_completions_all_are_compared_too(runs, tmp_path):
    words = [
        str(runs / "sft"),
        str(runs / "after"),
        resolve_model_path("tiny-random"),
        "--recipe",
        str(runs / "sft.yaml"),
    ]
    assert main([*words, "train.output_dir=x", "-o", str(tmp_path)], compare=True) == 0
    read = json.loads((tmp_path / "report.json").read_text())
    rows = {(row["first"], row["second"]): row["difference"]["value"] for row in read["comparisons"]["held/nll"]}
    assert len(rows) == 6
    nll = read["estimates"]
    assert rows["sft", "after"] == pytest.approx(
        nll["held/nll/policy"]["value"] - nll["after/held/nll/policy"]["value"]
    )
    assert rows[words[2], "reference"] == pytest.approx(0, abs=1e-6)


def test_references_of_different_models_are_not_compared(runs):
    first, other = load_subject(str(runs / "rpo")), load_subject(str(runs / "after"))
    other.base_digest = "another"
    with pytest.raises(RunError, match=r"after: another reference than rpo's, and of another model.*ref.kind=model"):
        evaluate(first, [other])


def test_what_is_measured_has_a_heading_of_its_own(runs):
    got = evaluate(load_subject(str(runs / "sft")))
    assert "<h3>Held-out completions</h3>" in to_html(got, {})

"""SmolLM2's answers to eight prompts of IFEval and eight of XSTest, measured."""

import gzip
import json

import pytest
import smollm2

from align.models.loading import load_model, load_tokenizer
from align.recipe.sections import EvalConfig, Generate, PromptSet
from align.sampling.generate import Decoding, generate
from eval.answers.table import Sampled
from eval.measures.prompt_sets import asked, load_prompt_sets, prompt_set_report

pytestmark = [
    pytest.mark.realdata,
    pytest.mark.usefixtures("all_threads"),
    smollm2.needed,
]
TOKENS = 24
SHORT = (
    "punctuation:no_comma",
    "keywords:forbidden_words",
    "length_constraints:number_words",
)  # a few words may follow these


def some(folder, path, is_wanted):
    """The first eight wanted rows of a file, as a file."""
    with gzip.open(path, "rt") as file:
        lines = [line for line in file if is_wanted(json.loads(line))]
    short = folder / path.name.removesuffix(".gz")
    short.write_text("".join(lines[:8]))
    return PromptSet(str(short))


def can_be_short(row):
    return set(row["instruction_id_list"]) <= set(SHORT)


@pytest.mark.slow
def test_a_real_model_follows_some_instructions_and_answers_most_questions(shared_data, tmp_path):
    every = EvalConfig(
        generate=Generate(max_new_tokens=TOKENS),
        instructions=some(tmp_path, shared_data / "eval_ifeval" / "train.jsonl.gz", can_be_short),
        refusals=some(tmp_path, shared_data / "eval_xstest" / "test.jsonl.gz", lambda row: 21 < int(row["id"]) < 30),
    )
    sets = load_prompt_sets(every)
    model, tokenizer = load_model(smollm2.CONFIG).eval(), load_tokenizer(smollm2.CONFIG)
    prompts = [prompt for rows in sets.values() for prompt in asked(rows, chat=True)]
    made = generate(model, tokenizer, prompts, Decoding(TOKENS, temperature=0.0), batch_size=8)
    texts = iter([row[0].text for row in made])
    reports = {}
    for name, rows in sets.items():
        answers = [[next(texts)] for _ in rows]
        reports[name] = prompt_set_report(name, Sampled(rows, {"policy": answers, "ref": answers}))
    e = reports["instructions"].estimates
    assert 0 < e["instructions/instruction/strict/policy"].value < 1
    assert e["instructions/instruction/loose/policy"].value >= e["instructions/instruction/strict/policy"].value
    same = e["instructions/prompt/strict/difference"]
    assert (same.value, -same.low) == (0, pytest.approx(same.high))  # the same answers, of few prompts
    broken = reports["instructions"].details["by_policy"]["policy"]
    assert any(broken["broken_by_prompt"])
    classes = reports["refusals"].details["by_policy"]["policy"]["classes"]
    assert len(classes) == 8
    assert classes.count("compliance") > 2
    assert reports["refusals"].estimates["refusals/over_refusal/policy"].n == 4
    assert json.loads(json.dumps(reports["refusals"].details)) == reports["refusals"].details

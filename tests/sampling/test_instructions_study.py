"""The bench of instructions that rules check: what is asked, which answers are paired, and what the report says of planted answers."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from align.files import write_rows
from align.recipe.loading import load_recipe
from align.rewards import Constraints
from eval.statistics.comparisons import Compared, corrected
from eval.statistics.intervals import rng_of_report

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies" / "checked"))
import instructions
import instructions_report
import methods
from study_parts.policies import as_one_family

WORD_LIMIT, NO_COMMA = {"relation": "less than", "num_words": 15}, "punctuation:no_comma"
ROW = {"prompt": [{"role": "user", "content": "?"}], "instruction_id_list": [instructions.SHORT.kind, NO_COMMA], "kwargs": [WORD_LIMIT, {}]}  # fmt: skip
LONG = "word " * 20


def chats(*texts):
    return [{"prompt": [{"role": "user", "content": text}]} for text in texts]


@pytest.fixture
def asked(monkeypatch):
    """Requests of a source, of which the first two are held out."""
    monkeypatch.setattr(instructions, "HELD_OUT", 2)
    monkeypatch.setattr(instructions, "UNSEEN_OF", 1)
    texts = [f"request {number}" for number in range(10)]
    rows = chats(*texts, texts[0], "two\nlines", "word " * 21, "où")
    monkeypatch.setattr(Path, "glob", lambda self, _: [self])
    monkeypatch.setattr(methods, "read", lambda file: rows if file.name == instructions.SOURCES[0] else [])
    return texts


def test_each_short_english_request_is_asked_once_and_held_out_or_learnt(asked):
    rows = instructions.rows_of(Path("data"))
    learnt, train = ({row["reference"] for row in rows[part]} for part in ("learnt", "train"))
    assert sorted(learnt | train) == asked
    assert not learnt & train
    assert len(rows["learnt"]) == 2
    assert [row["reference"] for row in rows["unseen"]] == [rows["learnt"][0]["reference"]]


def test_forms_are_in_turn_and_no_training_row_has_an_unseen_one(asked):
    rows = instructions.rows_of(Path("data"))
    kinds = [row["instruction_id_list"] for row in rows["train"]]
    assert [short for short, _ in kinds] == [instructions.SHORT.kind] * 8
    assert [form for _, form in kinds] == [*instructions.FORMS["learnt"], next(iter(instructions.FORMS["learnt"]))]
    assert not set(instructions.FORMS["learnt"]) & set(instructions.FORMS["unseen"])
    assert rows["unseen"][0]["instruction_id_list"][1] in instructions.FORMS["unseen"]


def test_the_prompt_asks_for_what_the_columns_check():
    row = instructions.with_rules(["Say something"], {"keywords:existence": [{"keywords": ["river"]}]})[0]
    content = row["prompt"][0]["content"]
    assert content.startswith("Say something\n")
    assert content.endswith('\n- Use less than 15 words.\n- Mention "river".')
    for text in ("a river runs", "a brook runs", "river " + LONG, LONG, " "):
        (reward,) = Constraints()([text], instruction_id_list=[row["instruction_id_list"]], kwargs=[row["kwargs"]])
        assert np.mean(instructions.kept(row, text)) == reward


def answer(text, finished=True):
    return SimpleNamespace(text=text, finished=finished)


def test_most_kept_against_fewest_and_a_cut_answer_is_never_chosen():
    samples = [answer("cut off", finished=False), answer(LONG), answer("one, two"), answer("good"), answer(LONG + ",")]
    (pair,) = instructions.paired([ROW], [samples])
    assert pair["chosen"] == [{"role": "assistant", "content": "good"}]
    assert pair["rejected"] == [{"role": "assistant", "content": "cut off"}]
    assert not list(instructions.paired([ROW], [[answer("good"), answer("as good")]]))


@pytest.mark.parametrize("name", instructions.METHODS)
def test_all_methods_learn_as_long(name, tmp_path):
    write_rows([ROW] * 9, tmp_path / "prompts.jsonl", replace=True)
    answers = {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    write_rows([{"prompt": ROW["prompt"], **answers}], tmp_path / "pairs.jsonl", replace=True)
    write_rows([{"prompt": ROW["prompt"], "completion": answers["chosen"]}], tmp_path / "chosen.jsonl", replace=True)
    recipe = load_recipe(methods.recipe_file("dpo", tmp_path, name, **instructions.recipe_of(name, tmp_path)))
    rounds = recipe.rounds.count if recipe.rounds else 1
    assert rounds * recipe.train.max_steps == instructions.STEPS
    assert recipe.method == {"sft": "sft", "kto": "kto", "grpo": "dynamic_grpo"}.get(name, recipe.method)
    if name == "grpo":
        assert (recipe.train.max_completion_length, recipe.train.num_generations) == (instructions.TOKENS, 4)
    if recipe.rounds:
        assert recipe.rounds.sample.max_new_tokens == instructions.TOKENS
        assert rounds * recipe.rounds.prompts.each == 9
    if name in ("grpo", "dpo in rounds"):
        assert instructions.REWARD in json.dumps(instructions.recipe_of(name, tmp_path))


def record(share, relevance=0.5, loss=0.0):
    """Of ten requests, of which a share keeps the form; answers of four tokens and an end of two."""
    held = [[True, place < 10 * share] for place in range(10)]
    part = {"texts": ["a b c"] * 10, "finished": [True] * 10, "relevance": [relevance] * 10, "kept": held}
    part |= {"policy_logps": [[-1.0] * 6] * 10, "reference_logps": [[-2.0] * 6] * 10}
    sides = {"chosen": [[-1.0 - loss] * 4 + [-9.0 + loss, loss]] * 5, "rejected": [[-3.0] * 6] * 5}
    return {"learnt": part, "unseen": part, "held_out": sides, "cpu_seconds": 2}


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out" / "records"
    folder.mkdir(parents=True)
    made = {"reference": record(0.2), "dpo-0": record(0.4), "dpo-1": record(0.6), "sft-0": record(0.5, 0.75, 1.0)}
    for name, one in made.items():
        (folder / f"{name}.json").write_text(json.dumps(one))
    return folder.parent


def test_the_report_tells_what_was_planted(out):
    instructions_report.main([str(out), "-o", str(out / "results")])
    told = json.loads((out / "results" / "instructions.json").read_text())
    dpo, sft = told["methods"]["dpo"], told["methods"]["sft"]
    assert told["reference"]["kept"]["over prompts"]["value"] == pytest.approx(0.2)
    assert dpo["kept"]["each"] == [0.4, 0.6]
    assert sft["kept, less that of dpo"]["each"] == pytest.approx([0.1])
    assert sft["kept, less that of dpo, as one family"]["value"] == pytest.approx(0.1)
    assert dpo["kept, less that before"]["each"] == pytest.approx([0.2, 0.4])
    assert sft["relevance, less that of dpo"]["each"] == pytest.approx([0.25])
    assert sft["chosen"]["each"] == [-4.0]  # four tokens; what the template puts at the end is left out
    assert dpo["chosen"]["each"] == [0.0, 0.0]
    assert (dpo["kl"]["each"], dpo["tokens"]["each"]) == ([6.0, 6.0], [6.0, 6.0])
    assert (dpo["form"]["each"], dpo["short"]["each"]) == ([0.4, 0.6], [1.0, 1.0])
    first, *_, last = instructions.FORMS["learnt"]  # requests 0 and 7, and request 6, of seven kinds in turn
    assert (dpo["form, by kind"][first], dpo["form, by kind"][last]) == (0.5, 0.0)
    assert told["machine"].split("; ")[1] == "6 s of CPU for training and answers"
    assert (out / "results" / "instructions.png").read_bytes().startswith(b"\x89PNG")


def test_a_family_is_compared_at_once():
    rows = np.random.default_rng(0).uniform(-0.4, 0.6, size=(2, 60))
    told = as_one_family(dict(zip(("a", "c"), rows, strict=True)))
    family = Compared([("a", "b"), ("c", "b")], rows.T, np.arange(60), False, 1.0)
    for one in corrected({"all": family}, rng=rng_of_report())["all"]:
        assert told[one.first]["low"] == pytest.approx(one.difference.low, abs=1e-4)
        assert told[one.first]["p"] == pytest.approx(one.p_value, abs=1e-4)
    assert as_one_family({}) == {}


def test_what_is_there_is_not_done_again(tmp_path, monkeypatch):
    out, made = tmp_path / "out", []
    (out / "records").mkdir(parents=True)
    monkeypatch.setattr(instructions, "prepared", lambda data, out: "reference")
    monkeypatch.setattr(instructions, "trained", lambda name, seed, out: (name, seed))
    monkeypatch.setattr(instructions, "record", lambda policy, ref, *_: made.append((*policy, ref)) or {})
    instructions.main(["DATA", str(out), "--seeds", "1", "--methods", "dpo", "sft"])
    instructions.main(["DATA", str(out), "--seeds", "2", "--methods", "dpo"])
    assert made == [("dpo", 0, "reference"), ("sft", 0, "reference"), ("dpo", 1, "reference")]


@pytest.mark.realdata
def test_the_requests_are_as_many_as_the_bench_says(shared_data):
    rows = instructions.rows_of(shared_data)
    assert {part: len(some) for part, some in rows.items()} == {"train": 347, "learnt": 192, "unseen": 96}
    assert "539 English requests" in instructions.__doc__

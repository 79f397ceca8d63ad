"""Answers sampled by vLLM in another environment: what it is asked, what comes back, and what goes wrong with it."""

import json
import os
import time

import pytest
import smollm2
import tiny
import torch
from peft import LoraConfig, get_peft_model
from trl import ModelConfig
from vllm_stub import make_stub, seen_by

import align
from align.errors import RunError
from align.models.loading import load_model, load_tokenizer, model_path
from align.models.use import Use
from align.recipe.loading import load_recipe
from align.sampling.generate import Decoding, Job, generate, seed_of
from align.sampling.store import AnswersError, read_answers, stored_answers
from align.sampling.vllm_engine import VLLM, check_vllm
from eval.__main__ import main

PROMPTS = ["what is the sky", "say", "name a colour", "count to three please", "hello"]
DECODING = Decoding(8, 0.7, seed=3)
SETTINGS = ModelConfig(model_name_or_path="tiny-random", dtype="float32")


@pytest.fixture
def stub(tmp_path):
    def make(mode="works"):
        return make_stub(tmp_path, mode)

    return make


@pytest.fixture
def seen(tmp_path):
    return lambda: seen_by(tmp_path)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(SETTINGS)


@pytest.fixture(scope="module")
def base():
    return Use(load_model(SETTINGS).eval(), SETTINGS)


@pytest.fixture
def adapted(tmp_path):
    """A policy with an adapter of its own folder."""

    def make(**kw):
        model = get_peft_model(load_model(SETTINGS), LoraConfig(**tiny.LORA | kw)).eval()
        model.save_pretrained(tmp_path / "adapter")
        return Use(model, SETTINGS, str(tmp_path / "adapter"))

    return make


@pytest.fixture
def ask(tmp_path, tokenizer, base):
    """Answers by way of a file, two requests at a time."""

    def answers(python, prompts=PROMPTS, use=base, **kw):
        vllm = VLLM.at(python)
        engine = vllm.engine(use, tokenizer, DECODING, batch_size=2, desc="answers", log=tmp_path / "vllm.log")
        with use() as model:
            return stored_answers(tmp_path / "a.jsonl", model, tokenizer, prompts, DECODING, engine=engine, **kw)

    return answers


def ids(answers):
    return [[answer.completion_ids for answer in row] for row in answers]


def test_each_request_has_the_seed_of_its_answer_and_none_is_asked_twice(ask, stub, seen, tmp_path):
    few = ids(ask(stub(), PROMPTS[:3]))
    assert len({tuple(row[0]) for row in few}) == 3
    more = ids(ask(stub(), PROMPTS[::-1], samples=2))
    assert [row[0] for row in more[::-1]][:3] == [row[0] for row in few]
    assert len({tuple(answer) for row in more for answer in row}) == 10
    assert sum(len(record["prompts"]) for record in seen()) == 10  # three, then the other seven
    assert read_answers(tmp_path / "a.jsonl").settings["engine"] == {"vllm": "0.99"}
    before = len(seen())
    assert ids(ask(stub(), PROMPTS[::-1], samples=2)) == more
    assert len(seen()) == before


def test_what_vllm_is_asked(ask, stub, seen, tokenizer, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "ours")
    ask(stub(), PROMPTS[:1])
    [asked] = seen()
    engine = asked["engine"]
    assert 0 < engine.pop("gpu_memory_utilization") < 0.5
    assert engine == {
        "model": model_path(SETTINGS), "dtype": "float32", "max_model_len": len(asked["prompts"][0]) + 8,
        "skip_tokenizer_init": True, "generation_config": "vllm",
    }  # fmt: skip
    assert (asked["lora"], asked["usage"], asked["path"]) == (None, "1", None)
    assert asked["sampling"] == {
        "temperature": 0.7, "top_p": 1.0, "max_tokens": 8, "stop_token_ids": [tokenizer.eos_token_id],
        "detokenize": False, "seed": seed_of(asked["prompts"][0], 0, 3),
    }  # fmt: skip


def test_an_adapter_goes_with_the_policy_and_not_with_its_base(stub, seen, adapted, tokenizer, tmp_path):
    policy = adapted(r=9)
    bare = Use(policy.model, SETTINGS, adapters_off=True)
    for use in (policy, bare):
        engine = VLLM.at(stub()).engine(use, tokenizer, DECODING, batch_size=9, desc="", log=tmp_path / "log")
        generate(use.model, tokenizer, PROMPTS, DECODING, engine=engine)
    with_adapter, without = seen()
    assert with_adapter["lora"] == str(tmp_path / "adapter")
    assert (with_adapter["engine"]["enable_lora"], with_adapter["engine"]["max_lora_rank"]) == (True, 16)
    assert without["lora"] is None
    assert "enable_lora" not in without["engine"]


def test_what_a_killed_process_gave_is_kept_and_not_sampled_again(ask, stub, seen, tmp_path):
    with pytest.raises(
        RunError, match=r"(?s)vLLM ended with -9 after 1 of 3 batches, which are kept: .*out of memory"
    ) as e:
        ask(stub("killed"))
    assert "\x1b" not in str(e.value)
    kept = read_answers(tmp_path / "a.jsonl").answers
    assert len(kept) == 2
    answers = ids(ask(stub()))
    assert [len(record["prompts"]) for record in seen()] == [2, 2, 1]
    assert {tuple(stored.completion_ids) for stored in kept.values()} <= {tuple(row[0]) for row in answers}


def test_the_process_does_not_outlive_whoever_reads(stub, base, tokenizer, tmp_path):
    engine = VLLM.at(stub("hangs")).engine(base, tokenizer, DECODING, batch_size=1, desc="", log=tmp_path / "log")
    batches = engine.batches([[5], [6]], [Job(0, 0), Job(1, 0)])
    next(batches)
    while not (tmp_path / "seen.begun").exists():
        time.sleep(0.01)
    batches.close()
    assert not (tmp_path / "seen.outlived").exists()


def test_answers_of_another_engine_are_not_mixed(ask, stub, base, tokenizer, tmp_path):
    ask(stub())
    with pytest.raises(AnswersError, match=r"made otherwise \(engine: {'vllm': '0.99'} in the file, None now\)"):
        stored_answers(tmp_path / "a.jsonl", base.model, tokenizer, PROMPTS, DECODING)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("absent", "has no vLLM: run `.*python -m pip install vllm`"),
        ("mute", "does not answer as a Python interpreter"),
    ],
)
def test_an_interpreter_without_vllm_is_refused(stub, mode, message):
    with pytest.raises(RunError, match=f"--vllm: .*{message}"):
        VLLM.at(stub(mode))


def test_a_missing_interpreter_is_refused():
    with pytest.raises(RunError, match="--vllm: no interpreter '/no/python': name the python of the environment"):
        VLLM.at("/no/python")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.load_in_4bit=true"], "the base is quantised while it is loaded"),
        (["eval.generate=null"], "samples no answers"),
    ],
)
def test_what_vllm_would_not_sample_as_trained_is_refused(overrides, message):
    check_vllm(load_recipe("rpo/tiny"))
    with pytest.raises(RunError, match=f"--vllm: .*{message}"):
        check_vllm(load_recipe("rpo/tiny", overrides))


@pytest.mark.parametrize(("kw", "message"), [({"use_dora": True}, "no plain LoRA"), ({"r": 513}, "has rank 513")])
def test_adapters_that_vllm_does_not_load_are_refused(ask, stub, adapted, kw, message):
    with pytest.raises(RunError, match=f"--vllm: .*{message}"):
        ask(stub(), use=adapted(**kw))


def test_an_evaluation_by_vllm_says_so(stub, seen, tmp_path, capsys):
    run = tmp_path / "run"
    align.run("rpo/tiny", [f"train.output_dir={run}", "train.max_steps=1"])
    assert main([str(run), "--vllm", stub(), "eval.generate.max_new_tokens=4"]) == 0
    assert json.loads((run / "report.json").read_text())["settings"]["decoding"]["vllm"] == "0.99"
    assert [record["lora"] for record in seen()] == [None, str(run / "adapter")]
    assert "loading weights" in (run / "answers" / "vllm.log").read_text()
    capsys.readouterr()
    assert main([str(run), "--vllm", stub(), "eval.generate=null"]) == 2
    assert "samples no answers" in capsys.readouterr().err


@smollm2.needed
@pytest.mark.skipif(
    "ALIGNKIT_VLLM_PYTHON" not in os.environ, reason="ALIGNKIT_VLLM_PYTHON names no interpreter with vLLM"
)
def test_vllm_itself_gives_the_most_likely_tokens(tmp_path):
    settings = smollm2.CONFIG
    tokenizer, model = load_tokenizer(settings), load_model(settings)
    adapter = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    policy = get_peft_model(model, adapter).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:
            weight.data = 0.02 * torch.randn(weight.shape, generator=generator)
    policy.save_pretrained(tmp_path / "adapter")
    greedy, answers = Decoding(16, 0.0), {}
    for name, use in (
        ("policy", Use(policy, settings, str(tmp_path / "adapter"))), ("base", Use(policy, settings, adapters_off=True)),
    ):  # fmt: skip
        engine = VLLM.at(os.environ["ALIGNKIT_VLLM_PYTHON"]).engine(
            use, tokenizer, greedy, batch_size=9, desc=name, log=tmp_path / "log"
        )
        with use() as own:
            answers[name] = ids(generate(own, tokenizer, PROMPTS, greedy))
        assert ids(generate(policy, tokenizer, PROMPTS, greedy, engine=engine)) == answers[name]
    assert answers["policy"] != answers["base"]

"""Answers that a policy revises, as SRPO does at inference: what it is shown, what is kept, what is estimated."""

import itertools
import json

import pytest
from stored_world import read_lines, write_lines
from trl import ModelConfig

from align.commands.sample import main as sample
from align.data.prompts.revision import INSTRUCTION, revision_prompt
from align.errors import RunError
from align.models.loading import load_model, load_tokenizer
from align.models.use import Use
from align.sampling import ask as module
from align.sampling.ask import Asking, ask, ask_by_revision
from align.sampling.generate import Decoding, generate
from align.sampling.policy import policy_of
from align.train import run
from eval.__main__ import main as evaluate

SETTINGS = ModelConfig(model_name_or_path="tiny-random", dtype="float32")
DECODING = Decoding(6, 1.0, seed=3)
PROMPTS = ["what is the sky", [{"role": "user", "content": "name a colour"}]]


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(SETTINGS)


@pytest.fixture(scope="module")
def use():
    return Use(load_model(SETTINGS).eval(), SETTINGS)


def shown(prompt, draft, instruction=INSTRUCTION):
    return revision_prompt(
        prompt, draft if isinstance(prompt, str) else [{"role": "assistant", "content": draft}], instruction
    )


def test_each_draft_is_shown_with_the_instruction_and_nothing_is_sampled_twice(tokenizer, use, tmp_path, sampled):
    asking = Asking(PROMPTS, DECODING, 2, 8, tmp_path, revisions=2, instruction="Better.")
    stages = ask_by_revision(tokenizer, use, asking, "policy", "the policy")
    assert [[len(row) for row in stage] for stage in stages] == [[2, 2]] * 3
    assert sum(sampled) == 12
    for drafts, answers in itertools.pairwise(stages):
        for prompt, before, after in zip(PROMPTS, drafts, answers, strict=True):
            for draft, answer in zip(before, after, strict=True):
                ((expected,),) = generate(use.model, tokenizer, [shown(prompt, draft.text, "Better.")], DECODING)
                assert answer == expected
    sampled.clear()
    assert ask(tokenizer, use, asking, "policy", "the policy") == stages[-1]
    assert ask(tokenizer, use, asking._replace(revisions=0), "policy", "the policy") == stages[0]
    assert not sampled
    assert ask_by_revision(tokenizer, use, asking._replace(folder=None), "policy", "it") == stages


def test_drafts_that_are_alike_are_revised_with_noise_of_their_own(tokenizer, use, monkeypatch):
    def alike(model, tokenizer, prompts, decoding, *, samples, **_):
        if prompts == ["q"]:
            return [[answer("same")] * samples]
        return generate(model, tokenizer, prompts, decoding, samples=samples)

    ((one,),) = generate(use.model, tokenizer, ["q"], DECODING)

    def answer(text):
        return type(one)(one.prompt_ids, one.completion_ids, text, True)

    monkeypatch.setattr(module, "generate", alike)
    ((first, second),) = ask(tokenizer, use, Asking(["q"], DECODING, 2, 8, None, revisions=1), "policy", "it")
    assert [[first, second]] == generate(use.model, tokenizer, [shown("q", "same")], DECODING, samples=2)
    assert first != second


def test_the_command_asks_as_the_run_was_trained(tmp_path, capsys):
    folder = tmp_path / "run"
    words = [f"train.output_dir={folder}", "train.max_steps=1", "train.save_strategy='no'"]
    run("srpo/tiny", [*words, "train.revision_instruction=Once more."])
    assert policy_of(str(folder)).instruction == "Once more."
    assert policy_of("tiny-random").instruction == INSTRUCTION
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "what is the sky"}])
    asked = [str(folder), "--prompts", str(prompts), "--max-new-tokens", "6"]
    sample([*asked, "--out", str(tmp_path / "drafts" / "a.jsonl")])
    sample([*asked, "--out", str(tmp_path / "revised" / "a.jsonl"), "--revisions", "1"])
    draft, revised = (read_lines(tmp_path / name / "a.jsonl")[0]["completions"][0] for name in ("drafts", "revised"))
    policy = policy_of(str(folder))
    wanted = [shown("what is the sky", draft, "Once more.")]
    ((expected,),) = generate(policy.load().model, load_tokenizer(policy.settings), wanted, Decoding(6))
    assert revised == expected.text
    with pytest.raises(RunError, match="--revisions: must not be negative, got -1"):
        sample([*asked, "--out", str(tmp_path / "c.jsonl"), "--revisions", "-1"])
    with pytest.raises(RunError, match="--revisions: does nothing for an endpoint"):
        sample(
            [
                "http://127.0.0.1:9/v1",
                *asked[1:],
                "--out",
                str(tmp_path / "d.jsonl"),
                "--model",
                "m",
                "--revisions",
                "1",
            ]
        )

    data = write_lines(
        tmp_path / "eval.jsonl", [{"prompt": f"say {k}", "chosen": "a", "rejected": "b"} for k in range(3)]
    )
    words = [str(folder), f"data.eval={{t: {{path: {data}}}}}", "eval.gold_reward=clarity"]
    settings = "{prompts: 3, max_new_tokens: 6, revisions: 1}"
    assert evaluate([*words, f"eval.generate={settings}", "-o", str(tmp_path / "revised")]) == 0
    assert evaluate([*words, f"eval.generate={settings.replace('1}', '0}')}", "-o", str(tmp_path / "plain")]) == 0
    capsys.readouterr()
    revised, plain = (json.loads((tmp_path / n / "report.json").read_text()) for n in ("revised", "plain"))
    found, once = revised["estimates"], plain["estimates"]
    assert found["gold_reward/policy"] == found["after_1_revisions/gold_reward/policy"]
    assert found["after_0_revisions/gold_reward/policy"] == once["gold_reward/policy"]
    assert found["gold_reward/ref"] == once["gold_reward/ref"]
    said, unrevised = (read_lines(tmp_path / name / "responses.jsonl") for name in ("revised", "plain"))
    assert [row["ref"] for row in said] == [row["ref"] for row in unrevised]
    assert [row["policy"] for row in said] != [row["policy"] for row in unrevised]
    assert "kl" in once
    assert "kl" not in found
    assert revised["settings"]["decoding"]["revisions"] == 1

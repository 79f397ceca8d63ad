"""Weights of rewards in the prompt: what is drawn, what the policy reads, how answers are compared, and asked for afterwards."""

import json

import numpy as np
import pytest
import torch

from align.cli import main
from align.data.prompts.control import preference_context, tenths
from align.sampling.preferred import context_for
from align.train import run
from align.trainers.online import preference
from align.trainers.online.prompt_weights import PromptWeights

CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "why?"}]


def test_tenths_are_the_nearest_of_sum_one():
    assert tenths([1, 1, 1]) == [0.4, 0.3, 0.3]
    assert tenths([0.26, 0.74]) == [0.3, 0.7]
    assert tenths([7, 3]) == [0.7, 0.3]
    assert tenths([0, 5]) == [0.0, 1.0]
    for row in np.random.default_rng(0).dirichlet([1.0] * 4, 200):
        made = tenths(row.tolist())
        assert sum(made) == pytest.approx(1)
        assert np.abs(np.array(made) - row).max() < 0.1
    assert preference_context({"a": 0.3, "b": 0.7}) == " <weight of a> 0.3 <weight of b> 0.7"


def test_a_prompt_has_one_weight_in_a_step_and_others_in_the_next():
    drawn = PromptWeights(["a", "b"], 1.0, seed=0)
    rows = [{"prompt": p, "x": 1} for p in ("p", "p", CHAT, CHAT)]
    told = drawn.told(rows, 3)
    assert drawn.asked == ["p", "p", CHAT, CHAT]
    assert (
        told[0]
        == told[1]
        == {"prompt": "p" + preference_context(dict(zip("ab", drawn.draw("p", 3), strict=True))), "x": 1}
    )
    assert told[2]["prompt"][-1]["content"].startswith("why? <weight of a> ")
    assert rows[0]["prompt"] == "p"
    assert CHAT[-1]["content"] == "why?"
    np.testing.assert_allclose(drawn.weights.sum(dim=1), 1, atol=1e-6)
    many = np.array([drawn.draw("p", step) for step in range(400)])
    assert many[:, 0].mean() == pytest.approx(0.5, abs=0.06)
    assert many[:, 0].std() == pytest.approx(1 / 12**0.5, abs=0.03)
    assert PromptWeights(["a", "b"], 1.0, seed=1).draw("p", 3) != drawn.draw("p", 3) or many.std() > 0
    narrow = np.array([PromptWeights(["a", "b"], 50.0, seed=0).draw("p", step) for step in range(50)])
    assert narrow.std() < 0.1
    with pytest.raises(ValueError, match="two reward functions or more"):
        PromptWeights(["a"], 1.0, seed=0)


def test_answers_are_compared_by_the_weights_that_their_prompt_says(tmp_path, monkeypatch, capsys):
    seen, compared, learnt = [], [], []
    calculate, of_rewards = preference.OnlinePreferenceTrainer._calculate_rewards, preference.of_rewards

    def watched(self, inputs, prompts, *args):
        learnt.extend(row["prompt"] for row in inputs)
        return calculate(self, inputs, prompts, *args)

    def told(table, weights, **kw):
        compared.append((table, weights))
        return of_rewards(table, weights, **kw)

    def reads(self, prompts, completions, **_):
        seen.extend(prompts)
        return [float(len(str(one))) for one in completions]

    monkeypatch.setattr(preference.OnlinePreferenceTrainer, "_calculate_rewards", watched)
    monkeypatch.setattr(preference, "of_rewards", told)
    monkeypatch.setattr("align.rewards.clarity.Clarity.__call__", reads)
    folder = tmp_path / "run"
    done = run(
        "online/tiny-trajectory-balance",
        [f"train.output_dir={folder}", "train.max_steps=2", "rewards=[repetition, clarity]"],
    )
    assert "<weight of" not in str(seen)
    assert all("<weight of repetition> " in str(one) for one in learnt)
    table, weights = compared[0]
    said = [str(one).split("<weight of repetition> ")[1][:3] for one in learnt[: len(table) : 2]]
    np.testing.assert_allclose(weights[:, 0], [float(one) for one in said], atol=1e-6)
    assert len(set(said)) > 1
    verdicts = of_rewards(table, weights, temperature=1.0)
    by_hand = (table.unflatten(0, (-1, 2)) * weights[:, None]).sum(dim=2)
    torch.testing.assert_close(verdicts.scores, by_hand)
    assert done.trainer.state.log_history[0]["loss/trajectory_balance"] >= 0
    assert (
        context_for(folder, {"clarity": 3.0, "repetition": 1.0})
        == " <weight of repetition> 0.3 <weight of clarity> 0.7"
    )
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "hello"}) + "\n")
    words = [
        "sample",
        str(folder),
        "--prompts",
        str(tmp_path / "p.jsonl"),
        "--prefer",
        "clarity=1",
        "--max-new-tokens",
        "4",
    ]
    assert main([*words, "--out", str(tmp_path / "a.jsonl")]) == 0, capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.prompt_weights=0"], "prompt_weights: must be positive and finite"),
        (["train.reward_weights=[1.0, 2.0]"], "reward_weights: drawn for each prompt with prompt_weights"),
        (["rewards=[clarity]"], "train.prompt_weights: weighs two reward functions or more"),
        (["rewards=null", "judge={kind: reward, reward: clarity}"], "train.prompt_weights: weighs two reward functions or more"),
    ],
)  # fmt: skip
def test_weights_of_nothing_are_refused(tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run("online/tiny-trajectory-balance", [f"train.output_dir={tmp_path / 'run'}", *settings])

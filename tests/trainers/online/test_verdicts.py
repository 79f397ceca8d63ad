"""What rewards and judges say of a pair."""

import math

import pytest
import torch
from torch.testing import assert_close

from align import run
from align.judges.scorers import RewardScorer, TableScorer
from align.trainers.online import preference
from align.trainers.online.verdicts import Wins, of_dominance, of_judge, of_rewards

NAN = math.nan


def test_rewards_are_weighed_where_both_answers_have_them():
    rewards = torch.tensor(
        [[1.0, 2.0], [0.5, 4.0], [1.0, NAN], [3.0, NAN], [1.0, 5.0], [2.0, NAN], [NAN, NAN], [NAN, NAN]]
    )
    said = of_rewards(rewards, torch.tensor([2.0, -0.5]), temperature=2.0)
    assert said.given.tolist() == [True, True, False, False]
    assert_close(said.scores, torch.tensor([[1.0, -1.0], [2.0, 6.0], [0.0, 0.0], [0.0, 0.0]]))
    assert said.preference.tolist() == pytest.approx([1 / (1 + math.exp(-1)), 1 / (1 + math.exp(2)), 0.5, 0.5])
    certain = of_rewards(rewards, torch.tensor([2.0, -0.5]), temperature=0.0)
    assert certain.preference.tolist() == [1.0, 0.0, 0.5, 0.5]
    extreme = of_rewards(torch.tensor([[3e38], [-3e38]]), torch.ones(1), temperature=1e-3)
    assert extreme.preference.tolist() == [1.0]


def test_an_answer_that_is_worse_in_nothing_and_better_in_something_is_preferred():
    rewards = torch.tensor(
        [[1.0, 2.0], [1.0, 1.0], [0.0, 9.0], [0.1, 0.0], [0.0, 1.0], [5.0, 1.0], [2.0, 2.0], [2.0, 2.0]]
    )
    said = of_dominance(rewards)
    assert said.preference.tolist() == [1.0, 0.5, 0.0, 0.5]
    assert said.given.all()
    assert_close(said.scores[:, 0] - said.scores[:, 1], said.preference - 0.5)
    partly = of_dominance(torch.tensor([[1.0, NAN], [0.0, NAN], [1.0, 0.0], [0.0, NAN], [NAN, NAN], [NAN, NAN]]))
    assert partly.preference.tolist() == [1.0, 0.5, 0.5]
    assert partly.given.tolist() == [True, False, False]
    assert partly.scores[1:].tolist() == [[0.0, 0.0]] * 2


def test_the_order_preserving_recipe_learns_by_dominance(tmp_path, monkeypatch):
    seen = []

    def rising(self, completions, prompts=None, **_):
        return [float(k) for k in range(len(completions))]

    monkeypatch.setattr("align.rewards.clarity.Clarity.__call__", rising)
    monkeypatch.setattr("align.rewards.repetition.Repetition.__call__", rising)
    words = ["rewards=[repetition, clarity]", "train.per_device_train_batch_size=8", "train.max_steps=1"]
    monkeypatch.setattr(
        preference.OnlinePreferenceTrainer, "_note", lambda self, result, inputs, *_: seen.append(inputs)
    )
    run("online/tiny-order-preserving", [f"train.output_dir={tmp_path / 'run'}", *words])
    assert seen[0]["preference"].tolist() == [0.0] * 4
    assert_close(seen[0]["scores"], torch.tensor([[0.25, 0.75]] * 4))


def test_the_difference_of_a_judges_scores_is_its_preference_beyond_one_half():
    said = of_judge(torch.tensor([[0.8], [0.2], [NAN], [NAN]]))
    assert said.given.tolist() == [True, False]
    assert said.preference.tolist() == pytest.approx([0.8, 0.5])
    assert float(said.scores[0, 0] - said.scores[0, 1]) == pytest.approx(0.3)
    assert said.scores[1].tolist() == [0.0, 0.0]


def test_a_scorer_is_asked_of_pairs_with_the_columns_of_their_rows():
    table = TableScorer(["a", "b", "c"], [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    wins = Wins(table)
    assert wins(["p"] * 6, ["a", "b", "c", "b", "c", "a"]) == pytest.approx([0.9, 0.1, 0.1, 0.9, 0.9, 0.1])
    seen = []

    def reward(prompts, completions, answer):
        seen.append((prompts, answer))
        return [float(one[0]["content"] == a) for one, a in zip(completions, answer, strict=True)]

    message = [{"role": "user", "content": "q"}]
    said = Wins(RewardScorer(reward, temperature=0.0))(
        [message] * 4,
        [[{"role": "assistant", "content": text}] for text in ("x", "y", "x", "y")],
        answer=["x", "x", "y", "y"], trainer_state=object(), completion_ids=[[1], [2], [3], [4]],
    )  # fmt: skip
    assert said == [1.0, 0.0, 0.0, 1.0]
    assert seen == [([message] * 2, ["x", "x"]), ([message] * 2, ["y", "y"])]


def test_a_pair_without_a_verdict_is_none_and_says_why():
    class Refuses:
        def prefer(self, prompt, answers, **columns):
            raise ValueError("too long")

    wins = Wins(Refuses())
    assert wins(["p"] * 4, ["a", "b", "c", "c"]) == [None, None, 0.5, 0.5]
    assert wins.reasons.most_common(1) == [("too long", 2)]
    nonsense = Wins(
        type("Nonsense", (), {"prefer": lambda self, prompt, answers, **_: torch.full((2, 2), 0.7).numpy()})()
    )
    assert nonsense(["p"] * 2, ["a", "b"]) == [None, None]
    assert "must be 1 everywhere" in next(iter(nonsense.reasons))

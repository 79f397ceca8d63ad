"""T-PPO's answers that go on: checkpoints with them, evaluations without, micro-batches, and a head that begins before the policy."""

import copy
import logging

import pytest
import tiny
import torch
from datasets import Dataset
from groups import equal_weights, records
from objectives import PROMPTS, WINDOWS, dynamic, gradient, head_of, low, taught, windowed
from torch.testing import assert_close

from align.configs.own_losses import TPPOConfig
from align.errors import RunError
from align.trainers.shared.trl_contract import end_answers_at
from align.trainers.windows.slots import Slots
from align.trainers.windows.truncated import TPPOTrainer

TPPO = (TPPOTrainer, TPPOConfig)


def test_accumulation_changes_nothing(tmp_path):
    whole = windowed(tmp_path / "a", max_steps=5)
    parts = windowed(tmp_path / "b", max_steps=5, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    for each in (whole, parts):
        taught(each).train()
    for name, weight in tiny.weights(parts).items():
        assert_close(weight, tiny.weights(whole)[name], rtol=1e-3, atol=1e-6)
    assert_close(head_of(parts), head_of(whole), rtol=1e-4, atol=1e-6)
    for key in ("loss", "loss/value", "values/mean", "values/tokens", "windows/tokens"):
        assert tiny.losses(parts, key) == pytest.approx(tiny.losses(whole, key), rel=1e-3, abs=1e-6)
    assert max(float(w.abs().max()) for n, w in tiny.weights(whole).items() if "lora_B" in n) > 1e-4


def test_the_order_of_places_changes_nothing(tmp_path):
    runs = []
    for name, prompts in (("a", PROMPTS), ("b", PROMPTS[::-1])):
        one = {"per_device_train_batch_size": 8, "shuffle_dataset": False, "prompts": prompts, "max_steps": 2}
        runs.append(gradient(taught(windowed(tmp_path / name, learning_rate=0.0, **one))))
    assert_close(runs[0][1], runs[1][1], rtol=1e-4, atol=1e-7)
    assert_close(head_of(runs[0][0]), head_of(runs[1][0]), rtol=1e-4, atol=1e-6)


def test_a_resumed_run_goes_on_with_the_answers_under_way_to_the_bit(tmp_path):
    """Real sampling; two steps on each batch of windows, of which the checkpoint lies in the middle."""
    settings = {
        **WINDOWS, "rewards": [low], "max_steps": 9, "save_strategy": "steps", "save_steps": 5, "per_device_train_batch_size": 2,
        "steps_per_generation": 2, "num_iterations": 2, "lora": {"lora_dropout": 0.1}, "optim": "adamw_torch",
        "learning_rate": 0.01, "beta": 0.1, "window_length": 2, "max_completion_length": 6,
    }  # fmt: skip

    def made(name, **kw):
        trainer = dynamic(*TPPO, tmp_path / name, **settings | kw)
        end_answers_at(trainer, range(60))
        return trainer

    run = made("run")
    run.train()
    assert max(tiny.losses(run, "values/tokens")) > 0
    assert min(tiny.losses(run, "windows/finished")) < 1
    checkpoint, again = tmp_path / "run" / "checkpoint-5", made("again")
    assert {held is None for held in torch.load(checkpoint / "slots_0.pt")["held"]} == {True, False}
    again.train(resume_from_checkpoint=str(checkpoint))
    assert records(again) == records(run)
    assert equal_weights(again, run)
    assert torch.equal(head_of(again), head_of(run))
    assert again.slots.state_dict() == run.slots.state_dict()
    other = made("other", per_device_train_batch_size=4)
    with pytest.raises(RunError, match="has 4 answers under way on a process, and this run 8; keep per_device"):
        other.train(resume_from_checkpoint=str(checkpoint))


def test_answers_that_cannot_go_on_are_given_up(caplog):
    """Of a run that goes on with other data, or with shorter answers."""
    rows = [{"prompt": f"say {row}"} for row in range(4)]
    kept = Slots(Dataset.from_list(rows), 4, seed=0, shuffle=False)
    kept.fill(0)
    for held, tokens in zip(kept.held, ([5], [5, 6, 7], [], [8, 9]), strict=True):
        held[1].extend(tokens)
    kept.held[2] = None

    def taken_up(rows, longest):
        slots = Slots(Dataset.from_list(rows), 4, seed=0, shuffle=False)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            slots.load_state_dict(copy.deepcopy(kept.state_dict()), "a", longest=longest)
        assert slots.taken == 4
        return [held is not None for held in slots.held], [r.getMessage().split(" prompts")[0] for r in caplog.records]

    told = "a: {} answers under way are given up: their"
    assert taken_up(rows, 4) == ([True, True, False, True], [])
    assert taken_up(rows, 3) == ([True, False, False, True], [told.format(1)])
    assert taken_up(rows[:3], 4) == ([True, True, False, False], [told.format(1)])
    assert taken_up(rows[::-1], 4) == ([False] * 4, [told.format(3)])


def test_answers_go_on_from_what_was_written_and_an_evaluation_answers_whole(tmp_path):
    """Real sampling; prompts come each once before any comes again."""
    trainer = dynamic(*TPPO, tmp_path, rewards=[low], **WINDOWS | {"max_completion_length": 7, "max_steps": 6})
    steps, go_on, rows = [], trainer.slots.go_on, trainer.slots.rows
    end_answers_at(trainer, range(60))
    order = []
    trainer.slots.rows = lambda names: (
        order.extend(held[0] for held in trainer.slots.held if not held[1]) or rows(names)
    )

    def watched(new, **kw):
        before = [list(tokens) for tokens in trainer.slots.tokens]
        over = go_on(new, **kw)
        steps.append((before, [list(tokens) for tokens in trainer.slots.tokens], over))
        return over

    window = trainer.sampled_window

    def asked(rows, *args, **kw):
        pairs = list(zip(rows, trainer.slots.tokens, strict=True))
        assert all(len(row) > len(tokens) and row[len(row) - len(tokens) :] == tokens for row, tokens in pairs)
        return window(rows, *args, **kw)

    trainer.slots.go_on, trainer.sampled_window = watched, asked
    trainer.train()
    after = None
    for before, now, over in steps:
        for place, (old, new, done) in enumerate(zip(before, now, over, strict=True)):
            assert old == ([] if after is None or after[1][place] else after[0][place])
            assert new[: len(old)] == old
            assert 1 <= len(new) - len(old) <= 3
            assert done == (len(new) == 7 or new[-1] in trainer.eos_token_ids)
        after = now, over
    assert len({len(tokens) for _, now, _ in steps for tokens in now}) > 3
    assert sorted(order[:8]) == list(range(8))
    assert order[:8] != list(range(8))
    kept = copy.deepcopy(trainer.slots.state_dict())
    trainer.eval_dataset = Dataset.from_dict({"prompt": PROMPTS})  # more than a generation batch has
    measured = trainer.evaluate()
    assert measured["eval_windows/finished"] == 1.0
    assert measured["eval_completions/max_length"] == 7.0
    assert measured["eval_values/tokens"] == measured["eval_windows/tokens"]
    assert trainer.slots.state_dict() == kept


def test_the_head_is_trained_alone_first(tmp_path):
    trainer = windowed(tmp_path, max_steps=3, critic_warmup=2, window_length=12, weight_decay=0.1, optim="adamw_torch")
    begun, seen_ = {**tiny.weights(trainer)}, []
    trainer.training_step_ = trainer.training_step

    def step(*args, **kw):
        seen_.append((tiny.weights(trainer), head_of(trainer)))
        return trainer.training_step_(*args, **kw)

    trainer.training_step = step
    trainer.train()
    assert all(torch.equal(weight, begun[name]) for name, weight in seen_[2][0].items())
    assert not torch.equal(seen_[1][1], seen_[0][1])
    assert any(not torch.equal(weight, begun[name]) for name, weight in tiny.weights(trainer).items())


def test_an_answer_without_a_reward_teaches_nothing_and_one_that_goes_on_is_not_scored(tmp_path):
    asked = []

    def none(completion_ids, **_):
        asked.extend(completion_ids)
        return [None] * len(completion_ids)

    trainer = taught(windowed(tmp_path, rewards=[none], max_steps=2, window_length=6))
    begun = {**tiny.weights(trainer)}
    head = head_of(trainer)
    finished, learnt = 0, trainer._learnt

    def watched(output):
        nonlocal finished
        made, over = learnt(output), torch.tensor(trainer._finished)
        assert (made["advantages"][over] == 0).all()
        assert (made["advantages"][~over] != 0).any(dim=1).all()
        finished += int(over.sum())
        return made

    trainer._learnt = watched
    trainer.train()
    assert len(asked) == finished > 0
    assert all(ids[-1] in trainer.eos_token_ids for ids in asked)
    assert torch.equal(head_of(trainer), head)
    assert not all(torch.equal(weight, begun[n]) for n, weight in tiny.weights(trainer).items())  # windows that go on


def test_a_value_loss_that_is_not_finite_skips_the_step(tmp_path):
    huge = lambda completion_ids, **_: [3e19] * len(completion_ids)  # noqa: E731
    trainer = windowed(tmp_path, rewards=[huge], max_steps=1, window_length=12)
    trainer.train()
    assert trainer.guard.skipped == 1
    assert (head_of(trainer) == 0).all()

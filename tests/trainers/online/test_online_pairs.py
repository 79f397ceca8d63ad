"""OnlinePreferenceTrainer: its pairs, its mean, its checkpoints; and TRL's online DPO on the same answers."""

import pytest
import tiny
import torch
from datasets import Dataset
from groups import PROMPTS, VOWELS, equal_weights, known, pair_arguments, pair_trainer, records
from groups import pair_run as trained
from peft import LoraConfig
from tiny import sparing
from torch.testing import assert_close

from align.errors import RunError
from align.judges.scorers import RewardScorer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.online.preference import flat, problems_of


def lengths(completions, **_):
    return [float(len(one[0]["content"])) for one in completions]


LONGER = RewardScorer(lengths)


def same_weights(one, other, **kw):
    theirs = tiny.weights(other)
    for name, weight in tiny.weights(one).items():
        assert_close(weight, theirs[name], **kw)
    assert max(float(w.abs().max()) for n, w in theirs.items() if "lora_B" in n) > 1e-3


@pytest.mark.parametrize("method", sparing(["online_dpo", "egpo", "xpo"], "egpo"))
def test_accumulation_changes_nothing(tmp_path, method):
    """Also where a pair has no verdict: the mean is over the pairs of the step that have one."""

    def lame(prompts, completions, **_):
        return [None if "up" in p[0]["content"] else v for p, v in zip(prompts, lengths(completions), strict=True)]

    settings = {"method": method, "reward_funcs": [lame], "answers": known, "optim": "sgd"}
    settings["learning_rate"] = 0.02 if method == "egpo" else 5.0
    whole = trained(tmp_path / "a", **settings)
    parts = trained(tmp_path / "b", per_device_train_batch_size=2, gradient_accumulation_steps=4, **settings)
    same_weights(parts, whole, rtol=1e-4, atol=1e-6)
    assert tiny.losses(parts) == pytest.approx(tiny.losses(whole), rel=1e-4)
    assert tiny.losses(whole, "pairs/unscored") == [1.0] * 3


def test_an_unscored_pair_is_as_if_it_were_not_there(tmp_path):
    def lame(prompts, completions, **_):
        return [None if "up" in p[0]["content"] else v for p, v in zip(prompts, lengths(completions), strict=True)]

    settings = {"answers": known, "max_steps": 2, "optim": "sgd", "learning_rate": 5.0}
    with_it = trained(tmp_path / "a", reward_funcs=[lame], **settings)
    prompts = [p for p in PROMPTS if p[0]["content"] != "up"]
    without = trained(
        tmp_path / "b", reward_funcs=[lengths], prompts=prompts, per_device_train_batch_size=6, **settings
    )
    same_weights(with_it, without, rtol=1e-3, atol=1e-5)
    assert tiny.losses(with_it) == pytest.approx(tiny.losses(without), rel=1e-4)


class Remembers:
    """A reward that goes on where it was."""

    __name__ = "remembers"

    def __init__(self):
        self.count = 0

    def __call__(self, completions, **_):
        self.count += len(completions)
        return [v + self.count % 5 * (place % 2) for place, v in enumerate(lengths(completions))]

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


@pytest.mark.parametrize("method", sparing(["egpo", "nash_md", "online_dpo"], "egpo"))
def test_a_resumed_run_repeats_everything_to_the_bit(tmp_path, method):
    settings = {
        "method": method, "save_strategy": "steps", "save_steps": 1, "max_steps": 4, "logging_steps": 2,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    settings |= {"label": "sampled"} if method == "online_dpo" else {}
    whole = trained(tmp_path, reward_funcs=[Remembers()], **settings)
    for at in (1, 3):
        again = pair_trainer(tmp_path / "again", reward_funcs=[Remembers()], **settings)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
        assert records(again) == records(whole)
        assert equal_weights(again, whole)
    (tmp_path / "checkpoint-1" / "rewards_0.pt").unlink()
    with pytest.raises(RunError, match="checkpoint-1"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def test_the_loss_is_trls_online_dpo_on_the_same_answers(tmp_path):
    trl_online = pytest.importorskip("trl.experimental.online_dpo")

    class Known(trl_online.OnlineDPOTrainer):
        def _generate(self, model, prompts, images=None):
            ids = [
                self.processing_class.apply_chat_template(p, add_generation_prompt=True)["input_ids"] for p in prompts
            ]
            rows = [(one, known(one, place)) for place in (0, 1) for one in ids]
            width, room = max(len(p) for p, _ in rows), max(len(c) for _, c in rows)
            padded = [([0] * (width - len(p)) + p, c + [0] * (room - len(c))) for p, c in rows]
            masks = [([0] * (width - len(p)) + [1] * len(p), [1] * len(c) + [0] * (room - len(c))) for p, c in rows]
            prompt, answer = (torch.tensor([row[side] for row in padded]) for side in (0, 1))
            prompt_mask, answer_mask = (torch.tensor([row[side] for row in masks]) for side in (0, 1))
            return prompt, prompt_mask, answer, answer_mask, None

    def theirs(folder, **kw):
        tokenizer = tiny_tokenizer()
        args = trl_online.OnlineDPOConfig(
            str(folder), max_steps=3, use_cpu=True, bf16=False, report_to="none", logging_steps=1, temperature=1.0,
            save_strategy="no", gradient_checkpointing=False, disable_tqdm=True, max_grad_norm=0.0, beta=0.1,
            max_new_tokens=8, optim="sgd", **kw,
        )  # fmt: skip
        trainer = Known(
            model=tiny_model(tokenizer), reward_funcs=[hashed], args=args, processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"prompt": PROMPTS}), peft_config=LoraConfig(**tiny.LORA),
        )  # fmt: skip
        trainer.train()
        return trainer

    def hashed(completions, **_):  # no ties, which TRL gives to the first
        return [float(sum(ord(letter) * (n + 1) for n, letter in enumerate(one[0]["content"]))) for one in completions]

    settings = {"reward_funcs": [hashed], "answers": known, "label": "likelier", "optim": "sgd"}
    ours = trained(tmp_path / "a", learning_rate=2.0, **settings)
    other = theirs(tmp_path / "b", learning_rate=2.0, per_device_train_batch_size=4)
    assert tiny.losses(ours) == pytest.approx(tiny.losses(other), abs=2e-4)
    same_weights(ours, other, rtol=1e-3, atol=1e-4)
    # accumulated, TRL's step is that of the sum over micro-batches
    ours = trained(tmp_path / "c", learning_rate=4.0, max_steps=1, **settings)
    other = theirs(tmp_path / "d", learning_rate=2.0, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert tiny.losses(ours)[0] == pytest.approx(tiny.losses(other)[0], abs=2e-4)


def test_equal_answers_are_not_judged_and_tie(tmp_path):
    """Known answers of one prompt are equal, or one is longer."""
    asked = []

    class Asked:
        def prefer(self, prompt, answers, **columns):
            asked.append(tuple(answers))
            return LONGER.prefer(prompt, answers)

    def answers(ids, place):
        return known(ids, place if len(ids) % 2 else 0)

    trainer = trained(tmp_path, scorer=Asked(), answers=answers, max_steps=1)
    (record,) = records(trainer)
    same = int(record["pairs/identical"])
    assert 0 < same < 4
    assert len(asked) == 4 - same
    assert all(one != other for one, other in asked)
    assert record["pairs/unscored"] == 0
    assert not any(name in record for name in ("reward", "reward_std", "rewards/judge/mean"))
    batch = trainer._buffered_inputs[0]
    equal = (batch["completion_ids"][:, 0] == batch["completion_ids"][:, 1]).all(dim=1)
    assert (batch["preference"][equal] == 0.5).all()
    assert (batch["preference"][~equal] != 0.5).all()


def test_a_scorer_that_fails_is_counted_and_at_last_refused(tmp_path, caplog):
    class Moody:
        def __init__(self, always):
            self.always = always

        def prefer(self, prompt, answers, **columns):
            if self.always or "up" in prompt[0]["content"]:
                raise ValueError("no opinion on this")
            return VOWELS.prefer(prompt, answers)

    some = trained(tmp_path / "a", scorer=Moody(False), answers=known)
    assert tiny.losses(some, "pairs/unscored") == [1.0] * 3
    trainer = pair_trainer(tmp_path / "b", scorer=Moody(True), answers=known, max_steps=5)
    with pytest.raises(
        RunError, match=r"step 3: the scorer gave no verdict in 3 steps in a row; it says: no opinion on"
    ):
        trainer.train()

    def never(completions, **_):
        return [None] * len(completions)

    trainer = pair_trainer(tmp_path / "c", reward_funcs=[never], max_steps=5)
    with pytest.raises(RunError, match=r"step 3: the rewards compared no pair \(None or NaN\) in 3 steps in a row"):
        trainer.train()


def test_a_reward_that_is_infinite_is_refused(tmp_path):
    trainer = pair_trainer(tmp_path, reward_funcs=[lambda completions, **_: [float("inf")] * len(completions)])
    with pytest.raises(ValueError, match="rewards must be finite, or None"):
        trainer.train()


def test_both_answers_of_a_pair_stay_together_and_the_judge_is_heard(tmp_path):
    """In shuffled micro-batches, the side that is preferred is the one that the judge prefers."""
    trainer = trained(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=4, max_steps=1)
    tokenizer = tiny_tokenizer()
    for batch in trainer._buffered_inputs:
        rows = flat(batch)
        assert torch.equal(rows["prompt_ids"][0], rows["prompt_ids"][1])
        texts = [
            tokenizer.decode(ids[mask.bool()], skip_special_tokens=True)
            for ids, mask in zip(rows["completion_ids"], rows["completion_mask"], strict=True)
        ]
        expected = VOWELS.prefer(PROMPTS[0], texts)[0, 1]
        assert batch["preference"].tolist() == pytest.approx([expected])
        assert batch["scores"][0].tolist() == pytest.approx([(0.5 + expected) / 2, (1.5 - expected) / 2])


def test_what_cannot_be_meant_is_refused(tmp_path):
    for given, message in (
        ({"scorer": None}, "scorer: nothing compares the answers"),
        ({"scorer": VOWELS, "reward_funcs": [lengths]}, "scorer: reward_funcs compare the answers, too"),
        ({"reward_temperature": 0.5}, "reward_temperature: rewards have it, and a scorer compares"),
        ({"reward_funcs": [lengths, lengths]}, "'lengths' twice"),
    ):
        with pytest.raises(ValueError, match=message):
            pair_trainer(tmp_path, **given)
    (said,) = problems_of(None, lengths, pair_arguments(tmp_path), None)
    assert said.startswith("scorer: has no method `prefer(prompt, answers, **columns)`, got function; wrap a reward")
    told = lambda completions, **_: [0.0] * len(completions)  # noqa: E731
    told.aux = "stratum"
    with pytest.raises(ValueError, match="nothing reads it"):
        pair_trainer(tmp_path, reward_funcs=[lengths, told])
    trainer = pair_trainer(tmp_path)
    with pytest.raises(ValueError, match="outputs are never built"):
        trainer.compute_loss(trainer.model, {}, return_outputs=True)

"""REINFORCE on a stream of single answers: which prompts it draws, and how it measures the policy's drift."""

import json

import pytest
import tiny
import torch
from accelerate import Accelerator
from datasets import Dataset
from objectives import PROMPTS, answered, dynamic, first, low, run

from align.configs.online import ReinforceConfig
from align.trainers.online.multi_objective import ReinforceTrainer
from align.trainers.online.streams.draws import UncertainPrompts, drawn
from align.weighting.single_stream import SingleStream, prompt_number

REINFORCE = (ReinforceTrainer, ReinforceConfig)
WHOLE = {
    "estimator": "single_stream", "estimator_options": {"rho": "kl", "prompts": "uncertain"}, "weighting": "fixed",
    "num_generations": 1, "rewards": [first, low], "temperature": 0.7,
}  # fmt: skip


def logged(trainer):
    return tiny.losses(trainer), tiny.losses(trainer, "drift"), tiny.losses(trainer, "grad_norm")


def by_hand(trainer, row, ids):
    """Log-probabilities of an answer's tokens at the temperature of sampling, one text by itself."""
    prompt = trainer.processing_class.apply_chat_template(row, add_generation_prompt=True, return_dict=False)
    trainer.model.eval()
    with torch.no_grad():
        logits = trainer.model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1] / 0.7
    trainer.model.train()
    return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None])[:, 0]


def test_drift_is_of_the_answer_before_and_0_at_a_first_visit(tmp_path):
    """Held against a forward of each answer by itself, after the adapter has dropout; texts of unlike lengths."""
    trainer = dynamic(
        *REINFORCE, tmp_path, max_steps=4, lora={"lora_dropout": 0.3}, **WHOLE | {"per_device_train_batch_size": 4}
    )
    kept, seen, estimate = {}, [], trainer._advantages
    scored = trainer._calculate_rewards

    def watched(inputs, prompts, completions, ids):
        expected = []
        for row in prompts:
            before = kept.get(str(row))
            expected.append(
                0.0 if before is None else (by_hand(trainer, row, before[0]) - before[1]).abs().mean().item()
            )
        for row, own in zip(prompts, ids, strict=True):
            kept[str(row)] = list(own), by_hand(trainer, row, list(own))
        seen.append(expected)
        return scored(inputs, prompts, completions, ids)

    def held(rewards, aux):
        assert trainer._drift.tolist() == pytest.approx(seen[-1], abs=2e-6)
        return estimate(rewards, aux)

    trainer._calculate_rewards, trainer._advantages = watched, held
    trainer.train()
    assert len(seen) == 4
    assert max(max(each) for each in seen) > 1e-3
    assert tiny.losses(trainer, "drift") == pytest.approx([sum(each) / 4 for each in seen], abs=2e-6)


def test_prompts_are_drawn_anew_from_the_table_as_it_is(tmp_path):
    """The answer to the prompt before is in the table already; no prompt twice in a batch."""
    trainer = dynamic(*REINFORCE, tmp_path, max_steps=5, seed=3, **WHOLE | {"per_device_train_batch_size": 4})
    seen, scored = [], trainer._calculate_rewards
    numbers = [prompt_number(prompt) for prompt in PROMPTS]

    def watched(inputs, prompts, *more):
        weights = trainer.estimator.uncertainty(numbers)
        assert [PROMPTS[k] for k in drawn(weights, 4, [3, len(seen)])] == prompts
        seen.append([str(prompt) for prompt in prompts])
        return scored(inputs, prompts, *more)

    trainer._calculate_rewards = watched
    trainer.train()
    assert all(len(set(batch)) == 4 for batch in seen)
    assert len({tuple(batch) for batch in seen}) == 5
    assert len({*seen[0], *seen[1]}) < 8  # or it would be an epoch


def test_micro_batches_give_what_the_whole_batch_gives(tmp_path):
    parts = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "steps_per_generation": 4}
    whole, split = (
        answered(REINFORCE, tmp_path / str(n), max_steps=4, **WHOLE | {"learning_rate": 0.2} | sizes)
        for n, sizes in enumerate(({"per_device_train_batch_size": 8}, parts))
    )
    for trainer in (whole, split):
        trainer.train()
    assert tiny.losses(split, "drift") == pytest.approx(tiny.losses(whole, "drift"), rel=1e-3, abs=1e-7)
    assert max(tiny.losses(whole, "drift")) > 1e-3
    for number, counts in whole.estimator.table.items():
        assert torch.allclose(counts, split.estimator.table[number], rtol=1e-4)


def test_a_resumed_run_draws_and_measures_to_the_bit(tmp_path):
    settings = {
        "max_steps": 5, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 2,
        "steps_per_generation": 2, "gradient_accumulation_steps": 1, **WHOLE,
    }  # fmt: skip
    whole = run(*REINFORCE, tmp_path, **settings)
    for at in (1, 2):
        again = dynamic(*REINFORCE, tmp_path / "again", **settings)
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
        assert logged(again) == logged(whole)
        assert again.estimator.table.keys() == whole.estimator.table.keys()
        assert all(torch.equal(c, again.estimator.table[n]) for n, c in whole.estimator.table.items())
        assert all(torch.equal(w, tiny.weights(again)[k]) for k, w in tiny.weights(whole).items())


def test_what_cannot_be_drawn_from_is_refused(tmp_path):
    trainer = dynamic(*REINFORCE, tmp_path, **WHOLE)
    trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()
    with pytest.raises(ValueError, match="prompts: 'uncertain' draws from the whole training set, and it is streamed"):
        trainer._begin()
    trainer = dynamic(*REINFORCE, tmp_path, **WHOLE | {"estimator_options": {"rho": "kl"}})
    trainer.train_dataset = trainer.train_dataset.add_column("image", [0] * 8)
    with pytest.raises(ValueError, match="rho: 'kl' keeps texts alone, and the data have images; give a number"):
        trainer._begin()


def scored_file(folder, prompts):
    path = folder / "scored.jsonl"
    rows = [{"prompt": p, "completions": ["a"], "rewards": [{"first": 0.5, "low": 0.5}]} for p in prompts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"estimator_options": {"initial": str(path), "prompts": "uncertain"}}


def test_scored_answers_to_other_prompts_are_refused_and_a_lack_of_some_is_told(tmp_path, caplog):
    other = [{"role": "user", "content": "not asked"}]
    with pytest.raises(ValueError, match="initial: none of its prompts is in the training set"):
        dynamic(*REINFORCE, tmp_path, **WHOLE | scored_file(tmp_path, [other]))
    dynamic(*REINFORCE, tmp_path, **WHOLE | scored_file(tmp_path, [PROMPTS[0], other]))
    assert f"initial: {len(PROMPTS) - 1} of {len(PROMPTS)} prompts have no answers there" in caplog.text
    caplog.clear()
    dynamic(*REINFORCE, tmp_path, **WHOLE | scored_file(tmp_path, PROMPTS))
    assert "have no answers there" not in caplog.text


def test_a_batch_of_more_prompts_than_there_are_is_refused(tmp_path):
    few = UncertainPrompts(
        Dataset.from_list([{"prompt": p} for p in PROMPTS[:2]]), SingleStream(prompts="uncertain"), 0
    )
    alone = Accelerator(cpu=True)
    assert len(few.rows([{"prompt": "x"}] * 2, 0, alone)) == 2
    with pytest.raises(ValueError, match="draws 3 different prompts a batch, and there are 2"):
        few.rows([{"prompt": "x"}] * 3, 0, alone)

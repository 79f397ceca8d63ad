"""Metrics are properties of the examples: not of batches, padding, processes or the order of evaluation sets."""

import pytest
import tiny
import torch
from reward_models import build

from align import DPOConfig, DPOTrainer, FDPOConfig, FDPOTrainer, RPOConfig, RPOTrainer
from align.losses import Pair
from align.trainers.shared.metrics import MetricSums, accuracy


def perturbed(cls, config, tmp_path, **kw):
    trainer = tiny.trainer(cls, config, tmp_path, **kw)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(trainer.model.named_parameters()):
            if "lora_B" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=g))
    return trainer


def evaluated(trainer, **kw):
    metrics = trainer.evaluate(**kw)
    return {k: v for k, v in metrics.items() if not k.endswith(("_runtime", "_per_second", "_time", "epoch"))}


@pytest.mark.parametrize(
    ("cls", "config"), [(DPOTrainer, DPOConfig), (RPOTrainer, RPOConfig), (FDPOTrainer, FDPOConfig)]
)
def test_the_same_at_any_eval_batch_size_and_padding(tmp_path, cls, config):
    data = tiny.pairs()
    expected = None
    for size, multiple in ((1, None), (4, None), (8, None), (10, None), (4, 64)):
        trainer = perturbed(
            cls, config, tmp_path, eval_data=data, per_device_eval_batch_size=size, pad_to_multiple_of=multiple
        )
        metrics = evaluated(trainer)
        expected = expected or metrics
        assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-5), (size, multiple)
    assert {"eval_rewards/accuracies", "eval_log_ratio/chosen", "eval_entropy", "eval_length/chosen"} <= set(expected)


def test_metrics_are_what_they_say(tmp_path):
    """Against values computed pair by pair from TRL's own reference pass and a batch of one."""
    trainer = perturbed(DPOTrainer, DPOConfig, tmp_path, eval_data=tiny.pairs(), beta=0.5)
    metrics = evaluated(trainer)
    margins, chosen, lengths = [], [], []
    for row in trainer.eval_dataset:
        inputs = trainer.data_collator([row])
        ref = trainer.compute_ref_log_probs(trainer.model, inputs)
        with torch.no_grad():
            logits = trainer.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
        logps = logits[:, :-1].log_softmax(-1).gather(-1, inputs["input_ids"][:, 1:, None]).squeeze(-1)
        policy = (logps * inputs["completion_mask"][:, 1:]).sum(1)
        margins.append(0.5 * float((policy[0] - ref[0]) - (policy[1] - ref[1])))
        chosen.append(float(policy[0]))
        lengths.append(len(row["chosen_ids"]))
    n = len(margins)
    assert metrics["eval_rewards/margins"] == pytest.approx(sum(margins) / n, abs=1e-4)
    assert metrics["eval_rewards/accuracies"] == pytest.approx(sum(m > 0 for m in margins) / n)
    assert metrics["eval_logps/chosen"] == pytest.approx(sum(chosen) / n, abs=1e-3)
    assert metrics["eval_length/chosen"] == pytest.approx(sum(lengths) / n)
    assert metrics["eval_loss"] == pytest.approx(
        sum(torch.tensor(m).sigmoid().log().neg().item() for m in margins) / n, abs=1e-4
    )


def test_named_eval_sets_do_not_overwrite_each_other(tmp_path):
    sets = {"help": tiny.pairs(4), "harm": tiny.pairs()}
    trainer = perturbed(DPOTrainer, DPOConfig, tmp_path, eval_data=sets)
    metrics = evaluated(trainer)
    for name, data in sets.items():
        alone = evaluated(perturbed(DPOTrainer, DPOConfig, tmp_path, eval_data=data))
        assert metrics[f"eval_{name}_rewards/margins"] == pytest.approx(alone["eval_rewards/margins"], abs=1e-6)
    assert metrics["eval_help_rewards/margins"] != metrics["eval_harm_rewards/margins"]
    assert not any(key.startswith("eval_rewards") for key in metrics)
    logged = {key for record in trainer.state.log_history for key in record}
    assert {"eval_help_rewards/accuracies", "eval_harm_rewards/accuracies"} <= logged


def test_evaluation_while_training_leaves_the_training_sums_alone(tmp_path):
    kw = {"logging_steps": 2, "max_steps": 4}
    plain = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "a", **kw)
    plain.train()
    watched = tiny.trainer(
        DPOTrainer, DPOConfig, tmp_path / "b", eval_data={"x": tiny.pairs(3)}, eval_strategy="steps", eval_steps=1, **kw
    )
    watched.train()
    assert tiny.losses(watched, "rewards/margins") == tiny.losses(plain, "rewards/margins")
    assert len(tiny.losses(watched, "eval_x_rewards/margins")) == 4


def test_f_dpo_logs_the_rewards_of_its_divergence(tmp_path):
    """JSD rewards stay below β log 2, which β times the log-ratio does not."""
    trainer = perturbed(
        FDPOTrainer, FDPOConfig, tmp_path, eval_data=tiny.pairs(), divergence="jensen_shannon", beta=1.0
    )
    metrics = evaluated(trainer)
    assert metrics["eval_rewards/chosen"] < 0.6932
    plain = evaluated(perturbed(DPOTrainer, DPOConfig, tmp_path, eval_data=tiny.pairs(), beta=1.0))
    assert metrics["eval_log_ratio/chosen"] == pytest.approx(plain["eval_rewards/chosen"], abs=1e-5)
    assert metrics["eval_rewards/chosen"] != pytest.approx(plain["eval_rewards/chosen"], abs=1e-3)


def test_a_tie_counts_one_half():
    rewards = Pair(torch.tensor([1.0, 0.0, 2.0]), torch.tensor([0.0, 0.0, 3.0]))
    assert accuracy(rewards).tolist() == [1.0, 0.5, 0.0]


def test_a_fresh_adapter_has_accuracy_one_half(tmp_path):
    metrics = evaluated(tiny.trainer(DPOTrainer, DPOConfig, tmp_path, eval_data=tiny.pairs()))
    assert metrics["eval_rewards/accuracies"] == 0.5
    assert metrics["eval_loss"] == pytest.approx(0.693147, abs=1e-5)


def test_sums_travel_through_a_checkpoint():
    sums = MetricSums()
    sums.train = {"a": [3.0, 4.0]}
    sums.num_tokens = 7
    assert MetricSums.from_state(sums.state()).take("train") == {"a": 0.75}
    assert MetricSums.from_state(sums.state()).num_tokens == 7


def of_pairs(folder, **kw):
    return tiny.trainer(RPOTrainer, RPOConfig, folder, **kw)


@pytest.mark.parametrize("made", [of_pairs, build])
def test_pairs_weigh_the_same_in_a_step_that_ends_with_a_smaller_micro_batch(tmp_path, made):
    """Seven pairs make a step of four, and one of three in micro-batches of two and one."""
    settings = {"data": tiny.pairs(7), "num_train_epochs": 1, "max_steps": -1, "train_sampling_strategy": "sequential"}
    found = []
    for size, parts in ((1, 4), (2, 2), (4, 1)):
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
        trainer = made(tmp_path / str(size), **settings, **cut)
        trainer.train()
        found.append((tiny.losses(trainer), tiny.losses(trainer, "grad_norm")))
    assert len(found[0][0]) == 2
    for losses, norms in found[1:]:
        assert losses == pytest.approx(found[0][0], abs=1e-6)
        assert norms == pytest.approx(found[0][1], rel=1e-4)

"""Advantage-weighted regression: a value head beside the policy, which neither moves nor is moved by its gradient."""

import pytest
import supervised_worker as small
import tiny
import torch
from torch.testing import assert_close

from align.errors import RunError
from align.trainers.completions.scoring import score
from align.trainers.completions.supervised import SupervisedTrainer
from align.trainers.completions.values import VALUES
from align.trainers.shared.scored import backbone_of

ONE_STEP = {"max_steps": 1, "per_device_train_batch_size": 8, "data": small.rows(8)}


def trainer(folder, **kw):
    return small.trainer(folder, **{"objective": {"awr": 1.0}, "value_learning_rate": 0.05} | kw)


def trained(folder, **kw):
    made = trainer(folder, **kw)
    made.train()
    return made


def head_of(made):
    return torch.cat([made.values.weight.detach(), made.values.bias.detach()[None]])


def batch_of(made, indices=range(8)):
    return made._prepare_inputs(made.data_collator([made.train_dataset[i] for i in indices]))


def scored(made, batch):
    fed = {k: batch[k] for k in ("input_ids", "labels", "attention_mask")}
    return score(made.model, fed, backbone_of(made.model))


def taught(made, seed=5):
    """A head that says something."""
    generator = torch.Generator().manual_seed(seed)
    made.values.weight.data.copy_(0.3 * torch.randn(made.values.weight.shape, generator=generator))
    made.values.bias.data.fill_(0.1)
    return made


def test_the_first_step_is_that_of_reward_weighted_regression(tmp_path):
    """The head begins at 0."""
    ours = trained(tmp_path / "awr", awr_beta=0.5, **ONE_STEP)
    theirs = small.trainer(tmp_path / "rwr", objective={"rwr": 1.0}, rwr_beta=0.5, **ONE_STEP)
    theirs.train()
    for name, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(ours)[name], weight, rtol=1e-5, atol=1e-7)
    record = ours.state.log_history[0]
    assert record["awr/value"] == 0
    assert record["loss/awr"] == pytest.approx(tiny.losses(theirs)[0], rel=1e-5)
    assert record["loss"] == pytest.approx(record["loss/awr"] + record["loss/value"])


def test_a_tokens_value_is_read_before_it_and_weighs_its_likelihood(tmp_path):
    made = taught(trainer(tmp_path, awr_beta=0.4, awr_max_weight=3.0))
    batch = batch_of(made)
    policy = scored(made, batch)
    rewards, total, weights, squares, all_values = batch["column.reward"].tolist(), 0.0, [], [], []
    full = made.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    values = (full.hidden_states[-1] @ made.values.weight + made.values.bias).detach()  # of whole rows
    for index, (logps, mask) in enumerate(zip(policy.token_logps, policy.mask, strict=True)):
        for t in mask.nonzero().flatten().tolist():
            value = float(values[index, t])  # position t writes the token of label t + 1
            weights.append(min(2.718281828459045 ** ((rewards[index] - value) / 0.4), 3.0))
            squares.append((rewards[index] - value) ** 2)
            all_values.append(value)
            total = total - weights[-1] * logps[t]
    count = len(weights)
    made.model.zero_grad()
    (total / count).backward()
    gradient = {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}
    made.model.zero_grad()
    made.model.train()
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    assert loss.item() == pytest.approx(total.item() / count + sum(squares) / count, rel=1e-4)
    for name, slope in gradient.items():  # of the policy's term alone: the value loss moves nothing but the head
        assert_close(dict(made.model.named_parameters())[name].grad, slope, rtol=1e-3, atol=1e-6)
    seen = made.sums.take("train")
    assert seen["awr/weight"] == pytest.approx(sum(weights) / count, rel=1e-4)
    assert seen["awr/value"] == pytest.approx(sum(all_values) / count, rel=1e-4, abs=1e-5)
    assert 3.0 in weights
    assert min(weights) < 1


def test_the_head_takes_adams_step_on_the_mean_squared_error(tmp_path):
    made = taught(trainer(tmp_path, learning_rate=0.0, **ONE_STEP))
    batch = batch_of(made)
    with torch.no_grad():
        policy = scored(made, batch)
    weight, bias = made.values.weight.detach().clone(), made.values.bias.detach().clone()
    weight, bias = weight.requires_grad_(), bias.requires_grad_()
    optimizer = torch.optim.Adam([weight, bias], lr=0.05)
    target = batch["column.reward"].repeat_interleave(policy.mask.sum(1))
    (policy.hidden @ weight + bias - target).square().mean().backward()
    optimizer.step()
    before = head_of(made)
    made.train()
    assert_close(head_of(made), torch.cat([weight, bias[None]]).detach(), rtol=1e-4, atol=1e-6)
    assert (head_of(made) - before).abs().min() > 0.01
    memory = made.values.optimizer.state_dict()["state"]
    assert_close(memory[0]["exp_avg"], 0.1 * weight.grad, rtol=1e-3, atol=1e-7)


def test_the_values_of_rewards_that_can_be_told_apart_are_learnt(tmp_path):
    made = trained(tmp_path, learning_rate=1e-6, max_steps=30, per_device_train_batch_size=10)
    errors = tiny.losses(made, "loss/value")
    assert errors[-1] < 0.5 * errors[0]


def test_an_evaluation_teaches_nothing(tmp_path):
    made = taught(trainer(tmp_path, eval_data=small.rows(5)))
    before = head_of(made)
    measured = made.evaluate()
    assert made.values.weight.grad is None
    assert measured["eval_loss"] == pytest.approx(measured["eval_loss/awr"] + measured["eval_loss/value"])
    made.values.on_optimizer_step(made.args, made.state, made.control)
    assert (head_of(made) == before).all()


def test_accumulation_and_order_change_neither_policy_nor_head(tmp_path):
    shared = {"data": small.rows(9), "adam_epsilon": 1e-6, "max_steps": 3}
    whole = trained(tmp_path / "whole", per_device_train_batch_size=8, **shared)
    cut = trained(tmp_path / "cut", per_device_train_batch_size=2, gradient_accumulation_steps=4, **shared)
    assert_close(head_of(cut), head_of(whole), rtol=1e-3, atol=2e-5)
    for name, weight in tiny.weights(whole).items():
        assert_close(tiny.weights(cut)[name], weight, rtol=1e-3, atol=2e-5)
    made, gradients = taught(trainer(tmp_path / "order")), []
    for indices in ([0, 1, 2, 3], [2, 0, 3, 1]):
        made.compute_loss(made.model.train(), batch_of(made, indices))
        gradients.append(made.values.weight.grad)
        made.values.forget()
    assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_under_bf16_autocast_the_head_stays_in_single_precision(tmp_path):
    made = taught(trainer(tmp_path, bf16=True))
    batch = batch_of(made)
    with made.compute_loss_context_manager():
        policy = scored(made, batch)
        values = made.values(policy)
        made.compute_loss(made.model.train(), batch)
    assert values.dtype == torch.float32
    exact = policy.hidden.double() @ made.values.weight.double() + made.values.bias.double()
    assert_close(values[policy.mask].double(), exact, rtol=1e-5, atol=1e-5)
    assert made.values.weight.grad.isfinite().all()


def test_resumes_to_the_same_bits_with_its_head(tmp_path):
    shared = {
        "gradient_accumulation_steps": 2, "max_steps": 7, "save_steps": 4, "save_strategy": "steps", "logging_steps": 3,
        "lora": {"lora_dropout": 0.1},
    }  # fmt: skip
    whole, again = trainer(tmp_path / "run", **shared), trainer(tmp_path / "run", **shared)
    whole.train()
    checkpoint = tmp_path / "run" / "checkpoint-4"
    again.train(resume_from_checkpoint=str(checkpoint))
    assert (head_of(again) == head_of(whole)).all()
    ours, theirs = (made.values.optimizer.state_dict()["state"] for made in (again, whole))
    assert all((ours[i][key] == theirs[i][key]).all() for i in (0, 1) for key in ("exp_avg", "exp_avg_sq", "step"))
    assert ours[0]["step"] == 7
    for name, weight in tiny.weights(whole).items():
        assert (tiny.weights(again)[name] == weight).all(), name
    assert tiny.losses(again)[-1] == tiny.losses(whole)[-1]


def test_a_checkpoint_without_a_head_is_refused(tmp_path):
    other = small.trainer(tmp_path, objective={"rwr": 1.0}, max_steps=1, save_strategy="steps", save_steps=1)
    other.train()
    with pytest.raises(RunError, match=f"has no {VALUES}, so no run with a value head wrote it"):
        trainer(tmp_path, max_steps=2).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


class Broken(SupervisedTrainer):
    """Whose second micro-batch is not finite."""

    calls = 0

    def objectives(self, *args):
        losses, seen = super().objectives(*args)
        self.calls += 1
        return {k: v * (float("nan") if self.calls == 2 else 1.0) for k, v in losses.items()}, seen


def test_a_skipped_step_teaches_the_head_nothing(tmp_path):
    heads = [head_of(trained(tmp_path / str(steps), cls=Broken, max_steps=steps)) for steps in (1, 2)]
    assert heads[0].abs().max() > 0
    assert (heads[0] == heads[1]).all()


def test_a_value_loss_that_is_not_finite_skips_the_step(tmp_path):
    data = small.rows(8).to_list()
    rows = [row | {"reward": -1e30} for row in data]  # of weight 0, and an error that is no number of single precision
    made = trained(tmp_path, data=type(small.rows()).from_list(rows), max_steps=1)
    assert made.guard.skipped == 1
    assert (head_of(made) == 0).all()

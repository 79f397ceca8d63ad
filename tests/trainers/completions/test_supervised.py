"""The supervised trainer against TRL's, and the same result however a step is cut up."""

import logging

import pytest
import supervised_worker as small
import tiny
import torch
from tiny import sparing
from torch.testing import assert_close
from trl import SFTConfig as TRLSFTConfig
from trl import SFTTrainer as TRLSFTTrainer

from align.configs.supervised import SupervisedConfig
from align.losses.token_objectives import per_row
from align.losses.tokens import mean_logps, nll
from align.trainers.completions.scoring import score
from align.trainers.completions.supervised import SupervisedTrainer

NAMES = list(small.OBJECTIVES)


def trained(folder, **kw):
    made = small.trainer(folder, **kw)
    made.train()
    return made


def same_weights(one, other, *, atol=2e-5, rtol=1e-4):
    ours, theirs = tiny.weights(one), tiny.weights(other)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        assert_close(ours[name], weight, atol=atol, rtol=rtol, msg=lambda text, name=name: f"{name}: {text}")


# --- parity with TRL ---------------------------------------------------------------------------


@pytest.mark.parametrize("steps", sparing([1, 2], 2))
@pytest.mark.parametrize("chat", sparing([False, True], True))
@pytest.mark.parametrize("name", ["nll", "dft"])
def test_equals_trl(tmp_path, name, chat, steps):
    """Five micro-batches of two: with two a step the last window of an epoch is short."""
    shared = {"gradient_accumulation_steps": steps, "data": small.rows(chat=chat)}
    theirs = trained(tmp_path / "trl", cls=TRLSFTTrainer, config=TRLSFTConfig, loss_type=name, **shared)
    ours = trained(tmp_path / "ours", objective={name: 1.0}, **shared)
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=1e-5)
    assert tiny.losses(ours, "num_tokens") == tiny.losses(theirs, "num_tokens")
    for metric in ("entropy", "mean_token_accuracy") if steps == 1 else ():  # TRL's are means of means of micro-batches
        assert tiny.losses(ours, metric) == pytest.approx(tiny.losses(theirs, metric), rel=1e-4)
    same_weights(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("only", [True, False])
def test_completion_only_loss_is_honoured_as_by_trl(tmp_path, only):
    theirs = trained(tmp_path / "trl", cls=TRLSFTTrainer, config=TRLSFTConfig, completion_only_loss=only)
    ours = trained(tmp_path / "ours", completion_only_loss=only)
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=1e-5)
    assert (tiny.losses(ours, "length")[0] > 10) is not only


def test_packed_rows_are_held_against_the_reference(tmp_path):
    """The batch has numbers beside its tensors, and one row."""
    done = trained(tmp_path, objective=small.OBJECTIVES["asft"], packing=True, max_length=64)
    assert not done.first_step.due(done)
    assert tiny.losses(done, "loss/ref_kl")[0] == pytest.approx(0, abs=1e-6)


def test_packed_rows_give_the_loss_of_trl(tmp_path):
    shared = {"packing": True, "packing_strategy": "wrapped", "max_length": 64}
    theirs = trained(tmp_path / "trl", cls=TRLSFTTrainer, config=TRLSFTConfig, **shared)
    ours = trained(tmp_path / "ours", **shared)
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=1e-5)


# --- however a step is cut up ------------------------------------------------------------------


@pytest.mark.parametrize("name", sparing(NAMES, "nll", "mixed"))
def test_accumulation_changes_nothing(tmp_path, name):
    """Nine rows: the second step of each epoch has one row."""
    # Adam divides by gradients that are nearly zero, whose rounding differs between processors
    shared = {"objective": small.OBJECTIVES[name], "data": small.rows(9), "adam_epsilon": 1e-6}
    whole = trained(tmp_path / "whole", per_device_train_batch_size=8, **shared)
    cut = trained(tmp_path / "cut", per_device_train_batch_size=2, gradient_accumulation_steps=4, **shared)
    same_weights(cut, whole)
    assert tiny.losses(cut, "grad_norm") == pytest.approx(tiny.losses(whole, "grad_norm"), rel=1e-3)


@pytest.mark.parametrize("name", sparing(NAMES, "nll", "mixed"))
def test_metrics_do_not_depend_on_accumulation(tmp_path, name):
    shared = {"objective": small.OBJECTIVES[name], "data": small.rows(8), "eval_data": small.rows(5)}
    one = trained(tmp_path / "one", per_device_train_batch_size=8, per_device_eval_batch_size=5, **shared)
    four = trained(
        tmp_path / "four", per_device_train_batch_size=2, gradient_accumulation_steps=4,
        per_device_eval_batch_size=2, **shared,
    )  # fmt: skip
    own = {"grad_norm", "epoch", "padding", "computed_per_token", "learning_rate"}
    for record, other in zip(one.state.log_history[:4], four.state.log_history[:4], strict=True):
        assert record.keys() == other.keys()
        assert {k: v for k, v in record.items() if k not in own} == pytest.approx(
            {k: v for k, v in other.items() if k not in own}, rel=1e-3, abs=1e-5
        )
    times = ("runtime", "second")
    evaluated = [{k: v for k, v in t.evaluate().items() if not k.endswith(times)} for t in (one, four)]
    assert evaluated[0] == pytest.approx(evaluated[1], rel=1e-3, abs=1e-4)


def test_metrics_of_a_short_last_window_hold_all_its_rows(tmp_path):
    """Nine rows in micro-batches of two, three a step: the second step has three rows."""
    made = trained(tmp_path, data=small.rows(9), gradient_accumulation_steps=3, max_steps=2)
    tokens = [len(ids) for ids in made.train_dataset["input_ids"]]
    assert tiny.losses(made, "num_tokens")[-1] == sum(tokens)


def batch_of(made, indices):
    return made._prepare_inputs(made.data_collator([made.train_dataset[i] for i in indices]))


def loss_and_gradient(made, batch):
    made.model.zero_grad()
    made.model.train()
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.detach(), {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}


def moved(folder, name, **kw):
    """A policy that has left its reference."""
    made = small.trainer(folder, objective=small.OBJECTIVES[name], lora={"init_lora_weights": False}, **kw)
    made.sums.forget_step()
    return made


def on_the_left(batch):
    """The same rows padded on the left."""
    shift = (batch["attention_mask"] == 0).sum(dim=1).tolist()
    rolled = {
        k: torch.stack([row.roll(n) for row, n in zip(v, shift, strict=True)]) for k, v in batch.items() if v.dim() == 2
    }
    return batch | rolled


@pytest.mark.parametrize("name", NAMES)
def test_order_and_side_of_padding_change_nothing(tmp_path, name):
    made = moved(tmp_path, name)
    batch = batch_of(made, [0, 1, 2, 3])
    loss, gradient = loss_and_gradient(made, batch)
    for other in (batch_of(made, [2, 0, 3, 1]), on_the_left(batch)):
        again, same = loss_and_gradient(made, other)
        assert_close(again, loss, rtol=1e-5, atol=1e-6)
        for key, value in gradient.items():
            assert_close(same[key], value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_bf16_autocast_stays_near_single_precision(tmp_path, name):
    made, half = moved(tmp_path / "a", name), moved(tmp_path / "b", name, bf16=True)
    half.model.load_state_dict(made.model.state_dict())
    batch = batch_of(made, range(8))
    loss, gradient = loss_and_gradient(made, batch)
    with half.compute_loss_context_manager():
        near, rough = loss_and_gradient(half, batch)
    assert_close(near, loss, rtol=0.02, atol=0.05)
    flat, other = (torch.cat([g.flatten() for g in each.values()]) for each in (gradient, rough))
    assert torch.nn.functional.cosine_similarity(flat, other, dim=0) > 0.99
    assert other.norm() == pytest.approx(flat.norm().item(), rel=0.1)


# --- what is computed --------------------------------------------------------------------------


def test_the_loss_is_the_weighted_sum_and_its_addends_are_logged(tmp_path):
    made = trained(tmp_path, objective={"nll": 0.5, "poft": 2.0}, learning_rate=0.0, per_device_train_batch_size=10)
    record = made.state.log_history[0]
    assert record["loss"] == pytest.approx(record["loss/nll"] + record["loss/poft"])
    assert record["loss/nll"] == pytest.approx(0.5 * record["nll"])
    made.model.eval()
    batch = batch_of(made, range(10))
    with torch.no_grad():
        scored = score(made.model, {k: batch[k] for k in ("input_ids", "labels", "attention_mask")})
    tokens = scored.mask.sum()
    assert record["nll"] == pytest.approx((nll(scored.token_logps, scored.mask).sum() / tokens).item(), rel=1e-5)
    gap = batch["column.aligned_logp"] - mean_logps(scored.token_logps, scored.mask)
    assert record["poft/weight"] == pytest.approx(gap.sigmoid().mean().item(), rel=1e-5)
    assert record["loss/poft"] == pytest.approx(2 * torch.nn.functional.softplus(gap).mean().item(), rel=1e-5)
    assert loss_and_gradient(made, batch)[0].item() == pytest.approx(record["loss"], rel=1e-5)
    assert record["length"] == pytest.approx(tokens.item() / 10)
    assert record["num_tokens"] == batch["attention_mask"].sum().item()


def test_completions_with_a_reward_below_the_threshold_are_pushed_away(tmp_path):
    made = small.trainer(tmp_path, objective={"unlikelihood": 1.0}, unlikelihood_threshold=0.2, unlikelihood_alpha=0.5)
    batch = batch_of(made, range(8))  # rewards 0.7, 0.3, -0.1, -0.5, twice
    loss = loss_and_gradient(made, batch)[0]
    with torch.no_grad():
        scored = score(made.model, {k: batch[k] for k in ("input_ids", "labels", "attention_mask")})
    total = 0.0
    for index, (logps, mask) in enumerate(zip(scored.token_logps, scored.mask, strict=True)):
        own = logps[mask]
        total += -own.sum() if index % 4 < 2 else -0.5 * torch.log1p(-own.exp()).sum()
    assert loss.item() == pytest.approx((total / scored.mask.sum()).item(), rel=1e-5)
    assert made.sums.take("train")["unlikelihood/unwanted"] == 0.5


def test_values_of_positions_are_summed_over_their_rows():
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    assert per_row(torch.tensor([1.0, 2.0, 4.0]), mask).tolist() == [3.0, 0.0, 4.0]


def test_the_kl_and_its_gradient_are_those_of_full_logits(tmp_path):
    made = small.trainer(tmp_path, objective={"ref_kl": 0.5}, lora={"init_lora_weights": False})
    batch = batch_of(made, range(10))
    loss, gradient = loss_and_gradient(made, batch)
    measured = made.sums.take("train")
    made.model.zero_grad()
    fed = {k: batch[k] for k in ("input_ids", "attention_mask")}
    with torch.no_grad(), made.model.disable_adapter():
        ref = made.model(**fed).logits[:, :-1].log_softmax(-1)
    logp = made.model(**fed).logits[:, :-1].log_softmax(-1)
    kl = (ref.exp() * (ref - logp)).sum(-1)[batch["labels"][:, 1:] != -100].mean()
    (0.5 * kl).backward()
    assert kl > 1e-4
    assert loss.item() == pytest.approx(0.5 * kl.item(), rel=1e-5)
    assert measured["ref_kl"] == pytest.approx(kl.item(), rel=1e-5)
    assert measured["loss/ref_kl"] == pytest.approx(0.5 * kl.item(), rel=1e-5)
    for name, parameter in made.model.named_parameters():
        if parameter.grad is not None:
            assert_close(gradient[name], parameter.grad, rtol=1e-4, atol=1e-7)


def test_the_log_ratio_is_the_policy_less_the_reference(tmp_path):
    made = moved(tmp_path, "fsft", learning_rate=0.0, per_device_train_batch_size=10, max_steps=1)
    made.first_step = None  # its adapter does not begin at zero, so that there is a ratio to see
    made.train()
    batch = batch_of(made, range(10))
    made.model.eval()
    fed = {k: batch[k] for k in ("input_ids", "labels", "attention_mask")}
    with torch.no_grad():
        policy = nll(*score(made.model, fed)[::3])
        with made.model.disable_adapter():
            ref = nll(*score(made.model, fed)[::3])
    rho = ref - policy
    record = made.state.log_history[0]
    assert record["log_ratio"] == pytest.approx(rho.mean().item(), rel=1e-3, abs=1e-4)
    assert record["loss"] == pytest.approx(-(0.1 * rho - (0.1 * rho) ** 2 / 4).mean().item(), rel=1e-3, abs=1e-4)


def test_without_an_anchor_asft_is_dft_and_a_heavy_one_holds_the_policy(tmp_path):
    shared = {"max_steps": 20, "optim": "sgd", "learning_rate": 0.3, "lora": {"lora_alpha": 64}}
    runs = {
        lam: trained(tmp_path / str(lam), objective={"dft": 1.0, "ref_kl": lam}, **shared) for lam in (0.0, 1e-6, 1.0)
    }
    plain = trained(tmp_path / "dft", objective={"dft": 1.0}, **shared)
    same_weights(runs[0.0], plain, atol=0, rtol=0)
    assert "ref_kl" not in runs[0.0].state.log_history[0]
    assert tiny.losses(runs[1.0], "ref_kl")[0] == 0.0
    assert tiny.losses(runs[1.0], "ref_kl")[-1] < 0.1 * tiny.losses(runs[1e-6], "ref_kl")[-1]


def test_rows_without_a_completion_after_truncation_are_spoken_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        small.trainer(tmp_path, max_length=20)
    assert "max_length=20 leaves no token to learn in 1 of 10 rows: they are left out" in caplog.text
    with pytest.raises(ValueError, match="max_length=3 leaves no token to learn in 10 of 10 rows; raise it"):
        small.trainer(tmp_path, max_length=3)


def test_without_arguments_it_is_sft(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert SupervisedConfig("x", use_cpu=True, bf16=False).active() == {"nll": 1.0}
    assert SupervisedTrainer.loss_is_scaled_for_ga

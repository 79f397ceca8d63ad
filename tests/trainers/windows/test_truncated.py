"""T-PPO: who learns from which tokens, advantages and gradients by plain logits and states, and what it refuses."""

import copy

import pytest
import tiny
import torch
from datasets import Dataset
from groups import known
from objectives import PROMPTS, REWARDS, Gradients, by_tokens, flat, gradient, head_of, low, taught, windowed
from torch.testing import assert_close

from align.configs import ConfigError
from align.configs.own_losses import TPPOConfig
from align.losses.online import clipped_policy_loss
from align.trainers.windows.truncated import TPPOTrainer
from align.weighting.truncated import extended_gae

END = 1  # of the tiny tokenizer


def batch_of(trainer):
    parts = trainer._buffered_inputs
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0] if parts[0][name].dim()}


def seen(trainer, batch):
    """Of each answer by itself: log-probabilities and states before its tokens; answers so far and their windows."""
    for row in range(len(batch["completion_ids"])):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        answer = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        made = trainer.model(input_ids=torch.cat([prompt, answer])[None], output_hidden_states=True)
        part = slice(len(prompt) - 1, -1)
        logps = made.logits[0, part].log_softmax(-1)[torch.arange(len(answer)), answer]
        yield row, answer.tolist(), logps, made.hidden_states[-1][0, part].detach()


def test_a_step_learns_from_its_window_and_from_whole_answers_that_end_in_it(tmp_path):
    """Lengths 5, 2, 4, 3 in two places, three tokens a step, worked by hand; also a micro-batch at a time."""
    for name, parts in (("a", {"per_device_train_batch_size": 2}),
                        ("b", {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2})):  # fmt: skip
        lengths = iter((5, 2, 4, 3))
        written = {}

        def answer(ids, lengths=lengths, written=written):
            key = tuple(ids)
            if key not in written:
                written[key] = [70] * (next(lengths) - 1) + [END]
            return written[key]

        settings = {"shuffle_dataset": False, "max_steps": 3, "prompts": PROMPTS[:4], "rewards": [low], **parts}
        trainer = windowed(tmp_path / name, answer=answer, **settings)
        trainer.train()
        assert tiny.losses(trainer, "windows/tokens") == [5, 5, 4]
        assert tiny.losses(trainer, "values/tokens") == [2, 5, 7]
        assert tiny.losses(trainer, "windows/finished") == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_advantages_and_returns_are_those_of_each_answer_by_itself(tmp_path, beta):
    """In the third step, after the policy has moved: V and log-ratios by a forward pass of one answer, unpadded."""
    trainer = taught(windowed(tmp_path, beta=beta, gamma=0.9, lam=0.8, max_steps=3, lora={"lora_dropout": 0.3}))
    compute, checked = trainer.compute_loss, []

    def watched(model, inputs, **kw):
        if trainer.state.global_step == 2 and not checked:
            batch = batch_of(trainer)
            trainer.model.eval()
            held(trainer, batch, beta)
            trainer.model.train()
            checked.append(True)
        return compute(model, inputs, **kw)

    trainer.compute_loss = watched
    trainer.train()
    assert checked


def held(trainer, batch, beta):
    end, counts = trainer.eos_token_ids[0], []
    with trainer.model.disable_adapter():
        refs = [logps.detach() for *_, logps, _ in seen(trainer, batch)]
    for row, answer, logps, states in seen(trainer, batch):
        values = (states @ trainer.values.weight + trainer.values.bias).detach().double()
        finished = answer[-1] == end
        start = (len(answer) - 1) // 3 * 3
        window = torch.arange(len(answer)) >= start
        scores = [v for v in (by_tokens([answer])[0], low([answer])[0]) if v is not None]
        rewards = -beta * (logps.detach() - refs[row]).double()
        rewards[-1] += sum(scores) if finished else 0.0
        one = (values[None], rewards[None], window[None], torch.tensor([finished]))
        wanted = extended_gae(*one, gamma=0.9, lam=0.8)[0]
        assert_close(batch["advantages"][row][: len(answer)].double(), wanted, rtol=1e-4, atol=1e-5)
        assert batch["window"][row][: len(answer)].tolist() == window.tolist()
        assert not batch["window"][row][len(answer) :].any()
        assert batch["taught"][row].sum() == (len(answer) if finished else 0)
        if finished:
            powers = 0.9 ** torch.arange(len(answer), dtype=torch.double)
            returns = [(powers[: len(answer) - t] * rewards[t:]).sum().item() for t in range(len(answer))]
            assert batch["returns"][row][: len(answer)].tolist() == pytest.approx(returns, rel=1e-4, abs=1e-5)
        counts.append((finished, start > 0))
    assert {(True, True), (False, True)} & set(counts)


def test_gradients_are_those_of_plain_logits_and_states(tmp_path):
    """Of the policy's mean over windows, and apart from it of the head's mean over finished answers."""
    trainer = taught(windowed(tmp_path, learning_rate=0.0, max_steps=2, answer=lambda ids: [*known(ids, 0)[:4], 2]))
    trainer._heads, step = [], trainer.values.on_optimizer_step

    def kept(*args, **kw):
        grads = trainer.values.weight.grad, trainer.values.bias.grad
        trainer._heads.append(None if grads[0] is None else torch.cat([grads[0], grads[1][None]]))
        before = head_of(trainer)
        step(*args, **kw)
        assert (grads[0] is None) == torch.equal(before, head_of(trainer))
        trainer.values.load_state_dict(frozen)

    frozen = copy.deepcopy(trainer.values.state_dict())
    trainer.values.on_optimizer_step = kept
    trainer.eos_token_ids = [2]
    trainer, _ = gradient(trainer)
    assert trainer._heads[0] is None  # nothing has ended in the first window
    batch, total, tokens, slopes, count = batch_of(trainer), 0.0, 0, 0.0, 0
    for row, answer, logps, states in seen(trainer, batch):
        window, advantages = (batch[name][row][: len(answer)] for name in ("window", "advantages"))
        total, tokens = total - (logps * advantages)[window].sum(), tokens + int(window.sum())
        errors = (
            states @ trainer.values.weight.detach()
            + trainer.values.bias.detach()
            - batch["returns"][row][: len(answer)]
        )
        one = torch.cat([states, torch.ones(len(answer), 1)], dim=1)
        known_ = bool(batch["taught"][row].any())
        slopes, count = slopes + known_ * (2 * errors[:, None] * one).sum(dim=0), count + known_ * len(answer)
    assert tokens == 8
    assert 0 < count < 20 or count == 20
    parameters = [p for p in trainer.model.parameters() if p.requires_grad]
    wanted = flat(torch.autograd.grad(total / tokens, parameters), parameters)
    (last,) = [w for w in [trainer.callback_handler.callbacks] for w in w if isinstance(w, Gradients)]
    assert float(wanted.norm()) > 1e-4
    assert_close(last.seen[1], wanted, rtol=1e-3, atol=1e-7)
    assert_close(trainer._heads[1], slopes / count, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tokens_far_from_likely_and_padding_give_finite_gradients(tmp_path, dtype):
    trainer = windowed(tmp_path)
    logps = torch.tensor([[-1e4, 0.0, -0.5], [-1e4, -1.0, float("nan")]], dtype=dtype, requires_grad=True)
    inputs = {
        "old_per_token_logps": torch.tensor([[0.0, -1e4, -0.5], [0.0, -1.0, float("inf")]], dtype=dtype),
        "advantages": torch.tensor([[2.0, -1.0, 3.0], [-1.0, 0.5, 7.0]]),
        "window": torch.tensor([[1, 1, 1], [1, 1, 0]]).bool(),
        "window_tokens": torch.tensor(5.0),
    }
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer.own_loss(logps, inputs)
    loss.backward()
    # one that has become certain is held at e^20, one that is lost at 0 or, clipped, at 0.8
    assert loss.item() == pytest.approx((0.0 + 485165195.4 - 3.0 + 0.8 - 0.5) / 5, rel=1e-6)
    assert_close(logps.grad.float(), torch.tensor([[0.0, 0.0, -0.6], [0.0, -0.1, 0.0]]), rtol=1e-2, atol=1e-8)


def test_the_clipped_loss_by_hand():
    advantage = torch.tensor([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]], dtype=torch.float64)
    ratio = torch.tensor([[0.5, 1.1, 1.5, 0.5, 0.9, 1.5]], dtype=torch.float64)
    logps = ratio.log().requires_grad_()
    loss = clipped_policy_loss(logps, torch.zeros_like(logps), advantage, epsilon=0.2, epsilon_high=0.3)
    assert loss[0].tolist() == pytest.approx([-0.5, -1.1, -1.3, 0.8, 0.9, 1.5])
    (slope,) = torch.autograd.grad(loss.sum(), logps)
    assert slope[0].tolist() == pytest.approx([-0.5, -1.1, 0.0, 0.0, 0.9, 1.5])


def test_the_paths_that_have_no_windows_are_refused(tmp_path):
    wrong = (
        ({"loss_type": "grpo"}, "loss_type: not honoured here"),
        ({"num_generations": 4}, "num_generations: an answer is under way for each prompt by itself"),
        ({"use_vllm": True}, "use_vllm: not honoured here"),
        ({"shared_prefix": "auto"}, "shared_prefix: not honoured here"),
        ({"mask_truncated_completions": True}, "mask_truncated_completions: not honoured here"),
        ({"window_length": 700}, "window_length: must be from 1 to max_completion_length=512, got 700"),
        ({"window_length": 0}, "window_length: must be from 1"),
        ({"max_completion_length": None}, "max_completion_length: missing"),
        ({"gamma": 0.0}, "gamma: must be a number in"),
        ({"lam": 1.5}, "lam: must be a number in"),
        ({"epsilon": 1.0}, "epsilon: must be a number in"),
        (
            {"generation_kwargs": {"min_new_tokens": 9}},
            "generation_kwargs: min_new_tokens: each window is generated by itself",
        ),
        ({"value_learning_rate": 0.0}, "value_learning_rate: must be positive"),
        ({"critic_warmup": -1}, "critic_warmup: must not be negative"),
        ({"critic_warmup": 1, "fp16": True}, "critic_warmup: must not be negative, and be 0 with fp16"),
        ({"deepspeed": {}, "fsdp": "full_shard", "use_cpu": False}, "fsdp, deepspeed: the value head"),
        ({"per_device_train_batch_size": 3}, "per_device_train_batch_size: an even number"),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 2}, "steps_per_generation: must be a multiple"),
    )
    for fields, told in wrong:
        with pytest.raises(ConfigError, match=told):
            TPPOConfig("unused", **{"use_cpu": True, "bf16": False} | fields)
    assert TPPOConfig("unused", use_cpu=True, bf16=False, max_completion_length=100).window_length == 34
    rows = Dataset.from_dict({"prompt": PROMPTS, "image": [0] * 8})
    for data, told in ((rows, "the column 'image' is not read"), (rows.to_iterable_dataset(), "the data are streamed")):
        with pytest.raises(ValueError, match=f"TPPOTrainer: train data: .*{told}"):
            TPPOTrainer("no-model", REWARDS, TPPOConfig(str(tmp_path), use_cpu=True, bf16=False), train_dataset=data)

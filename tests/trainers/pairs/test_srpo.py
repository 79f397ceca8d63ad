"""SRPO: its loss, configuration and trainer."""

import itertools

import pytest
import tiny
import torch
from accelerate import Accelerator
from torch.testing import assert_close

from align.configs import ConfigError
from align.configs.srpo import SRPOConfig
from align.data.prompts.revision import revision_prompt
from align.losses import Pair
from align.losses.srpo import srpo_loss
from align.trainers.pairs.srpo import SRPOTrainer
from align.trainers.shared.metrics import MetricSums

N, BETA = 4, 0.4


def world():
    g = torch.Generator().manual_seed(5)
    scores = torch.randn(N, N, generator=g, dtype=torch.float64)
    wins = torch.sigmoid(scores - scores.T)  # wins[i, j] = P(i beats j)
    ref = torch.randn(N, generator=g, dtype=torch.float64).log_softmax(0)
    ref_after = torch.randn(N, N, generator=g, dtype=torch.float64).log_softmax(1)  # [draft, answer]
    return wins, ref, ref_after


def optimum(wins, ref, ref_after):
    """Revisions are π_ref exp(P/β)/Z; the answer is π_ref(y) exp(d(y|y))/Z."""
    after = (ref_after + wins.T / BETA).log_softmax(1)
    return (ref + (after - ref_after).diagonal()).log_softmax(0), after


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.9])
def test_training_reaches_the_robust_answer_and_the_best_revision(alpha):
    wins, ref, ref_after = world()
    answer = ref.clone().requires_grad_()
    after = ref_after.clone().requires_grad_()
    pairs = torch.tensor(list(itertools.permutations(range(N), 2)))
    w, l = pairs.unbind(1)  # noqa: E741
    optimiser = torch.optim.LBFGS([answer, after], max_iter=3000, tolerance_grad=1e-14, tolerance_change=1e-18, line_search_fn="strong_wolfe", history_size=50)  # fmt: skip

    def closure():
        optimiser.zero_grad()
        rho, d = answer.log_softmax(0) - ref, after.log_softmax(1) - ref_after
        losses = srpo_loss(Pair(rho[w], rho[l]), Pair(d[w, w], d[w, l]), Pair(d[l, w], d[l, l]), beta=BETA, alpha=alpha)
        total = (wins[w, l] * losses.losses).sum()
        total.backward()
        return total

    for _ in range(5):
        optimiser.step(closure)
    best, best_after = optimum(wins, ref, ref_after)
    assert_close(answer.log_softmax(0).exp(), best.exp(), atol=1e-6, rtol=0)
    assert_close(after.log_softmax(1).exp(), best_after.exp(), atol=1e-6, rtol=0)


def test_the_loss_is_the_papers_written_out():
    numbers = [0.3, -0.2, 0.5, -0.4, 0.1, 0.7]
    rho_w, rho_l, d_ww, d_lw, d_wl, d_ll = numbers
    each = [torch.tensor([value]) for value in numbers]
    result = srpo_loss(Pair(*each[:2]), Pair(*each[2:4]), Pair(*each[4:]), beta=0.5, alpha=0.3)
    robust = (1 - 0.5 * (d_wl - d_lw + rho_w - rho_l)) ** 2
    improving = (0.5 - 0.5 * (d_wl - d_ll)) ** 2 + (0.5 + 0.5 * (d_lw - d_ww)) ** 2
    assert result.losses.item() == pytest.approx(0.7 * robust + 0.3 * improving)
    assert result.components["improving"].item() == pytest.approx(0.3 * improving)
    assert result.rewards.rejected.item() == pytest.approx(0.5 * rho_l)


@pytest.mark.parametrize("settings", [{"beta": 0.0, "alpha": 0.5}, {"beta": 1.0, "alpha": 1.5}])
def test_settings_out_of_range_are_refused(settings):
    zero = Pair(torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="must be"):
        srpo_loss(zero, zero, zero, **settings)


def test_a_revision_shows_the_draft():
    assert revision_prompt("Q: ", "four", "Better?") == "Q: four\n\nBetter?\n\n"
    user, draft = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "four"}
    assert revision_prompt([user], [draft], "Better?") == [user, draft, {"role": "user", "content": "Better?"}]


def trainer(tmp_path, **kw):
    return tiny.trainer(SRPOTrainer, SRPOConfig, tmp_path, **{"alpha": 0.4} | kw)


def test_a_batch_holds_every_pair_plain_and_after_each_answer(tmp_path):
    made = trainer(tmp_path)
    rows = [made.train_dataset[i] for i in range(2)]
    batch = made.data_collator(rows)
    assert len(batch["input_ids"]) == 12  # two rows, three prompts, two answers
    tokens = made.processing_class
    texts = [
        tokens.decode(ids[mask.bool()]) for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    chosen, rejected = texts[:6], texts[6:]
    for index in range(2):
        plain, after_chosen, after_rejected = (chosen[index + 2 * role] for role in range(3))
        draft = tiny.ROWS[index]
        assert draft[1] in after_chosen.split("assistant")[1] or draft[1] in after_chosen
        assert len(after_chosen) > len(plain)
        assert after_chosen != after_rejected
        assert draft[2].split(",")[0] in after_rejected
        assert rejected[index].endswith(rejected[index + 2][-4:])


def test_at_the_start_every_log_ratio_is_zero_and_the_loss_known(tmp_path):
    made = trainer(tmp_path, max_steps=1)
    made.train()
    (first,) = tiny.losses(made)[:1]
    assert first == pytest.approx(0.6 * 1 + 0.4 * 0.5, abs=1e-5)


@pytest.mark.parametrize("share", ["off", "on"])
def test_training_lowers_the_loss_by_both_parts(tmp_path, share):
    made = trainer(tmp_path, max_steps=15, shared_prefix=share)
    made.train()
    for key in ("loss", "loss/robust", "loss/improving"):
        values = tiny.losses(made, key)
        assert sum(values[-3:]) < 0.8 * sum(values[:3]), key
    assert tiny.losses(made, "rewards/accuracies")[-1] > 0.5


def test_the_loss_of_a_batch_is_that_of_its_rows_one_by_one(tmp_path):
    made = trainer(tmp_path, max_steps=6)
    made.train()
    rows = [made.train_dataset[i] for i in range(4)]
    with torch.no_grad():
        loss = lambda part: made.compute_loss(made.model, made._prepare_inputs(made.data_collator(part))).item()  # noqa: E731
        whole, parts = loss(rows), [loss([row]) for row in rows]
    assert whole == pytest.approx(sum(parts) / 4, abs=1e-5)
    assert max(parts) - min(parts) > 1e-3


class LastBatchHasCopies(Accelerator):
    """An accelerator whose last batch was filled up: only its first `real` examples count."""

    def __init__(self, real):
        self.real = real

    def gather_for_metrics(self, data):
        return data[: self.real]


def test_copies_in_the_last_batch_of_an_evaluation_are_dropped_with_all_their_rows():
    sums = MetricSums()
    sums.rows_per_example = 3
    values = torch.tensor([1.0, 10.0, 100.0, 2.0, 20.0, 100.0, 3.0, 30.0, 100.0])  # three blocks of three examples
    sums.hold({"x": (values, torch.ones(9))})
    sums.add("eval", LastBatchHasCopies(2))
    assert sums.take("eval") == {"x": pytest.approx(66 / 6)}


def test_evaluation_takes_every_row(tmp_path):
    made = trainer(tmp_path, eval_data=tiny.pairs(5), per_device_eval_batch_size=2)
    assert made.sums.rows_per_example == 3
    metrics = made.evaluate()
    assert metrics["eval_loss"] == pytest.approx(0.6 + 0.2, abs=1e-5)
    assert metrics["eval_rewards/accuracies"] == 0.5


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"alpha": 2.0}, r"alpha: must be in \[0, 1\], got 2.0"),
        ({"revision_instruction": " "}, "revision_instruction: is empty"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs: the store holds pairs"),
        ({"max_tokens_per_batch": 100}, "max_tokens_per_batch: would tear"),
    ],
)
def test_settings_that_do_not_fit_are_told(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        tiny.arguments(SRPOConfig, tmp_path, **setting)


def test_a_row_whose_revision_does_not_fit_is_left_out(tmp_path):
    whole = trainer(tmp_path)
    longest = max(len(row["given_chosen_prompt_ids"]) for row in whole.train_dataset)
    fewer = trainer(tmp_path, max_length=longest)
    assert 0 < len(fewer.train_dataset) < len(whole.train_dataset)
    for row in fewer.train_dataset:
        assert row["chosen_ids"] == row["given_chosen_chosen_ids"] == row["given_rejected_chosen_ids"]

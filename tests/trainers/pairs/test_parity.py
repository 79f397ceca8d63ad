"""Same data, same seed, same LoRA: our trainers and TRL's must take the same path wherever TRL is right."""

import pytest
import tiny
from tiny import sparing
from torch.testing import assert_close
from trl import DPOConfig as TRLDPOConfig
from trl import DPOTrainer as TRLDPOTrainer

from align import DPOConfig, DPOTrainer, FDPOConfig, FDPOTrainer, RPOConfig, RPOTrainer
from align.trainers.shared import trl_contract


def same_path(ours, theirs, *, loss=1e-6, weights=1e-5):
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=loss)
    for name, weight in tiny.weights(theirs).items():
        assert_close(tiny.weights(ours)[name], weight, rtol=weights, atol=weights / 100)


PADDED = {"shared_prefix": "off"}


@pytest.fixture
def trl_head(monkeypatch):
    """With TRL's own head and padded rows, sums are taken in TRL's order, and equality is to the last digits."""
    monkeypatch.setattr(trl_contract, "_Head", trl_contract.CHUNKED_HEAD)


def trained(cls, config, tmp_path, **kw):
    result = tiny.trainer(cls, config, tmp_path, **kw)
    result.train()
    return result


@pytest.mark.parametrize("precompute", [False, True])
def test_five_dpo_steps_equal_trl(tmp_path, trl_head, precompute):
    # Adam divides by gradients that are nearly zero, whose rounding differs between processors
    kw = {"precompute_ref_log_probs": precompute, "adam_epsilon": 1e-6}
    ours = trained(DPOTrainer, DPOConfig, tmp_path / "a", **kw, **PADDED)
    theirs = trained(TRLDPOTrainer, TRLDPOConfig, tmp_path / "b", **kw)
    # precomputed values come from batches of other pairs, padded to other lengths
    same_path(ours, theirs, **{"loss": 3e-6, "weights": 1e-4} if precompute else {})
    assert tiny.losses(ours)[0] == pytest.approx(0.693147, abs=1e-5)  # LoRA starts at zero: policy == reference
    assert tiny.losses(ours)[-1] != tiny.losses(ours)[0]
    for key in ("rewards/margins", "logps/chosen", "entropy", "mean_token_accuracy", "logits/chosen", "num_tokens"):
        assert tiny.losses(ours, key) == pytest.approx(tiny.losses(theirs, key), abs=2e-5), key


@pytest.mark.parametrize("checkpointing", [False, True])
def test_shared_prompts_take_trls_path_within_rounding(tmp_path, checkpointing):
    """Twenty steps through the packed row and the two-product head, with the defaults that users get."""
    kw = {"max_steps": 20, "gradient_checkpointing": checkpointing}
    ours = trained(DPOTrainer, DPOConfig, tmp_path / "a", **kw)
    theirs = trained(TRLDPOTrainer, TRLDPOConfig, tmp_path / "b", **kw)
    assert tiny.losses(ours, "computed_per_token")[0] < 0.8
    assert tiny.losses(ours) == pytest.approx(tiny.losses(theirs), abs=1e-4)
    for name, weight in tiny.weights(theirs).items():  # Adam divides by gradients that are nearly zero
        assert_close(tiny.weights(ours)[name], weight, rtol=1e-2, atol=5e-4)
        assert (tiny.weights(ours)[name] - weight).norm() < 1e-3 * weight.norm()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    sparing([
        ({"divergence": "reverse_kl"}, {"f_divergence_type": "reverse_kl"}),
        ({"divergence": "jensen_shannon"}, {"f_divergence_type": "js_divergence"}),
        ({"divergence": "forward_kl"}, {"f_divergence_type": "forward_kl"}),
        (
            {"divergence": "alpha", "alpha": 0.3},
            {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
        ),
    ], 1),
)  # fmt: skip
def test_f_dpo_equals_trl_inside_the_exact_range(tmp_path, trl_head, ours, theirs):
    same_path(
        trained(FDPOTrainer, FDPOConfig, tmp_path / "a", **ours, **PADDED),
        trained(TRLDPOTrainer, TRLDPOConfig, tmp_path / "b", **theirs),
    )


def test_f_dpo_rewards_differ_from_trl_which_ignores_the_divergence(tmp_path):
    """The stated difference: our logged rewards are β f'(u), TRL's are β log u under every divergence."""
    ours = trained(FDPOTrainer, FDPOConfig, tmp_path / "a", divergence="jensen_shannon", learning_rate=0.05)
    theirs = trained(TRLDPOTrainer, TRLDPOConfig, tmp_path / "b", f_divergence_type="js_divergence", learning_rate=0.05)
    last, plain = ours.state.log_history[-2], theirs.state.log_history[-2]
    assert last["loss"] == pytest.approx(plain["loss"], abs=1e-5)
    assert last["rewards/chosen"] != pytest.approx(plain["rewards/chosen"], rel=1e-2)


@pytest.mark.parametrize(
    ("cls", "config", "kw"),
    sparing([
        (DPOTrainer, DPOConfig, {"label_smoothing": 0.1}),
        (RPOTrainer, RPOConfig, {"eta": 0.5}),
        (RPOTrainer, RPOConfig, {"eta": 0.2, "sft_reduction": "sequence_mean", "scale_by_beta": False}),
        (FDPOTrainer, FDPOConfig, {"divergence": "forward_kl"}),
    ], 1, 2),
)  # fmt: skip
def test_accumulating_eight_times_one_equals_one_times_eight(tmp_path, cls, config, kw):
    data = tiny.pairs(8)
    one = trained(cls, config, tmp_path / "a", data=data, per_device_train_batch_size=8, max_steps=3, **kw)
    many = trained(
        cls, config, tmp_path / "b", data=data, per_device_train_batch_size=1, global_batch_size=8, max_steps=3, **kw
    )
    assert many.args.gradient_accumulation_steps == 8
    assert tiny.losses(many) == pytest.approx(tiny.losses(one), abs=3e-6)
    for key in ("rewards/margins", "loss/preference", "logps/chosen", "entropy"):
        assert tiny.losses(many, key) == pytest.approx(tiny.losses(one, key), abs=1e-4), key
    for name, weight in tiny.weights(one).items():
        assert_close(tiny.weights(many)[name], weight, rtol=1e-4, atol=1e-5)


def test_rpo_without_eta_is_dpo(tmp_path):
    rpo = trained(RPOTrainer, RPOConfig, tmp_path / "a", eta=0.0)
    dpo = trained(DPOTrainer, DPOConfig, tmp_path / "b")
    assert tiny.losses(rpo) == tiny.losses(dpo)
    for name, weight in tiny.weights(dpo).items():
        assert_close(tiny.weights(rpo)[name], weight, rtol=0, atol=0)


def test_rpo_mean_variant_is_over_each_answers_own_tokens(tmp_path):
    kw = {"eta": 0.5, "sft_reduction": "sequence_mean", "scale_by_beta": False, "per_device_train_batch_size": 1}
    for record in trained(RPOTrainer, RPOConfig, tmp_path, **kw).state.log_history[:-1]:
        mean = record["logps/chosen"] / record["length/chosen"]
        assert record["loss/sft"] == pytest.approx(-0.5 * mean, rel=1e-5)


def test_rpo_loss_is_its_components(tmp_path):
    rpo = trained(RPOTrainer, RPOConfig, tmp_path, eta=0.5)
    for record in rpo.state.log_history[:-1]:
        assert record["loss"] == pytest.approx(record["loss/preference"] + record["loss/sft"], abs=1e-5)
        assert record["loss/sft"] == pytest.approx(-0.5 * 0.3 * record["logps/chosen"], rel=1e-5)

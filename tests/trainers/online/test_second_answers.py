"""Second answers of the reference and of a mixture of tokens."""

import pytest
import torch
from groups import pair_run as trained
from groups import pair_trainer
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, set_seed

from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.online.second_answers import TokenMixture, mixture_answers, reference_answers
from align.trainers.shared.reference import as_reference


def strayed(trainer):
    """A policy far from its reference: its adapter is no longer zero."""
    set_seed(1)
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if weight.requires_grad:
                weight += (0.5 if "lora" in name else 0.3) * torch.randn_like(weight)
    return trainer


def on_disk(tmp_path):
    """A model that TRL can load once more, for its reference."""
    tiny_model(tiny_tokenizer()).save_pretrained(tmp_path / "model")
    return AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -1]


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "whole model"])
def test_the_mixture_is_of_the_logits_of_each_token_with_a_cache_of_its_own(tmp_path, whole):
    """Rows of different lengths, padded on the left; three tokens on, as if each row stood alone."""
    more = {"model": on_disk(tmp_path)} if whole else {}
    trainer = strayed(pair_trainer(tmp_path, **more))
    model, share = trainer.accelerator.unwrap_model(trainer.model), 0.3
    model.eval()
    rows = [[5, 9, 40, 17], [7, 30]]
    tail = [[50, 60], [61, 51]]
    ids = torch.tensor([rows[0], [0, 0, *rows[1]]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    mixture = TokenMixture(model if trainer.ref_model is None else trainer.ref_model, mask, share)
    for step in range(3):
        now = torch.cat([ids, torch.tensor(tail)[:, :step]], dim=1)
        alone = [torch.tensor([[*row, *more[:step]]]) for row, more in zip(rows, tail, strict=True)]
        scores = torch.cat([logits_of(model, one) for one in alone])
        if trainer.ref_model is None:
            with as_reference(model):
                of_ref = torch.cat([logits_of(model, one) for one in alone])
        else:
            of_ref = torch.cat([logits_of(trainer.ref_model, one) for one in alone])
        assert (of_ref - scores).abs().max() > 0.1
        assert_close(mixture(now, scores), share * of_ref + (1 - share) * scores, rtol=1e-3, atol=1e-4)


def test_while_the_reference_answers_it_is_the_reference_that_generates(tmp_path):
    trainer = strayed(pair_trainer(tmp_path))
    ids = torch.tensor([[5, 9, 40, 17]])
    own = logits_of(trainer.model, ids)
    with trainer.model.disable_adapter():
        base = logits_of(trainer.model, ids)
    with reference_answers(trainer):
        assert_close(logits_of(trainer.model, ids), base)
    assert_close(logits_of(trainer.model, ids), own)
    assert (own - base).abs().max() > 0.1
    whole = pair_trainer(tmp_path, model=on_disk(tmp_path))
    wrapped = whole.model_wrapped
    with reference_answers(whole):
        assert whole.model_wrapped is whole.ref_model
    assert whole.model_wrapped is wrapped


def test_generation_is_the_models_own_again_afterwards(tmp_path):
    trainer = pair_trainer(tmp_path)
    with mixture_answers(trainer, 0.5):
        assert "generate" in vars(trainer.model)
    assert "generate" not in vars(trainer.model)


@pytest.mark.parametrize("method", ["xpo", "nash_md"])
def test_first_answers_are_the_policys_and_second_ones_of_the_other(tmp_path, method):
    """The policy says only one token, the reference another; a mixture of equals says both."""
    trainer = pair_trainer(tmp_path, method=method, max_steps=1, per_device_train_batch_size=8)
    model = trainer.model
    layer = next(module for module in model.modules() if isinstance(module, BaseTunerLayer))

    def loud(module, args, said):
        said.logits[..., 98 if layer.disable_adapters else 97] += 60.0

    model.get_base_model().register_forward_hook(loud)
    answers = trainer._generate_single_turn([[5, 9, 40]] * 8, None, {}, 2)[0]
    first, second = ({token for answer in answers[place::2] for token in answer} for place in (0, 1))
    assert first == {97}
    assert second == ({98} if method == "xpo" else {97, 98})


def test_xpo_weighs_the_references_answer_and_others_do_not(tmp_path):
    trainer = trained(tmp_path, method="xpo", optimism=0.01, max_steps=1)
    (record,) = [r for r in trainer.state.log_history if "loss/optimism" in r]
    (batch,) = trainer._buffered_inputs
    assert record["loss/optimism"] == pytest.approx(0.01 * float(batch["ref_logps"][:, 1].mean()), rel=1e-4)
    assert record["loss"] == pytest.approx(record["loss/sigmoid"] + record["loss/optimism"], rel=1e-4)
    other = trained(tmp_path, max_steps=1)
    assert not any("loss/optimism" in r for r in other.state.log_history)

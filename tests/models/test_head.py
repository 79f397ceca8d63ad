"""The output head multiplies the positions of all rows at once where answers are sampled or scored."""

import pytest
import torch
from groups import group_trainer
from peft import LoraConfig, get_peft_model
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from align import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.models.tiny import tiny_model, tiny_tokenizer
from align.models.use import head_in_one_product
from align.sampling.generate import Decoding, generate
from align.scoring.completions import completion_logps

IDS = torch.arange(3, 27).reshape(2, 12)


class Products(TorchDispatchMode):
    """The sizes of what batches of matrix products give."""

    def __init__(self):
        super().__init__()
        self.last = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.bmm.default:
            self.last.append(out.size(-1))
        return out


@pytest.fixture
def frozen():
    """A model that is trained by adapters."""
    return get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(r=4, target_modules="all-linear")).eval()


def slices(model):
    """Whether the head was given whole blocks, call by call."""
    seen = []
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, out: seen.append(inputs[0].is_contiguous()))
    return seen


@torch.no_grad()
def test_a_slice_is_one_product_and_says_the_same(frozen):
    vocabulary = frozen.config.vocab_size

    def first():
        with Products() as seen:
            logits = frozen(input_ids=IDS, logits_to_keep=3).logits
        return logits, seen.last.count(vocabulary)

    before, batches = first()
    assert batches == 1  # what torch makes of it
    with head_in_one_product(frozen):
        inside, batches = first()
    assert batches == 0
    assert_close(inside, before)
    assert first()[1] == 1
    assert not frozen.get_output_embeddings()._forward_pre_hooks


def test_the_hook_goes_after_an_error(frozen):
    with pytest.raises(KeyError), head_in_one_product(frozen):
        raise KeyError
    assert not frozen.get_output_embeddings()._forward_pre_hooks


def test_a_model_without_a_head_is_left_alone(frozen):
    body = frozen.get_base_model().model
    assert body.get_output_embeddings() is None
    with head_in_one_product(body):
        body(input_ids=IDS)


def test_answers_are_sampled_and_scored_so(frozen):
    seen = slices(frozen)
    generate(frozen, tiny_tokenizer(), ["one two", "three"], Decoding(3, 1.0), samples=2)
    completion_logps(frozen, [([5, 6, 7], [8, 9]), ([5, 6], [8])], pad_token_id=0)
    assert len(seen) >= 4
    assert all(seen)


@pytest.mark.parametrize(("trainer", "config"), [(GRPOTrainer, GRPOConfig), (RLOOTrainer, RLOOConfig)])
def test_trainers_sample_so(tmp_path, trainer, config):
    made = group_trainer(trainer, config, tmp_path, max_steps=1)
    model, seen = made.accelerator.unwrap_model(made.model_wrapped), []
    sample = made._generate_single_turn

    def watched(*args, **kwargs):
        hook = model.get_output_embeddings().register_forward_hook(
            lambda _, inputs, out: seen.append(inputs[0].is_contiguous())
        )
        try:
            return sample(*args, **kwargs)
        finally:
            hook.remove()

    made._generate_single_turn = watched
    made.train()
    assert len(seen) > 1
    assert all(seen)

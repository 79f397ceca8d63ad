"""Fixed weights on RLOO with a KL penalty end where theory says: the reference, tilted by the weighted rewards."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from align.configs.online import DynamicRLOOConfig
from align.trainers.online.multi_objective import DynamicRLOOTrainer

ARMS = ["a0", "a1", "a2"]
WEIGHTS, BETA = [0.2, 0.3, 0.5], 0.5


def tokenizer():
    words = {word: i for i, word in enumerate(["<pad>", "<eos>", "q", *ARMS])}
    core = Tokenizer(models.WordLevel(vocab=words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")


def arms_of(model):
    """Probabilities of the three answers to "q", and of anything else."""
    with torch.no_grad():
        probabilities = model(torch.tensor([[2]])).logits[0, -1].float().softmax(0)
    return probabilities[3:6], 1 - probabilities[3:6].sum()


def reward(*winners):
    def function(completions, **_):
        return [float(completion.strip() in winners) for completion in completions]

    function.__name__ = "_".join(winners)
    return function


@pytest.mark.slow
def test_rloo_reaches_the_tilted_reference(tmp_path):
    set_seed(0)
    words = tokenizer()
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "initializer_range": 0.3,
    }
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(words), pad_token_id=0, eos_token_id=1, bos_token_id=None, **shape)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    target = torch.tensor([0.0, 0.0, 0.0, 0.5, 0.3, 0.2])
    for _ in range(400):  # a reference that answers with one of the arms
        loss = -(target * model(torch.tensor([[2]])).logits[0, -1].log_softmax(0)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    before, rest = arms_of(model)
    assert rest < 0.01
    trainer = DynamicRLOOTrainer(
        model=model,
        reward_funcs=[reward("a0"), reward("a1"), reward("a1", "a2")],
        args=DynamicRLOOConfig(
            output_dir=str(tmp_path), weighting="fixed", reward_weights=WEIGHTS, beta=BETA, num_generations=64,
            per_device_train_batch_size=256, max_completion_length=1, learning_rate=5e-3, lr_scheduler_type="cosine",
            max_steps=150, use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True, seed=1,
            gradient_checkpointing=False, logging_steps=50,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["q"] * 8}),
        processing_class=words,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )  # fmt: skip
    trainer.train()
    gains = torch.tensor([0.2, 0.8, 0.5])  # weighted rewards of the arms
    tilted = before * (gains / BETA).exp()
    after, _ = arms_of(trainer.model)
    assert_close(after / after.sum(), tilted / tilted.sum(), rtol=0, atol=0.005)
    assert (before / before.sum() - tilted / tilted.sum()).abs().max() > 0.1

"""The whole path with a LoRA adapter on a one-layer Llama, against optima solved independently (oracles D10, R9, F7).

A prompt q and three one-token answers. The model is first fitted so that ref(a0, a1, a2 | q) = (.5, .3, .2) and an
answer is always followed by the end. Preferences are exactly Bradley-Terry with rewards (0, ln 3, 2 ln 3), β = 1/2, so
DPO must reach log-ratio gaps of 2 ln 3 = 2.1972 and 4.3944, f-DPO the same gaps in f'(u).
"""

import math

import oracles
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from tiny import arguments
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.random import fork_rng
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from align import DPOConfig, DPOTrainer, FDPOConfig, FDPOTrainer, RPOConfig, RPOTrainer

Q, ARMS, EOS = 1, (2, 3, 4), 5
REF = torch.tensor([0.5, 0.3, 0.2])
COUNTS = {(1, 0): 15, (0, 1): 5, (2, 1): 15, (1, 2): 5, (2, 0): 18, (0, 2): 2}
GAP = 2 * math.log(3)


def tokenizer():
    words = ["<pad>", "q", "a0", "a1", "a2", "</s>"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="</s>")


def arm_logps(model):
    """log π of each whole answer: its token and the end of sequence."""
    logps = model(input_ids=torch.tensor([[Q, arm] for arm in ARMS])).logits.log_softmax(-1)
    return logps[range(3), 0, ARMS] + logps[:, 1, EOS]


@pytest.fixture(scope="module")
def fitted():
    """The reference: fitted until its answer probabilities are right to 1e-4."""
    torch.set_num_threads(1)
    with fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=6, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
                num_key_value_heads=4, max_position_embeddings=8, pad_token_id=0, bos_token_id=None, eos_token_id=EOS,
            )
        )  # fmt: skip
    model.model.norm.weight.data.fill_(25.0)  # logits wide enough that the optimum is within reach of an adapter
    rows = torch.tensor([[Q, arm] for arm in ARMS])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(400):
        logps = model(input_ids=rows).logits.log_softmax(-1)
        loss = -(REF * logps[0, 0, list(ARMS)]).sum() - logps[:, 1, EOS].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    assert torch.allclose(arm_logps(model).exp(), REF, atol=2e-3)
    return {name: value.clone() for name, value in model.state_dict().items()}, model.config


def trained_log_ratios(fitted, cls, config, tmp_path, steps=300, **kw):
    state, shape = fitted
    model = LlamaForCausalLM(shape)
    model.load_state_dict(state)
    rows = [{"prompt": "q", "chosen": f" a{w}", "rejected": f" a{r}"} for (w, r), n in COUNTS.items() for _ in range(n)]
    settings = {
        "max_steps": steps, "per_device_train_batch_size": 60, "learning_rate": 1e-2, "lr_scheduler_type": "cosine",
        "max_grad_norm": 0.0, "beta": 0.5, "logging_steps": 500, "precompute_ref_log_probs": True,
    }  # fmt: skip
    trainer = cls(
        model=model,
        args=arguments(config, tmp_path, **settings | kw),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
        peft_config=LoraConfig(r=16, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()
    with torch.no_grad():
        policy = arm_logps(trainer.model)
        with trainer.model.disable_adapter():
            ref = arm_logps(trainer.model)
    return (policy - ref).double()


def test_dpo_reaches_the_bradley_terry_gaps(fitted, tmp_path):
    r = trained_log_ratios(fitted, DPOTrainer, DPOConfig, tmp_path)
    assert [r[1] - r[0], r[2] - r[1], r[2] - r[0]] == pytest.approx([GAP, GAP, 2 * GAP], abs=1e-3)


@pytest.mark.parametrize("name", ["forward_kl", "jensen_shannon", "alpha", "chi_squared_kl"])
@pytest.mark.slow
def test_f_dpo_reaches_the_same_gaps_in_f_prime(fitted, tmp_path, name):
    alpha = 0.5 if name == "alpha" else None
    r = trained_log_ratios(fitted, FDPOTrainer, FDPOConfig, tmp_path, divergence=name, alpha=alpha)
    f_prime = oracles.GENERATORS["alpha=0.5" if alpha else name][1]
    s = [f_prime(math.exp(value)) for value in r.tolist()]
    assert [s[1] - s[0], s[2] - s[1], s[2] - s[0]] == pytest.approx([GAP, GAP, 2 * GAP], abs=1e-3)


@pytest.mark.parametrize(
    ("eta", "expected", "tolerance"),
    [
        pytest.param(0.005, (2.1973, 2.1670, 4.3643), 1e-3, marks=pytest.mark.slow),
        pytest.param(1.0, (1.8736, 1.1073, 2.9809), 1e-3, marks=pytest.mark.slow),
    ],
)
def test_rpo_reaches_its_asymmetric_gaps(fitted, tmp_path, eta, expected, tolerance):
    r = trained_log_ratios(fitted, RPOTrainer, RPOConfig, tmp_path, steps=400, eta=eta)
    assert [r[1] - r[0], r[2] - r[1], r[2] - r[0]] == pytest.approx(expected, abs=tolerance)

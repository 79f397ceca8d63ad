"""The reference is what training starts from: the first log-ratio is 0, and the reference stays when the policy moves."""

import copy

import pytest
import tiny
import torch
from datasets import Dataset
from groups import PROMPTS, vowels
from peft import (
    C3AConfig,
    FourierFTConfig,
    IA3Config,
    LoHaConfig,
    LoraConfig,
    PeftModel,
    PromptTuningConfig,
    VeraConfig,
    get_peft_model,
)
from transformers import Qwen2Config, Qwen2ForCausalLM
from trl import ModelConfig

from align import AOTConfig, AOTTrainer, DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer
from align.configs.preference_model import PreferenceModelConfig
from align.configs.supervised import SupervisedConfig
from align.errors import RunError
from align.models.preference_model import load_preference_base
from align.models.tiny import tiny_model, tiny_tokenizer
from align.trainers.completions.supervised import SupervisedTrainer
from align.trainers.preference_model import PreferenceModelTrainer
from align.trainers.shared.reference import copy_reference, moved

TARGETS = {"target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def made(name, tmp_path, model, peft_config=None, **kw):
    """One of our trainers with a reference, on a model of the user's."""
    tokenizer = tiny_tokenizer()
    given = {"model": model, "processing_class": tokenizer, "peft_config": peft_config}
    if name in ("dpo", "aot"):
        cls, config = {"dpo": (DPOTrainer, DPOConfig), "aot": (AOTTrainer, AOTConfig)}[name]
        return cls(args=tiny.arguments(config, tmp_path, **kw), train_dataset=tiny.pairs(4), **given)
    if name == "supervised":
        rows = tiny.pairs(4).rename_column("chosen", "completion").remove_columns("rejected")
        settings = {"objective": {"nll": 1.0, "ref_kl": 0.1}, "loss_type": "nll"} | kw
        args = tiny.arguments(lambda beta, **other: SupervisedConfig(**other), tmp_path, **settings)
        return SupervisedTrainer(args=args, train_dataset=rows, **given)
    cls, config = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}[name]
    online = {"per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 6}
    return cls(
        reward_funcs=vowels, args=tiny.arguments(config, tmp_path, **online | kw),
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}), **given,
    )  # fmt: skip


@pytest.fixture
def model():
    return tiny_model(tiny_tokenizer())


def trained_adapter(model, config):
    """A PEFT model whose adapter is not zero, as a first run left it."""
    adapted = get_peft_model(model, config)
    for number, parameter in enumerate(p for p in adapted.parameters() if p.requires_grad):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
        parameter.data += 0.1 * noise
    return adapted


SETTINGS = [
    ({"init_lora_weights": "pissa"}, "takes what the adapter begins with out of the base"),
    ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4' takes"),
    ({"init_lora_weights": "OLoRA"}, "takes what"),
    ({"init_lora_weights": "corda"}, "takes what"),
    ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "takes what"),
    ({"init_lora_weights": "eva"}, "a pass over data"),
    ({"bias": "all"}, "biases of the base, and they stay"),
    ({"bias": "lora_only"}, "biases of the base, and they stay"),
]


@pytest.mark.parametrize(("settings", "reason"), SETTINGS)
def test_a_setting_that_leaves_no_reference_is_refused_at_construction(tmp_path, model, settings, reason):
    with pytest.raises(RunError, match=rf"DPOTrainer: {next(iter(settings))}: .*{reason}.*; use .*`ref_model`"):
        made("dpo", tmp_path, model, LoraConfig(**TARGETS, **settings))


@pytest.mark.parametrize("name", ["supervised", "grpo", "rloo"])
def test_so_it_is_by_every_trainer_with_a_reference(tmp_path, model, name):
    with pytest.raises(RunError, match="init_lora_weights: 'olora' takes"):
        made(name, tmp_path, model, LoraConfig(**TARGETS, init_lora_weights="olora"))
    with pytest.raises(RunError, match="bias: 'all' trains biases"):
        made(name, tmp_path, get_peft_model(model, LoraConfig(**TARGETS, bias="all")))


def test_without_a_reference_or_with_one_of_its_own_these_settings_are_free(tmp_path, model):
    config = LoraConfig(**TARGETS, init_lora_weights="pissa")
    own = DPOTrainer(
        model=copy.deepcopy(model), ref_model=model, args=tiny.arguments(DPOConfig, tmp_path, max_steps=1),
        train_dataset=tiny.pairs(4), processing_class=tiny_tokenizer(), peft_config=config,
    )  # fmt: skip
    own.train()
    assert own.state.log_history[0]["log_ratio/chosen"] == pytest.approx(0, abs=1e-4)
    made("grpo", tmp_path, copy.deepcopy(model), config, beta=0.0)
    made("supervised", tmp_path, copy.deepcopy(model), config, objective={"nll": 1.0})


@pytest.mark.parametrize("name", ["dpo", "supervised", "grpo", "rloo"])
def test_an_adapter_that_does_not_begin_at_zero_stops_the_run_before_its_first_step(tmp_path, model, name):
    trainer = made(name, tmp_path, model, FourierFTConfig(**TARGETS, n_frequency=50, scaling=3000.0))
    before = tiny.weights(trainer)
    with pytest.raises(
        RunError, match=r"before the first step the policy is .* nats .*FourierFTConfig\(.*scaling=3000"
    ):
        trainer.train()
    assert trainer.state.global_step == 0
    assert all(torch.equal(before[key], weight) for key, weight in tiny.weights(trainer).items())


@pytest.mark.parametrize(
    "config",
    [
        LoraConfig(**TARGETS, init_lora_weights=False),
        C3AConfig(**TARGETS, block_size=8),
        PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"),
    ],
)
def test_so_does_every_other_kind_of_adapter(tmp_path, model, config):
    with pytest.raises(RunError, match=f"must be 0: the adapter, {type(config).__name__}"):
        made("dpo", tmp_path, model, config).train()


@pytest.mark.parametrize("name", ["dpo", "aot", "supervised", "grpo"])
def test_a_weight_trained_beside_the_adapter_moves_the_reference_and_stops_the_run(tmp_path, model, name):
    model.model.norm.weight.data.mul_(10)  # logits that tell tokens apart: those of a random model hardly move
    adapted = get_peft_model(model, LoraConfig(**TARGETS))
    adapted.get_base_model().model.norm.weight.requires_grad_(True)
    with pytest.raises(RunError, match=r"the reference is seen to move .*model\.norm\.weight is trained, and stays"):
        made(name, tmp_path, adapted).train()


FINE = {
    "dora": LoraConfig(**TARGETS, use_dora=True), "rslora": LoraConfig(**TARGETS, use_rslora=True),
    "orthogonal": LoraConfig(**TARGETS, init_lora_weights="orthogonal"),
    "saved": LoraConfig(**TARGETS, modules_to_save=["lm_head", "norm"]),
    "tokens": LoraConfig(**TARGETS, trainable_token_indices=[9, 10]),
    "embeddings": LoraConfig(target_modules=["embed_tokens", "q_proj"], task_type="CAUSAL_LM"),
    "vera": VeraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"), "loha": LoHaConfig(**TARGETS),
    "ia3": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"], task_type="CAUSAL_LM"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "continued"),
    [(kind, False) for kind in FINE] + [(kind, True) for kind in ("embeddings", "tokens", "vera")],
)
def test_what_begins_at_the_reference_begins(tmp_path, model, kind, continued):
    given = (trained_adapter(model, FINE[kind]),) if continued else (model, FINE[kind])
    trainer = made("dpo", tmp_path, *given, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["log_ratio/chosen"] == pytest.approx(0, abs=1e-4)


def test_tied_embeddings_have_their_reference_too(tmp_path):
    shape = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    tied = Qwen2ForCausalLM(
        Qwen2Config(vocab_size=261, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, **shape)
    )
    made("dpo", tmp_path, tied, LoraConfig(**TARGETS, modules_to_save=["embed_tokens"]), max_steps=1).train()


def test_the_copy_of_an_adapter_is_whole(model):
    adapted = trained_adapter(model, FINE["embeddings"])
    adapted.add_adapter("ref", adapted.peft_config["default"])
    copy_reference(adapted)
    ids = torch.tensor([[7, 8, 9]])
    policy = adapted(ids).logits
    adapted.set_adapter("ref")
    assert torch.equal(policy, adapted(ids).logits)


def test_a_reference_of_the_users_is_not_looked_at(tmp_path, model):
    adapted = trained_adapter(model, LoraConfig(**TARGETS))
    adapted.add_adapter("ref", LoraConfig(**TARGETS))
    made("supervised", tmp_path, adapted, max_steps=1).train()
    rows = tiny.pairs(4).add_column("ref_chosen_logps", [-1.0] * 4).add_column("ref_rejected_logps", [-1.0] * 4)
    DPOTrainer(
        model=tiny_model(tiny_tokenizer()), args=tiny.arguments(DPOConfig, tmp_path, max_steps=1), train_dataset=rows,
        processing_class=tiny_tokenizer(), peft_config=LoraConfig(**TARGETS),
    ).train()  # fmt: skip


def test_a_resumed_run_is_past_its_first_step(tmp_path, model):
    config = LoraConfig(**TARGETS)
    made("dpo", tmp_path, copy.deepcopy(model), config, max_steps=2, save_strategy="steps", save_steps=1).train()
    resumed = made("dpo", tmp_path, model, config, max_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.state.global_step == 2


def test_dropout_is_no_difference(tmp_path, model):
    config = LoraConfig(**TARGETS, lora_dropout=0.5)
    made("dpo", tmp_path, trained_adapter(model, config), max_steps=1, disable_dropout=False).train()


def test_weights_that_were_moved_come_back_to_the_bit(model):
    adapted = get_peft_model(model, LoraConfig(**TARGETS, use_dora=True))
    before = {name: p.detach().clone() for name, p in adapted.named_parameters()}
    for _ in range(2):
        with moved(adapted):
            assert all(torch.equal(p, before[n]) != p.requires_grad for n, p in adapted.named_parameters())
        assert all(torch.equal(p, before[n]) for n, p in adapted.named_parameters())


@pytest.mark.parametrize("name", ["dpo", "supervised", "grpo", "rloo"])
def test_a_frozen_adapter_is_refused_by_every_trainer(tmp_path, model, name):
    get_peft_model(copy.deepcopy(model), LoraConfig(**TARGETS)).save_pretrained(tmp_path / "adapter")
    frozen = PeftModel.from_pretrained(model, str(tmp_path / "adapter"))
    with pytest.raises(RunError, match=r"Trainer: no parameter of the model is trainable.*is_trainable=True"):
        made(name, tmp_path, frozen)


@pytest.mark.parametrize("name", ["supervised", "grpo", "model"])
def test_every_trainer_says_that_the_policy_does_not_move(tmp_path, model, name, caplog):
    if name == "model":
        base = load_preference_base(ModelConfig(model_name_or_path="tiny-random"), dimension=2, seed=0)
        args = tiny.arguments(lambda beta, **kw: PreferenceModelConfig(**kw), tmp_path, learning_rate=0.0, dimension=2)
        trainer = PreferenceModelTrainer(base, args, train_dataset=tiny.pairs(4), processing_class=tiny_tokenizer())
    else:
        trainer = made(name, tmp_path, model, LoraConfig(**TARGETS), learning_rate=0.0, max_steps=2)
    trainer.train()
    assert [text for text in caplog.messages if "the policy does not move" in text] == [trainer.unmoved.told]


def test_a_reference_that_follows_the_policy_goes_on_in_a_resumed_run(tmp_path):
    settings = {
        "sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.5, "save_strategy": "steps",
        "save_steps": 1, "max_steps": 6,
    }  # fmt: skip

    def followed(folder, **more):
        model = tiny_model(tiny_tokenizer())
        args = tiny.arguments(DPOConfig, folder, **settings | more)
        given = {"ref_model": copy.deepcopy(model), "args": args, "train_dataset": tiny.pairs()}
        return DPOTrainer(model, **given, processing_class=tiny_tokenizer())

    whole = followed(tmp_path)
    whole.train()
    for at in (2, 3):
        again = followed(tmp_path / "again")
        again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{at}"))
        assert tiny.losses(again) == tiny.losses(whole)
        theirs = whole.ref_model.state_dict()
        assert all(torch.equal(weight, theirs[name]) for name, weight in again.ref_model.state_dict().items())
    followed(tmp_path / "still", sync_ref_model=False, max_steps=1).train()
    with pytest.raises(RunError, match="where the reference had moved to is not known"):
        followed(tmp_path / "again").train(resume_from_checkpoint=str(tmp_path / "still" / "checkpoint-1"))

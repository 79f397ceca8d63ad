"""Imported use: our trainers in somebody's own script, exactly as one would use TRL's."""

import pytest
import tiny
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import TrainerCallback
from trl import DPOConfig as TRLDPOConfig

import align
from align import DPOConfig, DPOTrainer, FDPOConfig, FDPOTrainer, RPOConfig, RPOTrainer
from align.configs import ConfigError
from align.models.tiny import tiny_model, tiny_tokenizer


class Counter(TrainerCallback):
    steps = 0

    def on_step_end(self, args, state, control, **kwargs):
        self.steps += 1


def test_ten_lines_as_with_trl(tmp_path):
    tokenizer, counter = tiny_tokenizer(), Counter()
    trainer = RPOTrainer(
        model=tiny_model(tokenizer),
        args=RPOConfig(
            str(tmp_path), eta=0.1, max_steps=3, use_cpu=True, bf16=False, eval_strategy="steps", eval_steps=1
        ),
        train_dataset=tiny.pairs(),
        eval_dataset=tiny.pairs(4),
        processing_class=tokenizer,
        peft_config=LoraConfig(r=4, target_modules="all-linear"),
        callbacks=[counter],
    )
    result = trainer.train()
    assert counter.steps == 3
    assert result.training_loss > 0
    assert len(tiny.losses(trainer, "eval_rewards/accuracies")) == 3


def test_plain_strings_work_too(tmp_path):
    rows = [{"prompt": "two plus two is", "chosen": " four", "rejected": " five, or six"}] * 4
    trainer = tiny.trainer(FDPOTrainer, FDPOConfig, tmp_path, data=Dataset.from_list(rows), max_steps=2)
    trainer.train()
    assert tiny.losses(trainer)[0] == pytest.approx(0.693147, abs=1e-5)


def test_a_cached_reference_in_the_data_is_used(tmp_path):
    """With the true values nothing changes; with a reference 3 nats lower for the chosen the margin is 0.3 · 3."""
    online = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "a")
    rows = []
    for row, tokens in zip(tiny.pairs(), online.train_dataset, strict=True):
        chosen, rejected = online.compute_ref_log_probs(online.model, online.data_collator([tokens]))
        rows.append(row | {"ref_chosen_logps": float(chosen), "ref_rejected_logps": float(rejected)})
    online.train()
    cached = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "b", data=Dataset.from_list(rows))
    cached.train()
    assert tiny.losses(cached) == pytest.approx(tiny.losses(online), abs=1e-5)
    shifted = [row | {"ref_chosen_logps": row["ref_chosen_logps"] - 3} for row in rows]
    moved = tiny.trainer(DPOTrainer, DPOConfig, tmp_path / "c", data=Dataset.from_list(shifted), max_steps=1)
    moved.train()
    assert tiny.losses(moved, "rewards/margins")[0] == pytest.approx(0.9, abs=1e-4)


def test_another_model_as_reference(tmp_path):
    tokenizer = tiny_tokenizer()
    trainer = DPOTrainer(
        model=tiny_model(tokenizer),
        ref_model=tiny_model(tokenizer, seed=1),
        args=tiny.arguments(DPOConfig, tmp_path, max_steps=1),
        train_dataset=tiny.pairs(),
        processing_class=tokenizer,
        peft_config=LoraConfig(**tiny.LORA),
    )
    trainer.train()
    assert abs(tiny.losses(trainer, "log_ratio/chosen")[0]) > 1e-2


@pytest.mark.parametrize(
    ("kw", "lora", "message"),
    [
        (
            {"disable_dropout": True},
            {"lora_dropout": 0.1},
            r"lora_dropout=0.1 would be switched off by disable_dropout=True; leave",
        ),
        ({"compute_metrics": lambda p: {}}, {}, "compute_metrics would need full logits"),
        ({"args": "trl"}, {}, r"args must be align\.DPOConfig, got trl\.DPOConfig"),
    ],
)
def test_refuses_what_it_would_ignore(tmp_path, kw, lora, message):
    tokenizer = tiny_tokenizer()
    given = {"disable_dropout": kw.pop("disable_dropout")} if "disable_dropout" in kw else {}
    settings = {"args": tiny.arguments(DPOConfig, tmp_path, **given)} | kw
    if settings["args"] == "trl":
        settings["args"] = tiny.arguments(TRLDPOConfig, tmp_path)
    with pytest.raises((TypeError, ValueError), match=message):
        DPOTrainer(
            model=tiny_model(tokenizer), train_dataset=tiny.pairs(), processing_class=tokenizer,
            peft_config=LoraConfig(**tiny.LORA | lora), **settings,
        )  # fmt: skip


def test_a_loaded_adapter_with_dropout_is_refused_too(tmp_path):
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA | {"lora_dropout": 0.2}))
    with pytest.raises(ValueError, match="would be switched off"):
        tiny.trainer(DPOTrainer, DPOConfig, tmp_path, model=model, disable_dropout=True)


def test_config_problems_come_together():
    with pytest.raises(ConfigError) as caught:
        RPOConfig("x", beta=-1.0, eta=-0.1, loss_type=["ipo"], label_smoothing=0.1, use_cpu=True, bf16=False)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "loss_type",
        "label_smoothing",
        "beta",
        "eta",
    ]


def test_every_trained_weight_is_the_adapters(tmp_path):
    trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, max_steps=2)
    frozen = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if not p.requires_grad}
    trainer.train()
    assert all("lora_" in name for name in tiny.weights(trainer))
    assert all(torch.equal(p, frozen[n]) for n, p in trainer.model.named_parameters() if not p.requires_grad)


def test_qlora_through_a_recipe(tmp_path):
    """4-bit base, bf16 adapters, base as reference: bitsandbytes has CPU kernels too."""
    pytest.importorskip("bitsandbytes", reason="needs the extra `quant`")
    done = align.run(
        "rpo/tiny", ["model.load_in_4bit=true", f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1"]
    )
    assert any(type(m).__name__ == "Linear4bit" for m in done.trainer.model.modules())
    first = done.trainer.state.log_history[0]
    assert first["loss/preference"] == pytest.approx(0.693147, abs=1e-3)


def test_qlora_gradients_survive_an_evaluation(tmp_path):
    """bitsandbytes repacks weights in eval mode on some CPUs, and the packed product has no gradient."""
    pytest.importorskip("bitsandbytes", reason="needs the extra `quant`")
    trainer = align.run(
        "rpo/tiny", ["model.load_in_4bit=true", f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1"]
    ).trainer
    trainer.evaluate()
    trainer.training_step(trainer.model, next(iter(trainer.get_train_dataloader())))
    first_layer = [p for n, p in trainer.model.named_parameters() if "layers.0.self_attn.q_proj.lora_B" in n]
    assert first_layer
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in first_layer)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": float("nan")}, "learning_rate: must be finite and not negative, got nan"),
        ({"learning_rate": -1e-5}, "learning_rate: must be finite and not negative, got -1e-05"),
        ({"seed": -1}, "seed: must be finite and not negative, got -1"),
        ({"max_grad_norm": float("inf")}, "max_grad_norm: must be finite"),
        ({"max_length": 0}, "max_length: must be at least 1, got 0"),
        ({"save_total_limit": 0}, "save_total_limit: must be at least 1"),
        ({"num_train_epochs": 0}, "num_train_epochs: must be positive and finite, got 0"),
        ({"per_device_eval_batch_size": 0}, "per_device_eval_batch_size: must be at least 1, got 0"),
        ({"max_skipped_steps": 0}, "max_skipped_steps: must be at least 1, got 0"),
        ({"fsdp": True}, "fsdp: accelerate does not shard on CPUs"),
    ],
)
def test_values_no_run_can_have_are_refused(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **settings)
    DPOConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", num_train_epochs=0, max_steps=3)

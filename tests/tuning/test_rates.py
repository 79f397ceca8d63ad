"""LoRA+: B has a rate of its own, as PEFT's optimizer has it; weight decay is the Trainer's."""

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer

from align import DPOConfig, DPOTrainer
from align.check.machine import Machine
from align.check.refusals import refuse
from align.data.loading import load_data
from align.errors import RunError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.tuning.rates import faster_b

RATIO = {"loraplus_lr_ratio": 16.0, "weight_decay": 0.1}


def made(tmp_path, **kw):
    return tiny.trainer(DPOTrainer, DPOConfig, tmp_path, **RATIO | kw)


def rates(optimizer, model):
    known = {id(p): name for name, p in model.named_parameters()}
    return {known[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_rates_and_decay_are_those_of_peft(tmp_path):
    trainer = made(tmp_path)
    found = rates(trainer.create_optimizer(), trainer.model)
    theirs = create_loraplus_optimizer(
        trainer.model, torch.optim.AdamW, lr=0.01, loraplus_lr_ratio=16.0, loraplus_weight_decay=0.1
    )
    assert found == rates(theirs, trainer.model)
    assert set(found) == {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert {lr for name, (lr, _) in found.items() if "lora_B" in name} == {0.16}


def test_norms_and_magnitudes_have_the_rate_of_a_and_norms_no_decay(tmp_path):
    trainer = made(tmp_path, lora={"use_dora": True, "target_modules": ["q_proj"], "modules_to_save": ["norm"]})
    found = rates(trainer.create_optimizer(), trainer.model)
    assert {value for name, value in found.items() if "modules_to_save" in name} == {(0.01, 0.0)}
    assert {value for name, value in found.items() if "magnitude" in name} == {(0.01, 0.1)}
    assert {value for name, value in found.items() if "lora_B" in name} == {(0.16, 0.1)}


def test_the_first_step_moves_b_by_its_own_rate_and_a_schedule_keeps_the_ratio(tmp_path):
    trainer = made(tmp_path, max_steps=2, weight_decay=0.0, lr_scheduler_type="linear")
    trainer.train()
    assert {round(group["lr"] / trainer.optimizer.param_groups[0]["lr"], 6) if group["lr"] else 0 for group in trainer.optimizer.param_groups} <= {0, 1, 16}  # fmt: skip
    plain = made(tmp_path / "plain", max_steps=1, weight_decay=0.0, loraplus_lr_ratio=None)
    fast = made(tmp_path / "fast", max_steps=1, weight_decay=0.0)
    for each in (plain, fast):
        each.train()
    slow, quick = tiny.weights(plain), tiny.weights(fast)
    for name, weight in slow.items():
        if "lora_B" in name:
            assert torch.allclose(16 * weight, quick[name], rtol=1e-4, atol=1e-7)
        else:
            assert torch.equal(weight, quick[name])
    assert tiny.losses(trainer)[0] == pytest.approx(0.6931472, abs=1e-6)


def test_a_resumed_run_is_the_whole_one_to_the_bit(tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole, again = made(tmp_path / "whole", **settings), made(tmp_path / "again", **settings)
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, weight in tiny.weights(whole).items():
        assert torch.equal(weight, tiny.weights(again)[name])


def test_what_has_no_b_or_rates_of_its_own_is_refused(tmp_path):
    optimizer = torch.optim.SGD(tiny_model(tiny_tokenizer()).parameters(), lr=0.1)
    with pytest.raises(ValueError, match="here: loraplus_lr_ratio: is of LoRA's two factors, and no LoRA adapter"):
        faster_b(optimizer, tiny_model(tiny_tokenizer()), 16.0, where="here")
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA))
    given = made(tmp_path, model=model)
    given.optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="loraplus_lr_ratio: an optimizer is given, with rates of its own"):
        given.create_optimizer()


@pytest.mark.parametrize(("settings", "told"), [
    (["lora=null", "train.loraplus_lr_ratio=16"], "train.loraplus_lr_ratio: trained-part: is of LoRA's two factors, and no"),
    (["lora=null", "train.trained_part=b"], "train.trained_part: trained-part: 'b' is a factor of LoRA, and no LoRA"),
    (["train.trained_part=layers", "train.redraw_every=1"], "train.drawn_layers: trained-part: must be below the model's 2"),
    (["lora=null", "peft={peft_type: IA3}", "train.trained_part=layers", "train.redraw_every=1"], "train.drawn_layers: "),
])  # fmt: skip
def test_a_part_that_the_model_has_not_is_told_before_a_weight_is_loaded(tmp_path, settings, told):
    recipe = load_recipe("dpo/tiny", [*settings, f"train.output_dir={tmp_path}", "data.eval={}"])
    rows = load_data(recipe.data, rows=recipe.rows, columns=recipe.columns, texts=recipe.texts)
    with pytest.raises(RunError) as refused:
        refuse(recipe, {"data.train": rows.train}, Machine.here())
    assert told in str(refused.value)

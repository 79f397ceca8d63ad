"""Adapters of PEFT that are not LoRA, by a recipe: each begins at the reference, trains, resumes, and is loaded and folded."""

import json

import pytest
import tiny
import torch
from peft import AdaLoraConfig, PeftModel, PeftType

import align
from align import DPOConfig, DPOTrainer
from align.check.sizes import inspect_adapter
from align.commands.explain import explained
from align.errors import RecipeError
from align.merging.export import export
from align.models.identity import model_identity
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.tuning.kinds import REFUSED, TRIED, why_not

KINDS = {
    "VERA": {"r": 4}, "OFT": {"oft_block_size": 4}, "IA3": {"feedforward_modules": ["down_proj"]},
    "FOURIERFT": {"n_frequency": 16, "init_weights": True}, "HIRA": {"r": 4}, "HRA": {"r": 4}, "LOHA": {"r": 4},
    "LOKR": {"r": 4}, "MISS": {"r": 4}, "RANDLORA": {"r": 4}, "ROAD": {"group_size": 4},
    "LN_TUNING": {"target_modules": ["input_layernorm", "post_attention_layernorm"]},
}  # fmt: skip
LAYERS = ["q_proj", "v_proj", "down_proj"]


def of(kind, folder, **kw):
    section = {"peft_type": kind, "target_modules": LAYERS} | KINDS[kind] | kw
    return [
        "lora=null", f"peft={json.dumps(section)}", f"train.output_dir={folder}", "train.max_steps=4", "train.save_steps=2",
        'train.eval_strategy="no"', "data.eval={}",
    ]  # fmt: skip


def test_every_kind_that_was_tried_is_tried():
    assert set(TRIED) == set(KINDS)
    assert not set(TRIED) & set(REFUSED)
    assert {*TRIED, *REFUSED} <= {kind.value for kind in PeftType}


@pytest.mark.parametrize("kind", tiny.sparing(list(KINDS), "VERA", "OFT"))
def test_a_kind_begins_at_the_reference_trains_resumes_and_is_folded(tmp_path, kind):
    done = align.run("dpo/tiny", of(kind, tmp_path / "run"))
    weights = tiny.weights(done.trainer)
    assert tiny.losses(done.trainer)[0] == pytest.approx(0.6931472, abs=1e-6)
    assert done.trainer.model.peft_config["default"].peft_type == kind
    found, size = inspect_adapter(
        done.trainer.model.get_base_model().config, load_recipe("dpo/tiny", of(kind, tmp_path)).lora
    )
    assert [finding.level for finding in found] == ["note"]
    assert size.trainable == sum(weight.numel() for weight in weights.values())
    base, ids = tiny_model(tiny_tokenizer()), torch.tensor([[5, 6, 7, 8, 9, 10]])
    saved = PeftModel.from_pretrained(base, str(tmp_path / "run" / "adapter"))
    with torch.no_grad():
        logits = [each(input_ids=ids).logits for each in (saved, done.trainer.model.eval())]
    assert torch.allclose(*logits, atol=1e-6)
    plain = model_identity(tiny_model(tiny_tokenizer()))
    assert {model_identity(each)["digest"] for each in (saved, done.trainer.model)} == {plain["digest"]}
    assert export(str(tmp_path / "run"), tmp_path / "whole")


@pytest.mark.parametrize("kind", tiny.sparing(list(KINDS), "VERA"))
def test_a_run_that_resumes_is_the_whole_one_to_the_bit(tmp_path, kind):
    config = load_recipe("dpo/tiny", of(kind, tmp_path)).lora
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}

    def made(folder):
        return DPOTrainer(
            model=tiny_model(tiny_tokenizer()), args=tiny.arguments(DPOConfig, folder, **settings),
            train_dataset=tiny.pairs(), processing_class=tiny_tokenizer(), peft_config=config,
        )  # fmt: skip

    whole, again = made(tmp_path / "whole"), made(tmp_path / "again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for name, weight in tiny.weights(whole).items():
        assert torch.equal(weight, tiny.weights(again)[name])


def refused(*overrides):
    with pytest.raises(RecipeError) as told:
        load_recipe("dpo/tiny", list(overrides))
    return str(told.value)


@pytest.mark.parametrize(("section", "told"), [
    ("{peft_type: ADALORA, target_modules: all-linear}", "peft.peft_type: ADALORA allots ranks by running sums that no"),
    ("{peft_type: PROMPT_TUNING, num_virtual_tokens: 4}", "peft.peft_type: PROMPT_TUNING puts virtual tokens before each row"),
    ("{peft_type: LORA, r: 4}", "peft.peft_type: LORA has a section of its own, `lora`"),
    ("{peft_type: OSF}", "peft.peft_type: OSF was not tried here; tried are FOURIERFT,"),
    ("{peft_type: VEAR}", "peft.peft_type: unknown, got 'VEAR'; did you mean 'VERA'?"),
    ("{r: 4}", "peft.peft_type: missing; "),
    ("{peft_type: VERA, rr: 4}", "peft.rr: unknown key, got 4; did you mean 'r'?"),
    ("{peft_type: VERA, r: -4}", "peft.r: must be at least 1, got -4"),
    ("{peft_type: VERA, r: 0}", "peft.r: must be at least 1, got 0"),
    ("{peft_type: OFT, r: -1}", "peft.r: must be at least 0, got -1"),
    ("{peft_type: LOHA, alpha: 0}", "peft.alpha: must be positive, or the adapter changes nothing, got 0"),
    ("{peft_type: RANDLORA, randlora_alpha: .nan}", "peft.randlora_alpha: must be positive"),
    ("{peft_type: FOURIERFT, init_weights: true, scaling: 0.0}", "peft.scaling: must be positive"),
    ("{peft_type: VERA, inference_mode: true}", "peft.inference_mode: not used here, got True"),
    ("{peft_type: VERA, task_type: SEQ_CLS}", "peft.task_type: must be CAUSAL_LM, got 'SEQ_CLS'"),
    ("{peft_type: FOURIERFT, n_frequency: 9}", "peft.init_weights: False starts from a random adapter"),
    ("VERA", "peft: expected `key: value` settings, got str 'VERA'"),
])  # fmt: skip
def test_a_kind_that_cannot_be_is_refused_before_a_weight_is_loaded(section, told):
    assert told in refused("lora=null", f"peft={section}")


def test_what_belongs_to_lora_is_refused_beside_another_kind():
    vera = "peft={peft_type: VERA, target_modules: all-linear}"
    assert "peft: contradicts lora: a policy has one new adapter" in refused(vera)
    assert "train.trained_part: 'b' is a factor of LoRA, and VERA has none" in refused(
        "lora=null", vera, "train.trained_part=b"
    )
    faster = refused("lora=null", vera, "train.loraplus_lr_ratio=16")
    assert "train.loraplus_lr_ratio: is of LoRA's two factors, and VERA has none" in faster
    with pytest.raises(RecipeError, match="peft: contradicts fronts, which mix LoRA adapters"):
        load_recipe("fronts/tiny", ["lora=null", vera])
    with pytest.raises(RecipeError, match="peft: contradicts method 'meet', whose controls are LoRA"):
        load_recipe("meet/tiny", ["lora=null", vera])


def test_a_layer_that_is_not_there_is_told_before_a_weight_is_loaded():
    config = load_recipe("dpo/tiny", of("VERA", "runs/x", target_modules=["no_proj"])).lora
    found, size = inspect_adapter(tiny_model(tiny_tokenizer()).config, config)
    assert [(finding.level, finding.rule) for finding in found] == [("error", "peft-coverage")]
    assert size is None


def test_adalora_is_refused_in_python_too(tmp_path):
    config = AdaLoraConfig(target_modules=["q_proj"], total_step=4, task_type="CAUSAL_LM")
    with pytest.raises(ValueError, match="DPOTrainer: ADALORA allots ranks by running sums"):
        DPOTrainer(
            model=tiny_model(tiny_tokenizer()), args=tiny.arguments(DPOConfig, tmp_path), train_dataset=tiny.pairs(),
            processing_class=tiny_tokenizer(), peft_config=config,
        )  # fmt: skip


def test_half_of_another_kind_s_modules_moves(tmp_path):
    done = align.run("dpo/tiny", [*of("IA3", tmp_path / "run"), "train.trained_part=half"])
    held = done.trainer.part.left_out(0)
    assert held
    for name, weight in tiny.weights(done.trainer).items():
        assert torch.equal(weight, torch.ones_like(weight)) == (name in held)


def test_the_keys_are_explained():
    assert any("peft.vera_dropout (VeraConfig)" in each for each in explained("peft.vera_dropout"))
    assert not any("VeraConfig" in each for each in explained("target_modules"))
    assert why_not("VERA") is None

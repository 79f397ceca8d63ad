"""A model or adapter that takes only part of what its files hold is refused, or the rest is named."""

import json
import logging

import pytest
import tiny
import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from trl import ModelConfig

from align.errors import RunError
from align.models.folders import adapter_settings, check_model_folder
from align.models.loading import load_adapter, load_model
from align.models.tiny import tiny_model, tiny_tokenizer

BLOCK = "model.layers.1.self_attn.q_proj.weight"
LORA_A = "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight"


@pytest.fixture
def saved(tmp_path):
    tiny_model(tiny_tokenizer()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def adapter(tmp_path):
    get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA)).save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def load(folder):
    return load_model(ModelConfig(model_name_or_path=str(folder)))


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def settings(path, **kw):
    path.write_text(json.dumps(json.loads(path.read_text()) | kw))


def test_weights_of_blocks_that_the_configuration_has_not_are_refused(saved):
    settings(saved / "config.json", num_hidden_layers=1)
    with pytest.raises(RunError, match=r"9 weights are left over: model\.layers\.1\..*describes a smaller model"):
        load(saved)


def test_weights_of_another_part_are_named(saved, caplog):
    edit(saved / "model.safetensors", lambda t: t.update({"visual.patch.weight": torch.ones(2, 2)}))
    with caplog.at_level(logging.WARNING):
        load(saved)
    assert "1 weight is left over, and no part of the model as it is loaded: visual.patch.weight" in caplog.text


def test_a_base_that_is_not_finite_is_named_and_no_adapter_blamed(saved):
    edit(saved / "model.safetensors", lambda t: t[BLOCK].fill_(float("nan")))
    with pytest.raises(RunError, match=f"the weight {BLOCK} holds values that are not finite"):
        load(saved)


def test_a_tied_output_layer_is_not_missing(tmp_path):
    tokenizer = tiny_tokenizer()
    tied = tiny_model(tokenizer)
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    tied.save_pretrained(tmp_path / "tied")
    assert "lm_head.weight" not in load_file(tmp_path / "tied" / "model.safetensors")
    load(tmp_path / "tied")


def test_an_adapter_s_weights_without_a_place_are_refused(adapter):
    load_adapter(tiny_model(tiny_tokenizer()), adapter)
    edit(adapter / "adapter_model.safetensors", lambda t: t.update({LORA_A.replace(".1.", ".7."): torch.ones(2, 2)}))
    with pytest.raises(RunError, match=r"1 weight is left over: .*layers\.7\..*of another model"):
        load_adapter(tiny_model(tiny_tokenizer()), adapter)


def test_renamed_weights_of_an_adapter_are_refused(adapter):
    edit(adapter / "adapter_model.safetensors", lambda t: t.update({LORA_A.replace("q_proj", "q"): t.pop(LORA_A)}))
    with pytest.raises(RunError, match="cannot be put on this model"):
        load_adapter(tiny_model(tiny_tokenizer()), adapter)


def test_whole_modules_and_tokens_of_an_adapter_have_a_place(tmp_path):
    kinds = {"modules_to_save": ["lm_head"], "trainable_token_indices": [3]}
    for name, value in kinds.items():
        get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA | {name: value})).save_pretrained(
            str(tmp_path / name)
        )
        load_adapter(tiny_model(tiny_tokenizer()), tmp_path / name)


def test_an_adapter_of_prompts_is_refused(tmp_path):
    config = PrefixTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    get_peft_model(tiny_model(tiny_tokenizer()), config).save_pretrained(str(tmp_path / "prefix"))
    with pytest.raises(RunError, match="an adapter of prompts"):
        adapter_settings(tmp_path / "prefix")


@pytest.mark.parametrize("text", ["{", "[1]", "5"])
def test_generation_settings_that_cannot_be_read_are_not_done_without(saved, text):
    (saved / "generation_config.json").write_text(text)
    with pytest.raises(RunError, match=r"generation_config\.json: damaged"):
        check_model_folder(saved)


@pytest.mark.parametrize("packed", [{"quant_method": "nonsense"}, "gptq", {"bits": 4}])
def test_a_quantisation_that_nobody_knows_is_not_passed_over(saved, packed):
    settings(saved / "config.json", quantization_config=packed)
    with pytest.raises(RunError, match="of no kind that transformers knows"):
        check_model_folder(saved)


@pytest.mark.parametrize("packed", [{}, None, {"load_in_4bit": True}, {"quant_method": "gptq", "bits": 4}])
def test_a_quantisation_that_is_known_is_left_to_transformers(saved, packed):
    settings(saved / "config.json", quantization_config=packed)
    check_model_folder(saved)

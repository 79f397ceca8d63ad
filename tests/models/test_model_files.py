"""Models, tokenizers and adapters of strangers: nothing of theirs runs, and what is damaged is named."""

import json
import pickle
from pathlib import Path

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from trl import ModelConfig

from align.errors import RunError
from align.models.loading import load_adapter, load_model, load_tokenizer, resolve_model_path
from align.models.tiny import tiny_model, tiny_tokenizer


@pytest.fixture
def saved(tmp_path):
    """A folder with the tiny model and its tokenizer."""
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_model(tokenizer).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def adapter(tmp_path):
    policy = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**tiny.LORA))
    policy.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def named(folder):
    return ModelConfig(model_name_or_path=str(folder))


def change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


class Touch:
    """What a malicious pickle does when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


# --- where a model is -----------------------------------------------------------------------------


def test_a_package_in_the_working_directory_does_not_run(tmp_path, monkeypatch):
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="name a top-level package, got 'planted.inner'"):
        resolve_model_path("package:planted.inner/m.gguf")
    with pytest.raises(FileNotFoundError):
        resolve_model_path("package:planted/m.gguf")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["../outside.gguf", "inner/../../outside.gguf", "{folder}/outside.gguf", "link.gguf"])
def test_a_package_file_lies_in_its_package(tmp_path, monkeypatch, file):
    (tmp_path / "planted" / "inner").mkdir(parents=True)
    (tmp_path / "outside.gguf").write_bytes(b"GGUF")
    (tmp_path / "planted" / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RunError, match="lies outside of the package 'planted'"):
        resolve_model_path(f"package:planted/{file.format(folder=tmp_path)}")


@pytest.mark.parametrize(
    ("content", "message"), [(b"no gguf", "no GGUF file"), (b"GGUF\3\0\0\0" + b"\xff" * 64, "cannot be read as GGUF")]
)
def test_a_broken_gguf_is_named(tmp_path, monkeypatch, content, message):
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(RunError, match=f"m.gguf: .*{message}"):
        resolve_model_path(str(tmp_path / "m.gguf"))
    assert not list(tmp_path.glob("cache/models/*"))


# --- models, tokenizers, adapters ----------------------------------------------------------------------


def test_a_pickled_model_is_never_opened(saved):
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(saved / "ran")))
    torch.save({"x": Touch(saved / "ran")}, saved / "more.pt")
    with pytest.raises(
        RunError, match=r"its weights are pickled \(more.pt, pytorch_model.bin\).*save_pretrained writes"
    ):
        load_model(named(saved))
    (saved / "tokenizer.pkl").write_bytes(pickle.dumps(Touch(saved / "ran")))
    (saved / "vocab.bin").write_bytes(pickle.dumps(Touch(saved / "ran")))
    assert load_tokenizer(named(saved))
    for file in saved.glob("tokenizer*.json"):
        file.unlink()
    with pytest.raises(RunError, match="no tokenizer"):
        load_tokenizer(named(saved))
    assert not (saved / "ran").exists()


def test_a_pickled_adapter_is_never_opened(adapter):
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Touch(adapter / "ran")))
    with pytest.raises(RunError, match=r"its weights are pickled \(adapter_model.bin\)"):
        load_adapter(tiny_model(tiny_tokenizer()), adapter)
    assert not (adapter / "ran").exists()


def test_a_model_with_its_own_code_is_refused(saved):
    change(saved / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model", "AutoConfig": "evil.Config"})
    (saved / "evil.py").write_text(f"open({str(saved / 'ran')!r}, 'w')")
    for load_it in (load_model, load_tokenizer):
        with pytest.raises(RunError, match=r"config.json: the model brings its own code \(auto_map: .*never run here"):
            load_it(named(saved))
    assert not (saved / "ran").exists()


def test_a_tokenizer_with_its_own_code_is_refused(saved):
    change(saved / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Tokenizer", None]})
    with pytest.raises(RunError, match="tokenizer_config.json: the model brings its own code"):
        load_tokenizer(named(saved))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attn_implementation": "evil/kernel"}, "names a kernel to download"),
        ({"text_config": {"_experts_implementation": "evil/kernel:f"}}, "names a kernel to download"),
        ({"transformers_weights": "adapter_model.bin"}, "is no safetensors file"),
    ],
)
def test_a_config_that_names_code_or_pickles_is_refused(saved, settings, message):
    change(saved / "config.json", **settings)
    with pytest.raises(RunError, match=f"config.json: .*{message}"):
        load_model(named(saved))


def test_an_adapter_that_imports_is_refused(adapter):
    change(adapter / "adapter_config.json", megatron_config={"a": 1}, megatron_core="evil")
    with pytest.raises(RunError, match="it makes PEFT import 'evil'; remove megatron_config"):
        load_adapter(tiny_model(tiny_tokenizer()), adapter)


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        ("../outside.safetensors", "names '../outside.safetensors', which is no safetensors file of its folder"),
        ("/etc/passwd", "which is no safetensors file of its folder"),
        ("part.bin", "which is no safetensors file of its folder"),
        ("not-there.safetensors", "'not-there.safetensors' is missing; fetch it again"),
    ],
)
def test_a_list_of_shards_stays_in_its_folder(saved, shard, message):
    (saved.parent / "outside.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(RunError, match=message):
        load_model(named(saved))


def flip(content):
    return content[:20] + bytes([content[20] ^ 0x80]) + content[21:]


@pytest.mark.parametrize(
    "damage", [lambda c: c[: len(c) // 2], lambda c: c[:5], lambda c: b"", flip, lambda c: b"\xff" * 8 + c[8:]]
)
def test_damaged_weights_are_named(saved, adapter, damage):
    for folder, file in ((saved, "model.safetensors"), (adapter, "adapter_model.safetensors")):
        (folder / file).write_bytes(damage((folder / file).read_bytes()))
    with pytest.raises(RunError, match=r"/model.safetensors: cut short or damaged \("):
        load_model(named(saved))
    with pytest.raises(RunError, match=r"adapter_model.safetensors: cut short or damaged \("):
        load_adapter(tiny_model(tiny_tokenizer()), adapter)


def test_weights_that_are_not_there_do_not_become_random(saved, adapter):
    for path in (saved / "model.safetensors", adapter / "adapter_model.safetensors"):
        content = path.read_bytes()
        path.write_bytes(content.replace(b"layers.0.", b"layers.7."))
    with pytest.raises(RunError, match=r"\d+ weights are missing, and would be random: "):
        load_model(named(saved))
    with pytest.raises(RunError, match="the adapter cannot be put on this model .*missing adapter keys"):
        load_adapter(tiny_model(tiny_tokenizer()), adapter)


@pytest.mark.parametrize("content", ["", "[1]", "{", "[" * 100_000, '{"model_type": 5}', '{"model_type": "nonesuch"}'])
def test_settings_that_cannot_be_read_are_told_in_a_line(saved, content):
    (saved / "config.json").write_text(content)
    with pytest.raises((RunError, OSError)) as caught:
        load_model(named(saved))
    assert "config.json" in str(caught.value) or str(saved) in str(caught.value)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"version": "1.0", "model": {"type": "BPE", "vocab": 3}}'])
def test_a_broken_tokenizer_is_told_in_a_line(saved, content):
    (saved / "tokenizer.json").write_text(content)
    with pytest.raises(RunError, match=f"{saved}: no tokenizer"):
        load_tokenizer(named(saved))


def test_a_folder_without_weights_says_so(saved):
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"no weights there \(model.safetensors\)"):
        load_model(named(saved))

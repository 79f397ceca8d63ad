"""An exported model against adapter and base: greedy tokens, with transformers alone; what goes with it; refusals."""

import json
import shutil
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import ModelConfig

from align import cli
from align.errors import RunError
from align.merging.export import EXPORT_FILE, export
from align.merging.gguf import find_converter
from align.models.loading import load_model, load_tokenizer
from align.models.stopping import stop_ids
from align.sampling.generate import Decoding, generate
from align.train import run

MODEL = ModelConfig(model_name_or_path="tiny-random", dtype="float32")
WORDS = [
    "what",
    "is",
    "the",
    "sky",
    "two",
    "plus",
    "say",
    "hello",
    "name",
    "a",
    "number",
    "colour",
    "water",
    "wet",
    "count",
    "to",
    "three",
]
PROMPTS = [
    [{"role": "user", "content": f"{a} {b}"}] for i, a in enumerate(WORDS[:10]) for b in WORDS[i % 3 : i % 3 + 10]
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run that begins with a random adapter, so that its answers are not the base's."""
    home = tmp_path_factory.mktemp("trained")
    with torch.random.fork_rng():
        torch.default_generator.manual_seed(0)
        model = get_peft_model(load_model(MODEL), LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(std=0.5)
    model.save_pretrained(home / "start")
    words = ["lora=null", f"start={{adapter: {home / 'start'}}}", "data.eval={}", "train.save_strategy='no'"]
    return run("dpo/tiny", [*words, "train.max_steps=1", f"train.output_dir={home / 'run'}"]).path


@pytest.fixture(scope="module")
def exported(trained):
    out = trained.parent / "exported"
    export(str(trained), out)
    return out


def alone(out, prompts):
    """Greedy tokens by transformers, which knows nothing of us."""
    tokenizer, model = AutoTokenizer.from_pretrained(out), AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    made = []
    for prompt in prompts:
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        answer = model.generate(**asked, max_new_tokens=16, do_sample=False)[0, asked["input_ids"].shape[1] :].tolist()
        made.append(answer)
    return made


@pytest.mark.slow
def test_greedy_tokens_of_a_hundred_prompts_are_those_of_adapter_and_base(trained, exported):
    tokenizer = load_tokenizer(MODEL)
    assert len({str(prompt) for prompt in PROMPTS}) == 100
    with_adapter, without = (
        [
            answer[0].completion_ids
            for answer in generate(model, tokenizer, PROMPTS, Decoding(max_new_tokens=16, temperature=0.0))
        ]
        for model in (load_model(MODEL, adapter=str(trained / "adapter")), load_model(MODEL))
    )
    assert with_adapter != without
    assert alone(exported, PROMPTS) == with_adapter


def test_what_goes_with_it(trained, exported):
    record = json.loads((exported / EXPORT_FILE).read_text())
    env = json.loads((trained / "env.json").read_text())
    assert (record["run"], record["step"], record["base"]) == (env["run"], 1, "tiny-random")
    assert record["dtype"] == "float32"
    assert record["greedy"]["same"] == record["greedy"]["prompts"] == 8
    ours, written = load_tokenizer(MODEL), AutoTokenizer.from_pretrained(exported)
    assert written.chat_template == ours.chat_template
    settings = json.loads((exported / "generation_config.json").read_text())
    stops = stop_ids(ours, load_model(MODEL))
    assert settings["eos_token_id"] in (stops, *stops)
    assert settings["pad_token_id"] == ours.pad_token_id
    card = (exported / "README.md").read_text()
    assert all(part in card for part in ("## Method", "## Data", "written in float32", "Training began with `start`."))
    assert not [*exported.glob("adapter*"), *exported.glob("*.bin")]


@pytest.mark.parametrize(("name", "dtype"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_the_dtype_that_is_asked_for_is_written_after_the_sum(
    trained, exported, tmp_path, name, dtype, capsys, monkeypatch
):  # fmt: skip
    monkeypatch.setattr("align.merging.export.stop_ids", lambda *_: [1, 5])
    assert cli.main(["export", str(trained), str(tmp_path / "new" / "out"), "--dtype", name]) == 0
    said = capsys.readouterr().out
    assert all(part in said for part in (f"tiny-random in {name}; ", "of 8 greedy answers", "vllm serve"))
    assert json.loads((tmp_path / "new" / "out" / "generation_config.json").read_text())["eos_token_id"] == [1, 5]
    whole = load_file(exported / "model.safetensors")
    half = load_file(tmp_path / "new" / "out" / "model.safetensors")
    assert all(torch.equal(half[key], value.to(dtype)) for key, value in whole.items())


def test_what_cannot_be_exported_is_refused(trained, exported, tmp_path, monkeypatch, capsys):
    before = sorted(path.name for path in exported.iterdir())
    assert cli.main(["export", str(trained), str(exported)]) == 2
    assert "is there already, and nothing is written over" in capsys.readouterr().err
    assert sorted(path.name for path in exported.iterdir()) == before
    damaged = shutil.copytree(trained, tmp_path / "damaged")
    weights = damaged / "adapter" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(RunError, match="is damaged"):
        export(str(damaged), tmp_path / "a")
    monkeypatch.setattr("peft.PeftModel.merge_and_unload", lambda self, **_: self.unload(), raising=False)
    with pytest.raises(RunError, match=r"folded into the base it is another model: .* nats"):
        export(str(trained), tmp_path / "b")
    assert not list(tmp_path.glob("[ab]"))


def test_an_adapter_of_a_quantised_base_goes_into_the_full_weights_and_that_is_said(trained, tmp_path, caplog):
    quantised = shutil.copytree(trained, tmp_path / "run")
    recipe = quantised / "recipe.resolved.yaml"
    recipe.write_text(recipe.read_text().replace("dtype: float32", "dtype: float32\n  load_in_4bit: true"))
    assert export(str(quantised), tmp_path / "out")["trained_on"] == "4-bit"
    assert "trained on 4-bit weights; it is folded into the full ones" in caplog.text
    assert "It was trained on 4-bit weights." in (tmp_path / "out" / "README.md").read_text()
    packed = tmp_path / "out" / "config.json"
    packed.write_text(json.dumps(json.loads(packed.read_text()) | {"quantization_config": {"quant_method": "awq"}}))
    with pytest.raises(RunError, match="its files hold quantised weights"):
        export(str(tmp_path / "out"), tmp_path / "again")


STUB = """import pathlib, sys
_, folder, name, out, kind, dtype = sys.argv
assert (name, kind) == ("--outfile", "--outtype"), sys.argv
assert (pathlib.Path(folder) / "model.safetensors").is_file()
pathlib.Path(out).write_text(dtype)
if {fails}:
    print("loading", file=sys.stderr)
    sys.exit("ModuleNotFoundError: No module named 'sentencepiece'")
"""


def converter_in(folder, *, fails=False):
    folder.mkdir(exist_ok=True)
    (folder / "convert_hf_to_gguf.py").write_text(STUB.format(fails=fails))
    return folder


def test_a_gguf_file_is_made_by_the_converter_and_read_back(trained, tmp_path, capsys, monkeypatch):
    """The converter is a stub, which writes the type it is asked for; the real one was run by hand."""
    out, plain = tmp_path / "out", AutoModelForCausalLM.from_pretrained
    read = []

    def from_pretrained(folder, gguf_file=None, **kw):
        if gguf_file is not None:
            read.append((folder, gguf_file, kw))
            kw = {"dtype": "float32"}
        return plain(folder, **kw)

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    words = ["--gguf", "--converter", str(converter_in(tmp_path / "llama.cpp"))]
    assert cli.main(["export", str(trained), str(out), *words, "--dtype", "float32"]) == 0
    assert (out / "model.gguf").read_text() == "f32"
    assert (out / "Modelfile").read_text() == "FROM ./model.gguf\n"
    assert read == [(out, "model.gguf", {"dtype": "float32"})]
    assert json.loads((out / EXPORT_FILE).read_text())["gguf"] == {"file": "model.gguf", "same": 8}
    assert (
        f"{out / 'model.gguf'}, with 8 of 8 of these answers; serve it: ollama create NAME -f"
        in capsys.readouterr().out
    )
    assert sorted(one.name for one in out.iterdir() if "gguf" in one.name) == ["model.gguf"]
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", plain)
    assert cli.main(["export", str(trained), str(tmp_path / "half"), *words, "--dtype", "bfloat16"]) == 0
    assert (tmp_path / "half" / "model.gguf").read_text() == "bf16"
    assert "half/model.gguf, which was not read back; serve it" in capsys.readouterr().out


def test_without_a_gguf_file_the_export_stays(trained, tmp_path, capsys, monkeypatch):
    out = tmp_path / "out"
    words = ["--gguf", "--converter", str(converter_in(tmp_path / "llama.cpp", fails=True))]
    assert cli.main(["export", str(trained), str(out), *words]) == 2
    said = capsys.readouterr().err
    assert "is written, but" in said
    assert "made no GGUF file of it: ModuleNotFoundError: No module named 'sentencepiece'; mend that, and run" in said
    assert f"{out} --outfile {out / 'model.gguf'} --outtype f32" in said
    assert (out / EXPORT_FILE).is_file()
    assert not [one for one in out.iterdir() if "gguf" in one.name]
    monkeypatch.setenv("PATH", str(tmp_path))
    for given, reason in (
        (["--gguf"], "convert_hf_to_gguf.py of llama.cpp is not on PATH; name it by --converter FILE"),
        (["--gguf", "--converter", str(tmp_path / "none.py")], "none.py: no such file"),
        (["--converter", str(tmp_path)], "--converter: does nothing without --gguf"),
    ):
        assert cli.main(["export", str(trained), str(tmp_path / "other"), *given]) == 2
        assert reason in capsys.readouterr().err
        assert not (tmp_path / "other").exists()
    file = converter_in(tmp_path) / "convert_hf_to_gguf.py"
    file.write_text(f"#!{sys.executable}\n{file.read_text()}")
    file.chmod(0o755)
    assert find_converter(None) == [str(file)]

"""Machine and packages: what a report says of each, on machines that are made up."""

import pytest
import torch
from recipes_under_test import GOOD, load

from align.check import environment
from align.check.environment import inspect_machine, inspect_versions
from align.check.machine import Machine, accelerate_file
from align.errors import RunError
from align.launching import launcher
from align.recipe.loading import load_recipe
from align.recipe.shipped import recipes_dir

CPU = Machine(installed=lambda name: True)
GPU = Machine(gpus=("H100",), installed=lambda name: True)
FULL = ["lora=null"]


def rules(recipe, machine):
    return {finding.rule: finding for finding in inspect_machine(recipe, machine)}


def without(*missing, **settings):
    return Machine(installed=lambda name: name not in missing, **{"gpus": ("H100",), "sharding": None} | settings)


def sharded(kind, **settings):
    return Machine(gpus=("H100", "H100"), launched=2, sharding=kind, installed=lambda name: True, **settings)


def test_a_plain_recipe_on_a_cpu_breaks_no_rule(folder):
    assert inspect_machine(load(folder, GOOD, "train.report_to=none"), CPU) == []


def test_vllm_that_is_not_there_is_told_before_weights():
    recipe = load_recipe("online/tiny-grpo", ["train.use_vllm=true"])
    assert "vllm-missing" in rules(recipe, without("vllm"))
    assert "vllm-missing" not in rules(recipe, without())
    assert "vllm-missing" not in rules(load_recipe("online/tiny-grpo"), without("vllm"))


def test_vllm_is_refused_where_no_policy_can_be_handed_to_it():
    recipe = load_recipe("online/tiny-grpo", ["train.use_vllm=true"])
    gpu = Machine(gpus=("H100",), installed=CPU.installed)
    assert "vllm-on-cpu" in rules(recipe, CPU)
    assert "vllm-on-cpu" in rules(recipe, gpu)  # the recipe asks for the CPU
    assert "vllm-on-cpu" not in rules(
        load_recipe("online/tiny-grpo", ["train.use_vllm=true", "train.use_cpu=false"]), gpu
    )
    assert "vllm-on-cpu" not in rules(load_recipe("online/tiny-grpo"), CPU)


@pytest.mark.parametrize(
    ("overrides", "machine", "rule"),
    [
        (["model.load_in_4bit=true"], without("bitsandbytes"), "bitsandbytes-missing"),
        (["train.optim=paged_adamw_8bit"], without("bitsandbytes"), "bitsandbytes-missing"),
        (["model.attn_implementation=flash_attention_2"], without("flash_attn"), "flash-attention-missing"),
        (["train.use_liger_kernel=true"], without("liger_kernel"), "liger-missing"),
        (["train.report_to=wandbb"], CPU, "report-to"),
        (["train.fp16=true"], CPU, "fp16-on-cpu"),
        (["train.fp16=true", "train.use_cpu=false", "model.dtype=float16", *FULL], GPU, "fp16-weights"),
        (["train.use_cpu=false", "model.dtype=bfloat16"], Machine(gpus=("T4",), bf16=False), "bf16-unsupported"),
        (["train.sync_ref_model=true"], CPU, "sync-ref-model"),
        (["train.sync_ref_model=true", "train.precompute_ref_log_probs=true", *FULL], CPU, "sync-ref-model"),
        (["train.sync_ref_model=true", "ref.kind=cached", *FULL], CPU, "sync-ref-model"),
        (["method=ld_dpo", "ref.kind=cached"], CPU, "ld-alpha-cached"),
        (["method=tdpo2", "ref.kind=cached"], CPU, "tdpo-cached"),
        (["model.load_in_8bit=true"], sharded("fsdp2"), "8-bit-sharded"),
        (["model.load_in_4bit=true"], sharded("fsdp2"), "qlora-sharded"),
        (["model.load_in_4bit=true"], sharded("zero3"), "qlora-sharded"),
        ([], without("deepspeed", sharding="zero2"), "deepspeed-missing"),
        (["train.max_tokens_per_batch=99"], sharded("zero2"), "budget-with-deepspeed"),
        (["train.trained_part=half"], sharded("fsdp2"), "part-sharded"),
        (["train.loraplus_lr_ratio=16"], sharded("zero2"), "part-sharded"),
        ([], sharded("zero3"), "sharded-prompts"),
        ([], sharded("fsdp2"), "sharded-on-cpu"),
        ([], GPU, "gpu-unused"),
        (["train.global_batch_size=8"], Machine(gpus=("A",) * 3), "global-batch-size"),
        ([], Machine(gpus=("A", "B")), "launcher"),
    ],
)
def test_what_does_not_work_together_is_told(folder, overrides, machine, rule):
    finding = rules(load(folder, GOOD, *overrides), machine)[rule]
    assert finding.remedy
    assert "{" not in finding.message


@pytest.mark.parametrize(
    ("overrides", "machine", "rule"),
    [
        (["model.load_in_4bit=true"], CPU, "bitsandbytes-missing"),
        (["train.optim=adamw_torch"], without("bitsandbytes"), "bitsandbytes-missing"),
        (["train.fp16=true", "train.use_cpu=false"], GPU, "fp16-on-cpu"),
        (["train.fp16=true", "train.use_cpu=false", "model.dtype=float16"], GPU, "fp16-weights"),
        (["train.use_cpu=false", "model.dtype=bfloat16"], GPU, "bf16-unsupported"),
        (["train.sync_ref_model=true", *FULL], CPU, "sync-ref-model"),
        (["model.load_in_8bit=true"], sharded("zero2"), "8-bit-sharded"),
        (["model.load_in_4bit=true", "model.bnb_4bit_quant_storage=bfloat16"], sharded("fsdp2"), "qlora-sharded"),
        (["train.max_tokens_per_batch=99"], sharded("fsdp2"), "budget-with-deepspeed"),
        (["train.shared_prefix=off"], sharded("zero3"), "sharded-prompts"),
        (["train.use_cpu=false"], sharded("fsdp2"), "sharded-on-cpu"),
        (["train.use_cpu=false"], GPU, "gpu-unused"),
        (["train.global_batch_size=16"], Machine(gpus=("A",) * 2), "global-batch-size"),
        ([], Machine(gpus=("A", "B"), launched=2), "launcher"),
        ([], GPU, "launcher"),
    ],
)
def test_what_works_is_not(folder, overrides, machine, rule):
    assert rule not in rules(load(folder, GOOD, *overrides), machine)


def test_integrations_must_exist_and_be_installed(folder, monkeypatch):
    monkeypatch.setattr(environment, "get_available_reporting_integrations", lambda: ["trackio"])
    assert (
        "'tensorboard' is not installed"
        in rules(load(folder, GOOD, "train.report_to=tensorboard"), CPU)["report-to"].message
    )
    assert (
        "'wandbb' is no integration"
        in rules(load(folder, GOOD, "train.report_to=[trackio, wandbb]"), CPU)["report-to"].message
    )
    assert "report-to" not in rules(load(folder, GOOD, "train.report_to=trackio"), CPU)


@pytest.mark.parametrize(
    ("name", "sharding"), [("ddp", None), ("fsdp2", "fsdp2"), ("zero2", "zero2"), ("zero3", "zero3")]
)
def test_the_accelerate_file_says_how_weights_are_sharded(name, sharding):
    assert Machine.here(accelerate_file(name)).sharding == sharding


@pytest.mark.parametrize(
    ("settings", "sharding"),
    [
        ({}, None),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "fsdp2"),
        ({"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"}, "zero3"),
        ({"ACCELERATE_USE_FSDP": "false"}, None),
    ],
)
def test_inside_a_launcher_its_environment_says_it(monkeypatch, settings, sharding):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WORLD_SIZE", "4")
    here = Machine.here()
    assert (here.sharding, here.launched, here.processes) == (sharding, 4, 4)


@pytest.mark.parametrize(("gpus", "supported", "bf16"), [(0, False, True), (2, False, False), (2, True, True)])
def test_the_machine_is_asked_for_its_gpus(monkeypatch, gpus, supported, bf16):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", "GPU {}".format)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    here = Machine.here()
    assert here.gpus == ("GPU 0", "GPU 1")[:gpus]
    assert (here.bf16, here.launched, here.processes) == (bf16, None, max(gpus, 1))


def test_an_accelerate_file_that_is_not_there_is_named():
    with pytest.raises(RunError, match="no such file or shipped configuration: zero9"):
        accelerate_file("zero9")
    assert launcher(2, "zero2")[5].endswith("zero2.yaml")


def test_versions_outside_of_what_was_tested_are_told():
    assert inspect_versions() == []
    found = inspect_versions(["torch<1", "numpy>=1", "no-such-package>=2", "vllm>=99; extra == 'vllm'"])
    assert [f.message.split(" was tested, ")[0] for f in found] == ["torch<1", "no-such-package>=2"]
    assert torch.__version__ in found[0].message
    assert "none is installed" in found[1].message
    assert found[1].remedy == "pip install 'no-such-package>=2'"


@pytest.mark.parametrize(
    "recipe",
    sorted(path for path in recipes_dir().rglob("*.yaml") if path.parent.name != "accelerate"),
    ids=lambda path: path.stem,
)
def test_every_rule_reads_every_recipe_under_every_launcher(recipe):
    read = load_recipe(str(recipe), anywhere=True)
    for kind in (None, "fsdp2", "zero2", "zero3"):
        for finding in inspect_machine(read, sharded(kind)):
            assert finding.message


@pytest.mark.parametrize(
    ("overrides", "gathers", "told"), [(FULL, False, True), (FULL, True, False), ([], False, False)]
)
def test_zero3_that_would_write_no_model_is_refused(folder, overrides, gathers, told):
    found = rules(load(folder, GOOD, "train.use_cpu=false", *overrides), sharded("zero3", gathers=gathers))
    assert ("zero3-unsaved" in found) == told


def test_whether_zero3_writes_a_model_is_read_from_the_file_or_the_launcher(monkeypatch):
    assert Machine.here(accelerate_file("zero3")).gathers
    assert not Machine.here(accelerate_file("zero2")).gathers
    monkeypatch.delenv("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", raising=False)
    assert not Machine.here().gathers
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO3_SAVE_16BIT_MODEL", "true")
    assert Machine.here().gathers

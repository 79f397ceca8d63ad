"""Scripts in the shape of TRL's train with our classes: flags parsed, settings changed after parsing, LoRA by its flags."""

import json

import pytest
import tiny
import torch
from datasets import load_dataset
from objectives import PROMPTS
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config, get_quantization_config

import align
from align.models.tiny import tiny_model, tiny_tokenizer

FLAGS = """--dataset_name {data} --model_name_or_path {model} --learning_rate 1e-2 --num_train_epochs 1 --max_steps 2
    --per_device_train_batch_size 2 --gradient_accumulation_steps 2 --eval_strategy steps --eval_steps 2 --logging_steps 1
    --output_dir {out} --use_cpu --bf16 false --report_to none --disable_tqdm true --save_strategy no"""
LORA = "--use_peft --lora_r 4 --lora_alpha 8"
ONLINE = "--num_generations 2 --max_completion_length 4 --per_device_eval_batch_size 2"


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A saved model, and folders of data in the shapes of TRL's examples."""
    root = tmp_path_factory.mktemp("scripts")
    tokenizer = tiny_tokenizer()
    tiny_model(tokenizer).save_pretrained(root / "model")
    tokenizer.save_pretrained(root / "model")
    pairs = list(tiny.pairs())
    shapes = {
        "pairs": pairs,
        "messages": [{"messages": [*row["prompt"], *row["chosen"]]} for row in pairs],
        "prompts": [{"prompt": prompt} for prompt in PROMPTS],
        "implicit": [{side: [*row["prompt"], *row[side]] for side in ("chosen", "rejected")} for row in pairs],
    }
    for name, rows in shapes.items():
        (root / name).mkdir()
        for split in ("train", "test"):
            (root / name / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def short(completions, **_):
    return [-float(len(completion[0]["content"])) for completion in completions]


def script(trainer, data, flags, places, tmp_path, **more):
    """What TRL's `scripts/*.py` and `examples/scripts/*.py` do between parsing and `push_to_hub`."""
    config = getattr(align, trainer.replace("Trainer", "Config"))
    parser = TrlParser((ScriptArguments, config, ModelConfig))
    text = FLAGS.format(data=places / data, model=places / "model", out=tmp_path / "out")
    script_args, training_args, model_args = parser.parse_args_and_config([*text.split(), *flags.split()])
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": False,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
    }
    dataset = load_dataset(script_args.dataset_name, name=script_args.dataset_config, cache_dir=str(tmp_path / "cache"))
    made = getattr(align, trainer)(
        model=model_args.model_name_or_path,
        args=training_args,
        train_dataset=dataset[script_args.dataset_train_split],
        eval_dataset=dataset[script_args.dataset_test_split] if training_args.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        **more,
    )
    made.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    made.save_model(training_args.output_dir)
    assert made.state.global_step == 2
    assert any("eval_loss" in record for record in made.state.log_history)
    return made


@pytest.mark.parametrize(
    ("trainer", "data", "flags"),
    [
        ("DPOTrainer", "pairs", f"{LORA} --no_remove_unused_columns"),
        pytest.param("DPOTrainer", "pairs", "--gradient_checkpointing", marks=pytest.mark.slow),
        pytest.param("RPOTrainer", "implicit", f"{LORA} --eta 0.1", marks=pytest.mark.slow),
        ("SupervisedTrainer", "messages", LORA),
        pytest.param("SupervisedTrainer", "messages", '--objective {"nll":1.0,"dft":0.5}', marks=pytest.mark.slow),
        ("PreferenceModelTrainer", "pairs", f"{LORA} --lora_task_type SEQ_CLS"),
        pytest.param("PreferenceModelTrainer", "implicit", "--no_gradient_checkpointing", marks=pytest.mark.slow),
    ],
)
def test_offline_scripts_train(trainer, data, flags, places, tmp_path):
    made = script(trainer, data, flags, places, tmp_path)
    dropouts = [m.p for n, m in made.model.named_modules() if isinstance(m, torch.nn.Dropout) and "lora_dropout" in n]
    assert bool(dropouts) == ("--use_peft" in flags)
    assert set(dropouts) <= {0.05}


@pytest.mark.parametrize("trainer", ["GRPOTrainer", "RLOOTrainer", "DynamicGRPOTrainer"])
def test_online_scripts_train(trainer, places, tmp_path):
    script(trainer, "prompts", f"{LORA} {ONLINE}", places, tmp_path, reward_funcs=[short])


def test_default_dropout_is_told_in_one_line_and_the_rest_is_off(tmp_path, caplog):
    made = tiny.trainer(align.DPOTrainer, align.DPOConfig, tmp_path, lora={"lora_dropout": 0.05})
    said = [record.message for record in caplog.records if "dropout" in record.message]
    assert said == ["the adapter trains with its dropout (0.05); dropout of the model itself is off"]
    assert {m.p for m in made.model.modules() if isinstance(m, torch.nn.Dropout)} == {0.05}


@pytest.mark.parametrize(("trainer", "online"), [("DPOTrainer", False), ("GRPOTrainer", True)])
def test_an_explicit_contradiction_is_refused(trainer, online, tmp_path):
    args = getattr(align, trainer.replace("Trainer", "Config"))(
        str(tmp_path), use_cpu=True, bf16=False, report_to="none", disable_dropout=True
    )
    config = get_peft_config(ModelConfig(use_peft=True))
    with pytest.raises(ValueError, match="lora_dropout=0.05 would be switched off by disable_dropout=True"):
        getattr(align, trainer)("no-model", *([short] if online else []), args=args, peft_config=config)

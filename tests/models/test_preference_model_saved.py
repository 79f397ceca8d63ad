"""Preference models that are saved, loaded and gone on with: the same to the bit; and what is refused."""

import json
import shutil

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model
from reward_models import NOT_THE_SAME, base, build, plain, trained, with_margins
from safetensors.torch import load_file, save_file
from trl import RewardConfig

from align.errors import RunError
from align.models.preference_model import SETTINGS, PreferenceModel, check_preference_model, load_preference_model
from align.models.tiny import tiny_tokenizer
from align.trainers.preference_model import PreferenceModelTrainer

CHAT = [{"role": "user", "content": "what is the sky"}]
ANSWERS = ["blue", "green, mostly green", "not much, and you"]


@pytest.mark.parametrize("lora", [tiny.LORA, None])
@pytest.mark.parametrize("dimension", [1, 4])
@pytest.mark.parametrize("prompt", ["what is ", CHAT])
def test_what_was_saved_scores_the_same_to_the_bit(tmp_path, lora, dimension, prompt):
    trainer = trained(tmp_path, lora=lora, dimension=dimension, tau=0.2, max_steps=2)
    trainer.save_model(str(tmp_path / "saved"))
    in_memory = PreferenceModel(trainer.model.eval(), tiny_tokenizer(), dimension, 0.2)
    again = load_preference_model(tmp_path / "saved")
    assert torch.equal(again.embed(prompt, ANSWERS), in_memory.embed(prompt, ANSWERS))
    assert (again.prefer(prompt, ANSWERS) == in_memory.prefer(prompt, ANSWERS)).all()
    assert (again.dimension, again.tau, again.reference_column) == (dimension, 0.2, None)
    assert not again.model.training
    if lora is not None:  # the base's head is random, and another one each time: it must not matter
        other = load_preference_model(tmp_path / "saved", base(dimension, seed=99))
        assert torch.equal(other.embed(prompt, ANSWERS), in_memory.embed(prompt, ANSWERS))
        named = load_preference_model(tmp_path / "saved", "tiny-random")
        assert torch.equal(named.embed(prompt, ANSWERS), in_memory.embed(prompt, ANSWERS))


def test_a_base_in_bfloat16_is_loaded_in_bfloat16(tmp_path):
    trainer = trained(tmp_path, model=base(2).to(torch.bfloat16), dimension=2, max_steps=1)
    trainer.save_model(str(tmp_path / "saved"))
    again = load_preference_model(tmp_path / "saved")
    in_memory = PreferenceModel(trainer.model.eval(), tiny_tokenizer(), 2, 1.0)
    assert again.model.get_input_embeddings().weight.dtype == torch.bfloat16
    assert torch.equal(again.embed(CHAT, ANSWERS), in_memory.embed(CHAT, ANSWERS))


def test_the_head_is_trained_and_saved_with_the_adapter(tmp_path):
    trainer = trained(tmp_path, dimension=4, tau=0.2, max_steps=2)
    trainer.save_model(str(tmp_path / "saved"))
    head = load_file(tmp_path / "saved" / "adapter_model.safetensors")["base_model.model.score.weight"]
    assert head.shape == (4, 32)
    assert not torch.equal(head, base(4).score.weight)
    assert trainer.model.config.num_labels == 4


@pytest.mark.parametrize("lora", [tiny.LORA, None])
def test_runs_resume_to_the_bit(tmp_path, lora):
    kw = {"dimension": 2, "tau": 0.2, "max_steps": 6, "save_strategy": "steps", "save_steps": 1, "logging_steps": 2}
    kw |= {"lora": lora, "data": with_margins(tiny.pairs(), "gap"), "margin_column": "gap"}
    whole = trained(tmp_path, **kw)
    again = build(tmp_path / "again", **kw)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    theirs, ours = tiny.weights(whole), tiny.weights(again)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)

    def logged(trainer):
        history = [r for r in trainer.state.log_history if "loss" in r]
        return [{k: v for k, v in record.items() if not k.endswith(NOT_THE_SAME)} for record in history]

    assert logged(again) == logged(whole)
    from_checkpoint = load_preference_model(tmp_path / "checkpoint-6")
    in_memory = PreferenceModel(whole.model.eval(), tiny_tokenizer(), 2, 0.2)
    assert torch.equal(from_checkpoint.embed(CHAT, ANSWERS), in_memory.embed(CHAT, ANSWERS))


def test_the_scorer_reads_what_the_trainer_read(tmp_path):
    for number, data in enumerate([tiny.pairs(), plain(tiny.pairs())]):
        trainer = trained(tmp_path / str(number), data=data, max_steps=1)
        trainer.save_model(str(tmp_path / f"saved-{number}"))
        judge = load_preference_model(tmp_path / f"saved-{number}")
        for row, ids in zip(data, trainer.train_dataset["chosen_ids"], strict=True):
            answer = row["chosen"] if number else row["chosen"][0]["content"]
            assert judge.token_ids(row["prompt"], answer) == ids
    data = plain(tiny.pairs(2)).add_column("gold", ["four", "blue"])
    trainer = trained(tmp_path / "polar", data=data, reference_column="gold", max_steps=1)
    trainer.save_model(str(tmp_path / "saved"))
    judge = load_preference_model(tmp_path / "saved")
    assert (
        judge.token_ids(data[1]["prompt"], data[1]["rejected"], gold="blue") == trainer.train_dataset["rejected_ids"][1]
    )


def test_padding_is_that_of_the_saved_tokenizer(tmp_path):
    """The head is read at the last token that is not padding, so both have to mean the same token by it."""
    trainer = build(tmp_path, dimension=2)
    trainer.processing_class.pad_token = "<|system|>"
    trainer.save_model(str(tmp_path / "saved"))
    judge = load_preference_model(tmp_path / "saved")
    assert judge.tokenizer.pad_token == "<|system|>"
    one, alone = judge.embed(CHAT, ANSWERS), [judge.embed(CHAT, [answer]) for answer in ANSWERS]
    assert (one - torch.cat(alone)).abs().max() < 1e-5


def test_a_new_adapter_goes_on_a_name(tmp_path):
    trainer = trained(tmp_path, model="tiny-random", max_steps=1, dimension=2, save_strategy="no")
    assert trainer.model.config.num_labels == 2
    trainer = PreferenceModelTrainer(
        "tiny-random", trainer.args, train_dataset=tiny.pairs(), processing_class=tiny_tokenizer()
    )
    assert torch.equal(trainer.model.score.weight, base(2, seed=3).score.weight)
    assert not torch.equal(trainer.model.score.weight, base(2, seed=4).score.weight)


def adapter(modules):
    return get_peft_model(base(2), LoraConfig(r=4, target_modules=modules))  # no task: PEFT keeps no head


@pytest.mark.parametrize(
    ("kw", "told"),
    [
        ({"model": base, "dimension": 4}, "must have dimension=4 outputs, got 2"),
        ({"model": lambda _: adapter(["q_proj"]), "lora": None}, "the head is frozen"),
        ({"model": lambda _: adapter(["q_proj", "score"]), "lora": None}, "the head is frozen"),
        ({"lora": tiny.LORA | {"lora_dropout": 0.1}, "disable_dropout": True}, "lora_dropout=0.1 would be switched off"),
        ({"data": with_margins(tiny.pairs())}, "there is a column 'margin'"),
        ({"data": with_margins(tiny.pairs()).add_column("gap", [0.0] * 10), "margin_column": "gap"}, "is a column 'margin'"),
        ({"margin_column": "gap"}, "no column 'gap', which margin_column names"),
        ({"reference_column": "gold"}, "no column 'gold', which reference_column names"),
    ],
)  # fmt: skip
def test_what_would_be_ignored_or_cannot_be_trained_is_refused(tmp_path, kw, told):
    kw = {"dimension": 2} | kw
    kw["model"] = kw["model"](2) if "model" in kw else None
    with pytest.raises(ValueError, match=told):
        build(tmp_path, **kw)


def test_other_configurations_are_refused(tmp_path):
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none"}
    with pytest.raises(TypeError, match="args must be align.PreferenceModelConfig, got trl.RewardConfig"):
        PreferenceModelTrainer(base(1), RewardConfig(str(tmp_path), **quiet), train_dataset=tiny.pairs())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    trainer = trained(folder, dimension=2, max_steps=1)
    trainer.save_model(str(folder / "adapter"))
    return folder / "adapter"


def test_a_folder_without_settings_is_no_preference_model(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    (folder / SETTINGS).unlink()
    with pytest.raises(RunError, match="no preference_model.json there"):
        load_preference_model(folder)


@pytest.mark.parametrize("change", [{"dimension": "2"}, {"tau": None}, {"dtype": "int8"}, {"reference_column": 1}])
def test_damaged_settings_are_refused(saved, tmp_path, change):
    folder = shutil.copytree(saved, tmp_path / "copy")
    settings = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps(settings | change))
    with pytest.raises(RunError, match=f"damaged: {next(iter(change))} is not what was written"):
        load_preference_model(folder)


def test_an_adapter_that_lost_its_head_is_refused(saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "copy")
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: value for name, value in tensors.items() if "score" not in name}
    assert len(kept) == len(tensors) - 1
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(RunError, match="the adapter cannot be put on this model"):
        load_preference_model(folder)


def test_an_adapter_does_not_fit_a_base_of_another_dimension(saved):
    with pytest.raises(RunError, match="the adapter cannot be put on this model"):
        load_preference_model(saved, base(4))


def test_a_whole_model_takes_no_base_and_needs_its_head(tmp_path):
    trainer = trained(tmp_path, lora=None, dimension=2, max_steps=1)
    folder = tmp_path / "saved"
    trainer.save_model(str(folder))
    with pytest.raises(ValueError, match="`base` would be ignored"):
        load_preference_model(folder, "tiny-random")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("score.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RunError, match="1 weight is missing, and would be random: score.weight"):
        load_preference_model(folder)


def test_equal_answers_have_equal_rewards_to_the_bit(tmp_path):
    """Rows of one batch differ in the last digit by their place, which would make a winner of one of them."""
    model = PreferenceModel(trained(tmp_path, dimension=1, max_steps=2).model.eval(), tiny_tokenizer(), 1, 1.0)
    answers, read = [ANSWERS[k] for k in (0, 1, 0, 2, 0, 1)], []
    model.model.register_forward_pre_hook(lambda _, __, given: read.extend(given["input_ids"]), with_kwargs=True)
    found = model.embed("what is ", answers)
    assert len(read) == len(ANSWERS)
    assert torch.equal(found, model.embed("what is ", ANSWERS)[[0, 1, 0, 2, 0, 1]])
    assert model.prefer("what is ", answers)[0, 2] == 0.5


def test_damaged_weights_are_refused_before_they_are_loaded(tmp_path):
    trained(tmp_path / "run", dimension=1, max_steps=1).save_model(str(tmp_path / "saved"))
    weights = tmp_path / "saved" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(RunError, match="cut short or damaged"):
        check_preference_model(tmp_path / "saved", rewards=True)

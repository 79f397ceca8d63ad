"""MEET: controls of labels on a frozen base, then a policy that is trained with each row's control on."""

import hashlib
import json
import shutil

import pytest
import supervised_worker as small
import tiny
import torch
from datasets import Dataset
from launching import finished
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from align import cli
from align.configs import ConfigError
from align.configs.supervised import MEETConfig
from align.errors import RunError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.scoring.completions import completion_ids, completion_logps
from align.train import run
from align.trainers.completions.meet import MEETTrainer

LAWS = {"good": {"a": 7, "b": 2, "c": 1}, "bad": {"a": 1, "b": 3, "c": 6}}
"""Of three answers to one prompt, in tenths: those of the independent two-stage oracle."""
OTHER = {"r": 2, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}


def digest(model):
    held = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        if "lora_" not in name:
            held.update(value.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return held.hexdigest()


def random_control(folder, seed, **settings):
    """An adapter that does something, on the model that all tests have."""
    model = get_peft_model(tiny_model(tiny_tokenizer()), LoraConfig(**OTHER | settings))
    made = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=made))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def controls(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    return {f"{name}_control": str(random_control(folder / name, seed)) for seed, name in enumerate(LAWS)}


LABELLED = Dataset.from_list(
    [
        {"prompt": p, "completion": f" {text}", "label": label}
        for p, good, bad in tiny.ROWS
        for text, label in ((good, True), (bad, False))
    ]
)


def trainer(folder, controls, **kw):
    return small.trainer(folder, cls=MEETTrainer, config=MEETConfig, **{"data": LABELLED} | controls | kw)


def of_label(label):
    return LABELLED.filter(lambda row: row["label"] is label)


def logps(model, rows):
    """Log-probability of each completion, in nats."""
    tokenizer = tiny_tokenizer()
    ids = [completion_ids(tokenizer, row["prompt"], row["completion"]) for row in rows]
    found = completion_logps(model.eval(), [(each[:at], each[at:]) for each, at in ids], pad_token_id=0)
    return torch.stack([each.sum() for each in found])


def test_each_control_ends_at_the_law_of_its_label_and_the_base_stays_to_the_bit(tmp_path):
    """The first stage, as the recipes run it: the laws of the oracle, 0.7, 0.2, 0.1 and 0.1, 0.3, 0.6."""
    tokenizer = tiny_tokenizer()
    for label, law in LAWS.items():
        model = tiny_model(tokenizer)
        model.get_output_embeddings().weight.data.mul_(50)  # what an adapter beneath it could not reach
        before = digest(model)
        rows = [{"prompt": "q", "completion": answer} for answer, n in law.items() for _ in range(n)]
        made = small.trainer(
            tmp_path / label, data=Dataset.from_list(rows), max_steps=120, per_device_train_batch_size=10, adam_beta2=0.95,
            learning_rate=0.02, logging_steps=120, lr_scheduler_type="cosine", model=get_peft_model(model, LoraConfig(**tiny.LORA)),
        )  # fmt: skip
        made.train()
        found = logps(made.model, [{"prompt": "q", "completion": answer} for answer in law])
        assert_close(found.softmax(0), torch.tensor(list(law.values())) / 10, atol=0.01, rtol=0)
        assert digest(made.model.unload()) == before


def grouped_gradients(made, controls):
    """The gradient of one step by PEFT's adapters, the rows of each label on their own."""
    tokenizer, base = tiny_tokenizer(), tiny_model(tiny_tokenizer())
    model = get_peft_model(base, LoraConfig(**tiny.LORA))
    model.load_state_dict({k: v for k, v in made.model.state_dict().items() if k in model.state_dict()})
    for name, path in controls.items():
        model.load_adapter(path, name)
    total, tokens = 0.0, 0
    for label, name in ((True, "good_control"), (False, "bad_control")):
        model.base_model.set_adapter(["default", name])
        for row in of_label(label):
            ids, at = completion_ids(tokenizer, row["prompt"], row["completion"])
            found = model(input_ids=torch.tensor([ids])).logits[0, at - 1 : -1].log_softmax(-1)
            total = total - found.gather(1, torch.tensor(ids[at:])[:, None]).sum()
            tokens += len(ids) - at
    loss = total / tokens
    loss.backward()
    return float(loss), {n: p.grad for n, p in model.named_parameters() if ".default." in n}


@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": True, "gradient_accumulation_steps": 5}])
def test_a_step_has_the_gradient_of_rows_grouped_by_their_control(tmp_path, controls, settings):
    size = len(LABELLED) // settings.get("gradient_accumulation_steps", 1)
    made = trainer(
        tmp_path, controls, max_steps=1, per_device_train_batch_size=size, learning_rate=1e-12, max_grad_norm=0.0, **settings
    )  # fmt: skip
    with torch.no_grad():  # a fresh adapter's A has no gradient
        noise = torch.Generator().manual_seed(7)
        for weight in made.model.parameters():
            if weight.requires_grad:
                weight.copy_(0.2 * torch.randn(weight.shape, generator=noise))
    loss, wanted = grouped_gradients(made, controls)
    seen = {}
    for name, weight in made.model.named_parameters():
        if weight.requires_grad:
            weight.register_post_accumulate_grad_hook(lambda p, name=name: seen.update({name: p.grad.clone()}))
    made.train()
    assert tiny.losses(made)[0] == pytest.approx(loss, rel=1e-5)
    assert seen.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert float((seen[name] - gradient).norm()) < 1e-4 * float(gradient.norm()), name


def test_the_sum_with_a_control_is_what_its_rows_were_read_with(tmp_path, controls):
    made = trainer(tmp_path / "run", controls, max_steps=3)
    base = digest(tiny_model(tiny_tokenizer()))
    made.train()
    alone = logps(made.model, list(LABELLED))  # called by itself it has no control on
    made.save_model(str(tmp_path / "adapter"))
    assert len(list((tmp_path / "adapter").rglob("*.safetensors"))) == 1
    model = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(tmp_path / "adapter"))
    for label, name in ((True, "good_control"), (False, "bad_control")):
        rows = of_label(label)
        out = tmp_path / name
        assert cli.main(["merge", str(tmp_path / "adapter"), controls[name], "--sum", "--out", str(out)]) == 0
        merged = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(out / "sum" / "adapter"))
        measured = made.evaluate(rows)["eval_nll"]
        summed = logps(merged, list(rows))
        tokens = sum(
            len(ids) - at for ids, at in (completion_ids(tiny_tokenizer(), r["prompt"], r["completion"]) for r in rows)
        )
        assert measured == pytest.approx(-float(summed.sum()) / tokens, rel=1e-5)
    assert_close(alone, logps(model, list(LABELLED)), atol=1e-4, rtol=1e-5)
    assert_close(logps(made.model, list(LABELLED)), alone, atol=1e-4, rtol=1e-5)
    assert digest(made.model.unload()) == base


QUICK = ["train.save_strategy='no'", "train.max_steps=2"]


def test_the_recipes_follow_one_another_and_a_control_that_was_trained_anew_is_noticed(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"train\.good_control: control: runs/meet-good: no such folder; train it first"):
        run("meet/tiny")
    for name in ("tiny-good", "tiny-bad"):
        run(f"meet/{name}", QUICK)
    done = run("meet/tiny", ["train.max_steps=2"])
    ours = load_recipe("runs/meet-tiny/recipe.resolved.yaml")
    assert (ours.method, ours.train.bad_control) == ("meet", "runs/meet-bad")
    held = done.trainer.weights_beside
    assert [folder.parts[1] for folder in held] == ["meet-good", "meet-bad"]
    assert "was trained on" not in caplog.text
    run("meet/tiny", ["train.max_steps=2"], resume="auto")  # finished, and the same
    begun = ["start={adapter: runs/meet-good}", "lora=null", "train.output_dir=runs/begun", "train.max_steps=1"]
    run("meet/tiny", begun)
    assert "was trained on" not in caplog.text
    run("meet/tiny-bad", [*QUICK, "train.seed=1"], overwrite=True)
    with pytest.raises(RunError, match="weights"):
        run("meet/tiny", ["train.max_steps=3"], resume="auto")
    out = ["merge", "runs/meet-tiny/adapter", "runs/meet-good/adapter", "--sum", "--out", "policy"]
    assert cli.main(out) == 0
    assert json.loads((tmp_path / "policy" / "merge.json").read_text())["merged"][0]["weights"] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"bad_control": None}, "bad_control: missing; name the run of the first stage"),
        ({"bad_control": "a"}, "bad_control: is the good one too, a; each label has its own"),
        ({"packing": True}, "packing: would run rows of both labels together; set it to false"),
        ({"objective": {"fsft": 1.0}}, "objective: fsft needs a reference, which has no controls; take nll"),
    ],
)
def test_settings_that_cannot_go_with_controls_are_refused(settings, told, tmp_path):
    with pytest.raises(ConfigError, match=told):
        small.arguments(MEETConfig, tmp_path, **{"good_control": "a", "bad_control": "b"} | settings)


def test_controls_that_do_not_fit_are_refused(tmp_path, controls):
    damaged = shutil.copytree(controls["bad_control"], tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"no")
    with pytest.raises(RunError, match=r"train\.bad_control: .*adapter_model\.safetensors: cut short or damaged"):
        trainer(tmp_path, controls, bad_control=str(damaged))
    other = random_control(tmp_path / "other", 3, target_modules=["q_proj"])
    settings = json.loads((other / "adapter_config.json").read_text())
    weights = load_file(other / "adapter_model.safetensors")
    moved = {name.replace("q_proj", "x_proj"): value for name, value in weights.items()}
    save_file(moved, other / "adapter_model.safetensors")
    (other / "adapter_config.json").write_text(json.dumps(settings | {"target_modules": ["x_proj"]}))
    with pytest.raises(RunError, match=r"x_proj is no linear layer of this model, or of another size"):
        trainer(tmp_path, controls, bad_control=str(other))
    for name, base in (("good", "1"), ("bad", "2")):
        folder = shutil.copytree(controls[f"{name}_control"], tmp_path / name)
        (folder / "reference.json").write_text(json.dumps({"kind": "base", "digest": base}))
    with pytest.raises(RunError, match=r"train\.bad_control: .*of another base than .*good; train both on one model"):
        trainer(tmp_path, {f"{name}_control": str(tmp_path / name) for name in LAWS})
    made = trainer(tmp_path, controls)
    made.good = torch.ones(2)
    with pytest.raises(ValueError, match=r"reads \(1, 2, \d+\), not 2 rows apart"):
        made.model(torch.ones(1, 2, dtype=torch.long))


def test_a_control_of_some_layers_changes_these_alone(tmp_path, controls):
    some = random_control(tmp_path / "some", 5, target_modules=["q_proj"])
    made = trainer(tmp_path / "run", controls, bad_control=str(some))
    merged = {}
    for name, path in (("good", controls["good_control"]), ("bad", some)):
        merged[name] = PeftModel.from_pretrained(tiny_model(tiny_tokenizer()), str(path))
    for label, name in ((True, "good"), (False, "bad")):
        rows = of_label(label)  # a fresh adapter adds zero
        ids = [completion_ids(tiny_tokenizer(), row["prompt"], row["completion"]) for row in rows]
        tokens = sum(len(each) - at for each, at in ids)
        assert made.evaluate(rows)["eval_nll"] == pytest.approx(
            -float(logps(merged[name], rows).sum()) / tokens, rel=1e-5
        )


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_are_one(tmp_path, controls):
    words = ["meet/tiny", "train.save_strategy='no'", *(f"train.{name}={path}" for name, path in controls.items())]
    run(words[0], [*words[1:], f"train.output_dir={tmp_path / 'one'}", "train.gradient_accumulation_steps=2"])
    split = [f"train.output_dir={tmp_path / 'two'}", "train.gradient_accumulation_steps=1"]
    finished(2, "-m", "align.train", *words, *split)
    one, two = (load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, weight in one.items():
        assert_close(two[name], weight, atol=2e-5, rtol=1e-4)

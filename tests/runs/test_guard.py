"""A step that is not finite is skipped, counted, kept, and can be taken again."""

import json

import pytest
import tiny
import torch
from groups import trained
from safetensors.torch import load_file
from transformers import TrainerCallback

import align
from align import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer
from align.cli import main
from align.replay import replay
from align.trainers.shared.guard import NumericalError


class Watch(TrainerCallback):
    """Weights and optimizer state after each step."""

    def __init__(self):
        self.weights, self.moments = [], []

    def on_step_end(self, args, state, control, model=None, optimizer=None, **_):
        self.weights.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})
        self.moments.append([s["exp_avg"].clone() for s in optimizer.state.values()])


def same(one, other):
    return all((one[name] == other[name]).all() for name in one)


def trainer(tmp_path, fault, steps=(2,), **kw):
    """`fault` is `loss` or `gradient`; it happens in the first micro-batch of the given steps, counted from 1."""
    made = tiny.trainer(
        DPOTrainer, DPOConfig, tmp_path, gradient_accumulation_steps=2, callbacks=[watch := Watch()], **kw
    )
    plain, calls = made.preference_loss, [0]

    def broken(policy, ref, tokens):
        result = plain(policy, ref, tokens)
        calls[0] += 1
        if (calls[0] + 1) / 2 in steps:
            if fault == "loss":
                return result._replace(losses=result.losses * float("nan"))
            policy.chosen.register_hook(lambda gradient: gradient * float("inf"))
        return result

    made.preference_loss = broken
    return made, watch


@pytest.mark.parametrize("fault", ["loss", "gradient"])
def test_a_step_that_is_not_finite_changes_nothing(tmp_path, fault):
    made, watch = trainer(tmp_path, fault)
    made.train()
    assert not same(watch.weights[0], watch.weights[2])
    assert same(watch.weights[0], watch.weights[1])
    assert all((a == b).all() for a, b in zip(watch.moments[0], watch.moments[1], strict=True))
    assert all(torch.isfinite(w).all() for w in watch.weights[-1].values())
    assert made.guard.skipped == 1
    assert len(tiny.losses(made, "rewards/margins")) == 4  # the skipped step has no metrics of its own
    assert all(abs(v) < 100 for v in tiny.losses(made, "rewards/margins"))


def test_what_the_step_saw_is_kept(tmp_path):
    made, watch = trainer(tmp_path, "loss")
    made.train()
    folder = tmp_path / "skipped" / "step-2"
    record = json.loads((folder / "0-incident.json").read_text())
    assert record["step"] == 2
    assert "the loss is not finite (nan" in record["what"]
    tensors = load_file(folder / "batches-0.safetensors")
    for number, rows in enumerate(record["rows"]):
        ids, mask = tensors[f"{number}.input_ids"], tensors[f"{number}.attention_mask"].bool()
        assert len(rows) == 2
        for i, row in enumerate(rows):
            kept = made.train_dataset[row]
            assert ids[i][mask[i]].tolist() == kept["prompt_ids"] + kept["chosen_ids"]
            assert ids[i + 2][mask[i + 2]].tolist() == kept["prompt_ids"] + kept["rejected_ids"]
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    before = {n.replace(".default", ""): w for n, w in watch.weights[0].items()}
    assert same(adapter, before)


def test_rows_are_found_after_truncation(tmp_path):
    made, _ = trainer(tmp_path, "loss", max_length=28)
    made.train()
    record = json.loads((tmp_path / "skipped" / "step-2" / "0-incident.json").read_text())
    assert all(isinstance(row, int) for rows in record["rows"] for row in rows)


def test_training_ends_after_the_stated_number(tmp_path):
    made, _ = trainer(tmp_path, "loss", steps=(2, 4), max_skipped_steps=2)
    with pytest.raises(NumericalError, match=r"2 steps were skipped, the last at step 4: the loss is not finite"):
        made.train()
    made, _ = trainer(tmp_path, "loss", steps=(2, 4), max_skipped_steps=3)
    made.train()


def test_a_resumed_run_goes_on_counting(tmp_path):
    made, _ = trainer(tmp_path, "loss", save_strategy="steps", save_steps=3)
    made.train()
    again, _ = trainer(tmp_path, "loss", steps=())
    again.train(resume_from_checkpoint=True)
    assert again.guard.skipped == 1
    fresh, _ = trainer(tmp_path, "loss", steps=())
    fresh.train()
    assert fresh.guard.skipped == 0


def test_a_group_trainer_skips_too(tmp_path):
    class Infinite(TrainerCallback):
        def on_step_begin(self, args, state, control, model=None, **_):
            self.before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

        def on_step_end(self, args, state, control, model=None, **_):
            now = {n: p for n, p in model.named_parameters() if p.requires_grad}
            assert same(self.before, now) == (state.global_step == 2)

        def on_substep_end(self, *_, **__):
            raise AssertionError("one micro-batch a step")

    class Trainer(GRPOTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            return loss * float("nan") if self.state.global_step == 1 else loss

    made = trained(Trainer, GRPOConfig, tmp_path, callbacks=[Infinite()])
    assert made.guard.skipped == 1
    assert (tmp_path / "skipped" / "step-2" / "batches-0.safetensors").is_file()


@pytest.fixture
def poisoned(tmp_path, monkeypatch):
    """A run of a model in which one word, of one pair, has an embedding that is not a number."""
    from align.models import loading as models  # noqa: PLC0415

    load = models.load_model

    def poison(config, **kw):
        model = load(config, **kw)
        tokens = models.load_tokenizer(config)("hello")["input_ids"]
        with torch.no_grad():
            model.get_input_embeddings().weight[tokens[0]] = float("nan")
        return model

    monkeypatch.setattr(models, "load_model", poison)
    return tmp_path / "run"


def test_replay_names_the_row_and_the_layer(poisoned, tmp_path, capsys):
    rows = [{"prompt": f"say {word}", "chosen": " yes it is", "rejected": " no"} for word in ("a", "b", "hello", "d")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    align.run(
        "dpo/tiny",
        [
            f"train.output_dir={poisoned}", f"data={{train: {{path: {tmp_path / 'pairs.jsonl'}}}}}", "train.max_steps=2",
            "train.eval_strategy='no'", "train.shared_prefix='off'", "train.per_device_train_batch_size=4",
        ],
    )  # fmt: skip
    found = replay(poisoned)
    bad = [pair for pair in found if pair.begins_in]
    assert [pair.row for pair in bad] == [2]
    assert "embed_tokens" in bad[0].begins_in
    assert len(found) == 4
    assert main(["replay", str(poisoned), "--step", "2"]) == 0
    assert "say hello" in capsys.readouterr().out
    assert main(["replay", str(poisoned), "--step", "7"]) == 2
    assert "step 7 was not skipped; these were: 1, 2" in capsys.readouterr().err

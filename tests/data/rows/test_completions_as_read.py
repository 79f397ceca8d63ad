"""Completions that are tokenized as they are read: the rows, refusals and numbers of those that are tokenized before."""

import json

import pytest
import tiny
import torch
from datasets import Dataset

from align import SupervisedConfig, SupervisedTrainer
from align.data.as_read import CompletionsAsRead, is_as_read
from align.errors import DataError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.runs.directory import METRICS_FILE, read_metrics
from align.train import run

LIMIT = 24
PLAIN = [
    {"prompt": "what is up ", "completion": "blue sky", "aligned_logp": -0.5},
    {"prompt": "x" * 30, "completion": "never read", "aligned_logp": -1.0},
    {"prompt": "ünïcödë? ", "completion": "ja", "aligned_logp": -1.5},
    {"prompt": "y" * 24, "completion": "filled to the last", "aligned_logp": -2.0},
    {"prompt": "z" * 20, "completion": "abcdefgh", "aligned_logp": -2.5},
    {"prompt": "ended ", "completion": "<|im_end|>", "aligned_logp": -3.0},
]
LATER = [{"prompt": "asked later ", "completion": "answered"}]


def chats(rows):
    sides = ("prompt", "user"), ("completion", "assistant")
    return [row | {name: [{"role": role, "content": row[name]}] for name, role in sides if name in row} for row in rows]


def as_read(rows, limit=LIMIT, *, trained=True):
    return CompletionsAsRead(tiny_tokenizer(), limit, "data.train").of(rows, trained=trained)


def trainer(rows, folder, **settings):
    args = tiny.arguments(lambda beta, **other: SupervisedConfig(**other), folder, max_length=LIMIT, **settings)
    return SupervisedTrainer(
        model=tiny_model(tiny_tokenizer()), args=args, train_dataset=rows, processing_class=tiny_tokenizer()
    )


@pytest.mark.parametrize("limit", [LIMIT, None])
@pytest.mark.parametrize("rows", [PLAIN, chats(PLAIN)], ids=["text", "chat"])
def test_rows_are_those_that_a_trainer_makes_before(rows, limit, tmp_path):
    """The second fills what there may be, the fourth to its last token: both are left out."""
    rows = Dataset.from_list(rows)
    made = trainer(rows, tmp_path)
    made.args.max_length = limit
    before = made._prepare_dataset(rows, tiny_tokenizer(), made.args, False, None, "train")
    lazily, names = as_read(rows, limit), ["input_ids", "labels", "aligned_logp"]
    assert set(lazily[0]) == set(names)
    assert [{name: row[name] for name in names} for row in lazily] == before.select_columns(names).to_list()
    assert len(lazily) == (
        len(rows) if limit is None else len(rows) - 2 if rows[0]["prompt"] == "what is up " else len(before)
    )


def test_what_is_left_out_is_told_by_the_same_words(tmp_path, caplog):
    rows = Dataset.from_list(PLAIN)
    told = "max_length=24 leaves no token to learn in 2 of 6 rows: they are left out"
    trainer(rows, tmp_path)
    as_read(rows)
    assert len(as_read(rows, trained=False)) == 4  # said of evaluated ones, too
    assert [r.getMessage() for r in caplog.records if "left out" in r.getMessage()] == [
        f"SupervisedTrainer: train data: {told}", *[f"data.train: {told}"] * 2,
    ]  # fmt: skip
    filled = Dataset.from_list(PLAIN[1:2] * 3)
    for make in (lambda: trainer(filled, tmp_path), lambda: as_read(filled)):
        with pytest.raises(DataError, match="leaves no token to learn in 3 of 3 rows; raise it"):
            make()


def test_long_completions_wait_and_long_prompts_do_not(monkeypatch):
    seen = []
    monkeypatch.setattr(CompletionsAsRead, "tokens_of", lambda self, rows: seen.append(len(rows["prompt"])) or [])
    as_read(Dataset.from_list([{"prompt": "p", "completion": "c" * 500}] * 3))
    assert seen == []


def test_one_that_is_evaluated_later_learns_no_prompt(tmp_path):
    """Though TRL tells from the first training row whether rows have one."""
    later, losses = Dataset.from_list(LATER), []
    for rows in (Dataset.from_list(PLAIN), as_read(Dataset.from_list(PLAIN))):
        made = trainer(rows, tmp_path)
        assert is_as_read(made.train_dataset) == is_as_read(rows)
        losses.append(made.evaluate(later)["eval_loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize(("method", "more"), [("sft", []), ("poft", ["data.train.columns={aligned_logp: score}"])])
def test_a_recipe_leaves_out_the_same_prompts_and_learns_the_same(tmp_path, monkeypatch, method, more):
    """With rows that are cut, left out and evaluated, and a column that a method reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"say {i}" + "o" * (60 * (i % 5 == 0)), "completion": f"red {i} " * (1 + i % 4), "score": -0.25 * i} for i in range(20)]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = [
        "data={train: {path: a.jsonl, ignore: [score]}, holdout: 4}" if not more else "data={train: {path: a.jsonl}, holdout: 4}", *more,
        "train.max_steps=4", "train.eval_strategy=epoch", "train.max_length=40", "train.save_strategy='no'", f"method={method}",
    ]  # fmt: skip

    def trained(name, *words):
        made = run("stages/tiny-sft", [*common, *words, f"train.output_dir={name}"])
        parameters = torch.cat([p.detach().flatten() for p in made.trainer.model.parameters() if p.requires_grad])
        numbers = read_metrics(tmp_path / name / METRICS_FILE)
        return parameters, [[one.get(key) for key in ("loss", "eval_holdout_loss")] for one in numbers], made

    before, lazily = trained("before"), trained("lazily", "data.streaming=true")
    assert torch.equal(before[0], lazily[0])
    assert before[1] == lazily[1]
    assert len(before[2].trainer.train_dataset) == len(lazily[2].trainer.train_dataset) < 16
    assert is_as_read(lazily[2].trainer.train_dataset)
    assert is_as_read(lazily[2].trainer.eval_dataset["holdout"])

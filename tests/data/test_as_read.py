"""Pairs that are tokenized as they are read: the rows, refusals and numbers of those that are tokenized before."""

import json
import logging

import numpy as np
import pytest
import tiny
import torch
from datasets import Dataset, Json
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig

from align import DPOConfig, DPOTrainer
from align.building import as_read_by
from align.data import as_read
from align.data.as_read import IDS, PairsAsRead, is_as_read, longest, may_lose
from align.data.audit.encoding import encode
from align.data.audit.truncation import refuse_cut_to_same
from align.data.rows.truncation import truncated
from align.errors import DataError
from align.methods import METHODS
from align.models.tiny import tiny_model, tiny_tokenizer
from align.runs.directory import METRICS_FILE, read_metrics
from align.train import run
from align.trainers.shared import checkpointing
from align.trainers.shared.checkpointing import lengths_of
from align.trainers.shared.guard import rows_of

LIMIT = 24
PLAIN = [
    {"prompt": "what is up ", "chosen": "blue sky", "rejected": "green", "weight": 0.5},
    {"prompt": "x" * 30, "chosen": "never", "rejected": "read", "weight": 1.0},
    {"prompt": "ünïcödë? ", "chosen": "ja", "rejected": "nein", "weight": 1.5},
    {"prompt": "y" * 24, "chosen": "filled", "rejected": "to the last", "weight": 2.0},
    {"prompt": "z" * 20, "chosen": "abcd", "rejected": "efgh", "weight": 2.5},
]


def tokenized_as_read(rows, tokenizer, limit, *, where, trained=True):
    return PairsAsRead(tokenizer, limit, where).of(rows, trained=trained)


def chats(rows):
    sides = ("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")
    return [row | {name: [{"role": role, "content": row[name]}] for name, role in sides} for row in rows]


def trainer(rows, folder, **settings):
    args = tiny.arguments(DPOConfig, folder, max_length=LIMIT, **settings)
    return DPOTrainer(
        model=tiny_model(tiny_tokenizer()), args=args, train_dataset=rows, processing_class=tiny_tokenizer(),
        peft_config=LoraConfig(**tiny.LORA),
    )  # fmt: skip


@pytest.mark.parametrize("rows", [PLAIN, chats(PLAIN)], ids=["text", "chat"])
def test_rows_are_those_that_a_trainer_makes_before(rows, tmp_path):
    """The second fills what there may be, the fourth to its last token: both are left out."""
    rows = Dataset.from_list(rows)
    before = trainer(rows, tmp_path).train_dataset
    lazily = tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="data.train")
    names = [*IDS, "weight"]
    assert len(lazily) == len(before)
    assert set(lazily[0]) == set(names)
    assert [{name: row[name] for name in names} for row in lazily] == before.select_columns(names).to_list()
    assert len(before) in (2, 3)
    assert [len(row["prompt_ids"]) for row in lazily] == [len(ids) for ids in before["prompt_ids"]]
    assert (lengths_of(lazily, LIMIT) == lengths_of(before, LIMIT)).all()


def test_a_trainer_takes_them_as_they_are_and_steps_alike(tmp_path):
    rows = Dataset.from_list(PLAIN)
    lazily = tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="data.train")
    losses = []
    for data in (rows, lazily):
        made = trainer(data, tmp_path, max_steps=3, save_strategy="no", logging_steps=1)
        assert is_as_read(made.train_dataset) == (data is lazily)
        made.train()
        losses.append([line["loss"] for line in made.state.log_history if "loss" in line])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def test_rows_of_a_batch_are_found(tmp_path):
    lazily = tokenized_as_read(Dataset.from_list(PLAIN), tiny_tokenizer(), LIMIT, where="data.train")
    made = trainer(lazily, tmp_path)
    batch = made.data_collator([lazily[2], lazily[0]])
    assert rows_of(batch, lazily, made.args) == [2, 0]


def test_answers_that_are_cut_to_the_same_are_refused_by_the_same_words(tmp_path):
    same = [{"prompt": "w" * 20, "chosen": "abcdX", "rejected": "abcdY", "weight": 1.0}]
    rows = Dataset.from_list([*PLAIN, *same])
    with pytest.raises(DataError, match="the two answers of 1 of") as before:
        trainer(rows, tmp_path)
    with pytest.raises(DataError) as lazily:
        tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="DPOTrainer")
    told = "DPOTrainer: the two answers of 1 of 4 pairs are the same tokens within max_length=24 (row {}); they give no gradient"
    assert str(lazily.value).startswith(told.format(6))  # of the rows that were given
    assert str(before.value).startswith(told.format(4))  # of those that are left


letters = st.text("ab é", min_size=1, max_size=14)


@given(st.lists(st.tuples(letters, letters, letters), min_size=1, max_size=6), st.integers(4, 40), st.booleans())
def test_no_pair_that_loses_something_is_thought_whole(texts, limit, chat):
    rows = [dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in texts]
    data = Dataset.from_list(chats(rows) if chat else rows)
    found = set(may_lose(data, tiny_tokenizer(), limit).tolist())
    for row, pair in enumerate(encode(data.to_dict(), tiny_tokenizer())):
        answers = [truncated(pair.prompt, answer, limit)[1] for answer in (pair.chosen, pair.rejected)]
        if texts[row][1] != texts[row][2] and answers[0] == answers[1]:
            assert row in found


def test_short_pairs_wait():
    rows = [{"prompt": "hello ", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(50)]
    for data in (Dataset.from_list(rows), Dataset.from_list(chats(rows))):
        assert not len(may_lose(data, tiny_tokenizer(), 128))
        assert len(may_lose(data, tiny_tokenizer(), 20)) == 50
        assert not len(may_lose(data, tiny_tokenizer(), None))


def test_long_answers_wait_if_they_soon_part():
    rows = [{"prompt": "hello ", "chosen": "a" * 300, "rejected": "b" * 300}, {"prompt": "hello ", "chosen": "a" * 300, "rejected": "a" * 299}]  # fmt: skip
    assert may_lose(Dataset.from_list(rows), tiny_tokenizer(), 128).tolist() == [1]


def test_bytes_are_counted():
    rows = [{"prompt": "ü" * 20, "chosen": "the same a", "rejected": "the same b"}]
    assert may_lose(Dataset.from_list(rows), tiny_tokenizer(), 60).tolist() == [0]


def test_answers_cut_to_the_same_are_refused_where_they_teach_alone():
    """An evaluation measures them as they are."""
    rows = Dataset.from_list([PLAIN[0], {"prompt": "p", "chosen": "z" * 40 + "a", "rejected": "z" * 40 + "b"}])
    with pytest.raises(DataError, match=r"1 of 2 pairs are the same tokens within max_length=24 \(row 2\)"):
        tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="data.train")
    assert len(tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="data.eval.x", trained=False)) == 2


def test_a_set_of_which_nothing_is_left_is_refused_by_the_same_words(tmp_path):
    rows = Dataset.from_list(PLAIN[1:2] * 3)
    told = "no pair is left: all that stands before its answers .tools and drafts too. fills max_length=24; raise it"
    with pytest.raises(DataError, match=f"data.train: {told}"):
        tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="data.train")
    with pytest.raises(DataError, match=f"DPOTrainer: train data: {told}"):
        trainer(rows, tmp_path)
    with pytest.raises(DataError, match=f"data.eval.x: {told}"):
        tokenized_as_read(rows, tiny_tokenizer(), LIMIT, where="data.eval.x", trained=False)


def test_what_a_template_adds_without_a_system_message_is_counted(monkeypatch):
    """Though the rows that are looked at have one."""
    monkeypatch.setattr(as_read, "LOOKED_AT", 2)
    tokenizer = tiny_tokenizer()
    default = "{% if messages[0].role != 'system' %}" + "d" * 40 + "{% endif %}"
    tokenizer.chat_template = default + "{% for m in messages %}{{ m.content }}{% endfor %}"
    rows = chats([{"prompt": "p" * 10, "chosen": "a", "rejected": "b"}] * 3)
    for row in rows[:2]:
        row["prompt"] = [{"role": "system", "content": "s"}, *row["prompt"]]
    assert may_lose(Dataset.from_list(rows), tokenizer, 50)[-1:].tolist() == [2]


def test_rows_are_counted_over_slices(monkeypatch):
    monkeypatch.setattr("align.data.rows.tables.SLICE", 2)
    rows = [{"prompt": "p" * n, "chosen": "a", "rejected": "b"} for n in (1, 2, 90, 4, 5, 95, 7)]
    assert may_lose(Dataset.from_list(rows), tiny_tokenizer(), 80).tolist() == [2, 5]
    assert longest(Dataset.from_list(rows), 3).tolist() == [2, 5, 6]


def test_what_a_template_adds_is_counted_for_each_message():
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant") * 4] + [{"role": "user", "content": "x"}]
    answer = [{"role": "assistant", "content": "y"}], [{"role": "assistant", "content": "z"}]
    first = {"prompt": turns[:1], "chosen": answer[0], "rejected": answer[1]}
    data = Dataset.from_list([first, first | {"prompt": turns}])
    assert may_lose(data, tiny_tokenizer(), 120).tolist() == [1]


@pytest.mark.parametrize("more", [{"chat_template_kwargs": {"a": 1}}, {"tools": [{"name": "f"}]}])
def test_rows_with_more_than_messages_are_tokenized_before(more):
    data = Dataset.from_list([row | more for row in chats(PLAIN)])
    assert len(may_lose(data, tiny_tokenizer(), 10_000)) == len(PLAIN)
    called = chats(PLAIN)
    for row in called:
        row["prompt"][0]["name"] = "somebody"
    assert len(may_lose(Dataset.from_list(called), tiny_tokenizer(), 10_000)) == len(PLAIN)
    as_json = Dataset.from_list(chats(PLAIN)).cast_column("chosen", Json())
    assert len(may_lose(as_json, tiny_tokenizer(), 10_000)) == len(PLAIN)
    assert longest(as_json, 2).tolist() == [1, 3]


def test_a_prompt_whose_tokens_outnumber_its_bytes_is_told_when_it_comes(monkeypatch):
    monkeypatch.setattr(as_read, "may_lose", lambda *_: np.zeros(0, dtype=int))
    data = tokenized_as_read(Dataset.from_list(PLAIN), tiny_tokenizer(), LIMIT, where="data.train")
    assert len(data) == len(PLAIN)
    assert data[0]["prompt_ids"]
    with pytest.raises(DataError, match=r"data.train: the 30 tokens of a prompt fill max_length=24.*xxx"):
        data[1]


def test_what_cannot_be_known_before_is_said_once_when_it_comes(caplog):
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = __import__("tokenizers").normalizers.Lowercase()
    rows = [{"prompt": f"p{i}", "chosen": "Same", "rejected": "sAME"} for i in range(3)]
    data = PairsAsRead(tokenizer, 64, "data.train")
    with caplog.at_level(logging.WARNING):
        for row in rows:
            data({name: [value] for name, value in row.items()})
    assert [r.getMessage() for r in caplog.records] == [
        "data.train: the two answers of a pair are the same tokens: it gives no gradient (p0)"
    ]


def test_a_pair_that_the_template_refuses_is_told():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    told = r"data.train: the chat template refuses a row .*roles must alternate"
    with pytest.raises(DataError, match=told):
        PairsAsRead(tokenizer, 64, "data.train")(Dataset.from_list(chats(PLAIN)).to_dict())
    with pytest.raises(DataError, match=told):
        tokenized_as_read(Dataset.from_list(chats(PLAIN)), tokenizer, 64, where="data.train")


@pytest.mark.parametrize(
    ("method", "settings", "asked"),
    [
        ("dpo", {}, True),
        ("rpo", {}, True),
        ("dpo", {"precompute_ref_log_probs": True}, False),
        ("dpo", {"train_sampling_strategy": "group_by_length"}, False),
        ("srpo", {}, False),
        ("kto", {}, False),
        ("sft", {}, True),
        ("meet", {}, False),
        ("sft", {"packing": True}, False),
        ("sft", {"shuffle_dataset": True}, False),
        ("sft", {"completion_only_loss": False}, False),
    ],
)
def test_what_needs_the_tokens_of_all_rows_has_them_before(method, settings, asked, tmp_path):
    found = METHODS[method]
    own = {"good_control": "a", "bad_control": "b"} if method == "meet" else {}
    args = tiny.arguments(lambda beta, **other: found.config(**other), tmp_path, **settings, **own)
    assert (as_read_by(found.trainer, args) is not None) == asked


def test_a_recipe_leaves_out_the_same_prompts_and_learns_the_same(tmp_path, monkeypatch, caplog):
    """With rows that are cut, left out, evaluated (some cut to the same) and weighed, and memory that asks for activation checkpointing."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("align.trainers.shared.checkpointing.free_bytes", lambda _: 1)
    rows = [{"prompt": f"say {i}" + "o" * (60 * (i % 5 == 0)), "chosen": f"red {i}", "rejected": "two" * 9, "weight": 0.25 + i} for i in range(20)]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut = [{"prompt": f"say {i}", "chosen": "z" * 50 + "a", "rejected": "z" * 50 + "b"} for i in range(2)]
    (tmp_path / "cut.jsonl").write_text("".join(json.dumps(row | {"weight": 1.0}) + "\n" for row in cut))
    common = [
        "data={train: {path: a.jsonl}, holdout: 4, eval: {cut: {path: cut.jsonl}}}", "train.max_steps=4", "train.eval_strategy=epoch", "train.max_length=40",
        "method=ipo", "train.gradient_checkpointing=null", "train.pair_weights=true", "train.save_strategy='no'",
    ]  # fmt: skip

    def trained(name, *words):
        caplog.clear()
        made = run("dpo/tiny", [*common, *words, f"train.output_dir={name}"])
        said = [r.getMessage().rpartition(": max")[2] for r in caplog.records if "left out" in r.getMessage()]
        parameters = torch.cat([p.detach().flatten() for p in made.trainer.model.parameters() if p.requires_grad])
        numbers = read_metrics(tmp_path / name / METRICS_FILE)
        losses = [[one.get(name) for name in ("loss", "eval_holdout_loss", "eval_cut_loss")] for one in numbers]
        return parameters, losses, said, made

    before, lazily = trained("before"), trained("lazily", "data.streaming=true")
    assert torch.equal(before[0], lazily[0])
    assert before[1:3] == lazily[1:3]
    assert [words.split(" in ")[1] for words in before[2]] == [f"2 of {n} rows: they are left out" for n in (16, 4)]
    assert is_as_read(lazily[3].trainer.train_dataset)
    assert is_as_read(lazily[3].trainer.eval_dataset["holdout"])
    assert lazily[3].trainer.args.gradient_checkpointing == before[3].trainer.args.gradient_checkpointing is True


def test_memory_is_told_by_the_rows_of_most_bytes(tmp_path, monkeypatch):
    """The tokens of all are not made for it."""
    monkeypatch.setattr(checkpointing, "SAMPLE", 2)
    seen = []
    monkeypatch.setattr(checkpointing, "lengths_of", lambda data, most: seen.append(lengths_of(data, most)) or seen[-1])
    rows = [{"prompt": "p" * n, "chosen": "a", "rejected": "b"} for n in (3, 12, 5, 9, 4)]
    lazily = tokenized_as_read(Dataset.from_list(rows), tiny_tokenizer(), LIMIT, where="data.train")
    trainer(lazily, tmp_path, gradient_checkpointing=None)
    assert [each[:, 0].tolist() for each in seen] == [[12, 9]]


def test_refusals_of_selections_call_rows_by_their_numbers():
    ids = {"prompt_ids": [[1], [1]], "chosen_ids": [[2, 3], [2, 3]], "rejected_ids": [[4, 3], [2, 4]]}
    with pytest.raises(DataError, match=r"1 of 9 pairs are the same tokens within max_length=2 \(row 7\)"):
        refuse_cut_to_same(Dataset.from_dict(ids), 2, where="x", numbers=[3, 7], total=9)

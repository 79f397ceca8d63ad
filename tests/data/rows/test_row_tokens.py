"""Tokens of many rows at a time: TRL's own, row for row, for every kind of row; what is left out; what is read again."""

import copy
import json
from types import SimpleNamespace

import pyarrow as pa
import pytest
import tiny
from datasets import Dataset, Features, Value, load_dataset
from reward_models import build
from transformers import PreTrainedTokenizerFast
from trl import DPOTrainer, KTOTrainer, RewardTrainer, SFTTrainer

import align as ours
from align.data.row_tokens import CompletionTokens, LabelledTokens, PairTokens, RewardTokens
from align.errors import DataError
from align.models.tiny import tiny_tokenizer
from align.trainers.completions.labelled import with_mismatched

LIMIT, END = 24, str(tiny_tokenizer().eos_token)
TEXTS = [
    {"prompt": "what is up ", "chosen": "blue sky", "rejected": "no", "weight": 0.5},
    {"prompt": "x" * 30, "chosen": "never read", "rejected": "nor this", "weight": 1.5},
    {"prompt": "ünïcödë? ", "chosen": "ja", "rejected": "nein, nein, nein und nein", "weight": 2.5},
    {"prompt": "z" * 23, "chosen": "", "rejected": "y", "weight": 3.5},
    {"prompt": "y" * 24, "chosen": "filled to the last", "rejected": "or nearly", "weight": 4.5},
    {"prompt": "ended ", "chosen": f"at once{END}", "rejected": f"{END} not", "weight": 5.5},
]
TOOL = {"type": "function", "function": {"name": "search", "description": "Finds.", "parameters": {"type": "object"}}}
TOOLS = {"tools": [TOOL], "tools as JSON": json.dumps([TOOL]), "tools that are none": []}
OF_TRL = {PairTokens: DPOTrainer, RewardTokens: RewardTrainer, LabelledTokens: KTOTrainer, CompletionTokens: SFTTrainer}
IDS = {
    PairTokens: ["prompt_ids", "chosen_ids", "rejected_ids"],
    RewardTokens: ["chosen_ids", "rejected_ids"],
    LabelledTokens: ["prompt_ids", "completion_ids"],
    CompletionTokens: ["input_ids", "labels"],
}


def rows_of(kind, shape):
    """Rows that a kind reads, as texts, as chats, or as chats that may call tools."""
    single = kind.sides == ("completion",)
    made = []
    for number, row in enumerate(TEXTS):
        one = {"prompt": row["prompt"], "weight": row["weight"]}
        one |= {"completion": row["chosen"], "label": number % 2 == 0} if single else {s: row[s] for s in kind.sides}
        if shape != "texts":
            turns = {"prompt": "user"} | dict.fromkeys(kind.sides, "assistant")
            one |= {name: [{"role": role, "content": one[name]}] for name, role in turns.items()}
        made.append(one | {name: TOOLS[name] if number % 2 else None for name in [shape] if name in TOOLS})
    return Dataset.from_list([{name.split()[0]: value for name, value in row.items()} for row in made])


def of_trl(kind, rows, limit, tokenizer):
    """What TRL's trainer makes of the rows, without constructing one."""
    trainer = OF_TRL[kind]
    args = SimpleNamespace(
        max_length=limit, dataset_num_proc=None, truncation_mode="keep_start", per_device_train_batch_size=4,
        dataset_text_field="text", assistant_only_loss=False, shuffle_dataset=False, completion_only_loss=True,
    )  # fmt: skip
    own = SimpleNamespace(
        _tokenizer=tokenizer, chat_template=None, completion_only_loss=True, calculate_KL=True,
        desirable_weight=1.0, undesirable_weight=1.0,
    )  # fmt: skip
    more = (False, None) if kind is CompletionTokens else ()
    return trainer._prepare_dataset(own, rows, tokenizer, args, *more, "train")


@pytest.mark.parametrize("limit", [LIMIT, 200, None])
@pytest.mark.parametrize("shape", ["texts", "chats", *TOOLS])
@pytest.mark.parametrize("kind", OF_TRL)
def test_tokens_are_those_of_trl(kind, shape, limit):
    rows, tokenizer = rows_of(kind, shape), tiny_tokenizer()
    tokenizer.chat_template = "{% if tools is not none %}[{{ tools | length }}]{% endif %}" + tokenizer.chat_template
    made = kind(tokenizer, limit, "train").at_once(rows)
    names = [*IDS[kind], "weight"]
    theirs = of_trl(kind, rows, limit, tokenizer)
    assert made.select_columns(names).to_list() == theirs.select_columns(names).to_list()
    assert {"prompt", *kind.sides} <= set(made.column_names)  # as TRL's sets keep their texts
    if limit is None:
        assert len(made) == len(rows)
    elif shape == "texts" and limit == LIMIT:
        assert 0 < len(made) < len(rows)


@pytest.mark.parametrize("count", [1, 2, 4, 5, 7, 8])
def test_mismatched_answers_are_those_of_trl_but_for_a_last_row_alone(count):
    rows = Dataset.from_list([{"prompt": f"p{n} ", "completion": f"c{n}", "label": n % 3 > 0} for n in range(count)])
    tokenizer = tiny_tokenizer()
    theirs = of_trl(LabelledTokens, rows, None, tokenizer)["KL_completion_ids"]
    made = with_mismatched(LabelledTokens(tokenizer, None, "train").at_once(rows), 4)
    ours, own = list(made["KL_completion_ids"]), list(made["completion_ids"])
    alone = count in (5,)
    assert ours[: count - alone] == theirs[: count - alone]
    if alone:
        assert ours[-1] == own[-2] != own[-1]


def test_mismatched_answers_of_rows_in_another_order():
    rows = Dataset.from_list([{"prompt": f"p{n} ", "completion": f"c{n}", "label": True} for n in range(9)])
    made = LabelledTokens(tiny_tokenizer(), None, "train").at_once(rows.shuffle(seed=1))
    found = with_mismatched(made, 3)
    own = list(made["completion_ids"])
    assert list(found["KL_completion_ids"]) == [own[n - 1 if n % 3 else n + 2] for n in range(9)]
    assert list(found["prompt"]) == list(made["prompt"])


def test_another_batch_of_rows_gives_the_same_tokens(monkeypatch):
    rows, tokenizer = rows_of(PairTokens, "chats"), tiny_tokenizer()
    once = PairTokens(tokenizer, LIMIT, "train").at_once(rows).to_list()
    monkeypatch.setattr("align.data.row_tokens.SLICE", 2)
    assert PairTokens(tokenizer, LIMIT, "train").at_once(rows).to_list() == once
    assert PairTokens(tokenizer, LIMIT, "train").at_once(rows, 2).to_list() == once


def test_types_of_other_columns_stay():
    features = Features(
        {name: Value("string") for name in ("prompt", "completion")} | {"label": Value("bool"), "n": Value("int8")}
    )
    rows = Dataset.from_list([{"prompt": "p", "completion": "c", "label": True, "n": 3}] * 3, features=features)
    made = LabelledTokens(tiny_tokenizer(), LIMIT, "train").at_once(rows)
    assert {name: made.features[name] for name in features} == dict(features)


def test_the_end_of_a_prompt_that_is_left_out_is_told_once(caplog):
    tokenizer = tiny_tokenizer()
    template = tokenizer.chat_template
    tokenizer.chat_template = template + "{% if add_generation_prompt %}<think>{% endif %}"
    rows = rows_of(PairTokens, "chats")
    PairTokens(tokenizer, None, "DPOTrainer: train data").at_once(rows)
    told = [r.getMessage() for r in caplog.records if "is left out" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("DPOTrainer: train data: the end of a prompt is other tokens before an answer than alone")


def test_a_template_that_refuses_a_row_is_told():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no such turn') }}"
    for kind in OF_TRL:
        with pytest.raises(DataError, match=r"train: the chat template refuses a row among 6 \(no such turn\)"):
            kind(tokenizer, None, "train").at_once(rows_of(kind, "chats"))


class OneByOne(PreTrainedTokenizerFast):
    """Takes one text or chat at a time, with defaults of its own."""

    def __call__(self, text, **more):
        assert isinstance(text, str)
        return super().__call__(text, **more)

    def apply_chat_template(self, conversation, tools=None, tokenize=False, add_generation_prompt=True, **more):
        bare = [{**message, "content": message["content"].strip()} for message in conversation]
        return super().apply_chat_template(
            bare, tools=tools, tokenize=tokenize, add_generation_prompt=add_generation_prompt, **more
        )


@pytest.mark.parametrize("shape", ["texts", "chats", "tools"])
@pytest.mark.parametrize("kind", OF_TRL)
def test_a_tokenizer_of_its_own_kind_is_asked_one_by_one(kind, shape):
    tiny_one = tiny_tokenizer()
    own = OneByOne(tokenizer_object=tiny_one.backend_tokenizer, eos_token=END, chat_template=tiny_one.chat_template)
    rows = rows_of(kind, shape)
    theirs = of_trl(kind, rows, 200, own).select_columns(IDS[kind]).to_list()
    assert kind(own, 200, "train").at_once(rows).select_columns(IDS[kind]).to_list() == theirs


def test_a_set_that_was_prepared_is_prepared_again(tmp_path):
    """As `evaluate` does with the trainer's own sets."""
    for kind in (LabelledTokens, RewardTokens):
        made = built(kind, tmp_path, rows_of(kind, "texts"))
        again = made._prepare_dataset(made.train_dataset, made.processing_class, made.args, "eval")
        assert again.to_list() == made.train_dataset.to_list()


def test_tokens_that_are_there_are_taken_where_trl_takes_them(tmp_path):
    columns = {"chosen_ids": [[5, 6]] * 6, "rejected_ids": [[7]] * 6}
    rows = rows_of(RewardTokens, "texts")
    for name, column in columns.items():
        rows = rows.add_column(name, column)
    made = built(RewardTokens, tmp_path, rows).train_dataset
    assert {name: list(made[name]) for name in columns} == columns
    for name in ("labels", "assistant_masks", "completion_mask"):
        assert not CompletionTokens.takes(
            rows_of(CompletionTokens, "texts").add_column(name, [[1]] * 6), tiny_tokenizer()
        )


def test_a_lone_last_row_of_a_transformed_set_has_its_neighbours_answer(tmp_path):
    rows = Dataset.from_list([{"prompt": f"p{n} ", "completion": f"c{n}", "label": n % 2 == 0} for n in range(5)])
    made = built(LabelledTokens, tmp_path, rows.with_transform(lambda batch: batch))
    size = made.args.rows_per_step()
    assert len(made.train_dataset) % size == 1
    last = made.train_dataset[-1]
    assert last["KL_completion_ids"] == made.train_dataset[-2]["completion_ids"] != last["completion_ids"]


def test_what_refuses_is_named():
    rows = Dataset.from_list([{"prompt": "p", "chosen": "c", "rejected": None if n == 3 else "r"} for n in range(4)])
    with pytest.raises(DataError, match="train: the tokenizer refuses a row among 4 "):
        PairTokens(tiny_tokenizer(), None, "train").at_once(rows)
    with pytest.raises(DataError, match="train: there is no row"):
        PairTokens(tiny_tokenizer(), None, "train").at_once(rows.select([]))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="tokenizer.chat_template is not set"):
        PairTokens(tokenizer, None, "train").at_once(rows_of(PairTokens, "chats"))


def test_a_tokenizer_without_an_end_is_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    for kind in OF_TRL:
        with pytest.raises(DataError, match=r"the tokenizer has no eos_token, which ends every answer; give it one"):
            kind(tokenizer, None, "train").at_once(rows_of(kind, "texts"))
        assert len(kind(tokenizer, None, "train").at_once(rows_of(kind, "chats"))) == len(TEXTS)


def test_completions_are_left_out_that_have_no_token_to_learn():
    labels = pa.table({"labels": [[], [5], [-100, 7], [], [-100], [6, -100], []]})
    assert CompletionTokens(tiny_tokenizer(), LIMIT, "train").kept(labels).tolist() == [0, 1, 1, 0, 0, 0, 0]


def test_only_rows_with_their_texts_are_taken():
    rows, tokenizer = rows_of(PairTokens, "texts"), tiny_tokenizer()
    assert PairTokens.takes(rows, tokenizer)
    assert not PairTokens.takes(rows.to_iterable_dataset(), tokenizer)
    assert not PairTokens.takes(rows.remove_columns("prompt"), tokenizer)
    assert not PairTokens.takes(rows.with_transform(lambda rows: rows), tokenizer)
    assert not PairTokens.takes(rows.with_format("numpy"), tokenizer)
    assert not LabelledTokens.takes(rows, tokenizer)
    assert not PairTokens.takes(rows, SimpleNamespace(tokenizer=tokenizer))


def built(kind, folder, rows):
    """Our trainer over rows that are learnt and, by name, evaluated."""
    if kind is RewardTokens:
        return build(folder, data=rows, eval_data={"held": rows}, max_length=LIMIT)
    trainer, config = {
        PairTokens: (ours.DPOTrainer, ours.DPOConfig),
        LabelledTokens: (ours.KTOTrainer, ours.KTOConfig),
        CompletionTokens: (ours.SupervisedTrainer, lambda beta, **other: ours.SupervisedConfig(**other)),
    }[kind]
    return tiny.trainer(trainer, config, folder, data=rows, eval_data={"held": rows}, max_length=LIMIT)


@pytest.mark.parametrize("kind", OF_TRL)
def test_trainers_read_rows_so(kind, tmp_path, monkeypatch):
    """Whatever TRL's own passes would do, they are not asked."""
    for each in OF_TRL.values():
        monkeypatch.setattr(each, "_prepare_dataset", lambda *_, **__: pytest.fail("row after row"))
    rows = rows_of(kind, "texts")
    made = built(kind, tmp_path, rows)
    for data in (made.train_dataset, made.eval_dataset["held"]):
        assert set(IDS[kind]) <= set(data.column_names)
        assert len(data) < len(rows)


def test_kept_rows_are_read_again(tmp_path, monkeypatch):
    """The same rows, tokenizer and length a second time: nothing is tokenized."""
    monkeypatch.undo()  # of the fixture that draws fingerprints
    rows = rows_of(PairTokens, "texts")
    rows.to_json(str(tmp_path / "rows.jsonl"))
    asked = []
    encode = PairTokens.encode
    monkeypatch.setattr(PairTokens, "encode", lambda self, texts: asked.append(1) or encode(self, texts))

    def made(limit=LIMIT):
        read = load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path))
        return PairTokens(copy.deepcopy(tiny_tokenizer()), limit, "train").at_once(read).to_list()

    once = made()
    assert (made(), len(asked)) == (once, 1)
    made(None)
    assert len(asked) == 2

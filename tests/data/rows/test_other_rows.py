"""Rows that are not pairs: completions and prompts."""

import json

import pytest

from align.data import DataConfig, DataError, DataSource, load_data
from align.data.rows.messages import RowError, messages_of

USER, ANSWER = {"role": "user", "content": "two and two"}, {"role": "assistant", "content": "four"}
CHAT = {"prompt": [USER], "completion": [ANSWER]}
TEXT = {"prompt": "two and two", "completion": "four"}


def source(tmp_path, *rows, name="rows.jsonl", **settings):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return DataSource(str(path), **settings)


def load(kind, where, columns=(), **settings):
    return load_data(DataConfig(train=where, **settings), rows=kind, columns=columns)


@pytest.mark.parametrize(
    ("row", "read"),
    [
        (TEXT, TEXT),
        (CHAT, CHAT),
        ({"prompt": "two and two", "completion": [ANSWER]}, CHAT),
        ({"prompt": [USER], "completion": "four"}, CHAT),
        ({"prompt": USER, "completion": "four"}, CHAT),
        ({"messages": [USER, ANSWER]}, CHAT),
        (TEXT | {"score": 3, "source": "x"}, TEXT),
    ],
    ids=[
        "text",
        "chat",
        "prompt of text",
        "completion of text",
        "one message and text",
        "messages",
        "columns nobody asked for",
    ],
)
def test_completions_are_read_in_each_layout(tmp_path, row, read):
    assert load("completions", source(tmp_path, row)).train.to_list() == [read]


COLUMNS = {"role": ["user", "assistant"], "content": ["two and two", "four"]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": COLUMNS},
        {"conversations": {"from": ["human", "gpt"], "value": ["two and two", "four"]}},
        {"messages": COLUMNS | {"tool_calls": None}},
    ],
)
def test_an_object_of_lists_is_a_list_of_messages(tmp_path, row):
    (read,) = load("completions", source(tmp_path, row)).train.to_list()
    said = [*read["prompt"], *read["completion"]]
    assert said == [{"role": r, "content": c} for r, c in zip(*COLUMNS.values(), strict=True)]


def test_an_object_of_lists_that_do_not_belong_together_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"row 1: .*role, content that are not lists of one length"):
        load("completions", source(tmp_path, {"messages": COLUMNS | {"content": ["two and two"]}}))


def test_whole_texts_are_refused_with_what_to_do(tmp_path):
    for kind in ("completions", "pairs"):
        with pytest.raises(DataError, match="'text' holds whole texts, .* write each as prompt and completion"):
            load(kind, source(tmp_path, {"text": "Once upon a time", "id": 1}))


def test_questions_with_answers_are_told_the_method_that_learns_from_them(tmp_path):
    with pytest.raises(DataError, match="train on completions with `method: sft`"):
        load("pairs", source(tmp_path, {"question": "two and two", "answer": "four"}))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "", "completion": "four"}, "the prompt is empty"),
        ({"prompt": None, "completion": "four"}, "the prompt is missing"),
        ({"prompt": "two", "completion": " "}, "the completion is empty"),
        (
            {"prompt": [USER], "completion": '[{"role": "assistant"}]'},
            "the completion is a list of messages written as text",
        ),
        ({"prompt": [USER, ANSWER], "completion": [ANSWER]}, "the prompt ends with an assistant message"),
        ({"prompt": [USER], "completion": [USER]}, "the completion ends with a user message"),
        ({"prompt": [USER], "completion": [ANSWER | {"content": ""}]}, "the completion is empty"),
        ({"prompt": [USER | {"content": " "}], "completion": [ANSWER]}, "so is its last message"),
        ({"messages": [ANSWER]}, "the conversation holds only one message"),
        ({"messages": "two and two is four"}, "name the prompt with columns.prompt"),
        ({"messages": '[{"role": "user"}]'}, "the conversation is a list of messages written as text"),
        ({"messages": [USER, ANSWER, USER]}, "the completion ends with a user message"),
    ],
)
def test_completions_that_cannot_be_used_are_named_with_their_reason(tmp_path, row, reason):
    with pytest.raises(DataError, match=f"row 1: .*{reason}"):
        load("completions", source(tmp_path, row))


def test_numbers_an_objective_needs_are_kept_and_must_be_there(tmp_path):
    where = source(tmp_path, TEXT | {"reward": 2}, columns={"score": "reward"})
    assert load("completions", where, ("score",)).train.to_list() == [TEXT | {"score": 2.0}]
    with pytest.raises(
        DataError, match=r"missing column score, which the objective needs; there are prompt, completion"
    ):
        load("completions", source(tmp_path, TEXT | {"reward": 2}), ("score",))
    with pytest.raises(DataError, match="row 1: score is not a finite number"):
        load("completions", source(tmp_path, TEXT | {"score": "high"}), ("score",))


def test_numbers_of_pairs_are_kept_under_our_name(tmp_path):
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    where = source(tmp_path, pair | {"gap": 0.5}, columns={"margin": "gap"})
    assert load("pairs", where, ("margin",)).train.to_list() == [pair | {"margin": 0.5}]


def test_prompts_keep_every_column_for_the_reward_functions(tmp_path):
    row = {"prompt": "two and two", "answer": "4", "constraints": [{"kind": "short"}], "level": 1}
    assert load("prompts", source(tmp_path, row)).train.to_list() == [row]
    theirs = {"question": "two and two", "solution": "4", "level": 1}
    names = {"prompt": "question", "answer": "solution"}
    rows = load("prompts", source(tmp_path, theirs, columns=names)).train.to_list()
    assert rows == [{"prompt": "two and two", "level": 1, "answer": "4"}]
    with pytest.raises(DataError, match="missing column gold, which `columns` needs"):
        load("prompts", source(tmp_path, theirs, columns=names | {"answer": "gold"}))


@pytest.mark.parametrize("kind", ["completions", "prompts"])
def test_a_set_without_the_columns_says_which_are_missing(tmp_path, kind):
    with pytest.raises(DataError, match=f"no columns of {kind}; expected prompt"):
        load(kind, source(tmp_path, {"text": "x"}))


def test_a_name_that_completions_do_not_have_is_told(tmp_path):
    with pytest.raises(DataError, match=r"columns.chosen: unknown; expected prompt or completion"):
        load("completions", source(tmp_path, TEXT, columns={"chosen": "completion"}))


def test_a_prompt_that_ends_with_an_answer_is_refused(tmp_path):
    with pytest.raises(DataError, match="ends with an assistant message"):
        load("prompts", source(tmp_path, {"prompt": [USER, ANSWER]}))


def test_evaluated_prompts_that_are_trained_on_are_told(tmp_path, caplog):
    train = source(tmp_path, TEXT, TEXT | {"prompt": "other"})
    test = source(tmp_path, TEXT, TEXT | {"prompt": "new"}, name="test.jsonl")
    load("completions", train, eval={"test": test})
    assert "data.eval.test: 1 of 2 prompts are trained on too" in caplog.text


def test_a_share_of_the_prompts_is_held_out(tmp_path):
    rows = [{"prompt": f"question {n}", "answer": str(n)} for n in range(50)]
    data = load("prompts", source(tmp_path, *rows), holdout=0.3)
    assert len(data.train) + len(data.eval["holdout"]) == 50
    assert not set(data.train["prompt"]) & set(data.eval["holdout"]["prompt"])


def test_what_mends_pairs_alone_is_no_remedy_for_other_rows(tmp_path):
    with pytest.raises(DataError, match=r"(?s)the completion is empty\n  mend them, or set data.unusable=drop"):
        load("completions", source(tmp_path, TEXT, {"prompt": "x", "completion": ""}))


def test_unusable_completions_are_dropped_if_asked(tmp_path, caplog):
    data = load("completions", source(tmp_path, TEXT, {"prompt": "x", "completion": ""}), unusable="drop")
    assert data.train.to_list() == [TEXT]
    assert "1 of 2 rows cannot be used and are dropped" in caplog.text


@pytest.mark.parametrize(
    ("message", "read"),
    [
        ({"role": "user", "content": "x"}, {"role": "user", "content": "x"}),
        ({"content": "x", "role": "user", "name": None}, {"role": "user", "content": "x"}),
        ({"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "user", "content": "x"}),
        ({"role": "assistant", "content": ""}, {"role": "assistant", "content": ""}),
        ({"role": "boss", "content": "x"}, "a message of the role 'boss'"),
        ({"role": "user", "content": None}, "has no text content but nothing"),
        ({"role": "user", "content": 3}, "has no text content but a number"),
        ({"role": None, "content": "x"}, "an object without a role"),
        ({"role": "user", "content": "x", "mood": "glad"}, "with 'mood', which would be lost"),
    ],
)
def test_a_message_is_read_or_refused(message, read):
    if isinstance(read, str):
        with pytest.raises(RowError, match=read):
            messages_of([message], "the prompt")
        return
    (made,) = messages_of([message], "the prompt")
    assert made == read
    assert made is not message

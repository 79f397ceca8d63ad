"""Files in the layouts people have: read as a person would, or refused with the line that makes it so; no column is lost."""

import json
import re
from pathlib import Path

import pytest
import yaml

from align.data import DataConfig, DataError, DataSource
from align.data.loading import load_source
from align.data.rows.layouts import Prefer

CASES = Path(__file__).parents[4] / "shared" / "cases" / "layouts"
LINE = re.compile(r"`((?:layout|columns|prefer|ignore|method): [^`]*)`")


def made(line):
    settings = yaml.safe_load(line)
    return {k: Prefer(**v) if k == "prefer" else v for k, v in settings.items()}


def loaded(path, rows="pairs", *, as_messages=False, **settings):
    """The rows, and what is said of the source."""
    source, told = DataSource(str(path), **settings), []
    config = DataConfig(source, as_messages=as_messages)
    data = load_source(source, "data.train", config, keep=(), texts=(), rows=rows, told=told)
    return data.to_list(), [finding.line() for finding in told]


def by_advice(path, rows="pairs", **settings):
    """As `loaded`, doing what messages say until nothing is refused; the lines that it took are returned too."""
    lines = []
    for _ in range(4):
        try:
            return *loaded(path, rows, **settings), lines
        except DataError as error:
            line = LINE.search(str(error))
            assert line, f"no line to follow: {error}"
            lines.append(line[1])
            further = made(line[1])
            rows = (
                {"sft": "completions", "dpo": "pairs", "kto": "labels"}[further.pop("method")]
                if "method" in further
                else rows
            )
            settings |= further
    raise AssertionError(f"{lines} do not make it work")


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def said(prompt):
    return [prompt] if isinstance(prompt, str) else [f"{m['role']}: {m['content']}" for m in prompt]


EXPECTED = {  # rows, prompt, chosen (or completion), rejected, and the line that it took
    "alpaca": (6, ["Translate\ncats"], "cats good", None, "method: sft"),
    "arena": (4, ["user: About cats?"], "cats good", "no", None),
    "capybara": (6, ["user: About cats", "assistant: ok", "user: more"], "cats it is", "no", None),
    "ctk": (6, ["user: About cats?"], "cats bon", "no", None),
    "dpomix": (6, ["system: Be brief", "user: About cats"], "cats it is", "no", None),
    "helpsteer2": (6, ["About cats?"], "cats good", "no idea", "layout: helpsteer2"),
    "helpsteer2_pref": (5, ["About cats?"], "cats good", "no idea", None),
    "hh": (6, ["\n\nHuman: What about cats?\n\nAssistant: Which cats?\n\nHuman: All cats.\n\nAssistant:"], " They are fine.", " They are bad.", None),
    "kto": (6, ["user: About cats?"], "rude cats", None, "method: kto"),
    "kto_text": (6, ["About cats? "], "rude cats", None, "method: kto"),
    "lf_alpaca_dpo": (6, ["Translate 0\ncats"], "cats good", "no", None),
    "lf_sharegpt": (6, ["user: About cats?"], "cats good", "no", None),
    "multi_sft": (6, ["user: hi 0", "assistant: hello", "user: more"], "sure", None, "method: sft"),
    "nectar": (6, ["\n\nHuman: About cats?\n\nAssistant: "], "cats good", "no", "layout: nectar"),
    "orca": (6, ["system: You are expert number 0.", "user: Tell me about cats."], "cats are good.", "No idea about cats.", None),
    "parts": (6, ["user: About cats?"], "cats good", "no", None),
    "pku": (6, ["About cats?"], "cats good", "no", "layout: pku_better"),
    "prompt_msgs_full": (6, ["user: About cats?"], "cats good", "no", None),
    "reasoning": (6, ["user: About cats?"], "cats bon", "no", None),
    "sharegpt_lists": (6, ["user: About cats?"], "cats good", "no", None),
    "shp": (6, ["About cats?"], "no idea", "cats good", None),
    "skywork": (6, ["user: About cats?"], "cats good", "no", None),
    "stackx": (6, ["About cats?"], "cats good", "no", None),
    "sys_prompt": (6, ["system: Answer in French.", "user: About cats?"], "cats bon", "no", None),
    "sys_prompt_msg": (6, ["system: Answer in French.", "user: About cats?"], "cats bon", "no", None),
    "templated": (6, ["<|im_start|>user\nAbout cats?<|im_end|>\n<|im_start|>assistant\n"], "cats good<|im_end|>\n", "no<|im_end|>\n", None),
    "tool_calls": (6, ["user: Weather and cats?"], "", "no", None),
    "tools_col": (6, ["user: Weather and cats?"], "call weather cats", "no", None),
    "truthy": (6, ["system: You are an unbiased AI.", "user: About cats?"], "cats good", "no", None),
    "tulu": (6, ["user: About cats?"], "cats good", "no", None),
    "tulu_multi": (6, ["user: About cats?", "assistant: ok", "user: more"], "cats good", "no", None),
    "uf_raw": (6, ["About cats?"], "cats good", "no", "layout: ultrafeedback"),
    "ufb": (6, ["user: Tell me about cats."], "cats are good.", "No idea about cats.", None),
}  # fmt: skip


@pytest.mark.skipif(not CASES.is_dir(), reason="the files are kept beside the checkout")
@pytest.mark.parametrize(
    "name", sorted(EXPECTED) if not CASES.is_dir() else sorted(p.stem for p in CASES.glob("*.jsonl"))
)
def test_a_file_is_read_as_a_person_would_or_by_the_line_that_is_proposed(name):
    count, prompt, chosen, rejected, line = EXPECTED[name]
    path = CASES / f"{name}.jsonl"
    rows, told, lines = by_advice(path)
    raw = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == count
    assert said(rows[0]["prompt"]) == prompt
    answers = [rows[0].get(side) for side in ("completion" if "completion" in rows[0] else "chosen", "rejected")]
    assert [a if isinstance(a, str | None) else a[-1]["content"] for a in answers] == [chosen, rejected]
    assert (lines or [None])[-1] == line
    kept = {key for key in ("tools", "chat_template_kwargs") if key in raw[0]}
    assert kept <= set(rows[0])
    unused = {
        name for text in told for name in re.findall(r"columns not used: (.*?);", text)[:1] for name in name.split(", ")
    }
    assert not unused & {"system", "tools", "chat_template_kwargs", "label", "labels", "winner"}
    if not lines and not any(": layout: " in text for text in told):
        texts = {"system", "question", "response_j", "response_k", "conversations", "prompt", "chosen", "rejected"}
        assert set(raw[0]) - set(rows[0]) - texts == unused - texts


def test_only_rows_labelled_true_are_completions_where_that_is_chosen(tmp_path):
    path = write(tmp_path / "x.jsonl", *({"prompt": f"q{i}", "completion": "a", "label": i < 2} for i in range(5)))
    rows, told = loaded(path, "completions", layout="kto")
    assert [row["prompt"] for row in rows] == ["q0", "q1"]
    assert any("left-out: 3 of 5 rows are left out: label is false" in line for line in told)


def test_every_pair_is_labelled_as_its_row_says(tmp_path):
    rows = [{"prompt": "q", "ans_a": "a", "ans_b": "b", "vote": v} for v in ("A", "B", "tie")]
    path = write(tmp_path / "x.jsonl", *(row | {"prompt": f"q{i}"} for i, row in enumerate(rows)))
    read, told = loaded(path, prefer=Prefer("vote", {"ans_a": ["A"], "ans_b": ["B"]}, ["tie"]))
    assert [row["chosen"] for row in read] == ["a", "b"]
    assert any("left-out: 1 of 3 rows are left out: vote is a tie (row 3)" in line for line in told)
    with pytest.raises(DataError, match="row 3: vote is 'tie', of which `prefer` says nothing"):
        loaded(path, prefer=Prefer("vote", {"ans_a": ["A"], "ans_b": ["B"]}))
    with pytest.raises(DataError, match="prefer: no column 'x'"):
        loaded(path, prefer=Prefer("x", {"ans_a": [1], "ans_b": [2]}))
    with pytest.raises(ValueError, match="answers: name the columns of two answers"):
        Prefer("vote", {"ans_a": [1]})


@pytest.mark.parametrize(
    ("labels", "lines"),
    [
        (["model_a", "model_b", "tie"], 1),
        (["response_a", "response_b"], 1),
        (["A", "B"], 1),
        ([1, 0], 2),  # nothing says which of the two 1 stands for
        ([-2, 1, 0], 2),
    ],
)
def test_a_label_is_never_advised_away(tmp_path, labels, lines):
    rows = [{"instruction": f"q{i}", "response_a": "x", "response_b": "y", "winner": v} for i, v in enumerate(labels)]
    path = write(tmp_path / "x.jsonl", *rows)
    with pytest.raises(DataError) as bare:
        loaded(path)
    mapping = {"prompt": "instruction", "chosen": "response_a", "rejected": "response_b"}
    with pytest.raises(DataError, match="the column 'winner' is a label") as mapped:
        loaded(path, columns=mapping)
    for error in (bare, mapped):
        proposed = [made(line) for line in LINE.findall(str(error.value)) if line.startswith("prefer")]
        assert len(proposed) == lines
        for settings in proposed:
            read, _ = loaded(path, columns={"prompt": "instruction"}, **settings)
            assert len(read) == len(labels) - sum(str(v) in ("tie", "0") and len(labels) == 3 for v in labels)
    read, _ = loaded(path, columns=mapping, ignore=["winner"])
    assert {row["chosen"] for row in read} == {"x"}


def test_a_label_beside_chosen_and_rejected_is_proposed_word_for_word(tmp_path):
    rows = [{"prompt": f"q{i} ", "chosen": "x", "rejected": "y", "winner": 1 + i % 2} for i in range(3)]
    path = write(tmp_path / "x.jsonl", *rows)
    with pytest.raises(DataError, match="the column 'winner' is a label") as error:
        loaded(path)
    lines = [made(line) for line in LINE.findall(str(error.value)) if line.startswith("prefer")]
    read = [[row["chosen"] for row in loaded(path, **settings)[0]] for settings in lines]
    assert read == [["x", "y", "x"], ["y", "x", "y"]]


@pytest.mark.parametrize("name", ["weight", "images", "input", "history", "preferred", "safer_response_id", "label"])
def test_a_column_that_changes_what_others_mean_is_refused_unless_it_is_empty_or_ignored(tmp_path, name):
    row = {"prompt": "q ", "chosen": "a", "rejected": "b"}
    value = ["x.png"] if name == "images" else 1
    path = write(tmp_path / "x.jsonl", row | {name: value}, row | {name: 2 if name == "weight" else value})
    with pytest.raises(DataError, match=f"`ignore: \\[{name}\\]`"):
        loaded(path)
    assert loaded(path, ignore=[name])[0] == [row, row]
    empty = write(tmp_path / "y.jsonl", row | {name: None})
    assert loaded(empty)[0] == [row]
    with pytest.raises(DataError, match="ignore: no column 'nothing'"):
        loaded(empty, ignore=["nothing"])


def test_columns_that_are_not_read_are_named(tmp_path):
    path = write(tmp_path / "x.jsonl", {"prompt": "q ", "chosen": "a", "rejected": "b", "id": 1, "comment": "z"})
    (line,) = loaded(path)[1]
    assert line.startswith("note: data.train: unused-columns: columns not used: id, comment;") or "id, comment" in line
    sides = {"chosen_label": "good", "rejected_label": "bad", "votes": 3}  # of an answer, and how many there were
    assert (
        "chosen_label"
        in loaded(write(tmp_path / "z.jsonl", {"prompt": "q ", "chosen": "a", "rejected": "b"} | sides))[1][0]
    )
    quiet = write(tmp_path / "y.jsonl", {"prompt": "q ", "chosen": "a", "rejected": "b", "id": 1, "source": "z"})
    assert "columns-about-rows" in loaded(quiet)[1][0]


def test_the_system_column_is_the_first_message(tmp_path):
    chat = {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    told = {"role": "system", "content": "s"}
    for row in (chat, {"prompt": "q ", "completion": "a"}):
        read, lines = loaded(write(tmp_path / "x.jsonl", row | {"system": "s"}, row | {"system": None}), "completions")
        assert read == [chat | {"prompt": [told, *chat["prompt"]]}, chat]
        assert any("system-column" in line for line in lines)
    both = write(tmp_path / "y.jsonl", chat | {"prompt": [told, *chat["prompt"]], "system": "other"})
    with pytest.raises(DataError, match="the column system and the prompt's own system message differ"):
        loaded(both, "completions")
    read, _ = loaded(write(tmp_path / "z.jsonl", {"prompt": "q", "system": "s", "answer": "4"}), "prompts")
    assert read == [{"prompt": [told, {"role": "user", "content": "q"}], "answer": "4"}]


def test_plain_text_becomes_messages_by_one_key(tmp_path):
    hh = {
        side: f"\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: {side}"
        for side in ("chosen", "rejected")
    }
    read, _ = loaded(write(tmp_path / "x.jsonl", hh), as_messages=True)
    assert said(read[0]["prompt"]) == ["user: one", "assistant: two", "user: three"]
    assert read[0]["chosen"] == [{"role": "assistant", "content": "chosen"}]
    row = {"prompt": "<|im_start|>user\nq<|im_end|>", "chosen": "a", "rejected": "b"}
    with pytest.raises(DataError, match=r"holds '<\|im_start\|>' of a chat template"):
        loaded(write(tmp_path / "y.jsonl", row), as_messages=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tools": "[{"}, "tools is text that is no JSON"),
        ({"tools": {"a": 1}}, "tools is not a list of objects but an object"),
        ({"chat_template_kwargs": {"tokenize": True}}, "sets tokenize, which training sets itself"),
        ({"prompt": "q", "chosen": "a", "rejected": "b", "tools": [{"x": 1}]}, "data.as_messages=true"),
    ],
)
def test_arguments_of_the_template_that_cannot_be_handed_on_are_refused(tmp_path, change, message):
    row = {"prompt": [{"role": "user", "content": "q"}]}
    row |= {side: [{"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    with pytest.raises(DataError, match=message):
        loaded(write(tmp_path / "x.jsonl", row | change))
    with pytest.raises(DataError, match="prompts are rendered without them in online training"):
        loaded(write(tmp_path / "y.jsonl", {"prompt": row["prompt"], "tools": [{"x": 1}]}), "prompts")


def test_every_answer_of_a_conversation_is_learnt_by_its_layout(tmp_path):
    talk = [
        {"role": r, "content": c} for r, c in (("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"))
    ]
    path = write(tmp_path / "x.jsonl", {"messages": talk})
    assert [row["completion"][0]["content"] for row in loaded(path, "completions")[0]] == ["4"]
    assert [row["completion"][0]["content"] for row in loaded(path, "completions", layout="turns")[0]] == ["2", "4"]
    with pytest.raises(ValueError, match="layout: unknown, got 'torns'"):
        DataSource("x", layout="torns")

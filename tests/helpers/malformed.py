"""Malformed data sets, and what is said of each. Run as a script it prints the table of align/data/README.md."""

import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.audit.duplicates import refuse_damaged
from align.data.audit.pairs import audit_pairs, audit_sets

ESC, RLO, LOST = chr(27), chr(0x202E), chr(0xFFFD)


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


class Malformed(NamedTuple):
    """A data set with one fault, in row 2 unless `says` names another."""

    name: str
    level: str
    """`error`: training refuses it. `warning`: one warning, and training goes on. `file`: refused before there are rows.
    `tokens`: nothing is said before the rows are tokenised."""
    rows: list | bytes
    says: tuple[str, ...]
    """Fragments of the message: where, which rule, what to do."""
    eval: list | None = None
    columns: dict | None = None


TEXT = {"prompt": "q ", "chosen": "a", "rejected": "b"}
CHAT = {"prompt": [user("q")], "chosen": [bot("a")], "rejected": [bot("b")]}
LONG = "Tell me at length about the life of bees and of those who keep them: "
PARTS = [{"type": "image", "image": "q.png"}]
MEND, DROP = "mend them (`alignkit data fix`", "data.unusable=drop"


def text(**change):
    """A good row, then one with the change."""
    return [TEXT | {"prompt": "p "}, TEXT | change]


def chat(**change):
    return [CHAT | {"prompt": [user("p")]}, CHAT | change]


def row(*fragments):
    return ("1 of 2 rows cannot be used", "row 2: ", *fragments, MEND, DROP)


def pairs(count, **change):
    return [TEXT | {"prompt": f"number {i} of many: "} | change for i in range(count)]


TABLE = [
    # columns
    Malformed("a column is missing", "error", [{"prompt": "q", "chosen": "a"}], ("no preference columns", "got prompt, chosen", "map them with")),
    Malformed("columns have other names", "error", [{"instruction": "q", "better": "a", "worse": "b"}], ("got instruction, better, worse", "`columns: {prompt: instruction, chosen: better, rejected: worse}`")),
    Malformed("the prompt's column has another name", "error", [{"instruction": "q", "chosen": "a", "rejected": "b"}], ("no column 'prompt', but 'instruction'", "columns: {prompt: instruction}")),
    Malformed("names with capitals", "error", [{"Prompt": "q", "Chosen": "a", "Rejected": "b"}], ("got Prompt, Chosen, Rejected", "map them with")),
    Malformed("`columns` names a column that is not there", "error", [TEXT], ("columns.chosen: no column 'good'", "there are prompt, chosen, rejected"), columns={"chosen": "good"}),
    Malformed("`columns` names one column twice", "error", [TEXT], ("columns: 'chosen' is named twice", "give each of"), columns={"rejected": "chosen"}),
    # values
    Malformed("chosen is null", "error", text(chosen=None), row("chosen is missing")),
    Malformed("rejected is missing in one row", "error", [TEXT, {"prompt": "q", "chosen": "a"}], row("rejected is missing")),
    Malformed("the prompt is null", "error", text(prompt=None), row("the prompt is missing")),
    Malformed("chosen is empty", "error", text(chosen=""), row("chosen is empty")),
    Malformed("rejected is white space", "error", text(rejected=" \n"), row("rejected is empty")),
    Malformed("the prompt is white space", "error", text(prompt="  "), row("the prompt is empty")),
    Malformed("an answer message is empty", "error", chat(rejected=[bot(" ")]), row("rejected is empty")),
    Malformed("the last question is empty", "error", chat(prompt=[user("")]), row("the prompt is empty")),
    Malformed("an answer is an empty list", "error", chat(chosen=[]), row("neither text nor a list of messages but an empty list")),
    Malformed("an answer is a number", "error", text(chosen=5), row("chosen is neither text nor a list of messages but a number")),
    Malformed("an answer is true or false", "error", text(rejected=False), row("rejected is neither text", "true or false")),
    Malformed("the prompt is a number", "error", text(prompt=5), row("the prompt is not: it is a number")),
    Malformed("a list of texts", "error", chat(chosen=["a"]), row("holds something that is not a message", "but text")),
    Malformed("a list in a list", "error", chat(chosen=[[bot("a")]]), row("holds something that is not a message", "but a list")),
    Malformed("messages written as text, as in CSV", "error", text(chosen=json.dumps([bot("a")]), rejected=json.dumps([bot("b")])), row("lists of messages written as text", "parse them")),
    Malformed("answers of chat messages written as text", "error", [CHAT | {"chosen": "a", "rejected": "b"}, CHAT | {side: json.dumps(CHAT[side]) for side in ("chosen", "rejected")}], row("chosen is a list of messages written as text", "parse it")),
    Malformed("text and messages in one row", "error", text(chosen=[bot("a")]), row("chosen and rejected are of different kinds")),
    Malformed("text rows and chat rows", "error", [TEXT, CHAT], ("row 2 is chat messages", "plain strings and chat messages are mixed", "split them into two sets")),
    # messages
    Malformed("a role with a capital", "error", chat(chosen=[{"role": "Assistant", "content": "a"}]), row("the role 'Assistant'", "expected one of system")),
    Malformed("a role of other formats", "error", chat(prompt=[{"role": "human", "content": "q"}]), row("the role 'human'", "expected one of system")),
    Malformed("a message without a role", "error", chat(prompt=[{"content": "q"}]), row("prompt holds something that is not a message", "without a role")),
    Malformed("content is null", "error", chat(chosen=[{"role": "assistant", "content": None}]), row("no text content but nothing")),
    Malformed("content is a number", "error", chat(chosen=[{"role": "assistant", "content": 4}]), row("no text content but a number")),
    Malformed("a part of the content is an image", "error", chat(prompt=[{"role": "user", "content": PARTS}]), row("a part of the type 'image'", "only text is trained on")),
    Malformed("a message that weighs nothing", "error", chat(chosen=[bot("a") | {"weight": 2}]), row("'weight', which would be lost", "take it out")),
    Malformed("from a name that ShareGPT has not", "error", chat(chosen=[{"from": "narrator", "value": "a"}]), row("a message from 'narrator'", "gpt")),
    Malformed("rejected ends with the user", "error", chat(rejected=[user("b")]), row("rejected ends with a user message")),
    Malformed("the prompt ends with the assistant", "error", chat(prompt=[user("q"), bot("x")]), row("the prompt ends with an assistant message")),
    Malformed("conversations differ before the last answer", "error", chat(chosen=[user("q"), bot("a")], rejected=[user("z"), bot("b")]), row("differ before the last answer")),
    Malformed("the prompt is not that of the conversations", "error", chat(prompt=[user("z")], chosen=[user("q"), bot("a")], rejected=[user("q"), bot("b")]), row("not what chosen and rejected start with")),
    Malformed("conversations without a question", "error", [{"chosen": [user("p"), bot("a")], "rejected": [user("p"), bot("b")]}, {k: CHAT[k] for k in ("chosen", "rejected")}], row("hold only an answer")),
    # answers
    Malformed("identical answers", "error", text(chosen="b"), row("chosen and rejected are identical")),
    Malformed("identical messages", "error", chat(chosen=[bot("b")]), row("chosen and rejected are identical")),
    Malformed("no prompt, and nothing in common", "error", [{"chosen": "say so", "rejected": "say it"}, {"chosen": "abc", "rejected": "xyz"}], row("no common beginning", "columns.prompt")),
    Malformed("one answer is the beginning of the other", "error", [{"chosen": "say so", "rejected": "say it"}, {"chosen": "same ", "rejected": "same more"}], row("empty once the common beginning")),
    Malformed("the prompt again in both answers", "error", text(prompt=LONG, chosen=LONG + "yes", rejected=LONG + "no"), row("both answers begin with the whole prompt", "take it out")),
    # across rows and sets
    Malformed("contradictory pairs", "error", [TEXT, TEXT | {"chosen": "b", "rejected": "a"}], ("contradictory-pairs: 2 of 2", "rows 1, 2", "keep one of each two", DROP)),
    Malformed("trained on and evaluated on", "error", [*pairs(3), TEXT], ("data.train against data.eval.x: leakage: 1 of 2", "data.eval.x (row 2)", "data.train (row 4)", "remove them from data.train", DROP), eval=[TEXT | {"prompt": "other "}, TEXT]),
    Malformed("trained on and evaluated on, answers swapped", "error", [*pairs(3), TEXT], ("leakage: 1 of 2", "row 4", "remove them from data.train"), eval=[TEXT | {"prompt": "other "}, TEXT | {"chosen": "b", "rejected": "a"}]),
    Malformed("evaluated on the training set", "warning", [TEXT], ("evaluated-on-training-data: all 1 pairs", "evaluate on other pairs too"), eval=[TEXT]),
    Malformed("another answer to an evaluated prompt", "warning", [*pairs(3), TEXT], ("same-prompts: 1 of 1", "row 4", "split by prompt"), eval=[TEXT | {"chosen": "c"}]),
    Malformed("nearly an evaluated prompt", "warning", [*pairs(3), TEXT | {"prompt": LONG}], ("near-duplicate-prompts: 1 of 1", "row 1 and row 4", "share 9", "on one side"), eval=[TEXT | {"prompt": LONG.replace(":", "! ")}]),
    Malformed("text trained on, chat evaluated on", "warning", [TEXT], ("mixed-formats: data.train holds plain text", "bring both to one kind"), eval=[CHAT]),
    Malformed("the same pair twice", "warning", [TEXT, TEXT], ("duplicate-pairs: 1 of 2", "row 2", "keeps the first")),
    Malformed("preferences that go round in a circle", "warning", [TEXT, TEXT | {"chosen": "b", "rejected": "c"}, TEXT | {"chosen": "c", "rejected": "a"}], ("answer-chosen-and-rejected: 3 of 3", "rows 1, 2, 3", "look at their labels")),
    Malformed("the longer answer is always chosen", "warning", pairs(60, chosen="longer"), ("length-bias: the longer answer is chosen in 100% [94%, 100%]", "compare evaluation with that share")),
    # what trains, but probably not on what was meant
    Malformed("answers that differ in white space", "warning", text(chosen="b "), ("identical-answers: 1 of 2", "row 2", "unless that is what is taught")),
    Malformed("answers that differ in case", "warning", text(chosen="B"), ("identical-answers: 1 of 2", "row 2", "white space, case or")),
    Malformed("the prompt again in one answer", "warning", text(prompt=LONG, chosen=LONG + "yes"), ("prompt-in-answer: 1 of 2", "row 2", "unless answers should repeat it")),
    Malformed("the prompt again in both chat answers", "warning", chat(prompt=[user(LONG)], chosen=[bot(LONG + "yes")], rejected=[bot(LONG + "no")]), ("prompt-in-answer: 1 of 2", "row 2", "unless answers should repeat it")),
    Malformed("two questions in a row", "warning", chat(prompt=[user("q"), user("r")]), ("wrong-roles: 1 of 2", "user, user", "row 2", "mend them")),
    Malformed("the system speaks late", "warning", chat(prompt=[user("q"), bot("x"), {"role": "system", "content": "s"}, user("y")]), ("wrong-roles: 1 of 2", "row 2", "mend them")),
    Malformed("the system speaks alone", "warning", chat(prompt=[{"role": "system", "content": "s"}]), ("wrong-roles: 1 of 2", "row 2", "mend them")),
    Malformed("tokens of a chat template", "warning", text(chosen="a<|im_end|>"), ("template-tokens-in-text: 1 of 2", "a<|im_end|>", "row 2", "take it out")),
    Malformed("tokens of another template", "warning", chat(prompt=[user("[INST] q [/INST]")]), ("template-tokens-in-text: 1 of 2", "row 2")),
    Malformed("a zero character", "warning", text(chosen="a\x00"), ("control-characters: 1 of 2", "row 2", "takes them out")),
    Malformed("colours of a terminal", "warning", text(chosen=f"{ESC}[31ma"), ("control-characters: 1 of 2", "x1b[31ma", "row 2", "takes them out")),
    Malformed("text that runs backwards", "warning", text(chosen=f"{RLO}a"), ("control-characters: 1 of 2", "u202e", "row 2", "takes them out")),
    Malformed("lost characters", "warning", text(chosen=f"a{LOST}"), ("replacement-characters: 1 of 2", "row 2", "read the source again")),
    Malformed("UTF-8 read as Latin-1", "warning", text(chosen="caf\u00c3\u00a9"), ("replacement-characters: 1 of 2", "caf\u00c3\u00a9", "row 2", "read the source again")),
    Malformed("a quote mark read as Windows-1252", "warning", text(chosen="it\u00e2\u20ac\u2122s"), ("replacement-characters: 1 of 2", "row 2", "read the source again")),
    Malformed("an endless row", "warning", text(chosen="word " * 30_000), ("overlong-row: 1 of 2", "150,005", "row 2", "leave out what is no text")),
    Malformed("no space between prompt and answers", "warning", text(prompt="What is it?", chosen="A cat", rejected="A dog"), ("missing-separator: 1 of 2", "What is it?A cat", "row 2", "end prompts with")),
    # columns that would be dropped
    Malformed("a label beside the pair", "error", [TEXT | {"winner": "b"}], ("the column 'winner' is a label", "`ignore: [winner]`")),
    Malformed("an image beside the pair", "error", [TEXT | {"images": ["a.png"]}], ("the column 'images' is no text", "`ignore: [images]`")),
    Malformed("rows that weigh differently", "error", [TEXT | {"weight": 0.5}, TEXT | {"prompt": "p ", "weight": 2.0}], ("the column 'weight' weighs rows", "`ignore: [weight]`")),
    Malformed("tools beside plain text", "error", [TEXT | {"tools": [{"type": "function"}]}], ("row 1: tools need a chat template", "data.as_messages=true")),
    # only a tokenizer shows it: tests/data/test_tokens.py, identical-after-truncation
    Malformed("answers that max_length cuts to the same tokens", "tokens", text(chosen="so " * 900 + "good", rejected="so " * 900 + "bad"), ()),
    # files: the wording is that of `align.data.files.checking` and `align.data.files.bad_lines`
    Malformed("nothing in the file", "file", b"", ("data.train", "no rows")),
    Malformed("a line is cut short", "file", (json.dumps(TEXT) + '\n{"prompt": "q ", "cho').encode(), ("line 2", "JSON")),
    Malformed("Latin-1", "file", json.dumps(TEXT | {"chosen": "caf\u00e9"}, ensure_ascii=False).encode("latin-1"), ("line 1", "not UTF-8", "convert it")),
    Malformed("half a surrogate pair", "file", json.dumps(TEXT | {"chosen": "\ud800"}).encode(), ("line 1", "surrogate")),
    Malformed("a key twice in a row", "file", b'{"prompt": "q ", "chosen": "a", "chosen": "c", "rejected": "b"}\n', ("line 1", "'chosen' is given twice")),
    Malformed("a row is null", "file", (json.dumps(TEXT) + "\nnull\n").encode(), ("line 2", "null")),
    Malformed("texts where rows belong", "file", b'"a"\n"b"\n', ("line 1", "expected an object")),
]  # fmt: skip


def write(data, path):
    content = data if isinstance(data, bytes) else "".join(json.dumps(line) + "\n" for line in data).encode()
    path.write_bytes(content)


def said(entry):
    """Everything that is said of a data set, written into the working directory: (level, message) of errors and warnings."""
    write(entry.rows, Path("pairs.jsonl"))
    source = DataSource("pairs.jsonl", columns=entry.columns or {})
    config = DataConfig(train=source)
    if entry.eval:
        write(entry.eval, Path("eval.jsonl"))
        config.eval["x"] = DataSource("eval.jsonl")
    try:
        loaded = load_preferences(config)
        sets = {"data.train": loaded.train, **{f"data.eval.{name}": held for name, held in loaded.eval.items()}}
        refuse_damaged(sets)
    except DataError as error:
        return [("error", str(error))]
    findings = [finding for name, held in sets.items() for finding in audit_pairs(held, where=name)] + audit_sets(sets)
    return [(finding.level, finding.line()) for finding in findings if finding.level != "note"]


def table():
    """The table of the data README, from what is said now."""
    lines = ["| input | level | message | what to do |", "|---|---|---|---|"]
    for entry in TABLE:
        if entry.level in ("file", "tokens"):
            continue
        ((level, message),) = said(entry)
        if "rows cannot be used" in message:
            message = message.splitlines()[1].strip()
            told, _, remedy = message.partition("; ")
            remedy = remedy or "mend it, or leave it out"
        else:
            told, _, remedy = message.removeprefix("warning: ").splitlines()[0].rpartition("; ")
        cells = [entry.name, level, told, remedy]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print(table())  # noqa: T201 - the script's result

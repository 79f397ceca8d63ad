"""What the tokenizer makes of pairs: the trainer's own ids, and what is wrong with them."""

import sys

import numpy as np
import pytest
import tiny
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from align import DPOConfig, DPOTrainer
from align.data import DataError
from align.data.audit.encoding import encode_all
from align.data.audit.lengths import draw_lengths, lengths_note, roomy, summary
from align.data.audit.tokens import inspect_tokens
from align.data.audit.truncation import refuse_cut_to_same
from align.models.tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer

HEAD = "{% if add_generation_prompt %}<|assistant|>{% endif %}"
PLAIN = [
    {"prompt": "what is up ", "chosen": "blue sky", "rejected": "green"},
    {"prompt": "name a colour:", "chosen": " blue<|end|>", "rejected": " none at all"},
]


def tokenizer(template=CHAT_TEMPLATE, **settings):
    made = tiny_tokenizer()
    made.chat_template = template
    for name, value in settings.items():
        setattr(made, name, value)
    return made


def merging():
    """Words that follow a space are one token with it, if they begin with b: prompts that end in a space change."""
    alphabet = ["<|pad|>", "<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġb"]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(alphabet)}, merges=[("Ġ", "b")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<|pad|>", eos_token="<|end|>")


def trained_on(rows, processing_class, tmp_path, **settings):
    """The data set of a real trainer."""
    args = tiny.arguments(DPOConfig, tmp_path, **settings)
    return DPOTrainer(
        model=tiny_model(tiny_tokenizer()), args=args, train_dataset=rows, processing_class=processing_class,
        peft_config=LoraConfig(**tiny.LORA),
    ).train_dataset  # fmt: skip


def inspected(rows, processing_class=None, **settings):
    rows = Dataset.from_list(rows) if isinstance(rows, list) else rows
    found, lengths = inspect_tokens(rows, processing_class or tokenizer(), where="data.train (x)", **settings)
    return {finding.rule: finding for finding in found}, lengths


def chat(prompt, chosen, rejected):
    row = {"prompt": [("user", prompt)], "chosen": [("assistant", chosen)], "rejected": [("assistant", rejected)]}
    return {k: [{"role": role, "content": text} for role, text in v] for k, v in row.items()}


@pytest.mark.parametrize(
    ("rows", "made"),
    [
        (tiny.pairs(), tokenizer),
        (
            tiny.pairs(3),
            lambda: tokenizer(CHAT_TEMPLATE.replace("<|assistant|>{% endif", "<|assistant|>think{% endif")),
        ),
        (Dataset.from_list(PLAIN), merging),
    ],
    ids=["messages", "a template that changes the prompt", "text"],
)
def test_ids_are_those_of_a_real_trainer(rows, made, tmp_path, monkeypatch):
    monkeypatch.setattr("align.data.audit.encoding.SLICE", 2)
    ours = list(encode_all(rows, made()))
    theirs = trained_on(rows, made(), tmp_path, max_length=None)
    assert [pair[:3] for pair in ours] == [
        (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in theirs
    ]
    _, lengths = inspected(rows, made())
    assert lengths.tolist() == [[len(part) for part in pair[:3]] for pair in ours]


def test_good_pairs_give_no_finding_and_the_whole_prompt_is_kept():
    found, lengths = inspected(tiny.pairs(), max_length=512, context=512, stops=[1])
    assert found == {}
    assert lengths.shape == (10, 3)
    assert all(pair.left_out == [] for pair in encode_all(tiny.pairs(), tokenizer()))


# --- rules -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("others", [0, 1])
def test_a_prompt_that_changes_before_its_answer_is_shown(others):
    """As training says it: a warning, however many pairs there are."""
    rows = [PLAIN[0]] + [PLAIN[1]] * others
    found, _ = inspected(rows, merging(), numbers=[7, 9][: len(rows)])
    finding = found["prompt-changes-in-context"]
    assert (finding.level, finding.rows) == ("warning", (7,))
    assert f"1 of {len(rows)} pairs" in finding.message
    assert "alone ... ' ' 'u' 'p' ' ', before the answer ... ' ' 'u' 'p' ' b' 'l' 'u'" in finding.message


def test_messages_without_a_chat_template_are_an_error():
    found, lengths = inspected(tiny.pairs(), tokenizer(None))
    assert [(f.rule, f.level) for f in found.values()] == [("no-chat-template", "error")]
    assert len(lengths) == 0


def test_rows_that_the_template_refuses_are_named_and_the_others_still_counted():
    strict = (
        "{% if messages[0]['content'] == 'say hello' %}{{ raise_exception('no hello\x1b') }}{% endif %}" + CHAT_TEMPLATE
    )
    found, lengths = inspected(tiny.pairs(), tokenizer(strict))
    finding = found["template-refuses"]
    assert (finding.level, finding.rows) == ("error", (8,))
    assert "1 of 10 pairs: 'no hello\\\\x1b'" in finding.message
    assert len(lengths) == 9


@pytest.mark.parametrize(
    ("turn", "told"),
    [
        ("<|{{ message['role'] }}|>{{ message['content'] }}<|end|>", "'<|assistant|>'"),
        ("{{ message['content'] }}<|end|>", None),
        (" {{ message['content'] }}<|end|>", None),
    ],
)
def test_a_template_that_ignores_the_generation_prompt_is_told_if_it_writes_a_header(turn, told):
    found, _ = inspected(tiny.pairs(), tokenizer("{% for message in messages %}" + turn + "{% endfor %}"))
    assert (told in found["no-generation-prompt"].message) if told else ("no-generation-prompt" not in found)


def test_a_doubled_beginning_of_sequence_is_found():
    doubled = tokenizer("<|pad|><|pad|>" + CHAT_TEMPLATE, bos_token="<|pad|>")
    single = tokenizer("<|pad|>" + CHAT_TEMPLATE, bos_token="<|pad|>")
    assert len(inspected(tiny.pairs(), doubled)[0]["double-bos"].rows) == 10
    assert "double-bos" not in inspected(tiny.pairs(), single)[0]


def test_answers_that_never_end_are_found():
    bare = CHAT_TEMPLATE.replace("<|end|>", "")
    finding = inspected(tiny.pairs(2), tokenizer(bare))[0]["eos-missing"]
    assert finding.rows == (1, 2)
    assert "answers end with 'o' 'u' 'r', not with '<|end|>'" in finding.message
    newline = CHAT_TEMPLATE.replace("<|end|>", "<|end|>\n")
    assert "eos-missing" not in inspected(tiny.pairs(2), tokenizer(newline))[0]
    other = CHAT_TEMPLATE.replace("<|end|>", "<|system|>")
    assert "eos-missing" in inspected(tiny.pairs(2), tokenizer(other))[0]
    assert "eos-missing" not in inspected(tiny.pairs(2), tokenizer(other), stops=[2])[0]


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_one_answer_without_an_end_is_enough(side):
    sometimes = CHAT_TEMPLATE.replace("<|end|>", "{% if message['content'] != 'open' %}<|end|>{% endif %}")
    rows = [chat("a", "yes", "no"), chat("a", **{"chosen": "yes", "rejected": "no"} | {side: "open"})]
    assert inspected(rows, tokenizer(sometimes))[0]["eos-missing"].rows == (2,)


def test_a_tokenizer_without_an_end_of_sequence_is_an_error():
    found, _ = inspected(tiny.pairs(2), tokenizer(eos_token=None))
    assert [(f.rule, f.level) for f in found.values()] == [("eos-missing", "error")]


def test_what_truncation_loses_is_counted_by_hand():
    """Prompt: role, 1 byte, end, role = 4. Answers: 4 and 8 bytes and an end, of which max_length 9 leaves 5 each."""
    found, lengths = inspected([chat("a", "good", "bad word"), chat("a", "no", "yes")], max_length=9)
    assert lengths.tolist() == [[4, 5, 9], [4, 3, 4]]
    finding = found["truncation"]
    assert finding.rows == (1,)
    assert finding.level == "warning"
    assert "1 of 2 pairs are cut to 9 tokens, which loses 19.0% of the answers' tokens" in finding.message  # 4 of 21
    assert "train.max_length=64 keeps 99%" in finding.remedy
    assert set(found) == {"truncation"}
    assert inspected([chat("a", "good", "bad word")], max_length=13)[0] == {}


def test_pairs_that_are_left_out_lose_nothing():
    found, _ = inspected([chat("a", "good", "bad word"), chat("a" * 9, "yes", "no")], max_length=9)
    assert "1 of 2 pairs are cut to 9 tokens, which loses 28.6% of" in found["truncation"].message  # 4 of 14


def test_few_cut_pairs_are_a_note():
    rows = [chat("a", "good", "bad word")] + [chat("a", "no", "yes")] * 19
    assert inspected(rows, max_length=9)[0]["truncation"].level == "note"


@pytest.mark.parametrize(("max_length", "same"), [(7, True), (8, False), (None, False)])
def test_answers_cut_to_the_same_tokens_are_an_error(max_length, same, tmp_path):
    """After the prompt's 4 tokens, "blue" and "blurb" agree in 3."""
    rows = Dataset.from_list([chat("a", "yes", "no"), chat("a", "blue", "blurb")])
    found, _ = inspected(rows, max_length=max_length)
    assert ("identical-after-truncation" in found) == same
    trained = trained_on(rows, tokenizer(), tmp_path, max_length=None)
    if not same:
        refuse_cut_to_same(trained, max_length, where="DPOTrainer")
        return
    assert (found["identical-after-truncation"].level, found["identical-after-truncation"].rows) == ("error", (2,))
    with pytest.raises(DataError, match=r"DPOTrainer: .* 1 of 2 pairs .* max_length=7 \(row 2\); .* set max_length=8"):
        refuse_cut_to_same(trained, max_length, where="DPOTrainer")


def test_the_refusal_counts_rows_of_slices_and_selections(tmp_path, monkeypatch):
    monkeypatch.setattr("align.data.audit.truncation.SLICE", 2)
    rows = Dataset.from_list([chat("a", "yes", "no")] * 4 + [chat("aa", "blue", "blurb")])
    trained = trained_on(rows, tokenizer(), tmp_path, max_length=None)
    with pytest.raises(DataError, match=r"\(row 5\); .* set max_length=9"):
        refuse_cut_to_same(trained, 8, where="x")
    with pytest.raises(DataError, match=r"\(row 2\)"):
        refuse_cut_to_same(trained.select([0, 4, 1]), 8, where="x")


def test_different_texts_of_the_same_tokens_are_an_error():
    stripping = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
    found, _ = inspected([chat("a", "yes", "yes ")], tokenizer(stripping), max_length=50)
    assert found["identical-tokens"].level == "error"
    same = Dataset.from_list([{"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [2, 3]}])
    with pytest.raises(DataError, match="no gradient: remove them$"):
        refuse_cut_to_same(same, None, where="x")
    assert "identical-after-truncation" not in found


@pytest.mark.parametrize(("others", "level"), [(0, "error"), (1, "warning")])
def test_prompts_that_fill_max_length_are_those_the_trainer_leaves_out(others, level, tmp_path):
    rows = Dataset.from_list([chat("abcdef", "yes", "no")] + [chat("a", "yes", "no")] * others)
    found, _ = inspected(rows, max_length=9)
    finding = found["prompt-fills-max-length"]
    assert (finding.level, finding.rows) == (level, (1,))
    assert "truncation" not in found
    if others:
        assert len(trained_on(rows, tokenizer(), tmp_path, max_length=9)) == 1
    assert "prompt-fills-max-length" not in inspected(rows, max_length=10)[0]


def test_an_answer_that_leaves_no_token_is_an_error():
    silent = CHAT_TEMPLATE.replace(
        "{{ message['content'] }}", "{{ '' if message['content'] == 'x' else message['content'] }}"
    )
    finding = inspected([chat("a", "x", "no"), chat("a", "yes", "no")], tokenizer(silent))[0]["empty-after-tokenising"]
    assert (finding.level, finding.rows) == ("error", (1,))


def test_unknown_tokens_are_counted():
    core = Tokenizer(models.WordLevel({"<e>": 0, "<u>": 1, "sky": 2, "is": 3}, unk_token="<u>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    words = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>", unk_token="<u>", pad_token="<e>")
    rows = [
        {"prompt": "sky is", "chosen": " blue", "rejected": " sky"},
        {"prompt": "is", "chosen": " sky", "rejected": " is"},
    ]
    found, _ = inspected(rows, words)
    finding = found["unknown-tokens"]
    assert "empty-after-tokenising" not in found
    assert finding.rows == (1,)
    assert "1 of 2 pairs, 9.09% of all tokens" in finding.message  # 6 and 5 tokens


def test_rows_longer_than_the_model_can_read_are_found_after_truncation():
    rows = [chat("a", "good", "bad word")]
    assert inspected(rows, context=12)[0]["longer-than-context"].rows == (1,)
    assert "longer-than-context" not in inspected(rows, context=13)[0]
    assert "longer-than-context" not in inspected(rows, context=12, max_length=12)[0]


# --- figures -----------------------------------------------------------------------------------------

TABLE = np.array([[4, 10, 2], [6, 1, 8], [5, 20, 20], [5, 3, 1]])


def test_the_summary_is_that_of_counting():
    assert summary(TABLE) == {
        "prompt": {"median": 5, "p95": 6, "max": 6},
        "chosen": {"median": 6, "p95": 20, "max": 20},
        "rejected": {"median": 5, "p95": 20, "max": 20},
        "prompt with the longer answer": {"median": 14, "p95": 25, "max": 25},
    }
    note = lengths_note(TABLE, where="data.train (x)")
    assert note.level == "note"
    assert "chosen minus rejected +0.8 on average, chosen longer in 50%" in note.message
    assert "max_length=64 keeps" in note.remedy


@pytest.mark.parametrize(("longest", "room"), [(63, 64), (64, 64), (65, 128)])
def test_the_suggested_length_holds_the_pairs_it_promises(longest, room):
    assert roomy(np.array([[0, longest, 1]] * 2 + [[1, 1, 1]] * 98)) == room
    assert roomy(np.array([[0, longest, 1]] + [[1, 1, 1]] * 199)) == 64


def test_the_picture_has_a_row_of_panels_for_each_set(tmp_path, monkeypatch):
    draw_lengths({"data.train": TABLE, "data.eval.x": TABLE[:1]}, 12, tmp_path / "lengths.png")
    assert (tmp_path / "lengths.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'alignkit\[eval\]'"):
        draw_lengths({"data.train": TABLE}, None, tmp_path / "x.png")

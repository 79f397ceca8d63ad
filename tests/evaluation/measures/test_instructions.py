"""Accuracies of instruction following: strict, loose, by prompt, instruction and family."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest
from judged import wilson_estimate

from align.data.making.constraints import Constraint
from eval.measures.instructions import Followed, follow, instruction_following, loose_variants
from eval.statistics.shares import share_estimate

NO_COMMA, LOWER, TITLE = "punctuation:no_comma", "change_case:english_lowercase", "detectable_format:title"
WORDS, GERMAN = "length_constraints:number_words", "language:response_language"
THREE = {"relation": "at least", "num_words": 3}


def row(*kinds, prompt="p", **arguments):
    return {"prompt": prompt, "instruction_id_list": list(kinds), "kwargs": [arguments.get(k, {}) for k in kinds]}


def report(rows, answers, seed=0):
    return instruction_following(rows, answers)


def verdicts(kind, answer, **arguments):
    (found,) = follow({"instruction_id_list": [kind], "kwargs": [arguments]}, answer)
    return found.strict, found.loose


def test_the_eight_loose_variants_by_hand():
    assert loose_variants("Sure:\n\n*a*\nb\nBye*") == [
        "Sure:\n\n*a*\nb\nBye*", "Sure:\n\n*a*\nb", "*a*\nb\nBye*", "*a*\nb",
        "Sure:\n\na\nb\nBye", "Sure:\n\na\nb", "a\nb\nBye", "a\nb",
    ]  # fmt: skip
    assert loose_variants(" one *line* ") == [" one *line* ", "", "", "", " one line ", "", "", ""]


@pytest.mark.parametrize(
    ("kind", "arguments", "answer", "expected"),
    [
        (NO_COMMA, {}, "no comma", (True, True)),
        (NO_COMMA, {}, "Sure, here:\nno comma", (False, True)),
        (NO_COMMA, {}, "no comma\nHope it helps, bye", (False, True)),
        (NO_COMMA, {}, "Sure, here:\nno comma\nHope it helps, bye", (False, True)),
        (NO_COMMA, {}, "Sure:\na, b\nBye", (False, False)),
        (NO_COMMA, {}, "a, b", (False, False)),  # without its line the answer is blank
        ("startend:quotation", {}, '*"a b"*', (False, True)),
        ("startend:quotation", {}, 'Sure:\n**"a b"**', (False, True)),
        ("startend:quotation", {}, '"a\nb', (False, False)),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "*a*", (True, True)),
        (WORDS, {"relation": "at least", "num_words": 3}, "one two\nthree", (True, True)),
        (WORDS, {"relation": "less than", "num_words": 3}, "one two\nthree", (False, True)),
    ],
)
def test_strict_and_loose(kind, arguments, answer, expected):
    assert verdicts(kind, answer, **arguments) == expected


@pytest.mark.parametrize("blank", ["", " \n\t"])
def test_a_blank_answer_follows_nothing(blank):
    assert Constraint(NO_COMMA).holds(blank)  # the rule alone says otherwise
    got = report([row(NO_COMMA, WORDS, **{WORDS: {"relation": "less than", "num_words": 3}})] * 2, [blank, "fine"])
    assert [item.strict for item in got.followed[0]] == [item.loose for item in got.followed[0]] == [False, False]
    assert got.blank == 1
    assert got.estimates["prompt/strict"].value == 0.5


def test_an_instruction_that_cannot_be_checked_is_counted_and_never_passed():
    rows = [
        row(NO_COMMA, GERMAN, prompt="a", **{GERMAN: {"language": "de"}}),
        row(NO_COMMA, prompt="b"),
        row(NO_COMMA, prompt="c"),
        row(NO_COMMA, prompt="e"),
    ]
    rows.append(row(WORDS, LOWER, prompt="d", **{WORDS: {"relation": "at most", "num_words": 3}}))
    got = report(rows, ["gut", "x", "x, y", "z", "small"])
    assert [(item.strict, item.loose) for item in got.followed[0]] == [(True, True), (None, None)]
    assert sorted(reason[:40] for reason in got.unchecked) == [
        "length_constraints:number_words: relatio", "unknown constraint 'language:response_la"
    ]  # fmt: skip
    assert list(got.unchecked.values()) == [1, 1]
    assert got.prompts_left_out == 2
    assert got.estimates["prompt/strict"][::3] == (pytest.approx(2 / 3), 3)
    assert got.estimates["instruction/strict"][::3] == (0.8, 5)
    assert "language/strict" not in got.estimates
    assert "length_constraints/loose" not in got.estimates


def test_accuracies_by_prompt_by_instruction_and_by_family():
    rows = [row(NO_COMMA, LOWER, prompt="a"), row(NO_COMMA, TITLE, prompt="b"), row(LOWER, prompt="c")]
    got = report(rows, ["all good", "no title", "Sure\nsmall"])
    assert {name: estimate.value for name, estimate in got.estimates.items()} == {
        "prompt/strict": pytest.approx(1 / 3), "prompt/loose": pytest.approx(2 / 3),
        "instruction/strict": pytest.approx(3 / 5), "instruction/loose": pytest.approx(4 / 5),
        "punctuation/strict": 1, "punctuation/loose": 1,
        "change_case/strict": 0.5, "change_case/loose": 1,
        "detectable_format/strict": 0, "detectable_format/loose": 0,
    }  # fmt: skip
    assert all(e.low <= e.value <= e.high for e in got.estimates.values())
    assert got.followed[2] == [Followed(LOWER, False, True)]


def test_intervals_are_wilsons_for_independent_prompts_and_clustered_otherwise():
    rows = [row(NO_COMMA, LOWER, prompt=str(i)) for i in range(12)]
    answers = ["a", "A, B", "a, b", "A"] * 3
    got = report(rows, answers, seed=5).estimates
    assert got["prompt/strict"] == wilson_estimate(3, 12)
    values = np.array([1, 1, 0, 0, 0, 1, 1, 0] * 3, dtype=float)
    assert got["instruction/strict"].n == 12
    assert got["instruction/strict"] == share_estimate(values, np.repeat(np.arange(12), 2))
    alike = report(rows, ["a"] * 12).estimates["instruction/strict"]
    assert alike.low < wilson_estimate(12, 12).low < alike.high == 1.0  # twelve prompts are few clusters


def test_several_answers_to_a_prompt_are_one_cluster():
    rows = [row(NO_COMMA, prompt=[{"role": "user", "content": str(i // 5)}]) for i in range(20)]
    got = report(rows, ["a"] * 8 + ["a, b"] * 12)
    assert got.estimates["prompt/strict"].n == 4
    assert got.estimates["prompt/strict"].value == pytest.approx(0.4)
    alone = report(rows[:5], ["a", "a", "a,", "a,", "a,"]).estimates["prompt/strict"]
    assert (alone.value, alone.n) == (0.4, 1)
    assert alone.high - alone.low > 0.8


def test_rows_that_cannot_be_read_are_refused_with_their_number():
    good = row(NO_COMMA)
    with pytest.raises(ValueError, match="rows and answers must be as many, got 2 and 1"):
        report([good, good], ["a"])
    with pytest.raises(
        ValueError, match="row 1: instruction_id_list and kwargs must be of one length, at least 1; got 1 and 0"
    ):
        report([good, good | {"kwargs": []}], ["a", "b"])
    with pytest.raises(ValueError, match="row 0: instruction_id_list and kwargs must be of one length"):
        report([row()], ["a"])
    with pytest.raises(
        ValueError, match="none of the instructions of 1 rows can be checked: .*'language:response_language'"
    ):
        report([row(GERMAN)], ["a"])


# --- the published rows ------------------------------------------------------------------------


@pytest.fixture
def published(shared_data):
    with gzip.open(shared_data / "eval_ifeval" / "train.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


@pytest.mark.realdata
def test_every_published_row_is_read_and_only_languages_are_unchecked(published):
    got = report(published, ["An answer.\n\nP.S. none"] * len(published))
    kinds = Counter(item.kind for items in got.followed for item in items if item.strict is None)
    assert (len(published), sum(map(len, got.followed))) == (337, 514)
    assert kinds == {GERMAN: 19}
    assert sum(got.unchecked.values()) == 19
    assert got.prompts_left_out == sum(GERMAN in item["instruction_id_list"] for item in published)
    assert got.estimates["instruction/strict"].n == len(
        {repr(r["prompt"]) for r in published if set(r["instruction_id_list"]) != {GERMAN}}
    )


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("key", "answer", "strict", "loose"),
    [
        (1001, "Hark! Thy journey beginneth in Kyoto.", [True], [True]),
        (1001, "Hark, traveller! Thy journey beginneth.", [False], [False]),
        (1001, "Hark, traveller!\nThy journey beginneth.", [False], [True]),
        (1005, "[name] [address] [phone] " * 4, [True], [True]),
        (1005, "[name] [address] [phone] " * 3 + "[a] [b]", [False], [False]),
        (1000, "*a* *b* *c* " + "word " * 300, [True, True, True], [True, True, True]),
        (1000, "*a* *b* c, " + "word " * 200, [False, False, False], [False, False, False]),
        (1000, "", [False] * 3, [False] * 3),
    ],
)
def test_answers_written_by_hand_to_published_prompts(published, key, answer, strict, loose):
    (found,) = [item for item in published if item["key"] == key]
    items = follow(found, answer)
    assert [item.strict for item in items] == strict
    assert [item.loose for item in items] == loose

"""What pairs say about themselves; the table of tests/helpers/malformed.py covers each rule's message."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from align.data.audit import duplicates as across
from align.data.audit.duplicates import circular, collect, contradictory, digests, first_like, row_digest
from align.data.audit.pair_rules import broken
from align.data.audit.pairs import audit_pairs, audit_sets, prompt_text, wilson
from align.data.loading import DataSource, read
from align.data.rows.normal_form import all_visible
from align.data.rows.normalise import ROW, normalise


def pair(prompt="q ", chosen="a", rejected="b"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def audited(*rows, **how):
    return {finding.rule: finding for finding in audit_pairs(Dataset.from_list(list(rows)), where="data.train", **how)}


def message(role, content="words"):
    return {"role": role, "content": content}


def rules(prompt, chosen, rejected):
    return [key for key, _ in broken(prompt, chosen, rejected)]


ASKED = "What is the capital of France, please? "
NEL = chr(0x85)


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "expected"),
    [
        ("q\n", "plain words", "other words", []),
        ("q\tr\r\n", "a\tb", "b\r\nc", []),  # white space that texts have
        ("q\n", "a" + NEL, "b", ["control"]),
        ("q\n", "a\x7f", "b", ["control"]),
        ("q\n", "\u2066a\u2069", "b", ["control"]),
        ("q\n", "\u200f\u05d0", "b\u00ad \u00a0", []),  # marks that right-to-left text needs; a soft hyphen
        ("q\n", "S\u00c3O PAULO", "\u00c2ge", []),  # capitals that are meant
        ("q\n", "na\u00c3\u00afve", "b", ["replaced"]),
        ("q\n", "5\u00c2\u00a3", "b", ["replaced"]),
        ("q\n", "a < b | c > d", "x[INSTALL]", []),
        ("q\n", "a</s>", "b", ["special"]),
        ("q\n", "a<|eot_id|>", "b", ["special"]),
        ("q\n", "a", "b<start_of_turn>", ["special"]),
        ("the end", "of it", "is near", ["glued"]),
        ("the end", "of it", " is near", []),
        ("the end", "(of it)", "5", []),
        ("def f(", "x): pass", "y): pass", []),
        ("\u4f60\u597d\uff1f", "\u597d", "\u4e0d", []),
        ("\u4f60\u597d", "\u597d", "\u4e0d", []),
        (ASKED, "Paris", "Rome", []),
        (ASKED, ASKED + "Paris", "Rome", ["one repeats"]),
        (ASKED, "\n" + ASKED + "Paris", ASKED.strip() + "Rome", ["both repeat"]),
        ("q\n", "q\na", "q\nb", []),
        ("q\n", "A  b", "a B", ["folded"]),
        ("q\n", "a", "a", ["identical"]),
        ("q\n", " ", "a", ["empty answer"]),
        (" ", "a", "b", ["empty prompt"]),
        ("q\n", "x" * 50_000, "y" * 49_996, []),
        ("q\n", "x" * 50_000, "y" * 49_997, ["long"]),
    ],
)
def test_rules_of_one_plain_row(prompt, chosen, rejected, expected):
    assert rules(prompt, chosen, rejected) == expected


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["user"], []),
        (["system", "user"], []),
        (["developer", "user", "assistant", "user"], []),
        (["user", "assistant", "tool", "tool"], []),
        (["user", "assistant", "tool", "assistant", "user"], []),
        (["user", "user"], ["order"]),
        (["system"], ["order"]),
        (["system", "system", "user"], ["order"]),
        (["user", "system", "user"], ["order"]),
        (["assistant", "user"], ["order"]),
        (["tool", "user"], ["order"]),
        (["human"], ["unknown role"]),
    ],
)
def test_rules_of_roles(roles, expected):
    prompt = [message(role) for role in roles]
    assert rules(prompt, [message("assistant", "a")], [message("assistant", "b")]) == expected


def test_levels_rows_and_their_numbers():
    rows = [pair("q\n"), pair(chosen=""), pair(chosen="b"), pair(chosen=" b"), pair(chosen="")]
    found = audited(*rows, numbers=[10, 20, 30, 40, 50])
    assert [(f.level, f.rule, f.rows) for f in found.values()][:2] == [
        ("error", "empty-answer", (20, 50)),
        ("warning", "identical-answers", (40,)),  # the last of its name in the table
    ]
    assert audited(*[row | {ROW: 7.0 + i} for i, row in enumerate(rows)])["empty-answer"].rows == (8, 11)
    assert audited(*rows)["empty-answer"].rows == (2, 5)
    assert found["duplicate-pairs"].rows == (50,)


def test_a_line_break_in_an_example_stays_one_line():
    line = audited(pair(prompt="\x1b[2J\nq", chosen="a\nb"))["control-characters"].line()
    assert line.isprintable()


def test_rows_are_the_same_across_slices(monkeypatch):
    rows = [pair(chosen=f"a{i % 5}", prompt=f"{i % 3}: ") for i in range(40)] + [
        pair(chosen="b", rejected="a1", prompt="1: ")
    ]
    whole = audited(*rows)
    monkeypatch.setattr(across, "SLICE", 3)
    assert audited(*rows) == whole


answers = st.sampled_from("abcd")
edges = st.lists(st.tuples(st.sampled_from("pq"), answers, answers), max_size=12)


@given(edges)
def test_contradictions_repetitions_and_circles_are_those_of_brute_force(rows):
    found = collect(row_digest(*row) for row in rows)
    against = [c != r and (p, r, c) in rows for p, c, r in rows]
    assert contradictory(found).tolist() == against
    assert first_like(found).tolist() == [rows.index(row) for row in rows]

    def beaten(start):
        seen, left = set(), [start]
        while left:
            prompt, answer = left.pop()
            fresh = {(p, r) for p, c, r in rows if (p, c) == (prompt, answer)} - seen
            seen, left = seen | fresh, [*left, *fresh]
        return seen

    on_circle = [(p, c) in beaten((p, r)) or c == r for p, c, r in rows]
    between = [any((p, x) in beaten((p, x)) for x in "abcd") for p, _, _ in rows]
    for mine, on, may in zip(circular(found).tolist(), on_circle, between, strict=True):
        assert on <= mine <= (on or may)  # all on a circle; besides, at most what joins two


def test_digests_tell_apart_what_is_not_the_same():
    rows = [pair(), pair(prompt="q"), pair("q a", "", "b"), pair(chosen="b", rejected="a"), pair("x", "a", "b")]
    found = digests(Dataset.from_list(rows))
    assert len(set(found.pair.tolist())) == 5
    assert found.either_way[0] == found.either_way[3]
    assert found.chosen[0] != found.chosen[4]  # an answer to another prompt is another answer
    chats = [[message("user", "a"), message("user", "b")], [message("user", "ab")], [message("assistant", "ab")]]
    assert len({row_digest(chat, "a", "b") for chat in chats}) == 3


TEXTS = st.text(alphabet="ab:1\0\u200be\u0301\u00e9", max_size=4)
CHATS = st.lists(st.builds(message, st.sampled_from(["user", "assistant", "1"]), TEXTS), max_size=3)


@given(st.lists(st.tuples(CHATS, CHATS, CHATS), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_digests_of_columns_are_those_of_rows(rows):
    """What looks the same is the same, and what does not is not; in columns as row by row."""
    data = Dataset.from_list(
        [dict(zip(across.PARTS, row, strict=True)) for row in rows],
        features=Features({part: [{"role": Value("string"), "content": Value("string")}] for part in across.PARTS}),
    )
    one_by_one = collect(row_digest(*row) for row in rows)
    for found, expected in zip(digests(data), one_by_one, strict=True):
        assert found.tolist() == expected.tolist()
    seen = [json.dumps(all_visible(list(row))) for row in rows]
    numbers = list(zip(*(part.tolist() for part in digests(data)), strict=True))
    for one in range(len(rows)):
        assert [n == numbers[one] for n in numbers] == [s == seen[one] for s in seen]


def test_digests_of_rows_beside_calls_are_those_of_rows_without():
    plain = [message("user", "a"), message("assistant", "b")]
    nulls = [{**each, "tool_calls": None} for each in plain]
    called = [plain[0], {**plain[1], "tool_calls": [{"name": "f"}]}]
    assert row_digest(plain, plain, plain) == row_digest(nulls, nulls, nulls)
    assert row_digest(plain, plain, plain) != row_digest(called, plain, plain)


def test_rankings_are_a_note_and_circles_a_warning():
    ranked = audited(pair(), pair(chosen="b", rejected="c"))["answer-chosen-and-rejected"]
    assert (ranked.level, ranked.rows) == ("note", (2,))
    ring = audited(
        pair(), pair(chosen="b", rejected="c"), pair(chosen="c", rejected="a"), pair(chosen="z", rejected="a")
    )
    assert (ring["answer-chosen-and-rejected"].level, ring["answer-chosen-and-rejected"].rows) == ("warning", (1, 2, 3))
    assert "answer-chosen-and-rejected" not in audited(pair(), pair("r "))


def test_a_contradiction_is_told_as_one_thing():
    found = audited(pair(), pair(chosen="b", rejected="a"), pair("r "))
    assert set(found) == {"contradictory-pairs"}
    assert (found["contradictory-pairs"].level, found["contradictory-pairs"].rows) == ("error", (1, 2))


@pytest.mark.parametrize(
    ("longer", "n", "level"), [(60, 100, "note"), (70, 100, "warning"), (30, 100, "warning"), (34, 52, "warning"), (49, 49, None), (38, 60, "note")]
)  # fmt: skip
def test_length_bias_needs_a_lasting_share_and_enough_pairs(longer, n, level):
    rows = [pair(f"{i} ", "long" if i < longer else "x", "mid") for i in range(n)] + [pair("even ")]
    found = audited(*rows)
    assert (found["length-bias"].level if "length-bias" in found else None) == level


def test_the_interval_is_wilsons():
    """Newcombe 1998, table I, method 3."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


def sets(train, held):
    return {"data.train": Dataset.from_list(train), "data.eval.x": Dataset.from_list(held)}


def test_pairs_that_leak_are_named_on_both_sides():
    train = [pair(f"{i} ") | {ROW: i + 10.0} for i in range(5)]
    held = [pair("other "), pair("3 "), pair("4 ", "b", "a"), pair("0 ", "c")]
    leak, prompts = audit_sets(sets(train, held), near=False)
    assert (leak.level, leak.rule, leak.rows) == ("error", "leakage", (13, 14))
    assert "2 of 4 pairs of data.eval.x (rows 2, 3) are also in data.train" in leak.message
    assert (prompts.level, prompts.rule, prompts.rows) == ("warning", "same-prompts", (10,))
    assert "(row 4)" in prompts.message
    numbers = {"data.train": [1, 2, 3, 4, 5], "data.eval.x": [6, 7, 8, 9]}
    assert audit_sets(sets(train, held), near=False, numbers=numbers)[0].rows == (4, 5)
    assert audit_sets({"data.train": Dataset.from_list(train)}) == []


def test_near_prompts_are_told_with_the_nearest():
    words = "the quick brown fox jumps over the lazy dog and runs into the deep dark wood at night"
    train = [pair("something else "), pair(words), pair(words + "!")]
    held = [pair("something else ", "c"), pair("nothing like it "), pair(words.upper(), "c")]
    same, found = audit_sets(sets(train, held))
    assert (found.rule, found.rows) == ("near-duplicate-prompts", (2,))
    assert "(row 3) have nearly" in found.message
    assert "nearest: row 3 and row 2 there, which share 100%" in found.message
    assert audit_sets(sets(train, held), near=False) == [same]


def test_a_training_set_within_an_evaluation_set_is_a_leak():
    assert [finding.rule for finding in audit_sets(sets([pair()], [pair(), pair("r ")]))] == ["leakage"]


def test_what_the_system_says_is_not_compared():
    assert (
        prompt_text([message("system"), message("user", "a"), message("assistant", "b"), message("developer")])
        == "a\nb"
    )


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hh_harmless", {"prompt-in-answer": 1}),
        ("sentiment_pairs_human", {}),
        ("pandalm_human", {"prompt-in-answer": 2, "duplicate-pairs": 63, "answer-chosen-and-rejected": 3}),
        (
            "ultrafeedback_1k",
            {
                "template-tokens-in-text": 3,
                "control-characters": 1,
                "invisible-characters": 2,
                "replacement-characters": 3,
            },
        ),
    ],
)
def test_of_real_pairs_little_is_said(shared_data, name, expected):
    raw = read(DataSource(str(shared_data / name / "train.jsonl.gz")))
    dataset, dropped = normalise(raw, columns={}, where=name, unusable="drop")
    found = audit_pairs(dataset, where=name)
    assert dropped == (["row 782: rejected is empty"] if name == "ultrafeedback_1k" else [])  # a zero-width space
    assert {finding.rule: len(finding.rows) for finding in found if finding.level != "note"} == expected
    assert np.all([finding.level != "error" for finding in found])

"""Rule-checked constraints: what holds of which text, and instructions reversed where the chosen answer breaks them."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data.making.constraints import CHECKERS, Constraint, sentence_count, word_count
from align.data.making.reverse import TEXTS, instruction, negation, reverse_constraints, statement
from align.data.making.selectors import NoPair

LEAST, LESS = {"relation": "at least"}, {"relation": "less than"}
TABLE = [
    ("length_constraints:number_words", LEAST | {"num_words": 3}, ["one two three", "a-b c", "don't go"], ["one two", "", "- !"]),
    ("length_constraints:number_words", LESS | {"num_words": 3}, ["one two", ""], ["one two three"]),
    ("length_constraints:number_sentences", LEAST | {"num_sentences": 2}, ["One. Two.", "One? Two"], ["One.", "Ask Dr. No. "]),
    ("length_constraints:number_sentences", LESS | {"num_sentences": 2}, ["One.", ""], ["One. Two."]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***a***b***", "\n***\na\n***\nb"], ["a", "a\n***\n***\nb", "a***b***c", ""]),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Well"}, ["a\n\nwell, b", "a\n\n\n\n\"WELL\" b"], ["well\n\nb", "a\n\nwelly b", "a\nwell", "a\n\nwell\n\nc", ""]),
    ("keywords:existence", {"keywords": ["Cat", "dog"]}, ["cats and DOGS"], ["cat", "dog", ""]),
    ("keywords:frequency", LEAST | {"keyword": "war", "frequency": 2}, ["War, toward"], ["war", ""]),
    ("keywords:frequency", LESS | {"keyword": "war", "frequency": 2}, ["war", ""], ["war war"]),
    ("keywords:forbidden_words", {"forbidden_words": ["car", "c++"]}, ["scar cars", "c", ""], ["a Car.", "in C++ now"]),
    ("keywords:letter_frequency", {"let_relation": "at least", "letter": "A", "let_frequency": 2}, ["banana", "Aa"], ["b", "a"]),
    ("keywords:letter_frequency", {"let_relation": "less than", "letter": "#", "let_frequency": 2}, ["a#", ""], ["##"]),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b c]", "[[a]] []"], ["[a]", "[a\nb] [c]", "a] [b"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["x\nP. S. y", "p.s."], ["ps", "p.s", ""]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S. y", "p. p. s"], ["P.S.", "pps"]),
    ("detectable_content:postscript", {"postscript_marker": "N.B."}, ["n.b. this"], ["nxb.", ""]),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, ["* a\n- b", "x\n  * a\n\n* b", "-\n- a"], ["* a", "* a\n* b\n- c", "** a\n** b", "*\n* a", ""]),
    ("detectable_format:constrained_response", {}, ["So: My answer is no. Bye"], ["my answer is no.", "My answer is no", ""]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and **b**", "**a** *b c*"], ["*a*", "**a**", "* * ** ** *b*", "*a\nb* *c*"]),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}, ["Section 1 a\nSection 2 b", "Section1 Section2"], ["Section 1", "section 1 section 2", "Section A Section B"]),
    ("detectable_format:json_format", {}, ['{"a": [1]}', "```json\n[1]\n```", "```\n3\n```", " 1 "], ["{a: 1}", "", "[1] so", "```json [1"]),
    ("detectable_format:title", {}, ["<<a>>\nb", "x <<a b>> y", "<<>> <<b>>"], ["<a>", "<< >>", "<<a\nb>>", ">>a<<", "<<a", ""]),
    ("combination:two_responses", {}, ["a\n******\nb", "******a******b******"], ["a", "a******a", "a******b******c", "a************b", ""]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say this: "}, [" say THIS: then"], ["then say this:", ""]),
    ("startend:end_checker", {"end_phrase": "Any questions?"}, ["x any questions?\n", '"x Any questions?"'], ["Any questions? No.", ""]),
    ("startend:quotation", {}, ['"a"', ' "a\nb"\n', '""'], ['"', 'a "b"', '"a" b', ""]),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, ["I AM here", "U.S. and A-B!"], ["I am", "DON'T go", "Ab Cd", ""]),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 2}, ["I am", ""], ["NO NO"]),
    ("change_case:english_capital", {}, ["NO! 3", "ÄH"], ["No", "3", ""]),
    ("change_case:english_lowercase", {}, ["no! 3"], ["No", "3", ""]),
    ("punctuation:no_comma", {}, ["a; b", ""], ["a, b", ","]),
]  # fmt: skip
EVERY = {kind: Constraint(kind, arguments) for kind, arguments, _, _ in TABLE}


@pytest.mark.parametrize(("kind", "arguments", "good", "bad"), TABLE)
def test_what_satisfies_it_and_what_does_not(kind, arguments, good, bad):
    constraint = Constraint(kind, arguments)
    assert [text for text in good if not constraint.holds(text)] == []
    assert [text for text in bad if constraint.holds(text)] == []


def test_every_kind_has_a_checker_a_row_of_the_table_and_two_texts():
    assert CHECKERS.keys() == EVERY.keys() == TEXTS.keys()
    assert len(CHECKERS) == 24
    texts = [text(constraint) for constraint in EVERY.values() for text in (statement, negation)]
    assert len(set(texts)) == 48
    assert all(text[0].isupper() and text[-1] in '."SP?:' for text in texts), texts


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0), ("   \n", 0), ("...", 0), ("No stop", 1), ("One. Two! Three? Four", 4), ("Wait... what? Yes.", 2),
        ("She said “no.” He left.", 2), ("Mr. Smith met Dr. J. K. Lee, e.g. at noon.", 1), ("So do I. You too.", 2),
        ("It is 3.14 now.", 1), ("1. Milk\n2. Bread", 3), ("1. milk\n2. bread", 1),
        ("i like it. you like it. we do.", 3), ("so... what? he left! then. ok", 4), ("**Done.** Next.", 2), ("see a.b.c for x", 1), ("He won!? Really.", 2),
    ],
)  # fmt: skip
def test_sentences(text, count):
    assert sentence_count(text) == count


def test_words_are_runs_of_letters_and_digits():
    assert word_count("It's 3.5 naïve_words—ok") == 6


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("punctuation:no_coma", {}, "unknown constraint 'punctuation:no_coma'; did you mean 'punctuation:no_comma'?"),
        ("language:response_language", {"language": "de"}, "unknown constraint 'language:response_language'"),
        ("punctuation:no_comma", {"x": 1}, "takes the arguments none; got x"),
        ("keywords:frequency", {"keyword": "a"}, "takes the arguments relation, keyword, frequency; got keyword"),
        ("length_constraints:number_words", {"relation": "at most", "num_words": 3}, "relation must be 'at least' or 'less than', got 'at most'"),
        ("length_constraints:number_words", LEAST | {"num_words": 3.0}, "num_words must be a whole number of at least 0, got 3.0"),
        ("length_constraints:number_words", LEAST | {"num_words": True}, "num_words must be a whole number"),
        ("length_constraints:number_words", LEAST | {"num_words": -1}, "num_words must be a whole number"),
        ("keywords:existence", {"keywords": []}, "keywords must be a list of words, got "),
        ("keywords:existence", {"keywords": "cat"}, "keywords must be a list of words, got 'cat'"),
        ("keywords:existence", {"keywords": ["cat", ""]}, "keywords must be a list of words"),
        ("startend:end_checker", {"end_phrase": " "}, "end_phrase must be text, got ' '"),
    ],
)  # fmt: skip
def test_a_constraint_that_is_none_is_refused(kind, arguments, message):
    with pytest.raises(ValueError, match=message):
        Constraint(kind, arguments)


def test_arguments_that_are_none_are_left_out():
    assert Constraint("punctuation:no_comma", {"keywords": None, "relation": None}).arguments == {}


PIECES = ["\n", "[", "<", "*", ".", ".)", " ", '"', "-", "a\n", "{", "[\n", "***", "*a", "é.", "`", "1,", "<<>", "a.b"]


@pytest.mark.parametrize("kind", EVERY)
def test_any_text_is_checked_in_linear_time(kind):
    """Fifty thousand pieces: whatever is quadratic takes minutes."""
    for piece in PIECES:
        EVERY[kind].holds(piece * 50_000 + "x")


@given(st.text(max_size=60))
def test_any_text_is_checked(text):
    assert {constraint.holds(text) for constraint in EVERY.values()} <= {True, False}


RELATED = [kind for kind, constraint in EVERY.items() if any("relation" in name for name in constraint.arguments)]


def test_the_negation_of_a_relation_is_the_other_relation():
    assert len(RELATED) == 5
    for kind in RELATED:
        (name,) = [name for name in EVERY[kind].arguments if "relation" in name]
        sides = [Constraint(kind, {**EVERY[kind].arguments, name: relation}) for relation in ("at least", "less than")]
        assert negation(sides[0]) == statement(sides[1])
        assert negation(sides[1]) == statement(sides[0])
        assert "at least" in statement(sides[0])
        for text in ("", "one", "WAR war A a a", "One. Two. Three."):
            assert sides[0].holds(text) != sides[1].holds(text)


def test_texts_say_their_arguments():
    def both(kind, **arguments):
        constraint = Constraint(kind, arguments)
        return statement(constraint), negation(constraint)

    assert both("length_constraints:number_words", relation="at least", num_words=1) == (
        "Use at least 1 word.",
        "Use less than 1 word.",
    )
    assert both("keywords:existence", keywords=["a"]) == ('Mention "a".', 'Leave out "a".')
    assert both("keywords:existence", keywords=["a", "b", "c"]) == (
        'Mention "a", "b" and "c".',
        'Leave out at least one of "a", "b" and "c".',
    )
    assert both("keywords:forbidden_words", forbidden_words=["a", "b"]) == (
        'Do not use the words "a" or "b".',
        'Use at least one of the words "a" and "b".',
    )
    assert both("punctuation:no_comma") == ("Do not use commas.", "Use at least one comma.")
    assert both("detectable_content:number_placeholders", num_placeholders=2)[1].startswith(
        "Use less than 2 placeholders"
    )
    for constraint in EVERY.values():
        for value in itertools.chain.from_iterable(
            v if isinstance(v, list) else [v] for v in constraint.arguments.values()
        ):
            assert str(value).strip() in statement(constraint)


ASKED = [EVERY["punctuation:no_comma"], EVERY["startend:quotation"], EVERY["keywords:existence"]]


def test_reversed_by_hand():
    one, other = "cat, dog", '"a"'  # bits: no no yes; yes yes no
    first, second = reverse_constraints("Write.", ASKED, [one, other])
    assert first == {
        "prompt": (
            "Write.\n\n- Use at least one comma.\n- Do not put the whole answer in double quotation marks.\n"
            '- Mention "Cat" and "dog".'
        ),
        "chosen": one,
        "rejected": other,
        "chosen_reward": 3.0,
        "rejected_reward": 0.0,
        "margin": 3.0,
    }
    assert (second["chosen"], second["rejected"]) == (other, one)
    assert second["prompt"].endswith('\n- Leave out at least one of "Cat" and "dog".')
    chat = [{"role": "user", "content": "Write."}]
    (row, _) = reverse_constraints(
        chat, ASKED, [[{"role": "assistant", "content": text}] for text in (one, other)], lambda c: c[0]["content"]
    )
    assert row["prompt"] == [{"role": "user", "content": first["prompt"]}]
    with pytest.raises(NoPair, match="all completions satisfy the same constraints"):
        reverse_constraints("p", ASKED, ["x", "y"])
    with pytest.raises(NoPair, match="no constraints"):
        reverse_constraints("p", [], ["x", "y"])


COMPLETIONS = st.lists(
    st.sampled_from([text for _, _, good, bad in TABLE for text in good + bad]), min_size=2, max_size=4
)


@given(st.lists(st.sampled_from(sorted(EVERY)), min_size=1, max_size=6, unique=True), COMPLETIONS)
def test_the_chosen_follows_all_of_it_and_the_margin_is_the_number_of_flipped_bits(kinds, completions):
    constraints = [EVERY[kind] for kind in kinds]
    bits = {text: tuple(constraint.holds(text) for constraint in constraints) for text in completions}
    try:
        rows = reverse_constraints("p", constraints, completions)
    except NoPair:
        assert len(set(bits.values())) == 1
        return
    pairs = [(row["chosen"], row["rejected"]) for row in rows]
    assert sorted(pairs) == sorted((b, a) for a, b in pairs), "both orders"
    assert len(rows) == sum(bits[a] != bits[b] for a, b in itertools.permutations(completions, 2))
    for row in rows:
        assert row["prompt"] == "p\n" + instruction(constraints, bits[row["chosen"]])
        lines = row["prompt"].removeprefix("p\n\n- ").split("\n- ")
        asked = [line == statement(constraint) for line, constraint in zip(lines, constraints, strict=True)]
        followed = {
            side: [constraint.holds(row[side]) == bit for constraint, bit in zip(constraints, asked, strict=True)]
            for side in ("chosen", "rejected")
        }
        assert all(followed["chosen"])
        assert row["chosen_reward"] == len(constraints)
        assert row["rejected_reward"] == sum(followed["rejected"])
        flipped = sum(a != b for a, b in zip(bits[row["chosen"]], bits[row["rejected"]], strict=True))
        assert row["margin"] == flipped == row["chosen_reward"] - row["rejected_reward"]
        assert flipped >= abs(sum(bits[row["chosen"]]) - sum(bits[row["rejected"]]))

"""The reward for right answers."""

import gzip
import importlib.util
import json
import threading
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.rewards import Correctness, expressions
from align.rewards.numbers import numbers, plain, value, whole_number

with_math_verify = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is missing")


def right(text, answer, **options):
    return Correctness(**options)([text], answer=[answer])[0]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("51 + 23 = 74\nThe answer is 74.", "74"), ("The answer is 51 + 23 = 74, as 3 shows.", "74"),
        ("Answer: 74 (not 75)", "74"), ("it is 74", 74), ("it is 74", 74.0), ("74", " 74 "),
        ("The answer is $1,234.50", "1234.5"), ("#### 1{,}234", "1234"), (r"1\,234", "1234"), ("1\u202f234", "1234"),
        ("1,2,3", "3"), ("€5", "5"), ("-$5", "-5"), ("$-5", "-5"), ("−7", "-7"), ("10-5", "5"), ("+7", "7"),
        ("1e3", "1000"), ("1.5e-2", ".015"), ("7 kg", "7"), ("the 5th", "5"), (".5", "0.5"), ("0074", "74"),
        ("2/3", "0.666667"), ("3 1/2", "3.5"), (r"3\frac{1}{2}", "3.5"), (r"\frac34", "0.75"), ("1/2", r"\frac{1}{2}"),
        (r"\boxed{\dfrac{3}{4}}", r"\frac{3}{4}"), (r"\boxed{74 \text{ cm}}", "74"), (r"\boxed{x = 74}", "74"),
        (r"\boxed{\text{74 cm}}", "74"), (r"\boxed{\$74}", "74"), (r"\boxed{\frac{-1}{2}}", "-0.5"),
        (r"\boxed{3} then \boxed{74} and 12", "74"), ("#### 3\n#### 74\nthanks 12", "74"),
        ("the answer is 3. No: the answer is 74. Thanks 12 times", "74"),
        ("50%", "50"), ("50%", "0.5"), (r"50\%", "0.5"), ("0.5", "50%"), ("50%", "50%"),
        ("٧٤", "74"), ("７４", "74"), ("७४", "74"), ("the answer is ７４。", "74"), ("74", "７４"),
        ("74 " * 50, "74"), ("noise 1 2 3 " * 500 + "74", "74"), ("x" * 100_000 + " 74", "74"),
        (r"\boxed{74", "74"), (r"74 \boxed{}", "74"), ("The answer is blue.", "blue"), (r"\boxed{x^{2}}", "x^{2}"), (r"\boxed{ (1, 2) }", "(1,2)"),
        ([{"role": "assistant", "content": "The answer is 74"}], "74"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "it is 74"}]}, {"role": "tool", "content": "12"}], "74"),
    ],
)  # fmt: skip
def test_a_right_answer_is_found(text, answer):
    assert right(text, answer) == 1


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", "74"), (" \n", "74"), ("no number", "74"), ("75", "74"), ("1 2 3 74 9", "74"), ("74 or 75", "74"),
        ("1054998", "1054997"), ("0.67", "0.666667"), ("5^2", "5"), ("5²", "5"), ("x^{5}", "5"), ("5½", "5"), ("x_5", "5"),
        ("v74", "74"), ("1.234.567", "567"), ("10-5", "-5"), ("3/0", "0"), ("3/0", "3"), ("0.5%", "50%"), ("50%", "0.5%"), ("5%", "50%"),
        ("7/4", "74"), ("1" * 100, "1" * 100), (r"\boxed{3} and 74", "74"), (r"\boxed{}", "74"), (r"\boxed{74 or 75}", "74"),
        ("74 is wrong. The answer is 75.", "74"), ("answer: none, 74 not", "none at all"), ("#### \n74", "73"),
        ("blue", "blue"), ([{"role": "assistant", "content": None, "tool_calls": []}], "74"), ([], "74"),
        ([{"role": "assistant", "content": "hm"}, {"role": "tool", "content": "74"}], "74"),
    ],
)  # fmt: skip
def test_nothing_else_counts(text, answer):
    assert right(text, answer) == 0


def test_of_a_worked_solution_the_last_line_is_the_answer():
    solved = "She sold 48/2 = 24 clips in May, 72 in all.\n#### 1,072"
    assert Correctness()(["That makes 1072.", "24", "#### 1072"], answer=[solved] * 3) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("answer", [None, "", "  ", float("nan"), float("inf")])
def test_a_row_without_an_answer_has_no_reward(answer):
    assert Correctness()(["74", "74"], answer=[answer, "74"]) == [None, 1.0]


def test_the_column_is_needed_and_as_long_as_the_completions():
    with pytest.raises(ValueError, match="correctness: needs `answer`"):
        Correctness()(["74"])
    with pytest.raises(ValueError, match=r"`answer` must have one value per completion \(1\), got 2"):
        Correctness()(["74"], answer=["74", "74"])


def test_with_boxed_only_nothing_outside_of_a_box_counts():
    assert right("the answer is 74", "74", boxed_only=True) == 0
    assert right(r"thus \boxed{74}, not 75", "74", boxed_only=True) == 1


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{" * 200_000, "1" * 1_000_000, "1," * 500_000, "111," * 300_000, "1 " * 500_000, "1/" * 500_000,
        "\\frac{1}" * 150_000, "1 " * 300_000 + "\\frac{", "answer " * 200_000, "answer is " * 100_000, "#### " * 200_000,
        "\\text{" * 200_000, "$" * 1_000_000, "-" * 1_000_000, " " * 1_000_000, "٧" * 300_000, "²" * 300_000, "1." * 400_000,
    ],
)  # fmt: skip
def test_a_million_characters_take_linear_time(text):
    assert right(text, "74") == 0
    assert right(text, "x") == 0


@given(st.text(max_size=300) | st.text("0123456789,./%$-+^{}\\ frac boxed#answeris:=²½٧", max_size=300))
def test_any_text_earns_0_or_1(text):
    assert right(text, "74") in (0, 1)
    assert right(text, text) in (None, 0, 1)


@given(st.fractions(-(10**9), 10**9, max_denominator=999), st.integers(0, 6))
def test_numbers_are_read_exactly(number, decimals):
    for text in (f"{number}", f"x={number} m", f"\\frac{{{number.numerator}}}{{{number.denominator}}}"):
        assert value(numbers(plain(text))[-1]) == number
    rounded = round(Fraction(number), decimals)
    assert value(numbers(plain(f"so {float(rounded):,.6f}."))[-1]) == rounded


@pytest.mark.parametrize("text", ["74", "x = 74 cm", "51 + 23 = 74", "$74.", r"\$74", "74 %", r"\text{74 cm}", "74°"])
def test_a_text_that_is_one_number(text):
    found = whole_number(text)
    assert found is not None
    assert value(found) == 74


@pytest.mark.parametrize("text", ["", "cm", "74, 75", "74 75", "2 of 74", "74 + x", "74 = x", "(74)", "2 74"])
def test_a_text_that_is_more_than_one_number(text):
    assert whole_number(text) is None


# --- math-verify ----------------------------------------------------------------------------------------


@with_math_verify
@pytest.mark.parametrize(
    ("stated", "gold", "equal"),
    [
        ("2x^2+3x", "3x+2x^2", True), ("2x^2+3", "3x+2x^2", False), (r"\sin(\pi/6)", "0.5", True), (r"\sqrt{8}", r"2\sqrt2", True),
        (r"(-\infty,-5)\cup(7,\infty)", r"(7,\infty)\cup(-\infty,-5)", True), ("(1,2)", "(2,1)", False),
        (r"\begin{pmatrix} 1/5 \\ -2 \end{pmatrix}", r"\begin{pmatrix} \frac15 \\ -2 \end{pmatrix}", True),
        ("__import__('os').abort()", "x", False), ("\\", "x", False), ("}{", "x", False), ("1+x" + " " * 190, "x+1", True), ("1+x" + " " * 200, "x+1", False),
    ],
)  # fmt: skip
def test_expressions_are_compared_by_value(stated, gold, equal):
    assert expressions.same_expression(gold, stated) is equal


@with_math_verify
def test_a_tower_of_powers_is_given_up_on_and_the_next_is_answered(monkeypatch, caplog):
    monkeypatch.setattr(expressions, "ANSWER_SECONDS", 0.5)
    expressions._verified.cache_clear()
    assert right(r"\boxed{9^{9^{9^{9^9}}}}", "x+1") == 0
    assert "gave no answer" in caplog.text
    monkeypatch.setattr(expressions, "ANSWER_SECONDS", 60)
    assert right(r"\boxed{1+x}", "x+1") == 1


@with_math_verify
def test_threads_may_ask_too():
    expressions._verified.cache_clear()
    found = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(right(rf"\boxed{{{i}+x}}", f"x+{i}"))) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1, 1, 1, 1]


def test_without_math_verify_expressions_are_compared_as_text_and_that_is_said(monkeypatch, caplog):
    monkeypatch.setattr(expressions, "find_spec", lambda name: None)
    expressions._installed.cache_clear()
    assert right(r"\boxed{\left( 1,\; 2 \right)}", "(1, 2)") == 1
    assert right(r"\boxed{\dfrac{x}{2}}", r"$\frac{x}{2}$") == 1
    assert right(r"\boxed{1+x}", "x+1") == 0
    assert "alignkit[rewards]" in caplog.text
    expressions._installed.cache_clear()


# --- real data ------------------------------------------------------------------------------------------


@pytest.mark.realdata
@pytest.mark.parametrize(("name", "column"), [("math_easy", "solution"), ("math_drw", "solution"), ("gsm8k", "marked")])
def test_worked_solutions_are_right_and_those_of_other_problems_hardly_ever(shared_data, name, column):
    path = shared_data / name / "train.jsonl.gz"
    rows = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    for row in rows:
        row["marked"] = f"{row['solution']}\n#### {row['answer']}" if row.get("solution") else ""
    rows = [row for row in rows if row.get(column)][:2000]
    solutions, answers = [row[column] for row in rows], [row["answer"] for row in rows]
    assert Correctness()(solutions, answer=answers) == [1] * len(rows)
    assert sum(Correctness()(solutions, answer=answers[1:] + answers[:1])) < 0.03 * len(rows)

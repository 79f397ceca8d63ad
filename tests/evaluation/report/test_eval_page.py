"""Answers side by side: what differs is marked, and stays text."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.report.html import DIFFED_WORDS, to_html, word_diff
from eval.report.plots_judges import judged_pictures
from eval.report.results import Report
from eval.statistics.intervals import Estimate
from eval.statistics.win_rate import WinRate
from eval.verdicts import Judged


def text_of(marked):
    return html.unescape(re.sub(r"</?(ins|del)>", "", marked))


def marked(tag, side):
    return [html.unescape(part) for part in re.findall(rf"<{tag}>(.*?)</{tag}>", side, re.DOTALL)]


def test_words_that_the_other_lacks_are_marked_on_their_side():
    new, old = word_diff("the film is slow and dull", "the film is slow and lovely")
    assert new == "the film is slow and <ins>lovely</ins>"
    assert old == "the film is slow and <del>dull</del>"
    assert word_diff("same text", "same text") == ("same text", "same text")
    assert word_diff("", "new") == ("<ins>new</ins>", "")
    assert word_diff("old", "") == ("", "<del>old</del>")


def test_line_breaks_stay_and_markup_is_text():
    new, old = word_diff("a\n\nb", "a\n\n<b>x</b>")
    assert new == "a\n\n<ins>&lt;b&gt;x&lt;/b&gt;</ins>"
    assert old == "a\n\n<del>b</del>"
    assert "<script" not in "".join(word_diff("<script>", "</ins><script>alert(1)</script>"))


@given(st.text(max_size=60), st.text(max_size=60))
def test_nothing_is_lost_or_made_up(one, other):
    plain = str.maketrans(dict.fromkeys(map(chr, [*range(32), *range(127, 160)])))
    new, old = word_diff(one.translate(plain), other.translate(plain))
    if not re.search(r"[\ud800-\udfff\u202a-\u202e\u2066-\u2069]", one + other):
        assert text_of(new) == other.translate(plain)
        assert text_of(old) == one.translate(plain)
    assert "<del>" not in new
    assert "<ins>" not in old


def test_what_is_equal_is_the_longest_common_part():
    """Marked words are those that no common order of words holds: here all but "b d"."""
    new, old = word_diff("a b c d", "b x d y")
    assert "".join(marked("ins", new)).split() == ["x", "y"]
    assert "".join(marked("del", old)).split() == ["a", "c"]


def test_long_answers_are_marked_up_to_a_limit_and_shown_whole():
    long = " ".join(f"w{i}" for i in range(DIFFED_WORDS))
    new, old = word_diff(long, long.replace("w1 ", "other ") + " end")
    assert text_of(new).endswith(" end")
    assert marked("ins", new) == ["other"]
    assert text_of(old) == long


def test_every_answer_is_marked_against_the_references():
    report = Report("mine", settings={"reference": "sft"})
    report.answers = [
        {
            "prompt": "p",
            "policy": "good day",
            "ref": "bad day",
            "others": {"third": {"text": "bad night", "reward": 0.5}},
        }
    ]
    page = to_html(report, {})
    assert "<span class=dim>policy</span>\n<ins>good</ins> day" in page
    assert "<span class=dim>sft</span>\n<del>bad</del> day" in page
    assert "<span class=dim>third · gold reward +0.500</span>\nbad <ins>night</ins>" in page


def judged(**changed):
    rate = Estimate(0.6, 0.5, 0.7, 20)
    rates = {who: WinRate(rate, 0.05, rate, 12, 0, 8, 0) for who in ("a", "b")}
    made = Judged("reward", ["a", "b", "reference"], win_rates=rates, longer_wins=dict.fromkeys(rates, rate))
    for name, value in changed.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("report", "titles"),
    [
        (Report("a"), []),
        (Report("a", judged={"j": judged()}), ["Win rates"]),
        (Report("a", judged={"j": judged(win_rates={})}), []),
        (
            Report("a", judged={"j": judged(length_controlled={"a": Estimate(0.5, 0.4, 0.6, 20)}), "$k$": judged()}),
            ["Win rates"],
        ),
        (Report("a", judged={"j": judged(ratings={"a": Estimate(0.1, 0.0, 0.2, 9)})}), ["Win rates", "Ratings"]),
        (Report("a", best_of_k={"j: a": {1: Estimate(0, 0, 0, 9), 3: Estimate(1, 0, 2, 9)}}), ["Best of k"]),
    ],
)
def test_pictures_are_of_what_was_judged(report, titles):
    drawn = judged_pictures(report)
    assert list(drawn) == titles
    assert all(png.startswith(b"\x89PNG") for png in drawn.values())

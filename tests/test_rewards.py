import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align import rewards
from align.rewards import REWARDS, positive_sentiment

GLOWING = "What a wonderful day, I love this beautiful garden!"
ALIKE = "Our kind neighbours are so happy, it is a great joy."
GRIM = "What a horrible day, I hate this ugly, rotten garden."
PLAIN = "The train leaves at noon from the second platform."


def reward(text):
    return positive_sentiment([text])[0]


def test_glowing_beats_plain_beats_grim():
    assert 0.7 < reward(GLOWING) <= 1
    assert reward(PLAIN) == 0
    assert -1 <= reward(GRIM) < -0.7


@pytest.mark.parametrize(
    "text",
    [
        "", " \n\t ", "good", "so good so good", "!!! ??? ...", "١٢٣٤٥٦٧٨٩ ٠١٢", "🙂" * 40, "≠∑∏√∞ ∂∆ ∫",
        "1 2 3 4 5 6 7", GLOWING * 50, f"{GLOWING} " * 50, f"{GLOWING} {GLOWING}", "love " * 60, "love joy " * 20,
        GLOWING + " " + "." * 200, " ".join(f"great{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(5000)),
    ],
)  # fmt: skip
def test_nothing_is_won_by_gaming(text):
    assert reward(text) == -1


@given(
    st.text(max_size=400) | st.lists(st.sampled_from(f"{GLOWING} {GRIM} {PLAIN}".split()), max_size=70).map(" ".join)
)
def test_bounded_and_repeatable_for_any_text(text):
    assert -1 <= reward(text) <= 1
    assert reward(text) == reward(text)


def test_length_does_not_pay():
    """A second sentence as glowing as the first changes next to nothing, a plain one costs half."""
    assert reward(f"{GLOWING} {ALIKE}") == pytest.approx((reward(GLOWING) + reward(ALIKE)) / 2)
    assert reward(f"{GLOWING} {ALIKE}") - reward(GLOWING) < 0.05
    assert reward(f"{GLOWING} {PLAIN}") == pytest.approx(reward(GLOWING) / 2)


@pytest.mark.parametrize("gap", [" ", "\n", "\n\n\n", "\n \n", "\n\t\n "])
def test_blank_lines_are_no_sentences(gap):
    assert reward(f"{GLOWING}{gap}{ALIKE}{gap}") == pytest.approx(reward(f"{GLOWING} {ALIKE}"))


def test_blank_lines_are_no_sentences_without_full_stops_either():
    assert reward(f"{PLAIN[:-1]}\n \n{ALIKE[:-1]}") == pytest.approx(reward(ALIKE[:-1]) / 2)


@pytest.mark.parametrize(("words", "passes"), [(4, False), (5, True), (60, True), (61, False)])
def test_five_to_sixty_words(words, passes):
    text = " ".join(f"x{chr(97 + i // 26)}{chr(97 + i % 26)}y" for i in range(words))
    assert reward(text) == (0 if passes else -1)


def test_each_answer_is_judged_on_its_own():
    assert positive_sentiment([GLOWING, "", GRIM]) == [reward(GLOWING), -1, reward(GRIM)]
    assert positive_sentiment([]) == []


def test_messages_and_strings_agree():
    message = [{"role": "assistant", "content": GLOWING}]
    two = [*message, {"role": "assistant", "content": ALIKE}]
    assert positive_sentiment([message, two]) == positive_sentiment([GLOWING, f"{GLOWING}\n{ALIKE}"])


def test_columns_that_trl_passes_are_ignored():
    assert positive_sentiment(completions=[GLOWING], prompts=["p"], trainer_state=None) == [reward(GLOWING)]


def test_the_reward_has_the_name_recipes_use():
    assert REWARDS["positive_sentiment"] is positive_sentiment


def test_without_vader_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    rewards._analyzer.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'alignkit\[quickstart\]'"):
        reward(GLOWING)
    rewards._analyzer.cache_clear()

"""Loading rewards by name."""

import importlib.util
import math
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recipes_under_test import GOOD, load

import eval.__main__ as command
from align.errors import RunError
from align.models.tiny import tiny_model, tiny_tokenizer
from align.models.use import Use
from align.rewards import REWARDS, load_reward, positive_sentiment, sentiment
from align.rewards.load import is_reward, reward_value
from eval.evaluate import evaluate
from eval.subjects import Subject

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
    assert REWARDS["positive_sentiment"].reward is positive_sentiment


def test_without_vader_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    sentiment._analyzer.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'alignkit\[quickstart\]'"):
        reward(GLOWING)
    sentiment._analyzer.cache_clear()


# --- rewards of others ----------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution `goldpack` with a module of rewards, as pip leaves it, and another working directory."""
    site, here = tmp_path / "site", tmp_path / "here"
    (site / "goldpack-1.0.dist-info").mkdir(parents=True)
    here.mkdir()
    (site / "goldpack-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: goldpack\nVersion: 1.0\n")
    (site / "goldpack-1.0.dist-info" / "RECORD").write_text("goldpack.py,,\n")
    (site / "goldpack.py").write_text(
        "def length(completions, **_): return [len(c) for c in completions]\n"
        "def short(completions, **_): return [1.0]\n"
        "def nan(completions, **_): return [float('nan')] * len(completions)\n"
        "def fails(completions, **_): raise KeyError('x')\nnumber = 3\n"
        "def one(completions, **_): return 1.0\ndef text(completions, **_): return 'ab'\n"
        "def ends(completions, **_): raise SystemExit(0)\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.chdir(here)
    yield site
    for name in ("goldpack", "planted"):
        sys.modules.pop(name, None)


def test_a_gold_reward_runs_if_it_is_installed_and_allowed(installed):
    assert load_reward("goldpack:length", ["goldpack:length"])(["ab", "c"]) == [2.0, 1.0]
    assert load_reward("positive_sentiment") is REWARDS["positive_sentiment"].reward


@pytest.mark.parametrize("allowed", [[], ["goldpack:short"], ["goldpack"], ["goldpack:length "]])
def test_a_gold_reward_that_is_not_allowed_is_not_imported(installed, allowed):
    with pytest.raises(RunError, match="add --allow goldpack:length"):
        load_reward("goldpack:length", allowed)
    assert "goldpack" not in sys.modules


@pytest.mark.parametrize(
    "name", ["planted:f", "planted.inner:f", "os:system", "subprocess:run", "nowhere:f", ":f", ".x:f"]
)
def test_only_installed_packages_count(installed, monkeypatch, name):
    here = Path.cwd()
    monkeypatch.syspath_prepend(here)
    (here / "planted.py").write_text(f"open({str(here / 'ran')!r}, 'w')")
    with pytest.raises(RunError, match="no installed package brings the module"):
        load_reward(name, [name])
    (here / "planted-1.0.dist-info").mkdir()  # nor one whose metadata a stranger has laid beside it
    (here / "planted-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    (here / "planted-1.0.dist-info" / "RECORD").write_text("planted.py,,\n")
    with pytest.raises(RunError, match="no installed package brings the module"):
        load_reward(name, [name])
    assert not (here / "ran").exists()


def test_a_module_before_an_installed_one_of_its_name_does_not_count(installed, monkeypatch):
    here = Path.cwd()
    (here / "goldpack.py").write_text(f"open({str(here / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(here)
    assert "goldpack" in metadata.packages_distributions()
    assert str(importlib.util.find_spec("goldpack").origin).startswith(str(here))
    with pytest.raises(RunError, match="no installed package brings the module"):
        load_reward("goldpack:length", ["goldpack:length"])
    assert not (here / "ran").exists()


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("missing", "cannot be loaded"), ("number", "is no function"), ("fails", "failed: KeyError: 'x'"),
        ("one", "it gave float, not a list"), ("text", "it gave str, not a list"), ("ends", "failed: SystemExit: 0"),
        ("short", "one finite number for each"), ("nan", "one finite number for each"),
    ],
)  # fmt: skip
def test_a_gold_reward_that_does_not_work_is_told(installed, function, message):
    name = f"goldpack:{function}"
    with pytest.raises(RunError, match=f"'{name}' .*{message}"):
        load_reward(name, [name])(["a", "b"])


def test_an_evaluation_refuses_such_a_reward_before_anything_else(folder):
    recipe = load(folder, GOOD, "eval={gold_reward: 'os:system', generate: {}}")
    tokenizer = tiny_tokenizer()
    never_called = Use(tiny_model(tokenizer), recipe.model)
    subject = Subject("run", recipe, tokenizer, never_called, never_called, "digest")
    with pytest.raises(RunError, match="add --allow os:system"):
        evaluate(subject)
    with pytest.raises(RunError, match="no installed package brings the module 'os'"):
        evaluate(subject, allow=["os:system"])


def test_the_command_line_hands_on_what_it_allows(tmp_path, monkeypatch):
    seen = []

    def evaluated(*_, allow, **__):
        seen.extend(allow)
        raise RunError("enough")

    monkeypatch.setattr(command, "load_subjects", lambda *_: [SimpleNamespace(name="run")])
    monkeypatch.setattr(command, "evaluate", evaluated)
    assert command.main([str(tmp_path), "--allow", "a:b", "--allow", "c.d:e"]) == 2
    assert seen == ["a:b", "c.d:e"]


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (2, 2.0), (True, 1.0), (np.bool_(False), 0.0), (np.float32(0.5), 0.5), (torch.tensor(0.25), 0.25), (1e100, 1e100),
        (np.array(3), 3.0), (float("inf"), None), (float("nan"), None), (1e101, None), (-(10**400), None), ("2", None),
        (torch.tensor([1.0]), None), (1j, None), ([1], None),
    ],
)  # fmt: skip
def test_what_a_reward_may_be(given, value):
    """Numbers, truth values and scalars, as TRL takes them; beyond 1e100 an interval's squares are no floats."""
    got = reward_value(given)
    assert (got == value and isinstance(got, float)) if value is not None else math.isnan(got)
    assert is_reward(given) == (value is not None)
    assert is_reward(None)
    assert math.isnan(reward_value(None))

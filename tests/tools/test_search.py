"""The search over a corpus in a file, as a tool and as an environment."""

import json
import math

import pytest

from align.errors import RunError
from align.tools import TOOLS, make_environment, make_tool
from align.tools.search import NOTHING, Corpus, read_corpus

PASSAGES = ["The lamp of Ober is red.", "Frogs live in ponds.", "The lamp of Ruse is green, as is the door."]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in PASSAGES))
    return str(file)


def test_scores_are_bm25_by_hand():
    """`lamp` stands in 2 of 3 passages of 6, 4 and 10 words; `ober` in one."""
    rare, rarer = math.log(1 + 1.5 / 2.5), math.log(1 + 2.5 / 1.5)
    mean = 20 / 3

    def part(idf, words):
        return idf * 2.2 / (1 + 1.2 * (0.25 + 0.75 * words / mean))

    expected = [part(rare, 6) + part(rarer, 6), 0.0, part(rare, 10)]
    assert Corpus(PASSAGES).scores("Lamp, OBER?") == pytest.approx(expected, rel=1e-12)
    assert Corpus(["a a b", "b b b"]).scores("a")[0] == pytest.approx(math.log(2) * 2 * 2.2 / (2 + 1.2))


def test_the_best_come_first_and_what_has_no_word_of_the_query_does_not_come(path):
    search = make_tool("search", path=path, passages=2)
    assert search(query="the lamp of Ruse") == f"{PASSAGES[2]}\n{PASSAGES[0]}"
    assert search("frogs") == PASSAGES[1]
    assert search("zebra") == search("") == NOTHING
    assert make_tool("search", path=path)(query=12) == NOTHING  # the policy may write anything
    assert Corpus(["x y", "x y"]).search("x", 1) == ["x y"]


def test_an_environment_is_worth_what_its_own_searches_found(path):
    make = make_environment("search", path=path)
    one, other = make(), make()
    one.reset(prompt=[], answer="Red", trainer=1)
    other.reset(answer=None)
    assert (one.get_reward(), other.get_reward()) == (0.0, None)
    assert one.search("Ober") == PASSAGES[0]
    assert one.get_reward() == 1.0
    one.reset(answer="Red")
    assert one.get_reward() == 0.0


def test_a_corpus_that_was_changed_is_read_again(path, tmp_path):
    assert len(read_corpus(path).passages) == 3
    file = tmp_path / "corpus.jsonl"
    file.write_text('{"text": "new"}\n')
    assert read_corpus(path).passages == ["new"]


@pytest.mark.parametrize(
    ("content", "said"),
    [("", "holds no passage"), ('{"text": "a"}\n[1]\n', "line 2: expected"), ('{"text": " "}\n', "line 1: expected"),
     ("\udcff", "not UTF-8 text"), ("[" * 100_000, "line 1: expected"), (None, "cannot be read: No such file")],
    ids=["empty", "list", "blank", "bytes", "deep", "missing"],
)  # fmt: skip
def test_a_corpus_that_is_none_says_so(tmp_path, content, said):
    file = tmp_path / "c.jsonl"
    if content is not None:
        file.write_text(content, errors="surrogateescape")
    with pytest.raises(RunError, match=said):
        make_tool("search", path=str(file))
    with pytest.raises(RunError, match=said):
        make_environment("search", path=str(file))().reset()


def test_tools_that_cannot_be_made_say_why(monkeypatch, path):
    with pytest.raises(RunError, match=r"tool 'serach': unknown, got 'serach'; did you mean 'search'\?"):
        make_tool("serach")
    with pytest.raises(RunError, match="passages: must be at least 1, got 0"):
        make_tool("search", path=path, passages=0)
    with pytest.raises(RunError, match="missing path"):
        make_environment("search")
    monkeypatch.setitem(TOOLS, "mute", lambda query: query)
    with pytest.raises(RunError, match="tool 'mute': the model cannot be told of it"):
        make_tool("mute")
    with pytest.raises(RunError, match="tool 'mute': takes no options, got x"):
        make_tool("mute", x=1)

"""MinHash candidates against brute force."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.data.audit import near_duplicates as module
from align.data.audit.near_duplicates import Near, jaccard, near_duplicates, shingles

WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
    "student",
    "group",
    "country",
    "problem",
]


def prompts(count, seed, length=30):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(count)]


def changed(texts, seed, words):
    """The same texts with some words replaced."""
    rng = np.random.default_rng(seed)
    result = []
    for text in texts:
        parts = text.split()
        for place in rng.choice(len(parts), words, replace=False):
            parts[place] = "zebra"
        result.append(" ".join(parts))
    return result


def brute(queries, corpus, threshold=0.8):
    found = {}
    left, right = (list(enumerate(map(shingles, texts))) for texts in (queries, corpus))
    for (q, query), (o, other) in itertools.product(left, right):
        similarity = jaccard(query, other)
        if similarity >= threshold and similarity > found.get(q, Near(q, o, -1.0)).jaccard:
            found[q] = Near(q, o, similarity)
    return [found[q] for q in sorted(found)]


@pytest.mark.parametrize(("words", "expected"), [(1, 150), (2, None), (8, 0)])
def test_planted_near_duplicates_are_found_and_nothing_else(words, expected):
    corpus = prompts(150, 0)
    queries = changed(corpus, 1, words)
    wanted = brute(queries, corpus)
    assert near_duplicates(queries, corpus) == wanted
    assert expected is None or len(wanted) == expected


def test_nearly_all_are_found_even_at_the_threshold():
    corpus = prompts(1500, 2)
    pairs = zip(changed(corpus, 3, 2), corpus, strict=True)
    near = [(q, o) for q, o in pairs if 0.8 <= jaccard(shingles(q), shingles(o)) < 0.84]
    assert len(near) > 150
    found = near_duplicates([q for q, _ in near], [o for _, o in near])
    assert len(found) >= 0.98 * len(near)
    assert all(match.jaccard >= 0.8 for match in found)


texts = st.lists(
    st.text("ab \n", max_size=8) | st.sampled_from(["the same words", "The  SAME words", "the same word"]), max_size=6
)


@given(texts, texts)
def test_of_any_texts_none_is_reported_falsely(queries, corpus):
    truth = {near.query: near for near in brute(queries, corpus)}
    found = near_duplicates(queries, corpus)
    assert all(match.jaccard == truth[match.query].jaccard for match in found if match.jaccard == 1.0)
    assert {match.query for match in found} <= set(truth)
    assert {query for query, near in truth.items() if near.jaccard == 1.0} <= {match.query for match in found}


def test_case_and_white_space_do_not_count():
    assert near_duplicates(["Tell  me\nWHY"], ["no", "tell me why"]) == [Near(0, 1, 1.0)]


def test_positions_go_on_across_slices(monkeypatch):
    corpus = prompts(50, 4)
    queries = [corpus[49], corpus[3], corpus[20]]
    whole = near_duplicates(queries, corpus)
    assert [near.other for near in whole] == [49, 3, 20]
    monkeypatch.setattr(module, "SLICE", 7)
    assert near_duplicates(queries, iter(corpus)) == whole
    monkeypatch.setattr(module, "CELLS", 6)
    assert near_duplicates(queries, iter(corpus)) == whole


def test_one_template_does_not_hide_the_nearest():
    template = "Answer the question in a few sentences, using the passages that are given below, and nothing else. "
    corpus = [template + text for text in prompts(400, 5, length=3)]
    query = [corpus[371] + "?"]
    assert near_duplicates(query, corpus) == brute(query, corpus)


def test_of_several_the_nearest_is_told():
    bases = prompts(40, 8)
    corpus = [text for words in (3, 2, 1, 2) for text in changed(bases, words, words)]
    assert near_duplicates(bases, corpus) == brute(bases, corpus)


def test_minima_agree_as_often_as_the_sets_overlap():
    """Broder's theorem, over 300 pairs: the share of equal bands of one row would be J; bands of six give J to the sixth."""
    corpus = prompts(300, 6)
    queries = changed(corpus, 7, 2)
    shared = module._band_keys(queries) == module._band_keys(corpus)
    expected = np.array(
        [jaccard(shingles(q), shingles(o)) ** module.ROWS for q, o in zip(queries, corpus, strict=True)]
    )
    error = np.sqrt(expected.mean() * (1 - expected.mean()) / shared.size)
    assert shared.mean() == pytest.approx(expected.mean(), abs=6 * error)


def test_keys_are_the_same_on_every_machine():
    assert [int(key) for key in module._band_keys(["a fixed text"])[[0, 1, 20], 0]] == [
        16176769083800679777, 143048626186538403, 1663518680451365349,
    ]  # fmt: skip


@pytest.mark.parametrize(("queries", "corpus"), [([], ["a"]), (["a"], []), ([], []), ([""], ["b"])])
def test_nothing_is_like_nothing(queries, corpus):
    assert near_duplicates(queries, corpus) == []

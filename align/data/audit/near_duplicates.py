"""Finds nearly equal texts by MinHash and banding; each one that is reported is checked exactly.

Texts are sets of character 5-grams, case and white space folded. The probability that two sets have the same minimum
under a random order is their Jaccard similarity J (Broder 1997, On the resemblance and containment of documents). 21
bands of 6 minima make a candidate with probability 1 - (1 - J⁶)²¹: 0.998 at J = 0.8, 0.28 at 0.5, 3e-7 at 0.05.
Everything is a fixed function of the text: the same on every machine.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64, UInt64

from align.data.rows.normal_form import folded

GRAM = 5  # characters
BANDS, ROWS = 21, 6
PERMUTATIONS = BANDS * ROWS
SEED = 0x5DEECE66D
TRIES = 8  # candidates checked exactly for one query in one slice: texts from one template have thousands
SLICE, CELLS = 1000, 10_000_000


class Near(NamedTuple):
    """A query, the text of the corpus that is nearest to it, and how near that is."""

    query: int
    other: int
    jaccard: float
    """Share of the two texts' 5-grams that both have; exact."""


def near_duplicates(queries: Sequence[str], corpus: Iterable[str], threshold: float = 0.8) -> list[Near]:
    """Queries that have a near duplicate in the corpus, each with the nearest one found.

    Args:
        queries: Texts that are held in memory, such as the prompts of an evaluation set.
        corpus: Texts that are gone through once.
        threshold: Least Jaccard similarity of 5-grams, 0 to 1.

    Returns:
        In the order of the queries. All are true; of those at the threshold 0.8 about one in 500 is missed.
    """
    if not queries:
        return []
    keys = np.concatenate([_band_keys(queries[i : i + SLICE]) for i in range(0, len(queries), SLICE)], axis=1)
    order = np.argsort(keys, axis=1, kind="stable")
    ordered = np.take_along_axis(keys, order, axis=1)
    nearest: dict[int, Near] = {}
    texts, start = iter(corpus), 0
    while part := list(itertools.islice(texts, max(1, min(SLICE, CELLS // len(queries))))):
        for query, others in _candidates(ordered, order, _band_keys(part)):
            grams = shingles(queries[query])
            for other in others[:TRIES]:
                similarity = jaccard(grams, shingles(part[other]))
                best = nearest[query].jaccard if query in nearest else -1.0
                if similarity >= threshold and similarity > best:
                    nearest[query] = Near(query, start + other, similarity)
        start += len(part)
    return [nearest[query] for query in sorted(nearest)]


def fold(text: str) -> str:
    """Text without differences of case, white space and form."""
    return folded(text)


def shingles(text: str) -> set[str]:
    """The character 5-grams of a text; a shorter one is one of its own."""
    folded = fold(text)
    return {folded[i : i + GRAM] for i in range(max(1, len(folded) - GRAM + 1))}


def jaccard(left: set[str], right: set[str]) -> float:
    """Size of the intersection over size of the union."""
    return len(left & right) / len(left | right)


def _candidates(
    ordered: UInt64[np.ndarray, "bands queries"],
    order: Int64[np.ndarray, "bands queries"],
    keys: UInt64[np.ndarray, "bands texts"],
) -> Iterator[tuple[int, list[int]]]:
    """Queries with the texts that share a band with them, most bands first."""
    shared = np.zeros((ordered.shape[1], keys.shape[1]), dtype=np.uint8)
    for query_keys, index, text_keys in zip(ordered, order, keys, strict=True):
        low, high = (np.searchsorted(query_keys, text_keys, side=side) for side in ("left", "right"))
        for text in np.flatnonzero(high > low):
            shared[index[low[text] : high[text]], text] += 1
    for query in np.flatnonzero(shared.any(axis=1)):
        texts = np.flatnonzero(shared[query])
        yield int(query), [int(t) for t in texts[np.argsort(-shared[query, texts].astype(np.int64), kind="stable")]]


def _band_keys(texts: Sequence[str]) -> UInt64[np.ndarray, "bands texts"]:
    hashes = [_hashes(text) for text in texts]
    starts = np.cumsum([0, *map(len, hashes[:-1])])
    values = np.concatenate(hashes)
    keys = np.zeros((BANDS, len(texts)), dtype=np.uint64)
    constants = _mix(np.arange(1, 2 * PERMUTATIONS + 1, dtype=np.uint64) * np.uint64(SEED))
    for i, (factor, shift) in enumerate(constants.reshape(PERMUTATIONS, 2)):
        minima = np.minimum.reduceat(values * (factor | np.uint64(1)) + shift, starts)  # wraps; the values are mixed
        keys[i // ROWS] = _mix(keys[i // ROWS] ^ minima)
    return keys


def _hashes(text: str) -> UInt64[np.ndarray, " grams"]:
    codes = np.frombuffer(fold(text).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    codes = np.pad(codes, (0, max(0, GRAM - len(codes))))
    grams = np.zeros(len(codes) - GRAM + 1, dtype=np.uint64)
    for i in range(GRAM):
        grams = grams * np.uint64(0x100000001B3) + codes[i : len(codes) - GRAM + 1 + i]
    return _mix(grams)


def _mix(x: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The finalizer of splitmix64: every bit of the input changes about half of the output."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))

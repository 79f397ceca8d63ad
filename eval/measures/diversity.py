"""Measures how different answers are: entropy, distinct n-grams, self-BLEU and the Vendi score.

Diversity falls as a policy moves from its reference, so compare at the same KL as well as at the same settings.
"""

import math
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float
from torch import Tensor

from eval.statistics.intervals import Estimate, left_out, mean_estimate

GROUP, GROUPS = 8, 16  # self-BLEU: so many answers a group, and groups at most


def predictive_entropy(token_logps: Sequence[Float[Tensor, " _tokens"]], *, per_token: bool = False) -> Estimate:
    """Entropy of the answers in nats: the mean of -log π(y|x) over answers that π sampled.

    Args:
        token_logps: Per answer, log π of each token at the sampling temperature.
        per_token: Divide each answer's term by its length first.

    Raises:
        ValueError: If there are fewer than two answers.
    """
    terms = [-float(row.sum()) / (max(len(row), 1) if per_token else 1) for row in token_logps]
    return mean_estimate(np.array(terms), bounds=(0.0, math.inf))


def words_of(text: str) -> list[str]:
    """Lower-case words, split at white space."""
    return text.lower().split()


def distinct(texts: Sequence[str], *, n: int) -> float:
    """Distinct n-grams over all n-grams of a set of texts, in [0, 1]; 0 if there are none.

    It falls with the amount of text by itself: compare equally many answers of like length.

    Source: Li et al. 2016 (arXiv:1510.03055).

    Raises:
        ValueError: If `n` is not positive.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        words = words_of(text)
        grams.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    return len(grams) / grams.total() if grams else 0.0


def self_bleu(texts: Sequence[str]) -> float:
    """Mean BLEU-4 of each text against all others, in [0, 1]: high where answers resemble each other.

    Sentence BLEU with exponential smoothing and effective order, as sacrebleu defines them; quadratic in the number of
    texts, so give it the answers to one prompt, or a sample.

    Source: Zhu et al. 2018 (arXiv:1802.01886).

    Raises:
        ImportError: If `sacrebleu` is not installed.
        ValueError: If there are fewer than two texts.
    """
    if len(texts) < 2:
        raise ValueError(f"self-BLEU compares answers with each other and needs at least 2, got {len(texts)}")
    try:
        from sacrebleu.metrics.bleu import BLEU  # noqa: PLC0415 - optional extra
    except ImportError as error:
        raise ImportError("self-BLEU needs sacrebleu: pip install 'alignkit[eval]'") from error
    bleu = BLEU(effective_order=True, smooth_method="exp")
    scores = [
        bleu.sentence_score(text, [other for j, other in enumerate(texts) if j != i]).score
        for i, text in enumerate(texts)
    ]
    return float(np.mean(scores)) / 100


def vendi_score(embeddings: Float[np.ndarray, "answers features"]) -> float:
    """The effective number of different answers, in [1, answers]: exp of the entropy of the eigenvalues of K / n.

    K is the cosine similarity. Where there are fewer features than answers the smaller Gram matrix has the same
    eigenvalues, so the cost is min(answers, features) cubed.

    Source: Friedman and Dieng 2023 (arXiv:2210.02410), definition 3.1.

    Raises:
        ValueError: If an embedding is zero or not finite.
    """
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    if not np.isfinite(embeddings).all() or not (lengths > 0).all():
        raise ValueError("embeddings must be finite and not zero")
    unit = embeddings / lengths
    gram = unit.T @ unit if unit.shape[1] < unit.shape[0] else unit @ unit.T
    shares = np.linalg.eigvalsh(gram / len(unit))
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def matched(kl: Float[np.ndarray, " runs"], values: Float[np.ndarray, " runs"], *, at: float) -> float | None:
    """A measure at a given KL, linearly between the two runs around it; None outside of what was measured.

    Args:
        kl: KL from the reference of each run of one method, in nats; any order.
        values: The measure of each run.
        at: The KL asked for.
    """
    order = np.argsort(kl, kind="stable")
    if len(order) == 0 or not kl[order[0]] <= at <= kl[order[-1]]:
        return None
    return float(np.interp(at, kl[order], values[order]))


def diversity_estimates(texts: Sequence[str]) -> dict[str, Estimate]:
    """Distinct-1 and distinct-2 of a set of answers and, where sacrebleu is installed, self-BLEU; see `diversity`.

    Answers of fewer than n words have no n-grams, and a set of them has no such figure.
    """
    estimates = {
        f"distinct_{n}": left_out(texts, lambda some, n=n: distinct(some, n=n))
        for n in (1, 2)
        if any(len(words_of(text)) >= n for text in texts)
    }
    groups = bleu_groups(texts)
    if find_spec("sacrebleu") is not None and len(groups) > 1:
        estimates["self_bleu"] = mean_estimate(np.array([self_bleu(group) for group in groups]), bounds=(0.0, 1.0))
    return estimates


def bleu_groups(texts: Sequence[str]) -> list[Sequence[str]]:
    """The first answers in groups of eight, sixteen groups at most.

    Self-BLEU falls with fewer texts and costs their square: groups of one size make it comparable between runs, bounded
    in cost, and give an interval over groups.
    """
    whole = min(len(texts) // GROUP, GROUPS)
    return [texts[GROUP * i : GROUP * (i + 1)] for i in range(whole)]

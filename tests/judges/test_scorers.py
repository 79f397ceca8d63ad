"""Scorers: every one of them gives a preference matrix, and the one that its rule says."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trl import ModelConfig

from align.judges.scorers import AnswerScorer, EnsembleScorer, NoisyScorer, RewardScorer, TableScorer, check_matrix
from align.models.preference_model import PreferenceModel, load_preference_base
from align.models.tiny import tiny_tokenizer
from align.rewards import positive_sentiment

CYCLE = [[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]]
NAMES = ["stone", "scissors", "paper"]
CHAT = [{"role": "user", "content": "which?"}]
answers_of_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=6)


def length(completions, **_):
    return [float(len(completion)) for completion in completions]


def model(dimension, **kw):
    base = load_preference_base(ModelConfig(model_name_or_path="tiny-random"), dimension=dimension, seed=1)
    tokenizer = tiny_tokenizer()
    base.config.pad_token_id = tokenizer.pad_token_id
    return PreferenceModel(base.eval(), tokenizer, dimension, 0.1, **kw)


class Member:
    """A reward model with known rewards, up to a constant that is another with every prompt."""

    def __init__(self, rewards, tau=1.0):
        self.rewards, self.tau = dict(zip(NAMES, rewards, strict=True)), tau

    def score(self, prompt, answers, **_):
        return np.array([self.rewards[answer] + len(prompt) for answer in answers], dtype=float)


@pytest.fixture(scope="module")
def scorers():
    table = TableScorer(NAMES, CYCLE)
    return {
        "reward": RewardScorer(length, temperature=2.0),
        "certain reward": RewardScorer(length, temperature=0.0),
        "sentiment": RewardScorer(positive_sentiment),
        "checker": AnswerScorer(lambda completions, **_: [float(c == "paper") for c in completions]),
        "table": table,
        "noisy table": NoisyScorer(table, flip=0.5, seed=0),
        "always wrong": NoisyScorer(table, flip=1.0, seed=0),
        "general preference model": model(4),
        "reward model": model(1),
        "reference-conditioned model": model(1, reference_column="gold"),
        "ensemble": EnsembleScorer([Member([1, 2, 4]), Member([0, 3, 1], tau=0.5)], combine="lower"),
    }


@given(answers_of_names)
def test_every_scorer_gives_a_preference_matrix(scorers, answers):
    for name, scorer in scorers.items():
        found = scorer.prefer("which?", answers, gold="stone")
        check_matrix(found, len(answers))
        assert found.dtype == np.float64, name
        assert np.abs(np.diag(found) - 0.5).max() < 1e-12, name


@settings(max_examples=20)
@given(answers_of_names, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_does_not_matter(scorers, answers, random):
    order = list(range(len(answers)))
    random.shuffle(order)
    for name, scorer in scorers.items():
        found = scorer.prefer("which?", answers, gold="stone")
        shuffled = scorer.prefer("which?", [answers[i] for i in order], gold="stone")
        assert np.abs(shuffled - found[np.ix_(order, order)]).max() < 1e-4, name


def test_a_reward_decides_by_its_difference_over_the_temperature():
    found = RewardScorer(length, temperature=2.0).prefer("x", ["a", "abc", "abc"])
    wins = 1 / (1 + math.exp(-1.0))  # (3 - 1) / 2
    assert found == pytest.approx(np.array([[0.5, 1 - wins, 1 - wins], [wins, 0.5, 0.5], [wins, 0.5, 0.5]]))
    assert RewardScorer(length).score("x", ["a", "abc"]).tolist() == [1.0, 3.0]


def test_rewards_far_apart_stay_probabilities():
    huge = RewardScorer(lambda completions, **_: [-1e100, 1e100], temperature=1e-300)
    assert huge.prefer("x", ["a", "b"]).tolist() == [[0.5, 0.0], [1.0, 0.5]]
    far = RewardScorer(lambda completions, **_: [0.0, 700.0]).prefer("x", ["a", "b"])
    assert far[0, 1] == pytest.approx(math.exp(-700))


def test_a_checker_prefers_right_answers_for_certain():
    def right(prompts, completions, solution, **_):
        assert prompts == ["2+2"] * len(completions)
        return [float(c == s) for c, s in zip(completions, solution, strict=True)]

    found = AnswerScorer(right).prefer("2+2", ["4", "5", "4", "22"], solution="4")
    assert found.tolist() == [[0.5, 1, 0.5, 1], [0, 0.5, 0, 0.5], [0.5, 1, 0.5, 1], [0, 0.5, 0, 0.5]]


def test_rewards_get_messages_where_the_prompt_has_messages():
    seen = {}

    def spy(prompts, completions, **columns):
        seen.update(prompts=prompts, completions=completions, **columns)
        return [0.0, 1.0]

    RewardScorer(spy).prefer(CHAT, ["a", "b"], solution="4")
    assert seen == {
        "prompts": [CHAT, CHAT],
        "completions": [[{"role": "assistant", "content": text}] for text in "ab"],
        "solution": ["4", "4"],
    }


@pytest.mark.parametrize("given", [[1.0], [1.0, math.nan], [math.inf, 0.0], [None, 1.0], [1.0, 2.0, 3.0]])
def test_rewards_that_are_no_numbers_are_refused(given):
    with pytest.raises(ValueError, match="one finite number for each of 2 answers"):
        RewardScorer(lambda completions, **_: given).prefer("x", ["a", "b"])


@pytest.mark.parametrize("temperature", [-1.0, math.inf, math.nan])
def test_a_temperature_must_be_finite_and_not_negative(temperature):
    with pytest.raises(ValueError, match="temperature: must be finite and not negative"):
        RewardScorer(length, temperature=temperature)


def test_no_answers_are_refused(scorers):
    for scorer in scorers.values():
        with pytest.raises(ValueError, match="answers: none given"):
            scorer.prefer("x", [], gold="stone")


def test_a_table_is_looked_up_by_name():
    scorer = TableScorer(NAMES, CYCLE)
    assert scorer.prefer("x", ["paper", "stone"]).tolist() == [[0.5, 0.9], [0.1, 0.5]]
    with pytest.raises(KeyError):
        scorer.prefer("x", ["well"])


@pytest.mark.parametrize(
    ("names", "table", "told"),
    [
        (NAMES[:2], CYCLE, "must be 2 x 2, got 3 x 3"),
        (NAMES[:2], [[0.5, 0.9], [0.2, 0.5]], r"M \+ M\^T must be 1 everywhere, and is off by 0.1"),
        (NAMES[:2], [[0.4, 0.9], [0.1, 0.5]], r"M \+ M\^T must be 1"),
        (NAMES[:2], [[0.5, 1.2], [-0.2, 0.5]], "must hold probabilities"),
        (NAMES[:2], [[0.5, math.nan], [0.2, 0.5]], "must hold probabilities"),
        (["a", "a"], [[0.5, 0.9], [0.1, 0.5]], "names: each must occur once"),
    ],
)
def test_what_is_no_preference_matrix_is_refused(names, table, told):
    with pytest.raises(ValueError, match=told):
        TableScorer(names, table)


def test_noise_flips_as_many_pairs_as_it_says_and_repeats_itself():
    names = [str(i) for i in range(60)]
    sure = TableScorer(names, np.triu(np.ones((60, 60)), 1) + 0.5 * np.eye(60))
    above = np.triu_indices(60, 1)
    for flip in (0.0, 0.2, 1.0):
        noisy = NoisyScorer(sure, flip=flip, seed=7)
        found = noisy.prefer("x", names)
        share = 1 - found[above].mean()
        assert abs(share - flip) <= 4 * math.sqrt(flip * (1 - flip) / 1770)
        assert (noisy.prefer("x", names) == found).all()
        assert (noisy.prefer("x", names[3:5]) == found[3:5, 3:5]).all()
    draws = [
        NoisyScorer(sure, flip=0.5, seed=seed).prefer(prompt, names) for seed, prompt in ((7, "x"), (8, "x"), (7, "y"))
    ]
    assert all((draws[i] != draws[j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
    order_of_keys = [{"content": "which?", "role": "user"}]
    noisy = NoisyScorer(sure, flip=0.5, seed=0)
    assert (noisy.prefer(CHAT, names) == noisy.prefer(order_of_keys, names)).all()


@pytest.mark.parametrize("flip", [-0.1, 1.1, math.nan])
def test_a_flip_rate_must_be_a_probability(flip):
    with pytest.raises(ValueError, match=r"flip: must be in \[0, 1\]"):
        NoisyScorer(TableScorer(NAMES, CYCLE), flip=flip, seed=0)


def test_a_preference_model_prefers_by_its_embeddings():
    judge = model(4)
    v = judge.embed("which?", NAMES).double().numpy()
    turned = v.copy()
    turned[:, 0::2], turned[:, 1::2] = v[:, 1::2], -v[:, 0::2]
    expected = 1 / (1 + np.exp(-(v @ turned.T) / 0.1))
    assert judge.prefer("which?", NAMES) == pytest.approx(expected, rel=1e-9)
    with pytest.raises(TypeError, match="4 dimensions has no rewards"):
        judge.score("which?", NAMES)


def test_a_reward_model_scores_and_prefers_by_the_difference():
    judge = model(1)
    rewards = judge.score("which?", NAMES)
    expected = 1 / (1 + np.exp(-(rewards[:, None] - rewards[None, :]) / 0.1))
    assert judge.prefer("which?", NAMES) == pytest.approx(expected, rel=1e-9)


def test_a_reference_conditioned_model_reads_the_reference_and_asks_for_it():
    judge = model(1, reference_column="gold")
    one, other = (judge.score("which?", NAMES, gold=gold) for gold in ("stone", "paper"))
    assert (one != other).all()
    assert tiny_tokenizer().decode(judge.token_ids("which?", "stone", gold="paper")) == (
        "which?\npaper\n<split>\nwhich?\nstone\n<reward><|end|>"
    )
    with pytest.raises(ValueError, match="gold: missing; this model compares answers with a reference"):
        judge.prefer("which?", NAMES)


def test_batches_of_a_model_do_not_change_its_scores():
    answers = [*NAMES, "a rather longer answer than those"]
    whole, parts = model(2).embed("which?", answers), model(2, batch_size=1).embed("which?", answers)
    assert np.abs((whole - parts).numpy()).max() < 1e-6


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, (-3 / 2, 1 / 2, 1)), ({"combine": "min"}, (-5 / 3, -1 / 3, 1 / 3)), ({"combine": "lower"}, (-5 / 3, -1 / 3, 1 / 3)),
        ({"combine": "lower", "deviations": 2.0}, (-11 / 6, -7 / 6, -1 / 3)),
    ],
)  # fmt: skip
def test_an_ensemble_combines_rewards_that_are_known_up_to_a_constant(rule, expected):
    """Members by hand: (1, 2, 4) less 7/3, and (0, 3/2, 1) / ½ less 5/3; of two, the least is one deviation off the mean."""
    judge = EnsembleScorer([Member([1, 2, 4]), Member([0, 1.5, 1], tau=0.5)], **rule)
    for prompt in ("which?", "another one, and longer"):
        rewards = judge.score(prompt, NAMES)
        level = (7 / 3 + 5 / 3 + len(prompt) + len(prompt) / 0.5) / 2
        assert rewards - level == pytest.approx(expected)
        assert judge.prefer(prompt, NAMES)[0, 2] == pytest.approx(1 / (1 + math.exp(rewards[2] - rewards[0])))
    assert judge.score("which?", ["paper"]) == pytest.approx((4 + 6 + (1 + 6) / 0.5) / 2)
    with pytest.raises(ValueError, match="at least 2 members"):
        EnsembleScorer([Member([1, 2, 4])])

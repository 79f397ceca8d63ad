"""Rewards in Context: rounds that ask for rewards, and preferences at inference."""

import json
import re
from collections import Counter

import numpy as np
import pytest
from stored_world import read_lines, write_lines

from align.commands.sample import main as sample
from align.data.prompts.control import appended, front_targets, targets
from align.errors import RecipeError, RunError
from align.models.loading import load_tokenizer
from align.recipe.loading import load_recipe
from align.rounds.in_context import context_rows, good_rows, obtained, with_targets
from align.runs.contents import written_by_run
from align.sampling.generate import Decoding, generate
from align.sampling.policy import policy_of
from align.sampling.preferred import context_for, preferences
from align.train import run
from eval.__main__ import main as evaluate

TARGETS = re.compile(r"(.*) <repetition> (-?\d\.\d) <clarity> (-?\d\.\d)")


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ric") / "run"
    run("rounds/ric-tiny", ["rounds.count=2", f"train.output_dir={folder}"])
    return folder


def content(row):
    return row["prompt"][-1]["content"]


def test_the_first_round_learns_from_given_answers_and_a_later_one_from_what_it_obtained(learnt):
    one, two = (learnt / f"round-{n}" for n in (1, 2))
    assert not (one / "answers").exists()
    told = json.loads((one / "context.json").read_text())
    scored = [one for row in read_lines(one / "scores.jsonl") for one in row["rewards"]]
    mean, sd = np.mean([r["repetition"] for r in scored]), np.std([r["repetition"] for r in scored])
    assert told["rewards"]["repetition"] == pytest.approx([mean, sd])
    rows = read_lines(one / "pairs.jsonl")
    assert len(rows) == len(scored) == 16
    for row, rewards in zip(rows, scored, strict=True):
        z = (rewards["repetition"] - mean) / sd
        assert float(TARGETS.fullmatch(content(row))[2]) == pytest.approx(z, abs=0.051)
    for asked, answered in zip(read_lines(two / "prompts.jsonl"), read_lines(two / "scores.jsonl"), strict=True):
        plain, *wanted = TARGETS.fullmatch(content(asked)).groups()
        assert "4.3" in wanted
        assert content(answered) == plain
    made, mixed = read_lines(two / "pairs.jsonl"), read_lines(two / "mixed.jsonl")
    assert mixed[: len(made)] == made
    assert len(mixed) == len(made) + 4
    assert all(row in rows for row in mixed[len(made) :])
    assert json.loads((two / "context.json").read_text()) == told == json.loads((learnt / "context.json").read_text())


def test_all_that_lies_in_the_run_is_the_run_s_and_goes_with_it(learnt):
    assert {path.name for path in learnt.iterdir() if not path.name.startswith(".")} == {
        path.name for path in written_by_run(learnt)
    }


def test_preferences_become_targets_in_the_prompts_of_the_policy_alone(learnt, tmp_path, capsys):
    assert context_for(learnt, None) == ""
    low, high = targets([0.7, 0.3], "l2", low=-4.3, high=4.3)
    context = f" <repetition> {low:.1f} <clarity> {high:.1f}"
    assert context_for(learnt, {"clarity": 0.3, "repetition": 0.7}) == context
    assert context_for(learnt / "round-2" / "train", {"clarity": 2.0}) == " <repetition> -4.3 <clarity> 4.3"
    prompts = write_lines(tmp_path / "prompts.jsonl", [{"prompt": "what is the sky"}])
    words = [str(learnt), "--prompts", str(prompts), "--max-new-tokens", "6", "--prefer", "repetition=0.7,clarity=0.3"]
    sample([*words, "--out", str(tmp_path / "answers.jsonl")])
    (row,) = read_lines(tmp_path / "answers.jsonl")
    policy = policy_of(str(learnt))
    wanted = [appended("what is the sky", context)]
    ((expected,),) = generate(policy.load().model, load_tokenizer(policy.settings), wanted, Decoding(6))
    assert (row["prompt"], row["completions"]) == ("what is the sky", [expected.text])
    out = {name: tmp_path / name for name in ("told", "plain")}
    settings = ["eval.generate={prompts: 4, max_new_tokens: 6}", "eval.gold_reward=repetition"]
    assert evaluate([str(learnt), *settings, "--prefer", "repetition=1,clarity=1", "-o", str(out["told"])]) == 0
    assert evaluate([str(learnt), *settings, "-o", str(out["plain"])]) == 0
    capsys.readouterr()
    told, plain = (read_lines(folder / "responses.jsonl") for folder in out.values())
    assert [row["ref"] for row in told] == [row["ref"] for row in plain]
    assert [row["policy"] for row in told] != [row["policy"] for row in plain]
    report = json.loads((out["told"] / "report.json").read_text())
    assert report["settings"]["decoding"]["prefer"] == {"repetition": 1.0, "clarity": 1.0}
    assert "kl" not in report["estimates"]


@pytest.mark.parametrize(
    ("prefer", "said"),
    [
        ({"harm": 1.0}, r"prefer\.harm: no such reward; there are repetition, clarity"),
        ({"clarity": 0.0}, "prefer: must be finite, not negative and not all 0"),
        ({"clarity": 1e308, "repetition": 1e308}, "prefer: must be finite, not negative and not all 0"),
        ({"clarity": -1.0, "repetition": 1.0}, "prefer: must be finite, not negative and not all 0"),
    ],
)
def test_preferences_that_are_none_are_told(learnt, prefer, said):
    with pytest.raises(RunError, match=said):
        context_for(learnt, prefer)


def test_a_policy_without_rewards_in_context_is_told(tmp_path):
    with pytest.raises(RunError, match="is no run that has learnt rewards in context"):
        context_for(tmp_path, {"clarity": 1.0})
    for text in ("clarity", "clarity=high", "=1", ""):
        with pytest.raises(RunError, match="--prefer: expected NAME=NUMBER"):
            preferences(text)
    assert preferences("a=0.7, b=0.3") == {"a": 0.7, "b": 0.3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rounds.keep={earlier: 0.3}"], "keep: does nothing with in_context; leave it out"),
        (["rounds.max_kl=3"], "max_kl: does nothing with in_context"),
        (["rounds.take=best"], "take: does nothing with in_context"),
        (["rounds.in_context.quantile=1.0"], "quantile: must be in [0, 1), got 1.0"),
        (["rounds.in_context.low=5.0"], "low: must be finite and below high, got 5.0 and 4.3"),
        (
            ["rounds.score={kind: language_model, path: m}"],
            "score.judges.judge: compares answers, and a reward in context is",
        ),
        (["rounds.score={rewards: [clarity], weights: {clarity: 1.0}}"], "score.weights: each reward stands by itself"),
        (["method=dpo"], "rounds.in_context: its rows are completions, and 'dpo' learns from pairs; take sft"),
    ],
)
def test_what_cannot_be_meant_beside_it_is_told(words, said):
    with pytest.raises(RecipeError) as told:
        load_recipe("rounds/ric-tiny", words)
    assert said in str(told.value)


def test_the_objective_below_the_most_is_the_smallest_of_as_many_draws():
    """On [-4, 4], with two objectives, its mean is -4/3: that of the lesser of two uniform draws."""
    rng = np.random.default_rng(0)
    drawn = np.array([front_targets(rng, [-4, -4], [4, 4], smallest=True) for _ in range(4000)])
    assert (drawn.max(axis=1) == 4).all()
    assert drawn.min(axis=1).mean() == pytest.approx(-4 / 3, abs=0.12)
    recipe = load_recipe("rounds/ric-tiny")
    rows = [{"prompt": f"p {k}"} for k in range(400)]
    first, again, later = (with_targets(recipe, rows, n) for n in (2, 2, 3))
    assert first == again
    assert first != later
    lower = [min(map(float, TARGETS.fullmatch(row["prompt"]).groups()[1:])) for row in first]
    assert np.mean(lower) == pytest.approx(-4.3 / 3, abs=0.35)
    assert {row["asked"] for row in first} == {row["prompt"] for row in rows}


WORLDS = {
    "balanced": [[0.9, 0.0], [0.7, 0.3], [0.85, 0.85], [0.3, 0.7], [0.0, 0.9], [0.2, 0.2]],
    "compromise": [[1.0, 0.0], [0.8, 0.3], [0.6, 0.7], [0.3, 0.8], [0.0, 1.0], [0.2, 0.2]],
}
DATA = np.array([0.15, 0.2, 0.02, 0.13, 0.1, 0.4])
UNIT = {"a": (0.0, 0.1), "b": (0.0, 0.1)}  # of one decimal, so that rewards of two are not rounded
EACH = 1000  # rows for each target


def law_of(rows, target):
    """π(y | target): rows of (label, answer) count by how near their label is."""
    law = np.zeros(6)
    for (label, answer), weight in rows.items():
        law[answer] += weight * np.exp(-((np.array(label) - target) ** 2).sum() / (2 * 0.3**2))
    return law / law.sum()


def hypervolume(rows, rewards, rule):
    points = [law_of(rows, targets([w, 1 - w], rule)) @ rewards for w in np.linspace(0, 1, 11)]
    best = total = 0.0
    for x, y in sorted(map(tuple, points), reverse=True):
        if y > best:
            total, best = total + x * (y - best), y
    return total


@pytest.mark.parametrize(
    ("world", "share", "figures"),
    [
        ("balanced", 0.957336, {"l2": (0.398756, 0.475286, 0.62001), "linf": (0.501832, 0.607946, 0.704121)}),
        ("compromise", 0.87925, {"l2": (0.466471, 0.493235, 0.493737), "linf": (0.514502, 0.518173, 0.516992)}),
    ],
)
def test_a_round_widens_the_front_of_a_conditional_law(world, share, figures):
    """Answers are enumerated in proportion to their probability; what is kept and how it is labelled is the rounds' code."""
    rewards = np.array(WORLDS[world])
    rows = originals = {(tuple(rewards[y]), y): p for y, p in enumerate(DATA)}
    found = {rule: [hypervolume(rows, rewards, rule)] for rule in figures}
    for number in (1, 2):
        scored = []
        for target in [(1.0, v) for v in np.linspace(0, 1, 11)] + [(v, 1.0) for v in np.linspace(0, 1, 11)]:
            counts = np.diff(np.round(np.cumsum(law_of(rows, target)) * EACH).astype(int), prepend=0)
            drawn = np.repeat(np.arange(6), counts).tolist()
            given = [dict(zip("ab", rewards[y].tolist(), strict=True)) for y in drawn]
            scored.append({"prompt": "q", "completions": list(map(str, drawn)), "rewards": given})
        fresh, unscored, _ = obtained(scored, ["a", "b"])
        kept = good_rows(context_rows(fresh, UNIT), 0.7)
        assert unscored == 0
        if number == 1:
            assert len(kept) / len(fresh) == pytest.approx(share, abs=1e-3)
        told = Counter((tuple(round(row["rewards"][n] / 10, 6) for n in "ab"), int(row["completion"])) for row in kept)
        rows = Counter({key: 0.5 * p for key, p in originals.items()})
        rows.update({key: 0.5 * count / len(kept) for key, count in told.items()})
        for rule in figures:
            found[rule].append(hypervolume(rows, rewards, rule))
    for rule, expected in figures.items():
        assert found[rule] == pytest.approx(expected, abs=3e-3)


def test_an_answer_without_a_reward_is_left_out_and_the_best_of_any_stay():
    rows, unscored, refused = obtained(
        [
            {
                "prompt": "q",
                "completions": ["x", "y", ""],
                "rewards": [{"a": 1.0, "b": None}, *[{"a": 0.0, "b": 2.0}] * 2],
            }
        ],
        ["a", "b"],
    )
    assert (unscored, [row["completion"] for row in rows]) == (1, ["y"])
    assert refused == {"the completion is empty": 1}
    rows = [{"rewards": {"a": float(k), "b": float(-k)}, "completion": str(k)} for k in range(10)]
    assert [row["completion"] for row in good_rows(rows, 0.7)] == list("012789")
    assert good_rows([], 0.7) == []

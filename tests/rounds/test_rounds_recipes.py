"""Every recipe with rounds is checked, and the tiny ones run."""

import re
from pathlib import Path

import pytest
from recipes_under_test import problems
from stored_world import read_lines
from tiny import sparing

from align.check.environment import Machine
from align.check.rounds import BYTES_A_TOKEN, bytes_of_answers, pairs_of_round
from align.commands import dry_rounds
from align.commands.check import inspect
from align.commands.check import main as check
from align.commands.dry_run import Cost
from align.data.rows.scored import text_of
from align.errors import DataError, RunError
from align.recipe.loading import load_recipe
from align.rounds import stages
from align.rounds.plan import Place
from align.sampling.generate import Answer
from align.train import run

TINY = ["dno", "gpo", "self-rewarding", "rejection", "irpo"]
RECIPES = Path(__file__).parents[2] / "recipes"
ON_CPU = ["train.use_cpu=true", "train.bf16=false"]


@pytest.mark.parametrize("name", sparing(TINY, "dno"))
def test_the_tiny_ones_run(name, tmp_path):
    words = [f"train.output_dir={tmp_path / 'run'}", "train.max_steps=1"]
    run(f"rounds/{name}-tiny", words)
    trained = read_lines(tmp_path / "run" / "round-2" / "pairs.jsonl")
    if name == "irpo":
        assert all(row["chosen_reward"] == 1 and row["rejected_reward"] == 0 for row in trained)
    elif name == "dno":
        assert all(0 < row["rejected_reward"] <= row["chosen_reward"] < 1 for row in trained)
        assert (tmp_path / "run" / "round-2" / "mixed.jsonl").is_file()
        assert read_lines(tmp_path / "run" / "round-1" / "scores.jsonl")[0]["sources"][-1] == "gold"
    elif name == "rejection":
        assert set(trained[0]) == {"prompt", "completion", "reward"}
    elif name == "gpo":
        assert all(row["rejected_reward"] < 0 < row["chosen_reward"] for row in trained)


def test_those_of_papers_have_their_rounds():
    irpo, dno, gpo = (load_recipe(f"papers/{name}", ON_CPU) for name in ("iterative-rpo", "dno-prct", "gpo-gpm"))
    assert [recipe.rounds.count for recipe in (irpo, dno, gpo)] == [4, 3, 3]
    assert {(recipe.rounds.start, recipe.rounds.reference) for recipe in (irpo, dno, gpo)} == {("previous", "previous")}
    assert [stages.decoding_of_round(irpo, Place(Path("run"), n)).temperature for n in (1, 2, 3, 4)] == [
        0.8,
        0.8,
        1.3,
        1.3,
    ]
    assert (dno.rounds.sample.who, dno.rounds.sample.gold) == (["policy", "gold"], "gold")
    assert stages.decoding_of_round(dno, Place(Path("run"), 1)).top_p == 0.95
    assert (gpo.rounds.score.of, gpo.train.beta, gpo.train.optim) == ("log_odds", 0.01, "rmsprop")


@pytest.mark.parametrize("name", ["dno-prct", "iterative-rpo", "gpo-gpm"])
def test_every_value_of_those_of_papers_has_its_source(name):
    """A line with a value says `paper`, `code` or `ours`; names of files and logs do not count."""
    lines = (RECIPES / "papers" / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if ": " in line and not line.startswith(("#", "method"))]
    free = ("output_dir", "report_to", "gold: gold")
    bare = [line for line in values if not any(word in line for word in free) and "#" not in line]
    assert not bare
    assert all(re.search("#.*(paper|code|ours)", line) or "see above" in line for line in values if "#" in line)


def test_check_says_what_all_rounds_make_and_refuses_what_training_refuses():
    recipe = load_recipe("rounds/tiny")
    report = inspect(recipe, Machine.here(None))
    assert report.planned.steps == 2
    (said,) = [finding.message for finding in report.findings if finding.rule == "rounds"]
    assert said == (
        "2 rounds of 4 prompts: at most 24 answers of 8 tokens to sample, 48 questions to each judge, 8 pairs, 4 steps"
    )
    (disk,) = [finding.message for finding in report.findings if finding.rule == "disk"]
    assert "in each of 2 rounds, and answers of 3.07 kB" in disk
    best = load_recipe("rounds/tiny", ["rounds.take=best"])
    (said,) = [finding.message for finding in inspect(best, Machine.here(None)).findings if finding.rule == "rounds"]
    assert said.endswith(", 4 steps, 12 answers to choose the best round by")
    assert bytes_of_answers(best, 8) - bytes_of_answers(recipe, 8) == 12 * 8 * BYTES_A_TOKEN
    assert pairs_of_round(load_recipe("rounds/dno-tiny"), 8) == 4 * 6
    assert pairs_of_round(load_recipe("rounds/irpo-tiny"), 8) == 8 * 2
    with pytest.raises(DataError, match="2 rounds of 5 need 10 different prompts, and data.train has 8"):
        inspect(load_recipe("rounds/tiny", ["rounds.prompts={each: 5}"]), Machine.here(None))


class Clock:
    """Time that passes where something is done."""

    now = 0.0

    def perf_counter(self):
        return self.now


def test_time_of_all_rounds_is_predicted_from_a_few_answers_scores_and_steps(monkeypatch, capsys):
    clock = Clock()

    def generate(*words, samples, **_):
        clock.now += 1 + 0.5 * words[3].max_new_tokens
        return [[Answer([1], [5, 6, 7], "a b c", True)] * samples for _ in words[2]]

    def score_rows(rows, _):
        assert all(len(set(row["completions"])) == 3 for row in rows)
        clock.now += 2 + 3 * len(rows)

    def predict(recipe):
        assert recipe.rounds is None
        rows = read_lines(Path(recipe.data.train.path))
        assert all(len(text_of(row["chosen"])) >= 8 for row in rows)
        return Cost(16, 2, False, False, 0.1, 2.0, 1.6, 1 << 30)

    monkeypatch.setattr(dry_rounds, "time", clock)
    for stub in (generate, score_rows, predict):
        monkeypatch.setattr(dry_rounds, stub.__name__, stub)
    recipe = load_recipe("rounds/tiny", ["rounds.count=3", "rounds.prompts={each: 2}", "train.learning_rate=0.1"])
    cost = dry_rounds.predict_rounds(recipe, 7)
    assert cost.sampling_seconds == pytest.approx(1 + 0.5 * 8)  # six answers, in one batch of six
    assert cost.scoring_seconds == pytest.approx(2 * 3)
    assert cost.hours == pytest.approx(3 * (5 + 6 + 7 * 2 + 1.6 * 2 / 16) / 3600)
    small = load_recipe("rounds/tiny", ["rounds.sample.batch_size=4", "rounds.sample.revisions=1"])
    assert dry_rounds.predict_rounds(small, 7).sampling_seconds == pytest.approx(2 * 3 * 5)
    asked = "rounds.score={kind: endpoint, url: 'http://127.0.0.1:9/v1', model: m}"
    assert "without what judge take" in str(dry_rounds.predict_rounds(load_recipe("rounds/tiny", [asked]), 7))
    with pytest.raises(RunError, match="--deep predicts rounds that learn from preference pairs"):
        dry_rounds.predict_rounds(load_recipe("rounds/rejection-tiny"), 7)
    assert check(["rounds/tiny", "--deep"]) == 0
    assert (
        "predicted for each of 2 rounds, at most: 5 s of sampling, 12 s of scoring, 2 steps of 2 s"
        in capsys.readouterr().out
    )


TEXT = """\
method: dpo
model: {model_name_or_path: tiny-random}
lora: {r: 4}
data: {train: {path: p.jsonl}}
rounds: {count: 2, score: {rewards: [clarity]}}
train: {output_dir: runs/x, use_cpu: true, bf16: false}
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rounds.counts=3"], "rounds.counts: unknown key, got 3; did you mean 'count'?"),
        (["rounds.sample={frm: [policy]}"], "rounds.sample.frm: unknown key"),
        (["rounds.sample={who: [policy]}"], "rounds.sample.who: unknown key, got ['policy']; it is written `from`"),
        (["rounds.sample={from: [polcy]}"], "unknown, got 'polcy'; did you mean 'policy'?"),
        (["rounds.sample={from: policy}"], "rounds.sample.from: expected list[str], got str 'policy'"),
        (
            ["rounds.prompts={each: 2}", "rounds.sample={from: [policy, earlier]}"],
            "rounds.sample.from: `earlier` are answers to the same prompts, and rounds of `each` have none in common",
        ),
        (["rounds.sample={samples: 1}"], "a pair needs at least 2 answers to a prompt, got 1"),
        (["rounds.sample={from: [policy, gold]}"], "rounds.sample.gold: the column of gold answers"),
        (["rounds.score={kind: reward_model}"], "rounds.score.judges.judge.path: needed by kind 'reward_model'"),
        (
            ["rounds.score={rewards: [clarity, repetition]}"],
            "several scores, clarity, repetition; say what each counts",
        ),
        (["rounds.score={rewards: [clarity], of: log_odds}"], "only a judge that compares has log_odds"),
        (["rounds.select={rule: margn}"], "rounds.select.rule: unknown, got 'margn'; did you mean 'margin'?"),
        (
            ["rounds.select={rule: best_worst, min_gap: 1}"],
            "rounds.select.min_gap: does nothing with rule 'best_worst'",
        ),
        (["rounds.select={rule: best}"], "rounds.select.rule: 'best' makes no pairs, which 'dpo' learns from"),
        (["rounds.keep={earlier: [0.6, 0.5]}"], "add up to less than 1"),
        (
            ["rounds.sample={temperature: [1.0]}"],
            "sample.temperature: a list has one value for each of 2 rounds, got 1",
        ),
        (["rounds.sample={temperature: [1.0, -1.0]}"], "temperature: must be finite and not negative, got [1.0, -1.0]"),
        (["rounds.sample={samples: 2, temperature: [1.0, 0.0]}"], "samples: must be 1 at temperature 0"),
        (["rounds.sample={top_p: 0.0}"], "top_p: must be above 0 and at most 1, and 1 at temperature 0, got 0.0"),
        (["rounds.sample={revisions: -1}"], "revisions: must not be negative, got -1"),
        (["rounds.max_kl=0"], "max_kl: must be positive and finite, got 0"),
        (["rounds.max_kl=1", "rounds.sample={from: [ref]}"], "max_kl: is measured on sampled answers of the policy"),
        (
            ["rounds.take=best"],
            "rounds.take: `best` is chosen on answers to data.eval as eval.generate says; name both",
        ),
        (
            ["rounds.take=best", "rounds.score={kind: language_model, path: policy}"],
            "take: `best` needs one judge for all rounds",
        ),
        (["rounds.take=best", "lora=null"], "rounds.take: `best` is for adapters"),
        (["rounds.start=last"], "rounds.start: must be one of previous, first, got 'last'"),
        (["train.learning_rate=[1e-5]"], "train.learning_rate: a list has one value for each of 2 rounds, got 1"),
        (["train.beta=[0.1, -1]"], "train.beta: must be positive, got -1"),
        (["train.eval_strategy=steps"], "rounds are evaluated as a whole"),
        (["method=dynamic_grpo", "rewards=[clarity]"], "rounds: method 'dynamic_grpo' samples its own answers"),
        (["method=reward_model"], "rounds: method 'reward_model' judges answers"),
        (
            ["method=pairwise", "train.objective={soft_sigmoid: 1}"],
            "reads the column preference, which the pairs of a round",
        ),
        (["ref.kind=cached"], "nothing is cached for them"),
    ],
)
def test_rounds_that_cannot_be_meant_are_told(folder, words, said):
    assert said in "\n".join(problems(folder, TEXT, *words))

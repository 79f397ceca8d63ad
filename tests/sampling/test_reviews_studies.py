"""Studies on the bench of reviews: averages, squeezing, single streams, and rankings of people's pairs, on planted policies."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import adapter, deltas

from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.rewards.load import REWARDS, Known
from align.scoring.completions import completion_logps, pair_ids
from eval.statistics.intervals import over_seeds

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))
sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies" / "reviews"))
import averages
import methods
import rankings
import seeds
import single_stream
import squeezing
from study_parts.policies import compared, gold_against_kl

PROMPTS, SEEDS = 40, 3


def planted(*shifts):
    """Measures of policies that differ by a shift of the gold reward, beginning by beginning."""
    rows = np.random.default_rng(1).uniform(0.3, 0.6, (SEEDS, PROMPTS))
    return [{"gold": rows + by, "proxy": rows, "kl": 10 * rows + by} for by in shifts]


def test_policies_are_compared_on_the_seeds_that_both_have():
    one, other = planted(0.0, 0.1)
    told = compared({"a": one, "b": other}, "a")
    assert told["b"]["gold, less that of a"]["over seeds"]["value"] == pytest.approx(0.1)
    fewer = {name: rows[:2] for name, rows in other.items()}
    assert compared({"a": one, "b": fewer}, "a")["b"]["kl, less that of a"]["each"] == pytest.approx([0.1, 0.1])
    seeds = over_seeds(one["gold"].mean(axis=1))
    assert told["a"]["gold"]["over seeds"]["low"] == pytest.approx(seeds.low, abs=1e-4)
    assert not any("less" in key for key in told["a"])
    lines = gold_against_kl(told, {"gold": 0.5}, {"a": "k", "b": "r"}).axes[0].lines
    assert len(lines) == 1 + 3 * len(told)


def test_a_group_is_three_runs_and_no_run_is_in_two():
    members = [seed for group in range(4) for seed in averages.seeds_of(group)]
    assert members == list(range(12))
    runs = np.arange(7.0)[:, None] * np.ones(5)
    np.testing.assert_array_equal(averages.by_group(runs), [[1.0] * 5, [4.0] * 5])


def record(level, points=("end",)):
    one = {"texts": ["good"] * 8, "gold": [level] * 8, "proxy": [0.5] * 8, "policy_logps": [[-1.0, -2.0]] * 8}
    return {when: {**one, "reference_logps": [[-2.0, -3.0]] * 8} for when in points}


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A folder of the bench in which nothing is trained; the levels of what is recorded, in order."""
    out, levels = tmp_path / "out", iter(np.linspace(0.1, 0.9, 17))
    (out / "records").mkdir(parents=True)
    (out / "records" / "reference.json").write_text(json.dumps(record(0.5)))
    (out / "prompts.jsonl").write_text('{"prompt": "p"}\n')
    monkeypatch.setattr(methods, "begun", lambda data, out: None)
    made = []

    def recorded(policies, *_):
        made.append(policies)
        return record(float(next(levels)), policies)

    monkeypatch.setattr(methods, "record", recorded)
    monkeypatch.setattr(methods, "trained", lambda name, seed, out: {"end": f"{name}-{seed}"})
    return out, made


def words(out, seeds):
    return ["DATA", str(out), "-o", str(out / "results"), "--seeds", str(seeds)]


def test_averages_are_of_their_own_group_and_made_once(bench):
    out, made = bench
    for seed in range(6):
        adapter(out / "dpo" / f"seed-{seed}" / "adapter", seed)
    averages.main(words(out, 1))
    averages.main(words(out, 2))
    assert len(made) == 2 * (3 + 2)
    for way, group in (("soup", 0), ("soup", 1), ("model-stock", 1)):
        told = json.loads((out / way / f"group-{group}" / "merge.json").read_text())
        members = [Path(one["path"]).parent.name for one in told["adapters"]]
        assert members == [f"seed-{seed}" for seed in averages.seeds_of(group)]
    mean = {name: sum(changes) / 3 for name, changes in grouped(out, averages.seeds_of(1)).items()}
    soup, stock = (deltas(made[place]["end"].adapter) for place in (8, 9))
    for name, change in mean.items():
        torch.testing.assert_close(soup[name], change, atol=1e-6, rtol=1e-5)
    assert sum(float(one.norm()) for one in stock.values()) < sum(float(one.norm()) for one in soup.values())
    told, levels = json.loads((out / "results" / "averages.json").read_text()), np.linspace(0.1, 0.9, 17)
    gap = told["policies"]["soup"]["gold, less that of dpo"]["each"]
    assert gap == pytest.approx([levels[3] - levels[:3].mean(), levels[8] - levels[5:8].mean()], abs=1e-4)
    assert (out / "results" / "averages.png").read_bytes().startswith(b"\x89PNG")


def grouped(out, seeds):
    """The weight changes of several runs, by module."""
    parts = [deltas(out / "dpo" / f"seed-{seed}" / "adapter") for seed in seeds]
    return {name: [part[name] for part in parts] for name in parts[0]}


def test_streams_and_groups_have_as_many_answers(tmp_path, monkeypatch):
    monkeypatch.setitem(REWARDS, methods.PROXY, Known(lambda completions, **_: [0.0] * len(completions), 0, 1))
    trains = {name: load_recipe(single_stream.recipe_of(name, tmp_path)).train for name in single_stream.CONDITIONS}
    same = ("max_steps", "per_device_train_batch_size", "max_completion_length", "beta", "learning_rate", "temperature")
    assert len({tuple(getattr(train, name) for name in same) for train in trains.values()}) == 1
    assert {name: train.num_generations for name, train in trains.items()} == {"groups": 4, "single stream": 1}
    assert trains["single stream"].estimator_options == single_stream.STREAM


def test_single_streams_are_held_against_groups(bench, monkeypatch):
    out, made = bench
    monkeypatch.setattr(single_stream, "trained", lambda name, seed, out: f"{name}-{seed}")
    single_stream.main(words(out, 1))
    single_stream.main(words(out, 2))
    assert [one["end"] for one in made] == ["groups-0", "single stream-0", "groups-1", "single stream-1"]
    told = json.loads((out / "results" / "single_stream.json").read_text())
    gap = told["policies"]["single stream"]["gold, less that of groups"]["each"]
    assert gap == pytest.approx([0.05, 0.05], abs=1e-4)
    assert told["tokens an answer at the end, by seed"]["groups"] == [2.0, 2.0]


@torch.no_grad()
def test_the_likeliest_token_is_read_where_each_token_stands():
    """An answer that is the model's own likeliest one is its own peak; another's peak is that of the same places."""
    model = tiny_model(tiny_tokenizer()).eval()
    prompt, answer = [5, 6, 7], []
    for _ in range(4):
        answer.append(int(model(torch.tensor([prompt + answer])).logits[0, -1].argmax()))
    own, peaks = squeezing.tokens_of(model, prompt, answer)
    assert len(own) == 3  # without its end
    assert own == pytest.approx(peaks)
    other = [9, 10, 11, 12]
    own, peaks = squeezing.tokens_of(model, prompt, other)
    (expected,) = completion_logps(model, [(prompt, other)], pad_token_id=0)
    assert own == pytest.approx(expected[:-1].tolist(), abs=1e-5)
    assert all(a <= b for a, b in zip(own, peaks, strict=True))
    assert sum(own) < sum(peaks)
    found = squeezing.read_pairs(model, [[(prompt, answer), (prompt, other)]])
    assert found["rejected"] == pytest.approx([sum(own)], abs=1e-3)
    assert found["chosen"][0] > found["rejected"][0]


def test_what_squeezing_changed_is_from_the_beginning_of_dpo():
    rows = np.random.default_rng(0).normal(size=(SEEDS, 1, PROMPTS))

    def points(*levels):
        return np.array(levels)[None, :, None] + rows

    found = {
        "dpo": {"chosen": points(-10, -12, -15), "rejected": points(-10, -15, -20), "peak": points(-2, -1.5, -1)},
        "extend, then dpo": {"chosen": points(-8, -9, -11), "rejected": points(-8, 0, -9), "peak": points(-1, -1, -1)},
    }
    told = squeezing.summary(found)
    assert told["dpo"]["chosen, end less begin"]["over seeds"]["value"] == pytest.approx(-5)
    assert told["dpo"]["peak, end less begin"]["each"] == pytest.approx([1] * SEEDS)
    extended = told["extend, then dpo"]
    assert extended["chosen, end less begin, less that of dpo"]["each"] == pytest.approx([2] * SEEDS)
    assert extended["chosen at the end, less that of dpo"]["each"] == pytest.approx([4] * SEEDS)
    assert not any("less that" in key for key in told["dpo"])
    assert [len(axes.lines) for axes in squeezing.drawn(told).axes] == [2, 2, 2]


def test_squeezing_begins_where_dpo_begins(bench, monkeypatch):
    out, _ = bench
    monkeypatch.setattr(squeezing, "policy_of", Path)
    assert squeezing.points_of("dpo", 1, out, "REF") == {"begin": "REF", "end": "dpo-1"}
    begun = squeezing.points_of("extend, then dpo", 1, out, "REF")
    assert begun["begin"] == out / "extend-then-dpo" / "seed-1" / "extend"
    asked = []
    reading = {measure: np.linspace(-2, 0, PROMPTS).tolist() for measure in squeezing.MEASURES}
    monkeypatch.setattr(
        squeezing, "measured", lambda policies, *_: asked.append(1) or dict.fromkeys(squeezing.POINTS, reading)
    )
    squeezing.main(words(out, 1))
    squeezing.main(words(out, 2))
    assert len(asked) == 4
    told = json.loads((out / "results" / "squeezing.json").read_text())
    assert told["conditions"]["dpo"]["at"]["peak"]["end"]["each"] == pytest.approx([-1.0, -1.0])


def test_rankings_of_peoples_pairs(tmp_path):
    logps = [-5.0, -4.0, -9.0, -9.0, -3.0, -8.0, -6.0, -5.0]  # wrong, a tie, right, wrong
    told = rankings.of_set(
        {"logps": logps, "tokens": [5, 1, 3, 3, 1, 4, 6, 1], "prompts": ["a", "b", "c", "d"], "passed over": 3}
    )
    assert told["share ranked wrongly"]["logp"]["value"] == pytest.approx(2.5 / 4)
    assert told["share ranked wrongly"]["mean_logp"]["value"] == pytest.approx(1.5 / 4)
    assert told["share ranked wrongly"]["longer_wins"]["value"] == pytest.approx(1.5 / 4)
    assert (told["prompts"], told["passed over"]) == (4, 3)


def test_long_pairs_are_passed_over_and_counted(tmp_path, monkeypatch):
    rows = [{"prompt": "p", "chosen": " word" * count, "rejected": " no"} for count in (3, 600, 4, 5)]
    monkeypatch.setattr(rankings, "read", lambda path: list(rows))
    found, longer = rankings.pairs_of(tmp_path, "set", tiny_tokenizer(), 9)
    assert (len(found), longer) == (3, 1)
    assert len(rankings.pairs_of(tmp_path, "set", tiny_tokenizer(), 2)[0]) == 2
    expected = [pair_ids(tiny_tokenizer(), row["prompt"], row["chosen"], row["rejected"]) for row in rows]
    assert all(one["sides"] in expected for one in found)


def test_recipes_in_seeds(tmp_path, monkeypatch):
    """Each seed's report as it is, and what the seeds say of others; a run that is there is read."""
    asked = []

    def report(recipe, words, seed, run):
        asked.append((recipe, words, seed, run.relative_to(tmp_path).as_posix()))
        return {
            "kl": {"value": 1.0 + seed, "low": 0.123456, "high": 9, "n": 8},
            "rare": {"value": None if seed else 1.0},
        }

    monkeypatch.setattr(seeds, "report_of", report)
    seeds.main([str(tmp_path), "-o", str(tmp_path / "results"), "--seeds", "3"])
    assert [one[3] for one in asked[:2]] == [f"{name}/seed-0" for name in seeds.RECIPES]
    assert asked[3][:3] == ("quickstart", ["train.eta=0"], 1)
    told = json.loads((tmp_path / "results" / "seeds.json").read_text())["recipes"]["quickstart"]
    assert told["by seed"]["2"]["kl"] == {"value": 3.0, "low": 0.1235, "high": 9, "n": 8}
    expected = over_seeds(np.array([1.0, 2.0, 3.0]))
    assert told["over seeds"]["kl"] == {
        "value": 2.0,
        "low": round(expected.low, 4),
        "high": round(expected.high, 4),
        "n": 3,
    }
    assert "rare" not in told["over seeds"]

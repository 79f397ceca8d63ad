"""The study `scripts/studies/planted_groups.py`: people with planted tastes, and the whole path on real texts with a tiny model."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from align.rewards.load import REWARDS

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import planted_groups as study
from study_parts import planted_groups_report as report

from eval.statistics.groups import WORST


def test_people_prefer_by_length_as_planted():
    pairs = study.pairs_of([("q", ["a b c d e f g h", "a", "a b"])])
    assert pairs == [("q", "a b c d e f g h", "a"), ("q", "a b c d e f g h", "a b")]
    who = np.repeat(np.arange(study.PEOPLE), 400)
    longer = study.choices(pairs[:1] * len(who), who, np.random.default_rng(0))
    expected = (9 / 2) ** 3 / (1 + (9 / 2) ** 3)
    likes_long = study.TRUTH[who] == study.LONG
    assert likes_long.sum() == 12 * 400
    assert longer[likes_long].mean() == pytest.approx(expected, abs=0.01)
    assert longer[~likes_long].mean() == pytest.approx(1 - expected, abs=0.01)
    (row,) = study.judged(pairs[1:], np.array([3]), np.array([False]))
    assert (row["chosen"], row["rejected"], row["annotator"]) == ("a b", "a b c d e f g h", "p03")
    assert study.liked(["a b", [{"role": "assistant", "content": "a"}]], [study.LONG, study.SHORT]) == [2, -1]


@pytest.mark.slow
@pytest.mark.realdata
def test_the_path_runs_on_real_texts_and_is_not_gone_twice(shared_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "MODEL", {"model_name_or_path": "tiny-random", "dtype": "float32"})
    monkeypatch.setattr(study, "LORA", {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"})
    monkeypatch.setattr(study, "STEPS", 1)
    monkeypatch.setattr(study, "TOKENS", 8)
    monkeypatch.setitem(REWARDS, "liked", study.Known(study.liked, -np.inf, np.inf, (study.TASTE,)))
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    words = [str(shared_data), str(tmp_path / "out"), "-o", str(tmp_path / "results")]
    study.main(words)
    told = json.loads((tmp_path / "results" / "groups.json").read_text())
    assert list(told["by pairs"]) == ["4", "8", "16", "32"]
    seed = told["seeds"]["0"]
    assert len(seed["annotators"]) == study.PEOPLE
    assert seed["judges"].keys() == {"pooled", "groups found"}
    assert seed["agreement of people"].keys() == {"within", "between"}
    for one in seed["policies"].values():
        assert one["worst_group"]["value"] == min(one["group/long"]["value"], one["group/short"]["value"])
    gap = seed["policies"]["max-min"]["group/short"]["value"] - seed["policies"]["pooled"]["group/short"]["value"]
    assert seed["max-min minus pooled, the smaller group"]["value"] == pytest.approx(gap, abs=2e-4)
    assert (tmp_path / "results" / "groups.png").is_file()
    monkeypatch.setattr(study.align, "run", lambda *_, **__: pytest.fail("trained again"))
    study.main(words)
    assert json.loads((tmp_path / "results" / "groups.json").read_text()) == told


def test_figures_over_seeds_are_students_and_a_picture_shows_each_seed():
    def one(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 9}

    def seed(shift):
        groups = {f"group/{report.LONG}": one(0.7), f"group/{report.SHORT}": one(0.3 + shift), WORST: one(0.3 + shift)}
        better = groups | {WORST: one(0.6 + 2 * shift)}
        return {
            "judges": {report.POOLED: groups, report.FOUND: better},
            "policies": {report.POOLED: groups, report.MAX_MIN: better},
            report.GAP: one(3 * shift),
        }

    seeds = {"0": seed(0.0), "1": seed(0.02), "2": {"judges": seed(0.5)["judges"]}}
    told = report.summary(seeds)
    gap = told["groups found minus pooled, the worst group ranked right"]
    assert (gap["value"], gap["n"]) == (pytest.approx(0.31), 2)
    assert gap["high"] - gap["value"] == pytest.approx(12.706 * 0.02 / 2, rel=1e-3)
    assert told["policies"][report.MAX_MIN][WORST]["value"] == pytest.approx(0.62)
    assert told[report.GAP]["value"] == pytest.approx(0.03)
    assert report.summary({"0": seed(0.0)}) == {}
    figure = report.drawn({"by pairs": {"4": one(0.5), "8": one(1.0) | {"low": None, "high": None}}, "seeds": seeds})
    labels = [axes.get_legend_handles_labels()[1] for axes in figure.axes]
    assert labels == [[], [report.POOLED, report.FOUND], [report.POOLED, report.MAX_MIN]]
    assert [len(axes.lines) for axes in figure.axes[1:]] == [2 * 3 + 1, 2 * 2 + 1]

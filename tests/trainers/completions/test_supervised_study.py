"""The study `scripts/studies/supervised.py`: equal rows and steps for all, wrong ones that are wrong, and its figures on known tables."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from align.recipe.loading import load_recipe
from eval.statistics.intervals import over_seeds

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts" / "studies"))

import supervised as study
import supervised_report as report


def row(number, source="mawps", **more):
    told = {"source": source, "n_ops": 1, "max_operand": 9 + number % 7, "answer": str(number % 5)}
    solution = f"{number % 5} + 0 = {number % 5}\nThe answer is {number % 5}."
    return told | {"prompt": [{"role": "user", "content": f"{source} {number}"}], "solution": solution} | more


@pytest.fixture
def sets(monkeypatch):
    rows = [row(n) for n in range(516)] + [row(n, "svamp") for n in range(120)]
    rows += [row(-1, n_ops=2), row(-2, max_operand=101), row(-3, solution="1.5 + 0 = 1.5\nThe answer is 1.5.")]
    monkeypatch.setattr(study, "read", lambda path: rows)
    return study.problems(Path())


def test_no_problem_has_two_uses(sets):
    asked = [one["prompt"][0]["content"] for rows in sets.values() for one in rows]
    assert len(set(asked)) == len(asked)
    assert not {"mawps -1", "mawps -2", "mawps -3"} & set(asked)
    assert {name: len(rows) for name, rows in sets.items()} == {
        "same": 96, "validation": 36, "trusted": 64, "train": 320, "other": 96,
    }  # fmt: skip
    sources = {name: {one["source"] for one in rows} for name, rows in sets.items()}
    assert sources.pop("other") == {"svamp"}
    assert all(of == {"mawps"} for of in sources.values())


def test_a_share_of_the_rows_is_wrong_and_others_are_as_given(sets):
    rows = sets["train"]
    right, wrong = study.equations_of(rows), study.spoilt(rows, 0)
    changed = [k for k in range(len(rows)) if wrong[k] != right[k]]
    assert len(changed) == 0.4 * len(rows)
    assert all(wrong[k].split()[-1] != rows[k]["answer"] for k in changed)
    assert wrong == study.spoilt(rows, 0) != study.spoilt(rows, 1)


def test_all_methods_have_the_same_steps_of_the_same_rows(tmp_path, sets, monkeypatch):
    policy = SimpleNamespace(load=lambda: nullcontext, settings=None)
    monkeypatch.setattr(study, "warm", lambda sets, out: policy)
    monkeypatch.setattr(study, "load_tokenizer", lambda settings: None)
    monkeypatch.setattr(study, "mean_logps", lambda model, tokenizer, rows, **_: -np.arange(len(rows)))
    rows, settings, adapter = {}, [], tmp_path / "warm"
    for kind, method in study.CONDITIONS:
        path = study.rows_of(kind, method, 1, sets, tmp_path)
        rows[kind, method] = [json.loads(line) for line in path.read_text().splitlines()]
        recipe = tmp_path / "recipe.yaml"
        start = None if kind == "cold" else adapter
        recipe.write_text(yaml.safe_dump(study.recipe_of(method, path, start)), encoding="utf-8")
        loaded = load_recipe(recipe)
        train = loaded.train
        assert (loaded.start is None, loaded.lora is None) == (kind == "cold", kind != "cold")
        assert loaded.ref.kind == ("adapter" if method == "asft" else "base")
        settings.append((train.max_steps, train.per_device_train_batch_size, train.gradient_accumulation_steps))
    assert set(settings) == {(study.STEPS, study.EACH, 1)}
    assert (
        rows["cold", "sft"]
        == rows["cold", "dft"]
        == rows["clean", "sft"]
        == rows["clean", "dft"]
        == rows["clean", "asft"]
    )
    scores = [one.pop("aligned_logp") for one in rows["noisy", "poft"]]
    assert scores == list(-np.arange(320.0))
    assert rows["noisy", "sft"] == rows["noisy", "dft"] == rows["noisy", "poft"] != rows["clean", "sft"]


def test_the_rate_is_that_which_gives_validation_more(tmp_path, sets, monkeypatch):
    monkeypatch.setattr(study, "trained", lambda kind, method, rows, rate, seed, out: (kind, method, rate))

    def given(policy, rows):
        assert rows == sets["validation"]
        return [
            0.2
            if policy in (("clean", "dft", study.RATES[0]), ("clean", "sft", study.RATES[1]))
            else 0.1 * (policy[0] == "clean") + 0.01 * policy[2]
        ]

    monkeypatch.setattr(study, "given", given)
    low, high = study.RATES
    asked = [
        ("clean", "dft"),
        ("clean", "sft"),
        ("clean", "asft"),
        ("noisy", "dft"),
        ("noisy", "poft"),
        ("cold", "dft"),
    ]
    assert [study.rate_of(*one, sets, tmp_path) for one in asked] == [low, high, low, low, high, high]


def test_what_is_there_is_not_done_again(tmp_path, sets, monkeypatch, capsys):
    made = []
    monkeypatch.setattr(study, "rate_of", lambda *_: 1e-3)
    monkeypatch.setattr(study, "rows_of", lambda *_: Path("rows.jsonl"))
    monkeypatch.setattr(study, "warm", lambda *_: None)
    monkeypatch.setattr(study, "load_recipe", lambda path: path)
    monkeypatch.setattr(study, "reference_of", lambda recipe: None)
    monkeypatch.setattr(study, "trained", lambda kind, method, rows, rate, seed, out: made.append((kind, method, seed)))
    told = {name: {"accuracy": [1.0, 0.0], "given": [0.5, 0.5], "texts": ["", ""]} for name in study.SETS}
    monkeypatch.setattr(study, "record", lambda policy, sets: dict(told))
    study.main([str(tmp_path), str(tmp_path), "--seeds", "2"])
    assert made == [(*one, seed) for seed in (0, 1) for one in study.CONDITIONS]
    (tmp_path / "records" / "noisy-dft-1.json").unlink()
    study.main([str(tmp_path), str(tmp_path), "--seeds", "2"])
    assert made[16:] == [("noisy", "dft", 1)]


@pytest.fixture
def results(tmp_path):
    """Three seeds whose accuracies are known, and a fourth that lacks `poft`."""
    (tmp_path / "records").mkdir()
    rng = np.random.default_rng(0)
    noise = rng.random((4, 2, 96)) < 0.5

    def kept(name, more, seed):
        right = {one: (noise[seed, k] | (np.arange(96) < more)).astype(float) for k, one in enumerate(study.SETS)}
        told = {one: {"accuracy": list(v), "given": list(v / 2), "texts": [""] * 96} for one, v in right.items()}
        (tmp_path / "records" / f"{name}.json").write_text(json.dumps(told | {"cpu_seconds": 10}))

    more = {("clean", "dft"): 60, ("noisy", "sft"): 30, ("noisy", "dft"): 30}
    for seed in range(4):
        for kind, method in study.CONDITIONS[: 8 if seed < 3 else 7]:
            kept(f"{kind}-{method}-{seed}", more.get((kind, method), 0), seed)
    kept("base", 0, 0)
    for one in ("cold-sft", "cold-dft", "clean-sft", "clean-dft"):
        (tmp_path / f"rate-{one}.json").write_text(json.dumps({"rate": 1e-3, "given": {"0.001": 0.5}}))
    report.main([str(tmp_path), str(tmp_path / "supervised")])
    return json.loads((tmp_path / "supervised.json").read_text()), noise.astype(float), tmp_path


def test_figures_on_known_tables(results):
    told, noise, _ = results
    assert {name: one["seeds"] for name, one in told["reached"].items()} == {
        "base": 1, **{", ".join(one): 3 if one[1] == "poft" else 4 for one in study.CONDITIONS},
    }  # fmt: skip
    assert list(told["reached"]) == ["base", *(", ".join(one) for one in study.CONDITIONS)]
    gains = [1 - noise[seed, 0][:60].mean() for seed in range(4)]
    by_seed = np.array(gains) * 60 / 96
    found = told["less sft"]["clean, dft"]["accuracy, same"]
    assert found["each"] == pytest.approx(by_seed, abs=1e-4)
    expected = over_seeds(by_seed)
    assert found["over seeds"]["value"] == pytest.approx(expected.value, abs=1e-4)
    assert found["over seeds"]["low"] == pytest.approx(expected.low, abs=1e-4)
    over = found["over problems, as one family"]
    assert over["n"] == 96
    assert 0 < over["low"] < over["value"] < over["high"] < 1
    assert over["value"] == pytest.approx(by_seed.mean(), abs=1e-4)
    assert found["p"] < 0.01
    halves = told["less sft"]["clean, dft"]["given, same"]["each"]
    assert halves == pytest.approx(by_seed / 2, abs=1e-4)
    alone = told["reached"]["clean, sft"]["accuracy, same"]
    assert alone["each"] == pytest.approx(noise[:, 0].mean(axis=1), abs=1e-4)
    assert (alone["n"], alone["value"]) == (96, pytest.approx(noise[:, 0].mean(), abs=1e-4))
    worse = told["less sft"]["noisy, poft"]["accuracy, other"]
    assert worse["each"] == pytest.approx(-30 / 96 * (1 - noise[:3, 1, :30].mean(axis=1)), abs=1e-4)
    assert told["less sft"]["noisy, dft"]["given, other"]["over problems, as one family"]["value"] == 0


def test_it_draws_every_condition(results):
    told, _, folder = results
    assert (folder / "supervised.png").read_bytes().startswith(b"\x89PNG")
    labels = [label.get_text() for label in report.drawn(told["reached"]).axes[0].get_yticklabels()]
    assert labels == list(told["reached"])


def test_what_has_no_sft_beside_it_is_not_held_against_it(results, capsys):
    folder = results[2]
    for seed in range(4):
        (folder / "records" / f"noisy-sft-{seed}.json").unlink()
    report.main([str(folder), str(folder / "again")])
    told = json.loads((folder / "again.json").read_text())
    assert sorted(told["less sft"]) == ["clean, asft", "clean, dft", "cold, dft"]
    assert "noisy, poft" in told["reached"]
    for path in (folder / "records").iterdir():
        path.unlink()
    with pytest.raises(SystemExit):
        report.main([str(folder), str(folder / "never")])
    assert "run supervised.py" in capsys.readouterr().err
    assert not (folder / "never.json").exists()

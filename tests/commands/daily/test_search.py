"""`alignkit sweep --optuna`: each setting by what those before it reached, gone on with, refused before it begins."""

import json
import math

import pytest

from align import cli, train
from align.errors import RunError
from align.recipe.loading import load_recipe
from align.sweeps import command
from align.sweeps.grid import read_space
from align.sweeps.search import Aim, Search, ends
from align.sweeps.trainings import Trainings

pytest.importorskip("optuna")
SPACE = ["train.beta=0.01:1.0:log", "train.max_length=16:64", "lora.r=4,8"]
METRIC = "tiny_rewards/accuracies"
EVALUATED = ["train.eval_strategy=steps", "train.eval_steps=1", "train.max_steps=2"]


def reached(one):
    """Best at beta = 0.1 and the longest, whatever the rank."""
    return -abs(math.log10(float(one["train.beta"])) + 1) + int(one["train.max_length"]) / 64


def searched(count, *, seed=0, maximize=True, told=()):
    search, told = Search(read_space(SPACE), maximize=maximize, seed=seed), list(told)
    while len(told) < count:
        asked = search.ask(told)
        told.append((asked, reached(asked) * (1 if maximize else -1)))
    return [one for one, _ in told], told


def test_it_finds_more_than_chance_in_either_direction():
    for maximize in (True, False):
        tried, _ = searched(40, maximize=maximize)
        late = sum(reached(one) for one in tried[-10:]) / 10
        assert late > 0.5  # an even draw has 0.0 on average (0.5 for the length, -0.5 for beta)
        assert all(0.01 <= float(one["train.beta"]) <= 1 and len(one["train.beta"]) <= 6 for one in tried)
        assert all(one["train.max_length"].isdecimal() and one["lora.r"] in ("4", "8") for one in tried)
    early = [math.log10(float(searched(1, seed=seed)[0][0]["train.beta"])) for seed in range(60)]
    assert sum(early) / 60 == pytest.approx(-1, abs=0.3)  # evenly in the logarithm: in the value it is -0.43


def test_it_depends_on_its_seed_and_on_what_was_reached_alone():
    whole, told = searched(14)
    assert searched(14, told=told[:9])[0] == whole
    assert searched(3, seed=1)[0] != whole[:3]
    assert len({tuple(one.items()) for one in whole}) == 14


def test_what_failed_is_no_value_and_nothing_is_asked_twice():
    space = read_space(["lora.r=4,8", "train.beta=0.1,0.2"])
    search, told = Search(space, maximize=True, seed=0), []
    for value in (None, math.nan, 1.0, 2.0):
        told.append((search.ask(told), value))
    assert len({tuple(one.items()) for one, _ in told}) == 4
    assert search.ask(told) is None


@pytest.mark.parametrize(
    "setting", [{"train.beta": "0.1"}, {"train.beta": "2", "lora.r": "4"}, {"train.beta": "0.1", "lora.r": "16"}, {"train.beta": "x", "lora.r": "4"}]
)  # fmt: skip
def test_what_another_space_asked_for_is_refused(setting):
    search = Search(read_space(["train.beta=0.01:1:log", "lora.r=4,8"]), maximize=True, seed=0)
    with pytest.raises(RunError, match="in another space; choose another --out"):
        search.ask([(setting, 1.0)])


def test_a_check_sees_every_value_and_both_ends():
    assert ends(read_space(["train.beta=0.01:0.3:log", "lora.r=4,8,16", "train.max_steps=3"])) == [
        {"lora.r": "4", "train.beta": "0.01"}, {"lora.r": "8", "train.beta": "0.3"}, {"lora.r": "16", "train.beta": "0.3"},
    ]  # fmt: skip


def test_the_value_is_that_of_the_weights_the_run_ended_with(tmp_path):
    records = [{"step": 1, "loss": 5.0}, *({"step": step, "eval_a_loss": loss, "eval_a_acc": acc} for step, loss, acc in
               ((1, 0.7, 0.1), (2, 0.5, 0.2), (3, 0.5, 0.3), (4, "nan", 0.4)))]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    plain = load_recipe("dpo/tiny")
    assert Aim("a_acc", maximize=True).of_run(tmp_path, plain) == 0.4
    assert math.isnan(Aim("a_loss", maximize=False).of_run(tmp_path, plain))
    assert Aim("loss", maximize=False).of_run(tmp_path, plain) == 5
    best = [
        "train.load_best_model_at_end=true",
        "train.save_steps=1",
        "train.eval_steps=1",
        "train.eval_strategy=steps",
    ]
    lowest = load_recipe("dpo/tiny", [*best, "train.metric_for_best_model=a_loss"])
    assert Aim("a_acc", maximize=True).of_run(tmp_path, lowest) == 0.2
    most = load_recipe("dpo/tiny", [*best, "train.metric_for_best_model=a_acc", "train.greater_is_better=true"])
    assert Aim("a_loss", maximize=False).of_run(tmp_path, load_recipe("dpo/tiny", [*best, "train.metric_for_best_model=a_loss"])) == 0.5  # fmt: skip
    assert math.isnan(Aim("a_loss", maximize=False).of_run(tmp_path, most))
    with pytest.raises(RunError, match=r"logged no b_acc; it has a_acc, a_loss, loss\. The run stays"):
        Aim("b_acc", maximize=True).of_run(tmp_path, plain)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Searches whose trainings are a formula."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "refuse_all", lambda *_: None)
    monkeypatch.setattr(cli, "_compare", lambda words: compared.append(words) or 0)
    compared, trained, fail = [], [], {}

    def start(_, words, given, log):
        said = dict(word.split("=", 1) for word in words if "=" in word)
        folder = tmp_path / said["train.output_dir"]
        trained.append(folder.name)
        if len(trained) in fail:
            return fail[len(trained)]
        (folder / "adapter").mkdir(parents=True)
        (folder / "recipe.resolved.yaml").touch()
        value = -abs(math.log10(float(said["train.beta"])) + 1) + float(said.get("train.seed", 0))
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 2, f"eval_{METRIC}": value}) + "\n")
        return 0

    monkeypatch.setattr(Trainings, "run", start)

    def run(*words, out="out", aim=("--maximize", METRIC)):
        trained.clear()
        compared.clear()
        return cli.main(["sweep", "dpo/tiny", "train.beta=0.001:1:log", *EVALUATED, *words, *aim, "-o", out])

    return type("World", (), {"run": staticmethod(run), "trained": trained, "compared": compared, "fail": fail})


def test_a_search_that_was_stopped_ends_as_one_that_was_not(world, caplog):
    assert world.run("--optuna", "6", "--seeds", "2", out="whole") == 0
    whole = list(world.trained)
    assert len(whole) == 12
    assert [name.partition("_seed-")[2] for name in whole[:4]] == ["0", "1", "0", "1"]
    assert len(world.compared[0]) == 14
    best = caplog.messages[-1]
    betas = [float(name.partition("_seed")[0].removeprefix("beta-")) for name in whole]
    nearest = min(betas, key=lambda beta: abs(math.log10(beta) + 1))
    assert best.startswith(
        f"best: train.beta={nearest:g}, {METRIC} {0.5 - abs(math.log10(nearest) + 1):.4g}. The best of 6 "
    )
    assert world.run("--optuna", "7", "--seeds", "2", out="whole") == 0
    assert len(world.trained) == 2
    # past the ten that are drawn at random
    assert world.run("--optuna", "14", out="long") == 0
    whole = list(world.trained)
    world.fail[12] = 130
    assert world.run("--optuna", "14") == 130
    assert world.trained == whole[:12]
    world.fail.clear()
    assert world.run("--optuna", "14") == 0
    assert world.trained == whole[11:]


def test_what_fails_is_tried_again_and_the_others_stay(world, caplog):
    world.fail[2] = 1
    assert world.run("--optuna", "4") == 1
    first = list(world.trained)
    assert len(first) == 4
    assert "not finished: out/" in caplog.text
    assert len(world.compared[0]) == 5
    world.fail.clear()
    assert world.run("--optuna", "4") == 0
    assert world.trained == [first[1]]
    assert world.run("--optuna", "5", aim=("--minimize", METRIC)) == 0
    assert len(world.trained) == 1
    assert f"best: train.beta={max((float(name[5:]) for name in [*first, *world.trained]), key=lambda b: abs(math.log10(b) + 1)):g}" in caplog.messages[-1]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "aim", "said"),
    [
        (["--optuna", "3"], (), "--optuna: say by what, as --maximize holdout_rewards/accuracies"),
        (["--optuna", "0"], None, "--optuna: must be at least 1, got 0"),
        (["--optuna", "3", "--jobs", "2"], None, "--optuna: asks for one setting after another"),
        ([], None, "do nothing without --optuna N"),
        (
            ["--optuna", "3", "train.eval_strategy='no'"],
            None,
            "nothing is evaluated in training; set train.eval_strategy",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused(world, capsys, words, aim, said):
    given = [word for word in EVALUATED if word.partition("=")[0] not in {one.partition("=")[0] for one in words}]
    aimed = ["--maximize", METRIC] if aim is None else aim
    assert cli.main(["sweep", "dpo/tiny", "train.beta=0.1,0.2", *given, *words, *aimed, "-o", "out"]) == 2
    assert said in capsys.readouterr().err
    assert world.trained == []


def test_rounds_and_a_missing_package_are_refused(world, capsys, monkeypatch):
    words = ["train.beta=0.1,0.2", "--optuna", "3", "--maximize", METRIC, "-o", "out"]
    assert cli.main(["sweep", "rounds/dno-tiny", *words]) == 2
    assert "--optuna: a run of rounds logs no figure of the whole" in capsys.readouterr().err
    monkeypatch.setattr("align.sweeps.search.find_spec", lambda _: None)
    assert world.run("--optuna", "3") == 2
    assert "Optuna is not installed; run `pip install optuna`, or use --random N" in capsys.readouterr().err


def test_a_metric_that_no_evaluation_logs_is_refused_by_the_check(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train.beta=0.1:0.2", *EVALUATED, "--optuna", "3", "--maximize", "accuracy", "-o", "out"]
    assert cli.main(["sweep", "dpo/tiny", *words]) == 2
    said = capsys.readouterr().err
    assert "train.beta=0.1: error: " in said
    assert "train.beta=0.2: error: " in said
    assert "'accuracy' is never logged: metrics carry the name of their evaluation set" in said
    assert said.endswith("nothing was trained\n")


@pytest.mark.slow
def test_a_search_trains(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Trainings, "run", lambda _, words, given, log: train.main(words[1:]))
    monkeypatch.setattr(cli, "_compare", lambda words: 0)
    words = ["train.beta=0.05:0.5:log", *EVALUATED, "--optuna", "2", "--minimize", "tiny_loss", "-o", "out"]
    assert cli.main(["sweep", "dpo/tiny", *words]) == 0
    assert caplog.messages[-1].startswith("best: train.beta=")

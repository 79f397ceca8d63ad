"""`eval --checkpoints`: reward by the distance from the reference over one run, and the best checkpoint."""

import json
import shutil

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import align
from align.data.split import prompt_position
from align.models.tiny import tiny_model, tiny_tokenizer
from align.models.use import share_weights
from align.rounds.best import HALF, choose
from align.sampling.policy import Policy
from eval.__main__ import main
from eval.checkpoints import checkpoints_of
from eval.report import plots_rounds
from eval.report.results import Report
from eval.statistics.intervals import Estimate
from eval.subjects import load_subjects

PICTURES = True  # what is drawn is looked at

SAVED = ["train.max_steps=3", "train.save_strategy=steps", "train.save_steps=1", "train.save_total_limit=10"]
ASKED = ["eval.generate.prompts=10", "eval.judges={j: {kind: reward, reward: repetition}}"]


@pytest.fixture(scope="module")
def saved(home):
    """A run of three steps with a checkpoint after each."""
    align.run(home / "recipe.yaml", [*SAVED, f"train.output_dir={home / 'saved'}"])
    return home / "saved"


@pytest.fixture(scope="module")
def told(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("steps")
    assert main([str(saved), "--checkpoints", "-o", str(out), *ASKED]) == 0
    return out


def test_every_checkpoint_is_measured(told):
    read = json.loads((told / "report.json").read_text())
    assert (read["name"], read["checkpoints"]) == ("step-3", ["step-1", "step-2", "step-3"])
    found = read["estimates"]
    kl = [found[f"{who}kl"]["value"] for who in ("step-1/", "step-2/", "")]
    assert 0 < kl[0] < kl[1] < kl[2]
    assert {"gold_reward/policy", "step-1/gold_reward/policy", "win_rate/j", "step-2/win_rate/j"} <= set(found)
    assert len(read["comparisons"]["gold_reward"]) == 6  # with the reference
    assert read["settings"]["checkpoints_of"] == "saved"
    page = (told / "report.html").read_text()
    assert "<h2>Checkpoints</h2>" in page
    assert "Best of 4 policies by gold_reward" in page
    assert (told / "pictures" / "reward-by-distance-from-the-reference.png").stat().st_size > 1000
    assert (told / "pictures" / "reward,-distance-and-length-by-checkpoint.png").is_file()


def test_weights_in_common_are_in_memory_once(saved):
    names = [str(saved / "checkpoint-1"), str(saved / "checkpoint-2"), str(saved)]
    one, two, last = load_subjects(names, str(saved / "recipe.resolved.yaml"), ())
    alone = [Policy(one.recipe.model, name).load().model.state_dict() for name in (*names[:2], str(saved / "adapter"))]
    shared = [dict(each.policy.model.named_parameters()) for each in (one, two, last)]
    for name in shared[0]:
        places = {weights[name].data_ptr() for weights in shared}
        assert len(places) == (3 if "lora" in name else 1), name
    base = dict(two.reference.model.named_parameters())
    assert {base[name].data_ptr() for name in base if "lora" not in name} <= {w.data_ptr() for w in shared[0].values()}
    for held, whole in zip((one, two, last), alone, strict=True):
        own = held.policy.model.state_dict()
        assert all(torch.equal(own[name], value) for name, value in whole.items())


def test_weights_that_differ_are_not_shared():
    one, two = (tiny_model(tiny_tokenizer()) for _ in range(2))
    with torch.no_grad():
        two.lm_head.weight.add_(1.0)
    own = two.lm_head.weight.clone()
    assert share_weights(two, one) == sum(w.nbytes for w in one.parameters()) - own.nbytes
    assert torch.equal(two.lm_head.weight, own)
    assert share_weights(two, one) == 0


def test_the_best_is_chosen_on_one_half_and_measured_on_the_other(told):
    read = json.loads((told / "report.json").read_text())
    rows = [json.loads(line) for line in (told / "responses.jsonl").read_text().splitlines()]
    rewards = {
        who: np.array([np.mean(row["measured"][who]["gold_reward"]) for row in rows])
        for who in ("ref", "step-1", "step-2", "step-3")
    }
    above = {("step-0" if who == "ref" else who): values - rewards["ref"] for who, values in rewards.items()}
    chosen, best = choose(above, [row["prompt"] for row in rows]), read["best_round"]["gold_reward"]
    other = np.array([prompt_position([HALF, row["prompt"]]) >= 0.5 for row in rows])
    assert (best["name"], best["candidates"], best["measured_on"]) == (chosen.best, 4, other.sum())
    if chosen.best != "step-0":
        assert best["above_first"]["value"] == pytest.approx(above[chosen.best][other].mean())


def test_the_figures_of_the_last_step_are_those_of_the_run(told, saved, tmp_path):
    assert main([str(saved), "-o", str(tmp_path), *ASKED]) == 0
    alone, last = (json.loads((folder / "report.json").read_text())["estimates"] for folder in (tmp_path, told))
    same = [key for key in alone if not key.startswith("win_rate_lc/")]  # which knows the other policies' verdicts
    assert {key: last[key] for key in same} == {key: alone[key] for key in same}


def test_a_damaged_checkpoint_and_one_of_another_run_are_passed_over(saved, tmp_path, caplog):
    run = shutil.copytree(saved, tmp_path / "saved")
    (run / "checkpoint-1" / "adapter_model.safetensors").write_bytes(b"")
    manifest = run / "checkpoint-2" / "alignkit.json"
    read = json.loads(manifest.read_text())
    read["identity"]["run"] = "another"
    manifest.write_text(json.dumps(read))
    assert main([str(run), "--checkpoints"]) == 2
    assert "checkpoint-1: adapter_model.safetensors has 0 bytes" in caplog.text
    assert "checkpoint-2: of another run (another)" in caplog.text


def test_the_end_of_a_run_counts_where_no_checkpoint_has_its_step(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "saved")
    assert [each.path.name for each in checkpoints_of(run)] == ["checkpoint-3", "checkpoint-2", "checkpoint-1"]
    shutil.rmtree(run / "checkpoint-3")
    assert checkpoints_of(run)[0] == (3, run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{home}/rpo"], "1 of its checkpoints can be evaluated, and two are needed; train with train.save_steps"),
        (["{home}"], "so not a run directory"),
        (["{home}/saved", "{home}/rpo"], "name one run directory and nothing else"),
        (["{home}/saved", "eval.gold_reward=null"], "set eval.generate, and eval.gold_reward or eval.judges"),
    ],
)
def test_what_has_no_checkpoints_is_refused(home, saved, capsys, words, message):
    assert main([*(word.format(home=home) for word in words), "--checkpoints"]) == 2
    assert message in capsys.readouterr().err


def test_the_picture_is_of_the_root_of_the_kl(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots_rounds, "png", lambda figure: drawn.append(figure) or b"")
    report = Report("step-2", checkpoints=["step-1", "step-2"])
    for prefix, kl, gold, proxy in (("step-1/", 4.0, 0.5, 1.0), ("", 9.0, 0.3, 2.0)):
        report.estimates |= {
            f"{prefix}kl": Estimate(kl, kl - 1, kl + 1, 9),
            f"{prefix}gold_reward/policy": Estimate(gold, gold - 0.1, gold + 0.1, 9),
            f"{prefix}objectives/short/policy": Estimate(proxy, proxy - 0.1, proxy + 0.1, 9),
        }
    report.estimates |= {"gold_reward/ref": Estimate(0.2, 0.1, 0.3, 9), "objectives/short/ref": Estimate(0, -1, 1, 9)}
    assert "Reward by distance from the reference" in plots_rounds.rounds_pictures(report)
    figure: Figure = drawn[-1]
    assert [axes.get_ylabel() for axes in figure.axes] == ["gold reward", "trained on: short"]
    line = figure.axes[0].containers[0].lines[0]
    assert line.get_xdata().tolist() == [2, 3]
    assert line.get_ydata().tolist() == [0.5, 0.3]
    assert figure.axes[0].get_lines()[-1].get_ydata()[0] == 0.2

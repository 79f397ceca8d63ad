"""The line that tells how far a training is, and the lines it ends with."""

import io
import shlex
from types import SimpleNamespace

import pytest
import tiny
from transformers import PrinterCallback, ProgressCallback

from align import DPOConfig, DPOTrainer, cli, train
from align.recipe.loading import load_recipe
from align.results import ended
from align.runs import progress
from align.runs.progress import Progress, tell_progress

RECORD = {
    "loss": 0.65432,
    "mean_token_accuracy": 0.3,
    "rewards/margins": 0.1,
    "rewards/accuracies": 0.625,
    "grad_norm": 3.0,
    "num_tokens": 12,
}
LINE = "loss 0.654, margin 0.1, accuracy 0.625"


@pytest.fixture
def told(monkeypatch):
    """What a `Progress` writes on stderr of some kind, with a clock that is set."""

    def tell(steps, *, terminal, first=0, rank=0, records=True, best=None):
        now, err = [100.0], io.StringIO()
        err.isatty = lambda: terminal
        monkeypatch.setattr("sys.stderr", err)
        monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
        line, state = Progress(), SimpleNamespace(global_step=first, max_steps=100, is_world_process_zero=rank == 0)
        line.on_train_begin(None, state, None)
        for step in range(first + 1, steps + 1):
            state.global_step = step
            now[0] += 2
            line.on_step_end(None, state, None)
            if records:
                line.on_log(None, state, None, logs=RECORD)
        line.on_prediction_step(None, state, None)
        line.on_log(
            None, state, None, logs={"eval_a_b_loss": 0.5, "eval_a_b_rewards/margins": 1, "eval_a_b_runtime": 3}
        )
        args = SimpleNamespace(load_best_model_at_end=best is not None, metric_for_best_model="eval_a_b_loss")
        state.best_model_checkpoint, state.best_global_step, state.best_metric = best and "checkpoint-1", 1, best
        line.on_log(args, state, None, logs={"train_runtime": 3, "train_loss": 1})
        return err.getvalue()

    return tell


def test_without_a_terminal_each_record_is_a_line(told):
    assert told(2, terminal=False).splitlines() == [
        f"step 1/100, {LINE}, 3:18 left",
        f"step 2/100, {LINE}, 3:16 left",
        "step 2: eval a b: loss 0.5, margin 1",
        "2 steps in 0:04",
    ]


def test_which_weights_are_kept_is_told(told):
    out = told(2, terminal=False, best=0.51234).splitlines()
    assert out[-1] == "2 steps in 0:04; kept are the weights of step 1, the best by eval_a_b_loss: 0.5123"


def test_on_a_terminal_one_line_is_written_anew(told, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    out = told(2, terminal=True)
    assert out.startswith(f"\x1b[2Kstep 1/100, 3:18 left\r\x1b[2K{f'step 1/100, {LINE}, 3:18 left'[:59]}\r")
    assert f"\x1b[2K{f'step 2/100, {LINE}, 3:16 left'[:59]}\r" in out
    monkeypatch.setenv("COLUMNS", "99")
    assert f"\x1b[2Kstep 2/100, {LINE}, 3:16 left, evaluating\r" in told(2, terminal=True)
    assert out.count("\n") == 2
    assert out.endswith("\x1b[2Kstep 2: eval a b: loss 0.5, margin 1\n\x1b[2K2 steps in 0:04\n")


def test_supervised_training_tells_of_tokens(told):
    figures = {name: value for name, value in RECORD.items() if not name.startswith("rewards/")}
    assert progress._figures(figures) == "loss 0.654, accuracy of tokens 0.3"
    assert progress._figures(RECORD | {"loss": "nan", "reward": 2}) == "margin 0.1, accuracy 0.625, reward 2"


def test_what_a_resumed_run_did_before_costs_no_time(told):
    assert told(51, terminal=False, first=50).startswith(f"step 51/100, {LINE}, 1:38 left\n")


def test_only_the_first_process_tells(told):
    assert told(2, terminal=True, rank=1) == told(2, terminal=False, rank=1) == ""


@pytest.mark.parametrize(("off", "there"), [(False, Progress), (True, PrinterCallback)])
def test_it_stands_where_the_bar_stood(tmp_path, off, there):
    trainer = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, disable_tqdm=off)
    tell_progress(trainer)
    kinds = [type(callback) for callback in trainer.callback_handler.callbacks]
    assert there in kinds
    assert ProgressCallback not in kinds
    assert (Progress in kinds) is not off


def test_a_training_tells_how_it_goes_and_what_comes_next(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train.main(["dpo/tiny", "train.output_dir=runs/my own", "train.max_steps=2"]) == 0
    out, err = capfd.readouterr()
    assert "step 2/2, loss 0." in err
    assert ", margin " in err.partition("step 2/2")[2]
    assert ", accuracy " in err.partition("step 2/2")[2]
    assert "/2 [" not in err  # the bar of transformers
    assert "'loss'" not in out + err
    lines = [line.partition("  #")[0].rstrip() for line in out.splitlines()[-5:]]
    assert lines == [
        "run: 'runs/my own'",
        "  alignkit eval 'runs/my own'",
        "  alignkit chat 'runs/my own'",
        "  alignkit sample 'runs/my own' --prompts FILE --out answers.jsonl",
        "  alignkit export 'runs/my own' OUT",
    ]


def test_what_comes_next_is_possible(tmp_path):
    def next_of(recipe, *words):
        return [line.split()[1] for line in ended(tmp_path, load_recipe(recipe, words)).splitlines()[1:]]

    assert next_of("dpo/tiny") == ["eval", "chat", "sample", "export"]
    assert next_of("stages/tiny-sft", "data.eval={}") == ["chat", "sample", "export"]  # nothing is held out
    assert next_of("online/tiny-grpo") == ["eval", "chat", "sample", "export"]
    for recipe in ("tools/tiny", "tools/tiny-environment"):
        assert next_of(recipe) == ["sample", "export"]  # nobody answers calls in a chat
    assert next_of("preference_model/tiny") == ["judge-agreement"]  # it writes no answers
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "MINE.py").touch()
    told = ended(tmp_path, load_recipe("dpo/tiny"))
    assert f"alignkit eval {tmp_path} --allow-file {tmp_path}/code/MINE.py" in told


def test_a_preference_model_is_held_against_people_as_is_advised(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "its own: run"
    assert train.main(["preference_model/tiny", f'train.output_dir="{run}"', "train.max_steps=1"]) == 0
    pairs = str(load_recipe("preference_model/tiny").data.train_sources()[0].path)
    advised = capsys.readouterr().out.splitlines()[-1].partition("  # ")[0]
    words = [pairs if word == "FILE" else word for word in shlex.split(advised)]
    assert words[0] == "alignkit"
    assert cli.main(words[1:]) == 0
    assert "| mine  | all | accuracy    |" in capsys.readouterr().out

"""Templates, patterns, adapters and files of strangers: a plain message within a bound of time, and no hang."""

import io
import json
import logging
import os
import subprocess
import sys

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig

from align import errors
from align.data.rows import normalise as normalising
from align.errors import DataError, RecipeError, RunError, in_words
from align.files import readable_as_usual
from align.merging import adapters
from align.models import patterns, templates
from align.models.folders import check_model_folder
from align.models.patterns import refuse_endless
from align.models.templates import check_template
from align.models.tiny import tiny_tokenizer
from align.recipe.loading import load_recipe
from align.runs.directory import read_metrics, recorded_reference
from align.strict.bounded import OutOfBounds, bounded
from align.trainers.online.rewards import RewardColumns

LOOP = "{% for i in range(99999) %}"


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(templates, "SECONDS", 2.0)
    monkeypatch.setattr(patterns, "SECONDS", 2.0)


def endless():
    while True:
        pass


@pytest.mark.parametrize(
    ("work", "told"),
    [(endless, "more than 0.5 seconds"), (lambda: len("x" * 10**10), "MiB of memory"), (lambda: "x" * 2**25, "more than 16 MiB")],
)  # fmt: skip
def test_what_takes_too_much_is_ended(work, told):
    with pytest.raises(OutOfBounds, match=told):
        bounded(work, seconds=0.5 if work is endless else 20.0)


def test_what_is_small_comes_back_and_nothing_ends_us():
    assert bounded(lambda: {"a": [1, None]}) == {"a": [1, None]}
    with pytest.raises(RuntimeError, match="SystemExit: 0"):
        bounded(lambda: sys.exit(0))


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{% for %}", "TemplateSyntaxError"),
        (LOOP * 3 + "{% endfor %}" * 3, "it takes more than 2 seconds"),
        ("{{ 'x' * 10**10 }}", "MiB of memory"),
        ("{{ 'x' * 3000000 }}", "3000000 characters for a conversation"),
    ],
)
def test_a_template_that_is_none_or_never_ends_is_refused(template, told):
    tokenizer = tiny_tokenizer()
    check_template(tokenizer)
    tokenizer.chat_template = template
    with pytest.raises(RunError, match=told) as caught:
        check_template(tokenizer)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("setting", ["target_modules", "exclude_modules", "rank_pattern", "alpha_pattern"])
def test_a_pattern_that_never_ends_is_refused(setting):
    names = ["model.layers.0.self_attn.q_proj.weight.and.more"]
    value = {"(.*)*!": 4} if setting.endswith("_pattern") else "(.*)*!"
    with pytest.raises(RunError, match=f"lora.{setting}: .* cannot be tried on the model's layers: it takes more"):
        refuse_endless(LoraConfig(**{setting: value}), names, "lora")
    refuse_endless(LoraConfig(target_modules=r".*\.(q|v)_proj", rank_pattern={"q_proj": 2}), names, "lora")


def test_a_pipe_in_a_model_folder_is_refused(tmp_path):
    os.mkfifo(tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="model.safetensors: no regular file"):
        check_model_folder(tmp_path)


def test_a_chain_of_recipes_has_an_end(tmp_path):
    for number in range(30):
        (tmp_path / f"{number}.yaml").write_text(f"extends: {number + 1}.yaml\n")
    with pytest.raises(RecipeError, match="extends more than 16 files in a row"):
        load_recipe(tmp_path / "0.yaml")


def test_what_a_link_points_to_outside_is_not_merged(tmp_path, caplog):
    (tmp_path / "secret").write_text("of this machine")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "tokenizer.json").symlink_to(tmp_path / "secret")
    (tmp_path / "a" / "vocab.json").write_text("{}")
    (tmp_path / "out").mkdir()
    with caplog.at_level(logging.WARNING):
        adapters.copy_along(tmp_path / "a", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["vocab.json"]
    assert "a link to a file outside of the adapter" in caplog.text


def test_what_is_kept_for_all_can_be_read_by_all(tmp_path):
    folder = tmp_path / "x"
    folder.mkdir(mode=0o700)
    (folder / "f").touch(mode=0o600)
    old = os.umask(0o022)
    readable_as_usual(folder)
    os.umask(old)
    assert (folder.stat().st_mode & 0o777, (folder / "f").stat().st_mode & 0o777) == (0o755, 0o644)


def test_lines_that_are_no_records_are_left_out(tmp_path):
    lines = [b'{"step": 1, "loss": 2.0}', b"5", b"[1]", b'{"loss": 1}', b"\xff\xfe", b"[" * 9000, b'{"step": 2']
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize("values", [None, 5, {}, {"kind": "base"}, {"kind": 1, "digest": "x"}])
def test_a_reference_that_is_none_is_told(tmp_path, values):
    with pytest.raises(RunError, match="damaged, or not written by a run"):
        recorded_reference(values, tmp_path / "env.json")


def test_errors_of_libraries_are_told_in_words():
    safetensors = type("SafetensorError", (Exception,), {"__module__": "safetensors._safetensors_rust"})
    assert (
        in_words(safetensors("No space left")) == "weights cannot be read or written (is the disk full?): No space left"
    )
    jinja = type("TemplateError", (Exception,), {"__module__": "jinja2.exceptions"})
    assert in_words(type("Sub", (jinja,), {})("\x1b[2J")).endswith("\\x1b[2J")
    assert in_words(KeyError("`metric_for_best_model` is x")).startswith("train.metric_for_best_model")
    assert in_words(RunError("a\x1b\nb")) == "a\\x1b\nb"
    assert in_words(KeyError("a fault of ours")) is None


def test_a_terminal_with_few_characters_is_no_error(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    errors.any_terminal()
    sys.stdout.write("β = 0.1\n")
    sys.stdout.flush()
    assert out.buffer.getvalue() == b"\\u03b2 = 0.1\n"


IN_A_FINALIZER = """
import os, signal, sys, time, weakref
from align.errors import keep_interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored in what it starts in the background
keep_interrupts()
class Thing: pass
thing = Thing()
watch = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
try:
    del thing
    time.sleep(20)
except KeyboardInterrupt:
    sys.exit(130)
"""


def test_an_interrupt_in_a_finalizer_ends_the_command_without_a_traceback():
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FINALIZER], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "")


def test_what_else_goes_wrong_in_a_finalizer_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    errors.keep_interrupts()
    thing = type("Thing", (), {"__del__": lambda self: 1 / 0})()
    del thing
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_json_of_a_reference_is_read_as_such(tmp_path):
    assert recorded_reference(json.loads('{"kind": "base", "digest": "0"}'), tmp_path)["model"] is None


def test_a_row_longer_than_any_model_reads_is_refused(monkeypatch):
    monkeypatch.setattr(normalising, "LONGEST", 1000)
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b" * 2000, "rejected": "c"}]
    with pytest.raises(DataError, match="row 2: it has 2,002 characters, and at most 1,000 are read"):
        normalising.normalise(Dataset.from_list(rows), columns={}, where="x")


def test_a_reward_that_never_gives_a_number_is_told_once(caplog):
    columns = RewardColumns([len, max], ["given", "silent"])
    table = torch.tensor([[1.0, torch.nan], [2.0, torch.nan]])
    with caplog.at_level(logging.WARNING):
        for _ in range(9):
            columns.look_at(table)
    (told,) = caplog.messages
    assert told.startswith("the reward silent has given no number (None or NaN) to any completion of 3 batches")

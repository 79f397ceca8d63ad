"""`alignkit data show`: what is printed is what a trainer holds, and marks say what colours do."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from align import cli
from align.building import build_trainer
from align.commands import show
from align.data import load_data
from align.models.tiny import tiny_tokenizer
from align.recipe.loading import load_recipe
from align.recipe.shipped import recipes_dir

TINY = recipes_dir() / "data" / "tiny.jsonl"


def printed(capsys, *words):
    assert cli.main(["data", "show", *map(str, words)]) == 0
    return capsys.readouterr().out


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("recipe", ["dpo/tiny", "stages/tiny-sft", "kto/tiny"])
def test_tokens_and_marks_are_those_of_the_trainer(recipe, tmp_path):
    loaded = load_recipe(recipe, [f"train.output_dir={tmp_path}", "train.max_length=26"])
    data = load_data(loaded.data, rows=loaded.rows, columns=loaded.columns, texts=loaded.texts)
    trainer, _ = build_trainer(loaded, data.train, {})
    theirs = []
    for row in trainer.train_dataset:
        one = trainer.data_collator([row])
        for ids, real, mask in zip(one["input_ids"], one["attention_mask"], completion_mask(one), strict=True):
            length = int(real.sum())
            theirs.append((ids[:length].tolist(), [bool(m) for m in mask[:length]]))
    ours = []
    shown = show.Shown(loaded.data, loaded.rows, max_length=26, tokenizer=tiny_tokenizer())
    for row in data.train:
        prompt, _, answers = show._encoded(row, shown.tokenizer)
        parts = [part for part in show._tokens(row, shown) if part.mark != show.CUT]
        for (_, ids), part in zip(answers.items(), parts[1:], strict=True):
            kept = sum(map(len, part.lines))
            if kept:
                seen = sum(map(len, parts[0].lines))
                ours.append(((prompt + ids)[: seen + kept], [False] * seen + [True] * kept))
    assert len(theirs) > 5
    assert sorted(ours) == sorted(theirs)


def completion_mask(batch):
    return batch["completion_mask"] if "completion_mask" in batch else batch["labels"] != -100


def test_what_is_cut_is_said(capsys):
    out = printed(capsys, TINY, "--model", "tiny-random", "train.max_length=20", "--rows", 2)
    assert "prompt, cut off at max_length=20; no answer fits, and training leaves the row out (3 tokens)" in out
    assert "    x o¦<|end|>¦<|assistant|>" in out
    assert "  chosen (2 tokens)\n    + t¦h\n  chosen, cut off at max_length=20 (14 tokens)\n    x e¦ ¦s¦k¦y¦" in out
    assert "  rejected (2 tokens)\n    - g¦r\n" in out
    assert "2 of 10 pairs" in out
    assert "cut off at" not in printed(capsys, TINY, "--model", "tiny-random")  # by the method's default


def test_rows_have_their_numbers_and_texts_are_harmless(tmp_path, capsys):
    rows = [
        {"prompt": "one\ntwo", "chosen": "fine \x1b[31mred", "rejected": "bad"},
        {"prompt": "", "chosen": "a", "rejected": "b"},
        {"prompt": "three", "chosen": "good", "rejected": "bad"},
    ]
    out = printed(capsys, write(tmp_path / "rows.jsonl", *rows), "data.unusable=drop")
    assert "    . one\\n\n    . two\n" in out
    assert "\x1b" not in out
    assert "+ fine \\x1b[31mred" in out
    assert "row 1\n" in out
    assert "row 3\n" in out
    assert "row 2\n" not in out


def test_colour_is_for_terminals_that_want_it(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    plain = "    - assistant: it is five, I believe"
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "    \x1b[31m- assistant: it is five, I believe\x1b[0m" in printed(capsys, TINY)
    monkeypatch.setenv("NO_COLOR", "")
    assert plain in printed(capsys, TINY)


def test_a_recipe_reads_another_file_in_its_own_way(tmp_path, capsys):
    source = write(tmp_path / "rows.jsonl", {"ask": "q", "chosen": "good", "rejected": "bad"})
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        f"extends: {recipes_dir()}/dpo/tiny.yaml\ndata: {{train: {{path: {TINY}, columns: {{prompt: ask}}}}}}\n"
    )
    out = printed(capsys, source, "--recipe", recipe)
    assert "  chosen (5 tokens)\n    + g¦o¦o¦d¦<|end|>" in out
    labelled = printed(capsys, "--recipe", "kto/tiny", "--rows", 14)
    assert "    - " in labelled
    assert "label: False" in labelled


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name one source, or a recipe with --recipe"),
        ([TINY, TINY], "name one source"),
        ([TINY, "--rows", 0], "--rows: must be at least 1, got 0"),
        ([TINY, "train.beta=3"], "train.beta: does nothing here"),
        ([TINY, "lora.r=3"], "lora: does nothing here"),
        ([TINY, "data.train.kolumns=3"], "did you mean 'columns'?"),
        ([TINY, "--method", "dppo"], "--method: unknown, got 'dppo'; did you mean"),
        ([TINY, "--method", "sft"], "no columns of completions"),
    ],
)
def test_what_cannot_be_shown_is_said(words, said, capsys):
    assert cli.main(["data", "show", *map(str, words)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_model_torch_is_not_imported():
    code = (
        f"import sys; from align import cli; cli.main(['data', 'show', {str(TINY)!r}]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.stdout.splitlines()[-1] == "False", done.stderr

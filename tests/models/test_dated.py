"""A chat template that writes the date writes one, in all of a run and its evaluation."""

import json
import shutil
from datetime import date

import pytest
from transformers import AutoTokenizer

import align
from align.errors import RunError
from align.models.dated import date_template, recorded_day, writes_the_date
from align.models.loading import resolve_model_path
from align.models.tiny import tiny_tokenizer
from eval.subjects import load_subject

DATED = """{%- set today = strftime_now("%d %b %Y") -%}{{ today }} at {{ strftime_now( '%H:%M' ) }}"""
MESSAGES = [{"role": "user", "content": "a"}]


def written(tokenizer):
    return tokenizer.apply_chat_template(MESSAGES, tokenize=False)


def test_a_template_is_dated_once():
    tokenizer = tiny_tokenizer()
    before = tokenizer.chat_template
    assert (date_template(tokenizer), tokenizer.chat_template) == (None, before)
    tokenizer.chat_template = DATED
    assert writes_the_date(tokenizer)
    assert date_template(tokenizer, "2024-07-26") == "2024-07-26"
    assert written(tokenizer) == "26 Jul 2024 at 00:00"
    assert not writes_the_date(tokenizer)
    assert date_template(tokenizer, "2025-01-01") is None
    tokenizer.chat_template = {"default": DATED, "tool_use": "{{ strftime_now(format='%Y') }}"}
    assert date_template(tokenizer) == date.today().isoformat()
    assert tokenizer.chat_template["tool_use"] == f'{{{{ "{date.today().year}" }}}}'


def test_what_the_library_writes_is_what_is_kept():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = DATED.partition(" at")[0]
    theirs = written(tokenizer)
    date_template(tokenizer)
    assert written(tokenizer) == theirs


def test_a_format_that_is_computed_and_a_day_that_is_none_are_refused():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d' + ' %Y') }}"
    with pytest.raises(RunError, match="a format that it computes"):
        date_template(tokenizer)
    tokenizer.chat_template = DATED
    with pytest.raises(RunError, match="expected a day such as 2026-11-28, got 'never'"):
        date_template(tokenizer, "never")


def test_a_run_keeps_its_day_when_it_resumes_and_is_evaluated(tmp_path, monkeypatch):
    folder, run = tmp_path / "model", tmp_path / "run"
    shutil.copytree(resolve_model_path("tiny-random"), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = '{{ strftime_now("%d.%m.%Y ") }}' + tokenizer.chat_template
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr("align.models.dated.date", type("Day", (), {"today": lambda: date(2024, 7, 26)}))
    words = [f"train.output_dir={run}", f"model.model_name_or_path={folder}", "train.save_steps=1"]
    align.run("rpo/tiny", [*words, "train.max_steps=1"])
    monkeypatch.setattr("align.models.dated.date", type("Day", (), {"today": lambda: date(2024, 7, 27)}))
    shutil.rmtree(run / "adapter")
    align.run("rpo/tiny", [*words, "train.max_steps=1"], resume="auto")
    assert recorded_day(run / "env.json") == "2024-07-26"
    assert json.loads((run / "env.json").read_text())["template_day"] == "2024-07-26"
    assert written(load_subject(str(run), None).tokenizer).startswith("26.07.2024 ")
    assert "26.07.2024" in (run / "adapter" / "chat_template.jinja").read_text()

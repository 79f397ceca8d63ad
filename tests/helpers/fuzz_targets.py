"""What is fuzzed: each target takes bytes and returns, or fails. Run over the saved corpus here, by scripts/fuzz.py at length.

The documented errors are caught, so whatever comes out is a bug: another exception, or a broken promise.
"""

import copy
import functools
import hashlib
import html.parser
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import yaml
from datasets import Dataset
from safetensors.torch import load_file

from align.check.model import dated_template
from align.check.templates import inspect_templates
from align.data import DataConfig, DataError, DataSource, load_preferences
from align.data.prompts import prompt_of, template_of
from align.errors import RecipeError, RunError, in_words
from align.merging.command import merge
from align.models import templates
from align.models.loading import load_adapter
from align.models.start import adapter_folder, starting_config
from align.models.stopping import turn_end
from align.models.templates import check_template
from align.models.tiny import tiny_model, tiny_tokenizer
from align.recipe.loading import load_recipe
from align.rewards import REWARDS, load_reward, make_reward
from eval.evaluate import Report
from eval.report.write import table, to_html, to_json, to_markdown, verdict
from eval.statistics.intervals import Estimate

SCRATCH = Path(tempfile.gettempdir()) / f"alignkit-fuzz-{os.getpid()}"  # made by the fuzzer
SPLIT = b"\0\0"  # between the parts of an input
KINDS = ("jsonl", "json", "csv", "jsonl.gz", "jsonl.xz", "jsonl.bz2", "parquet")


def recipe(content: bytes) -> None:
    """A recipe file and overrides load, or are refused with a message that one can show."""
    text, *overrides = content.split(SPLIT)
    path = SCRATCH / "recipe.yaml"
    path.write_bytes(text)
    try:
        loaded = load_recipe(path, [o.decode("utf-8", "replace").replace("\0", "") for o in overrides])
    except RecipeError as error:
        assert str(error)
        assert all(c.isprintable() or c == "\n" for c in str(error)), error
        return
    resolved = yaml.safe_load(loaded.resolved_yaml())["train"]
    assert not {"push_to_hub", "hub_model_id"} & {key for key, value in resolved.items() if value}
    target = Path(resolved["output_dir"])
    assert not target.is_absolute()
    assert ".." not in target.parts
    path.write_text(loaded.resolved_yaml(), encoding="utf-8")
    assert load_recipe(path).resolved_yaml() == loaded.resolved_yaml()


def data(content: bytes) -> None:
    """A data file gives usable pairs, or an error that names the set and can be shown."""
    kind, _, content = content.partition(SPLIT)
    name = kind.decode("ascii", "replace")
    path = SCRATCH / f"{hashlib.sha256(content).hexdigest()[:16]}.{name if name in KINDS else 'jsonl'}"
    path.write_bytes(content)
    try:
        rows = load_preferences(DataConfig(train=DataSource(str(path)))).train.to_list()
    except DataError as error:
        assert str(error).startswith("data.train")
        assert all(c.isprintable() or c == "\n" for c in str(error)), error
        return
    finally:
        path.unlink()
    for row in rows:
        assert row["prompt"]
        assert row["chosen"]
        assert row["rejected"]
        assert row["chosen"] != row["rejected"]
        assert json.dumps(row, ensure_ascii=False).encode()


class _Page(html.parser.HTMLParser):
    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[Any] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("wbr", "ins", "del") or attrs:  # which depend on the text, and are nothing without attributes
            self.tags.append((tag, [(name, None if name == "data-title" else value) for name, value in attrs]))

    def handle_comment(self, data: str) -> None:
        self.tags.append(("comment", data))

    def handle_pi(self, data: str) -> None:
        self.tags.append(("instruction", data))

    def unknown_decl(self, data: str) -> None:
        self.tags.append(("declaration", data))


def _report(name: str, key: str, prompt: str, answer: str) -> Report:
    made = Report(name, settings={"recipe": {key: answer}})
    made.pairs = {key: {}}
    made.estimates = {f"{key}/ranking_accuracy/implicit_reward": Estimate(0.5, 0.4, 0.6, 9)}
    made.answers = [{"prompt": [{"role": name, "content": prompt}], "policy": answer, "ref": prompt}]
    return made


def report(content: bytes) -> None:
    """Names, prompts and answers stay text: the page has the tags of a harmless one, a line stays a line."""
    parts = [part.decode("utf-8", "surrogateescape") for part in content.split(SPLIT)]
    made = _report(*(parts + [""] * 4)[:4])
    harmless = _Page(to_html(_report("a", "b", "c", "d"), {}))
    page = to_html(made, {})
    assert _Page(page).tags == harmless.tags
    assert page.encode()
    assert json.loads(to_json(made))["name"] == made.name
    for shown in (table(made), verdict(made)):
        assert all(c.isprintable() or c == "\n" for c in shown)
    assert len(table(made).splitlines()) == 3
    markdown = to_markdown(made)
    assert markdown.encode()
    fence = re.search(r"^`{3,}(?=yaml$)", markdown, re.MULTILINE)
    assert fence is not None
    assert markdown.count(fence[0]) == 2


def rewards(content: bytes) -> None:
    """Rewards are finite and in range whatever the answer; a reward that nobody allowed is never loaded."""
    texts = [part.decode("utf-8", "surrogateescape") for part in content.split(SPLIT)]
    for name in (name for name, known in REWARDS.items() if not known.reads):
        reward = make_reward(name)
        values = np.array(reward(texts), dtype=float)
        assert values.shape == (len(texts),)
        assert np.isfinite(values).all()
        assert (np.abs(values) <= 1).all()
        assert np.array_equal(values, np.array(reward(texts[::-1]))[::-1])
    for text in texts:
        try:
            load_reward(text)
            assert text in REWARDS
        except RunError as error:
            assert any(word in str(error) for word in ("unknown", "--allow", "reads"))


def _row(**more: Any) -> dict[str, Any]:
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    answers = {name: [{"role": "assistant", "content": name}] for name in ("chosen", "rejected")}
    return {"prompt": prompt, **answers, "tools": None, "chat_template_kwargs": None} | more


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
CHATS = (_row(), _row(tools=[TOOL]), _row(chat_template_kwargs={"enable_thinking": False}))
"""Rows of three kinds: messages, with a tool, with an argument of the template."""


@functools.cache
def _tokenizer() -> Any:
    return tiny_tokenizer()


def _told(text: str) -> None:
    assert text
    assert all(c.isprintable() or c == "\n" for c in text), text


def template(content: bytes) -> None:
    """A chat template is refused in printable words within bounds, or renders what it was tried with."""
    tokenizer = copy.copy(_tokenizer())
    tokenizer.chat_template = content.decode("utf-8", "replace")
    with mock.patch.object(templates, "SECONDS", 0.5):
        try:
            check_template(tokenizer)
            found = dated_template(tokenizer)
            found += inspect_templates({"data.train": Dataset.from_list(list(CHATS))}, tokenizer)
        except RunError as error:
            _told(str(error))
            return
    for finding in found:
        _told(finding.line())
    if any(finding.level == "error" for finding in found):
        return
    turn_end(tokenizer)
    for row in CHATS:
        prompt = prompt_of(row)
        text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True, **template_of(prompt))
        assert isinstance(text, str)


def adapter(content: bytes) -> None:
    """A folder of an adapter is read or refused in printable words; merged, it holds numbers, and nothing from outside."""
    config, other, weights, *_ = [*content.split(SPLIT, 2), b"", b""]
    folder = Path(tempfile.mkdtemp(dir=SCRATCH))
    try:
        (folder / "a").mkdir()
        (folder / "a" / "adapter_config.json").write_bytes(config)
        if weights:
            (folder / "a" / "adapter_model.safetensors").write_bytes(weights)
        if other:
            (folder / "a" / "alignkit.json").write_bytes(other)
            (folder / "a" / "reference.json").write_bytes(other)
        for read in (_merged, _begun, _put_on):
            try:
                read(folder)
            except Exception as error:  # whatever is not in words would be a traceback
                told = in_words(error)
                if told is None:
                    raise
                _told(told)
    finally:
        shutil.rmtree(folder)


def _merged(folder: Path) -> None:
    merge([folder / "a", folder / "a"], folder / "out", weights=[[0.5, 0.5]])
    (made,) = (folder / "out").rglob("adapter_model.safetensors")
    assert all(tensor.isfinite().all() for tensor in load_file(made).values())


def _begun(folder: Path) -> None:
    starting_config(adapter_folder(folder / "a"))


def _put_on(folder: Path) -> None:
    load_adapter(tiny_model(_tokenizer()), str(folder / "a"), trainable=True)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "recipe": recipe, "data": data, "report": report, "rewards": rewards, "template": template, "adapter": adapter,
}  # fmt: skip

"""Recipes and answers of strangers: nothing of theirs runs, writes elsewhere, uploads, or steers what shows it.

Data files are in test_files, models in test_model_files, gold rewards in test_rewards.
"""

import html.parser
import json
import os
import re

import pytest
import yaml
from recipes_under_test import GOOD, load, problems

import align
from align.errors import RecipeError, RunError
from align.recipe.loading import load_recipe
from align.recipe.shipped import recipes_dir
from align.rewards import load_reward
from align.strict.yaml_tree import MAX_BYTES
from eval.evaluate import Report
from eval.report.write import table, to_html, to_json, to_markdown, verdict
from eval.statistics.intervals import Estimate

# --- recipes: code ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!python/module:os"]
)
def test_tags_make_no_objects(folder, tag):
    assert any("cannot be read: " in p for p in problems(folder, GOOD.replace("0.3", tag)))


@pytest.mark.parametrize("section", ["model", "lora", "data.train", "train", "eval", "ref"])
@pytest.mark.parametrize("value", ["true", "false"])
def test_no_section_allows_remote_code(folder, section, value):
    found = problems(folder, GOOD, f"{section}.trust_remote_code={value}")
    assert any(f"{section}.trust_remote_code: not allowed in a recipe" in p and "cannot allow code" in p for p in found)


@pytest.mark.parametrize(
    "value", ["kernels-community/flash-attn3", "evil/kernel:f", "evil/kernel@main", "paged|evil/kernel"]
)
def test_attention_is_not_downloaded(folder, value):
    text = GOOD.replace("dtype: float32", f"attn_implementation: '{value}'")
    (message,) = problems(folder, text)
    assert message.startswith(f"{folder / 'r.yaml'}:2: model.attn_implementation: names a kernel to download and run")
    assert any("names a kernel" in p for p in problems(folder, GOOD, f"model.experts_implementation={value}"))
    assert load(folder, GOOD.replace("dtype: float32", "attn_implementation: sdpa"))


@pytest.mark.parametrize("key", ["megatron_core", "megatron_config", "auto_mapping"])
def test_peft_imports_no_module_that_a_recipe_names(folder, key):
    value = "{a: 1}" if key != "megatron_core" else "evil"
    assert any(f"lora.{key}: not allowed in a recipe" in p for p in problems(folder, GOOD, f"lora.{key}={value}"))


# --- recipes: writing and uploading ------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/tmp/elsewhere", "../x", "runs/../../x", "~/x", "'~'", "~root/x"])
def test_a_file_names_no_output_folder_outside(folder, target):
    (message,) = problems(folder, GOOD.replace("runs/x", target))
    assert message.startswith(
        f"{folder / 'r.yaml'}:7: train.output_dir: a recipe file writes below the working directory only"
    )
    assert "on the command line: train.output_dir=" in message
    assert load(folder, GOOD, f"train.output_dir={target}").train.output_dir == os.path.expanduser(target.strip("'"))
    (folder / "base.yaml").write_text(GOOD.replace("runs/x", target))
    assert "base.yaml:7" in problems(folder, "extends: base.yaml")[0]


def test_a_file_may_name_the_folder_it_lies_in(folder):
    for target in (".", "./", str(folder)):
        recipe = load(folder, GOOD.replace("runs/x", target))
        assert recipe.train.output_dir == str(folder.resolve())
        assert yaml.safe_load(recipe.resolved_yaml())["train"]["output_dir"] == "."


@pytest.mark.parametrize("target", ["/tmp/elsewhere", "../x", "~/x"])
def test_what_the_command_line_wrote_is_read_again_wherever_the_run_now_lies(folder, target):
    written = load(folder, GOOD, f"train.output_dir={target}").resolved_yaml()
    run = folder / "moved"
    run.mkdir(exist_ok=True)
    again = load(run, written, name="recipe.resolved.yaml")
    assert again.train.output_dir == str(run.resolve())
    assert again.resolved_yaml() == written
    assert load(folder, GOOD, "train.output_dir=runs/y").raw["train"]["output_dir"] == "runs/y"


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ("push_to_hub: true", "uploads nothing"),
        ("hub_model_id: evil/x", "uploads nothing"),
        ("trackio_space_id: evil/x", "uploads nothing"),
    ],
)
def test_a_file_uploads_nothing(folder, setting, rule):
    found = problems(folder, GOOD + f"  {setting}\n")
    key, value = setting.split(": ")
    assert any(p.startswith(f"{folder / 'r.yaml'}:12: train.{key}: a recipe file {rule}") for p in found)
    recipe = load(folder, GOOD, f"train.{key}={value}")
    assert key in recipe.raw["train"]
    assert key not in yaml.safe_load(recipe.resolved_yaml())["train"]


# --- recipes: size and shape -------------------------------------------------------------------------


def test_a_recipe_is_a_page_not_a_volume(folder):
    (folder / "big.yaml").write_text(GOOD + "#" * MAX_BYTES)
    with pytest.raises(RecipeError, match="larger than 1,000,000 bytes"):
        load_recipe(folder / "big.yaml")


def test_deep_nesting_is_given_up_at_once(folder):
    (folder / "deep.yaml").write_text("a: " + "[" * 500_000)  # seconds for each thousand levels, if it were read on
    with pytest.raises(RecipeError, match="nested more than 32 levels deep"):
        load_recipe(folder / "deep.yaml")


def test_nobody_reads_a_thousand_problems(folder):
    found = problems(folder, GOOD + "".join(f"  k{i}: 1\n" for i in range(5000)))
    assert len(found) == 102
    assert found[-1].endswith("more than 100 problems; the rest is not shown")


@pytest.mark.parametrize("value", [r'"\e[31mred"', r'"\u202Egnp.exe"', r'"\uD800"', r'"\x9b31m"', r'"a\x07"'])
def test_control_characters_neither_load_nor_show(folder, value):
    for text in (
        GOOD.replace("runs/x", value),
        GOOD + f"  {value}: 1\n",
        GOOD.replace("rpo", value),
        GOOD + f"{value}: 1\n",
    ):
        found = "\n".join(problems(folder, text))
        assert "control character" in found
        assert all(c.isprintable() or c == "\n" for c in found)


# --- recipes: rewards ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["m:f", "a.b.c:reward"])
def test_a_recipe_may_name_a_reward_without_importing_it(folder, name):
    assert load(folder, GOOD, f"eval={{gold_reward: '{name}', generate: {{}}}}").eval.gold_reward == name


@pytest.mark.parametrize("name", ["m:", ":f", "a b:c", "m:f()", "m:f:g", "__import__('os'):x", "../m:f"])
def test_anything_else_is_no_name_of_a_reward(folder, name):
    found = problems(folder, GOOD, f'eval={{gold_reward: "{name}", generate: {{}}}}')
    assert any("eval.gold_reward: unknown, got" in p for p in found)
    with pytest.raises(RunError, match="unknown|add --allow"):
        load_reward(name)


# --- reports -------------------------------------------------------------------------------------

MARKUP = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "' onmouseover='alert(1)", "]]><!--", "</pre></div></body>",
    "<a href=javascript:alert(1)>x</a>", "[x](javascript:alert(1))", "| a | b |", "```\n# heading\n```", "`code`", "![x](http://x)",
    "&lt;b&gt;", "<iframe src=//x>", "<svg/onload=alert(1)>", "a\nb", "a\r\nb", "\\", "\\|", "*a*", "~~a~~",
]  # fmt: skip
STEERING = ["\x1b[2J\x1b]0;owned\x07", "\x9b31m", "\u202egnp.exe", "\0", "a\bb", "\x7f", "\udcff"]


def about(text):
    """A report in which everything that can come from a stranger is `text`."""
    value = Estimate(0.5, 0.4, 0.6, 12)
    report = Report(text, settings={"recipe": {"train": {"run_name": text}, text: text}})
    report.pairs = {text: {}}
    report.estimates = {f"{text}/ranking_accuracy/implicit_reward": value, "kl": value}
    report.answers = [{"prompt": [{"role": text, "content": text}], "policy": text, "ref": text}]
    return report


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, content):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attrs):
        # A column of a table is named in an attribute too, as text.
        self.tags.append((tag, [(name, None if name == "data-title" else value) for name, value in attrs]))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.tags.append(("comment", data))


@pytest.mark.parametrize("text", MARKUP + STEERING)
def test_no_text_becomes_markup(text):
    page, plain = Page(to_html(about(text), {})), Page(to_html(about("plain"), {}))
    assert [t for t in page.tags if t[0] != "wbr"] == [t for t in plain.tags if t[0] != "wbr"]  # wbr: after / and _
    if text in MARKUP:
        assert page.text.count(text.replace("\r\n", "\\r\n")) >= 4


@pytest.mark.parametrize("text", MARKUP + STEERING)
def test_no_text_steers_a_terminal_or_leaves_its_cell(text):
    report = about(text)
    for shown in (table(report), verdict(report)):
        assert all(c.isprintable() or c == "\n" for c in shown)
    lines = table(report).splitlines()
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {6}
    assert "\n" not in verdict(report)


@pytest.mark.parametrize("text", MARKUP + STEERING)
def test_no_text_is_markdown(text):
    content = to_markdown(about(text))
    head, fence, settings = re.split(r"^(`{3,})yaml$", content, maxsplit=1, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)(?:\\\\)*[<`\[*~]", head.replace(table(about(text)), "").replace("[0.", "0."))
    assert len(head.splitlines()) == len(to_markdown(about("plain")).split("```yaml")[0].splitlines())
    assert settings.endswith(f"{fence}\n")
    assert fence not in settings[: -len(fence) - 1]
    assert yaml.safe_load(settings[: -len(fence) - 1])["recipe"]["train"]["run_name"] == text


@pytest.mark.parametrize("text", MARKUP + STEERING)
def test_everything_is_written_as_utf_8(text):
    report = about(text)
    assert json.loads(to_json(report))["name"] == text
    for content in (to_json(report), to_html(report, {}), to_markdown(report)):
        assert content.encode()


def test_the_page_forbids_what_it_does_not_need():
    page = Page(to_html(about("x"), {}))
    policy = next(dict(attrs)["content"] for tag, attrs in page.tags if tag == "meta" and "http-equiv" in dict(attrs))
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert [tag for tag, _ in page.tags].index("meta") < [tag for tag, _ in page.tags].index("style")


def test_a_model_card_is_not_broken_out_of(tmp_path):
    (tmp_path / "a`b.jsonl").write_bytes((recipes_dir() / "data" / "tiny.jsonl").read_bytes())
    data = f"data={{train: {{path: '{tmp_path}/a`b.jsonl'}}, eval: {{'x`<b>': {{path: '{tmp_path}/a`b.jsonl'}}}}}}"
    align.run("rpo/tiny", [data, "train.run_name='```'", "train.max_steps=1", f"train.output_dir={tmp_path / 'run'}"])
    card = (tmp_path / "run" / "README.md").read_text()
    assert "- evaluation `x'<b>`: `" in card
    assert "a'b.jsonl` (`train`)" in card
    assert "\n````yaml\n" in card
    assert card.rstrip().endswith("````")

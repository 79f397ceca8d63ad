"""A recipe that cannot be run as written says so: every problem at once, with file, line, key, rule, value, remedy."""

import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recipes_under_test import GOOD, load, problems

from align.recipe.loading import RecipeError, load_recipe


def test_reads_a_recipe(folder):
    recipe = load(folder, GOOD, "train.beta=0.05", "train.warmup_steps=0.1")
    assert (recipe.train.beta, recipe.train.learning_rate, recipe.train.warmup_steps) == (0.05, 5e-7, 0.1)
    assert recipe.data.train.path == str(folder / "pairs.jsonl")  # relative to the file, not to where one stands
    assert recipe.lora.task_type == "CAUSAL_LM"
    assert recipe.ref.kind == "base"


SOURCES = "data.train=[{path: a.jsonl}, {path: b.jsonl}]"


def test_an_override_reaches_into_a_list(folder):
    recipe = load(folder, GOOD, SOURCES, "data.train.1.max_rows=3", "data.train.0={path: c.jsonl}")
    assert [(each.path, each.max_rows) for each in recipe.data.train_sources()] == [("c.jsonl", None), ("b.jsonl", 3)]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.train.2.weight=1", "data.train.2.weight: no such entry of a list; entries are numbered from 0"),
        ("data.train.path=c.jsonl", "data.train.path: no such entry of a list"),
        (
            "data.train.0=c.jsonl",
            "data.train.0: expected `key: value` settings, got str 'c.jsonl'; write {path: c.jsonl}",
        ),
        ("data.train=c.jsonl", "data.train: expected `key: value` settings, got str 'c.jsonl'; write {path: c.jsonl}"),
    ],
)
def test_what_an_override_of_a_list_cannot_reach_is_told(folder, word, message):
    assert any(f"command line: {message}" in line for line in problems(folder, GOOD, SOURCES, word))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("beta:", "bta:", 8, "train.bta: unknown key, got 0.3; did you mean 'beta'?"),
        ("beta: 0.3", "beta: [0.1]", 8, "train.beta: expected float, got list [0.1]"),
        ("beta: 0.3", "beta: true", 8, "train.beta: expected float, got bool True"),
        ("beta: 0.3", "beta: banana", 8, "train.beta: expected float, got str 'banana'"),
        ("beta: 0.3", "beta: -3", 8, "train.beta: must be positive, got -3"),
        ("beta: 0.3", "beta: 0.3\n  beta: 0.7", 9, "train.beta: given twice"),
        ("beta: 0.3", "max_length: 512.7", 8, "train.max_length: expected int | null, got float 512.7"),
        ("beta: 0.3", "eval_strategy: no", 8, "quote it"),
        ("beta: 0.3", "divergence: alpha", 8, "train.divergence: unknown key, got 'alpha'; it belongs to method 'fdpo'"),
        ("beta: 0.3", "rpo_alpha: 1.0", 8, "RPO's weight is `eta`"),
        ("beta: 0.3", "loss_type: [ipo]", 8, "train.loss_type: not honoured here, got ['ipo']"),
        ("beta: 0.3", "loss_type: sigmoidd", 8, "train.loss_type: expected list[str]"),
        ("beta: 0.3", "f_divergence_type: forward_kl", 8, "use FDPOConfig"),
        ("beta: 0.3", "ld_alpha: 0.5", 8, "train.ld_alpha: not honoured here"),
        ("beta: 0.3", "use_weighting: true", 8, "train.use_weighting: not honoured here"),
        ("beta: 0.3", "label_smoothing: 0.1", 8, "only DPOConfig (method: dpo) has it"),
        ("beta: 0.3", "padding_free: true", 8, "TRL accepts it and does not do it"),
        ("beta: 0.3", "sft_reduction: token_mean", 8, "must be one of sum, sequence_mean, got 'token_mean'"),
        ("beta: 0.3", "eta: -1", 8, "train.eta: must not be negative, got -1"),
        ("beta: 0.3", "trust_remote_code: true", 8, "a recipe cannot allow code"),
        ("beta: 0.3", "hub_token: abc", 8, "a secret does not belong into a recipe"),
        ("beta: 0.3", "model_init_kwargs: {}", 8, "the `model` section says how"),
        ("beta: 0.3", "resume_from_checkpoint: x", 8, "use --resume"),
        ("beta: 0.3", "global_batch_size: 12", 8, "train.global_batch_size: must be a multiple of"),
        ("  output_dir: runs/x\n", "", 6, "train.output_dir: missing"),
        ("{path: ./pairs.jsonl}", "{path: ./pairs.jsonl, streaming: true}", 5, "data.train.streaming: unknown key, got True; it is of the whole section: `data.streaming: true`"),
        ("{path: ./pairs.jsonl}", "{}", 5, "data.train: missing path"),
        ("data:", "dta:", 4, "dta: unknown section; did you mean 'data'?"),
        ("method: rpo", "method: rppo", 1, "method: unknown, got str 'rppo'; did you mean 'rpo'?"),
        ("dtype: float32", "use_peft: true", 2, "model.use_peft: not used here; LoRA has its own section"),
        ("all-linear", "[q_proj, lm_head]", 3, "lora.target_modules: lm_head cannot be adapted"),
        ("r: 4", "r: 4, task_type: SEQ_CLS", 3, "lora.task_type: must be CAUSAL_LM"),
        ("method: rpo", "method: rpo\nref: {kind: model}", 2, "ref.path: needed by kind 'model'"),
        ("method: rpo", "method: rpo\nref: {path: x}", 2, "ref.path: not used by kind 'base'"),
        ("method: rpo", "method: rpo\nref: {kind: adapter, path: x}", 4, "lora: contradicts ref.kind=adapter"),
        ("method: rpo", "method: rpo\neval: {gold_reward: positive_sentiment}", 2, "so `generate` is needed too"),
        ("method: rpo", "method: rpo\nexpect: {kl: {value: 1}}", 2, "expect.kl: missing tol"),
        ("{path: ./pairs.jsonl}", "{path: &a x, name: *a}", 5, "anchors are not supported"),
    ],
)  # fmt: skip
def test_refuses(folder, old, new, line, message):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    found = problems(folder, text)
    matching = [p for p in found if message in p]
    assert matching, found
    assert matching[0].startswith(f"{folder / 'r.yaml'}:{line}: ")


def test_all_problems_come_at_once(folder):
    text = GOOD.replace("beta:", "bta:").replace("r: 4", "rr: 4").replace("method: rpo", "method: rpo\nevl: {}")
    found = "\n".join(problems(folder, text, "data.train.splt=x", "train.eta=x"))
    for key in ("train.bta", "lora.rr", "evl", "data.train.splt", "train.eta"):
        assert key in found


def test_dropout_of_an_adapter_is_honoured_or_refused(folder):
    text = GOOD.replace("r: 4", "r: 4, lora_dropout: 0.1", 1)
    assert load(folder, text).train.keeps_adapter_dropout()
    (found,) = problems(folder, text, "train.disable_dropout=true")
    assert "lora.lora_dropout: 0.1 would be switched off by train.disable_dropout=true" in found


def test_fdpo_alpha_range(folder):
    text = GOOD.replace("method: rpo", "method: fdpo").replace("beta: 0.3", "divergence: alpha\n  alpha: 1.5")
    assert any("alpha must be in (0, 1), got 1.5" in p for p in problems(folder, text))
    assert load(folder, text, "train.alpha=0.3").train.generator().name == "alpha=0.3"


@pytest.mark.parametrize("item", ["beta", "train.beta", ".=1", "train.=1"])
def test_malformed_override(folder, item):
    assert "is not of the form section.key=value" in problems(folder, GOOD, item)[0]


def test_an_override_is_named_as_the_place(folder):
    assert problems(folder, GOOD, "train.beta=nope")[0].startswith("command line: train.beta: expected float")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"- a\n- b\n", "at the top level"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (b"a: [1, 2", "not valid YAML"),
        (b"a: " + b"[" * 60 + b"]" * 60, "levels deep"),
        (b"method: !!python/object/apply:os.system ['true']\n", "method: cannot be read: the tag"),
    ],
)
def test_files_that_are_no_recipe(folder, content, message):
    path = folder / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_extends(folder):
    (folder / "base.yaml").write_text(GOOD)
    recipe = load(folder, "extends: base.yaml\ntrain: {beta: 0.9, global_batch_size: 16}\n", name="child.yaml")
    assert (recipe.train.beta, recipe.train.learning_rate) == (0.9, 5e-7)
    assert recipe.train.gradient_accumulation_steps == 2  # 16 pairs, 8 a device
    assert "extends" not in recipe.raw
    shipped = load(folder, "extends: rpo/tiny\ntrain: {beta: 0.7}\n", name="child.yaml")
    assert shipped.train.beta == 0.7
    (folder / "a.yaml").write_text("extends: b.yaml\n")
    (folder / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(RecipeError, match="extends itself, through a.yaml, b.yaml"):
        load_recipe(folder / "a.yaml")


def test_both_ways_to_say_the_batch_must_agree(folder):
    assert load(folder, GOOD, "train.global_batch_size=16", "train.gradient_accumulation_steps=2")
    found = problems(folder, GOOD, "train.global_batch_size=16", "train.gradient_accumulation_steps=4")
    assert "global_batch_size=16 asks for 2, got 4; give one of the two" in found[0]


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match="no such recipe; did you mean 'quickstart'"):
        load_recipe("quikstart")


def test_the_resolved_recipe_says_the_same(folder):
    recipe = load(folder, GOOD, "train.beta=0.05")
    again = load(folder, recipe.resolved_yaml(), name="again.yaml")
    assert again.raw == recipe.raw
    assert again.train == recipe.train


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@given(key=st.sampled_from(re.findall(r"(\w+):", GOOD)), value=plain)
def test_any_value_anywhere_loads_or_is_refused(folder, key, value):
    tree = yaml.safe_load(GOOD)
    for level in (tree, *(v for v in tree.values() if isinstance(v, dict))):
        if key in level:
            level[key] = value
    (folder / "fuzz.yaml").write_text(yaml.safe_dump(tree))
    try:
        load_recipe(folder / "fuzz.yaml")
    except RecipeError as error:
        assert str(error)


@given(st.text(max_size=200) | st.text(alphabet="abc:{}[]-&*!|>#'\"\n 01", max_size=80))
def test_any_text_loads_or_is_refused(folder, text):
    (folder / "text.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(RecipeError):
        load_recipe(folder / "text.yaml")


@pytest.mark.parametrize(
    ("override", "what"),
    [
        (
            "lora.init_lora_weights=pissa",
            "lora.init_lora_weights: 'pissa' takes what the adapter begins",
        ),
        ("lora.init_lora_weights=eva", "lora.init_lora_weights: 'eva' wants a pass over data"),
        ("lora.init_lora_weights=false", "lora.init_lora_weights: False starts from a random adapter"),
        ("lora.bias=lora_only", "lora.bias: 'lora_only' trains biases of the base"),
    ],
)
def test_an_adapter_that_leaves_no_reference_is_refused(folder, override, what):
    assert what in problems(folder, GOOD, override)[0]
    load(folder, GOOD, override, "ref.kind=model", "ref.path=other")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        (
            "train.lr_scheduler_type=foo",
            "command line: train.lr_scheduler_type: foo is not a valid SchedulerType, please",
        ),
        (
            "train.seed=99999999999999999999999",
            "command line: train.seed: cannot be read: a whole number of 77 bits, more",
        ),
        ("data.train=5", "command line: data.train: expected `key: value` settings | a list of them, got int 5"),
        ("eval.generate=5", "command line: eval.generate: expected `key: value` settings | null, got int 5"),
    ],
)
def test_a_value_is_blamed_once_where_it_is_said(word, told):
    with pytest.raises(RecipeError) as error:
        load_recipe("dpo/tiny", [word], anywhere=True)
    assert [line[: len(told)] for line in str(error.value).splitlines()] == [told]

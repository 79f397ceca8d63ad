"""What a recipe is made of, beyond test_strict_recipes: odd values, overrides, names, ranges, replays."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from recipes_under_test import GOOD, load, problems

from align.configs import ConfigError, DPOConfig, FDPOConfig, RPOConfig
from align.recipe.loading import RecipeError, load_recipe
from align.recipe.shipped import find_recipe, recipes_dir
from align.strict.yaml_tree import MAX_DEPTH

ON_CPU = {"use_cpu": True, "bf16": False, "report_to": "none"}
RECIPES = [p for p in sorted(recipes_dir().rglob("*.yaml")) if p.parent.name != "accelerate"]


# --- values: a file and the command line are read alike ------------------------------------------


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("!!bool foo", "cannot be read: 'foo' is no bool"),
        ("!!int ''", "cannot be read: '' is no int"),
        ("!!timestamp foo", "cannot be read: 'foo' is no timestamp"),
        ("!thing x", "cannot be read: could not determine a constructor for the tag '!thing'"),
        ("!!set {a: 1}", "cannot be read: the tag tag:yaml.org,2002:set is not supported"),
        ("2020-99-99", "cannot be read: month must be in 1..12"),
        ("1" + "0" * 400, "cannot be read: a whole number of 1329 bits, more than 64"),
        ("0x" + "f" * 5000, "cannot be read: a whole number of 20000 bits, more than 64"),
        ("2020-01-01", "expected float, got date"),
        ("", "expected float, got nothing"),
        ("{a: 1}", "expected float, got dict {'a': 1}"),
        ("'5e-7x'", "expected float, got str '5e-7x'"),
        (".inf", "must be finite, got inf"),
        (".nan", "must be positive, got nan"),
    ],
)
def test_odd_values_are_named_wherever_they_stand(folder, value, message):
    found = problems(folder, GOOD.replace("beta: 0.3", f"beta: {value}"))
    assert found[0].startswith(f"{folder / 'r.yaml'}:8: train.beta: {message}")
    assert problems(folder, GOOD, f"train.beta={value}")[0].startswith(f"command line: train.beta: {message}")


@pytest.mark.parametrize(("value", "expected"), [("5e-7", 5e-7), ("1", 1.0), ("'0.25'", 0.25), ("1_0", 10.0)])
def test_numbers_that_yaml_misreads_become_floats(folder, value, expected):
    for recipe in (load(folder, GOOD.replace("0.3", value)), load(folder, GOOD, f"train.beta={value}")):
        assert recipe.train.beta == expected
        assert isinstance(recipe.train.beta, float)


def test_lists_of_them_too():
    recipe = load_recipe("online/tiny-grpo", ["rewards=[clarity,repetition]", "train.reward_weights=[1, 5e-1]"])
    assert recipe.train.reward_weights == [1.0, 0.5]
    assert [type(weight) for weight in recipe.train.reward_weights] == [float, float]
    with pytest.raises(RecipeError, match=r"reward_weights: expected list\[float\] . null, got list \[True, 1\]"):
        load_recipe("online/tiny-grpo", ["train.reward_weights=[true, 1]"])


@pytest.mark.parametrize("section", ["model", "lora", "ref", "data", "train", "eval", "expect"])
@pytest.mark.parametrize("value", ["false", "0", "[1]", "''"])
def test_only_null_leaves_a_section_out(folder, section, value):
    assert any(
        p.startswith(f"command line: {section}: expected ") for p in problems(folder, GOOD, f"{section}={value}")
    )


@pytest.mark.parametrize("section", ["lora", "ref", "eval", "expect"])
def test_null_leaves_an_optional_section_out(folder, section):
    assert load(folder, GOOD, f"{section}=null").train.beta == 0.3


def test_missing_sections_are_named_together(folder):
    found = "\n".join(problems(folder, "eval: {pairs: 3}"))
    assert "method: missing; one of dpo, rpo, fdpo" in found
    for section in ("model", "data", "train"):
        assert f"{section}: missing section" in found


@pytest.mark.parametrize("text", ["!foo {method: rpo}", "!!set {method, model}"])
def test_a_tag_on_the_whole_file_is_refused(folder, text):
    assert "is not supported" in problems(folder, text)[0]


def test_broken_yaml_is_told_in_one_line_with_its_place(folder):
    assert problems(folder, "method: rpo\ntrain: {beta: [1, 2\n") == [
        f"{folder / 'r.yaml'}:3: not valid YAML: expected ',' or ']', but got '<stream end>'"
    ]


# --- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("train={beta: 1, beta: 2}", "command line: train.beta: given twice"),
        ("train={output_dir: x, 1: 2}", "command line: train.1: unknown key, got 2"),
        ("model={null: 2}", "command line: model.null: unknown key, got 2"),
        ("train.beta=&a [*a]", "command line: train.beta: anchors are not supported; use `extends`, got '&a [*a]'"),
        ("train.beta=[1", "command line: train.beta: not valid YAML: expected ',' or ']'"),
        ("train.beta=" + "[" * 900 + "]" * 900, "command line: train.beta: nested more than"),  # ends the recursion
        ("train.beta=" + "[" * 50 + "]" * 50, f"command line: train.beta: nested more than {MAX_DEPTH} levels deep"),
        ("train={eta: 1}", "command line: train.output_dir: missing"),  # not line 7 of the file, now replaced
        ("extends=base.yaml", "command line: extends: only a file can extend another"),
        ("method.x=1", "command line: method: unknown, got dict {'x': 1}"),
        ("data.train.path.x=1", "command line: data.train.path: expected str, got dict {'x': 1}"),
        ("trian.beta=1", "command line: trian: unknown section; did you mean 'train'?"),
    ],
)
def test_overrides_are_as_strict_as_the_file(folder, item, message):
    assert any(message in problem for problem in problems(folder, GOOD, item))


def test_all_malformed_overrides_are_named_at_once(folder):
    assert len([p for p in problems(folder, GOOD, "a", "b.=1", "=x") if "is not of the form" in p]) == 3


def test_the_last_override_wins_and_may_hold_an_equals_sign(folder):
    recipe = load(folder, GOOD, "train.beta=0.1", "train.beta=0.2", "train.run_name=a=b")
    assert (recipe.train.beta, recipe.train.run_name) == (0.2, "a=b")


def test_a_path_on_the_command_line_is_relative_to_where_one_stands_and_replays(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load(folder, GOOD, "data.train.path=./mine.jsonl")
    assert recipe.data.train.path == str(tmp_path / "mine.jsonl")
    assert load(folder, recipe.resolved_yaml(), name="again.yaml").data == recipe.data


@pytest.mark.parametrize("value", ["pairs.jsonl", "/data/pairs.jsonl", "trl-lib/ultrafeedback_binarized"])
def test_other_paths_stay_as_they_are(folder, value):
    assert load(folder, GOOD.replace("./pairs.jsonl", value)).data.train.path == value


def test_parent_paths_and_model_paths_are_relative_to_the_file(folder):
    recipe = load(folder, GOOD.replace("./pairs", "../pairs").replace("tiny-random", "./m"))
    assert recipe.data.train.path == str(folder.parent / "pairs.jsonl")
    assert recipe.model.model_name_or_path == str(folder / "m")
    assert "embedded null byte" in problems(folder, GOOD.replace("./pairs.jsonl", '"./a\\0"'))[0]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a" * 300, "a\0b", "../recipes/quickstart", "accelerate"])
def test_names_that_are_no_recipe(folder, name):
    with pytest.raises(RecipeError, match="no such recipe; ") as caught:
        find_recipe(name)
    assert "accelerate/" not in str(caught.value)
    text = yaml.safe_dump({"extends": name})
    refused = "control character" if "\0" in name else "no such recipe"
    assert any(refused in problem for problem in problems(folder, text))
    (folder / "made.yaml").mkdir(exist_ok=True)
    with pytest.raises(RecipeError, match=r"made.yaml': is a folder, not a recipe"):
        find_recipe(folder / "made.yaml")


@pytest.mark.parametrize("name", ["rpo/tiny", "rpo/tiny.yaml"])
def test_shipped_recipes_are_found_by_name(name):
    assert find_recipe(name) == recipes_dir() / "rpo" / "tiny.yaml"


@pytest.mark.parametrize("value", ["5", "[a.yaml]", "{a: 1}"])
def test_extends_takes_one_file_name(folder, value):
    assert "extends: expected a file name, got" in problems(folder, f"extends: {value}\n")[0]


def test_what_a_base_is_expected_to_give_is_its_own(folder):
    (folder / "base.yaml").write_text(GOOD + "expect: {kl: {value: 1.0, tol: 0.5}}\n")
    for text, names in (
        ("extends: base.yaml\n", []),
        ("extends: base.yaml\nexpect: {entropy/policy: {value: 2.0, tol: 1.0}}\n", ["entropy/policy"]),
    ):
        (folder / "more.yaml").write_text(text)
        assert list(load_recipe(folder / "more.yaml").expect) == names
    assert list(load_recipe(folder / "base.yaml").expect) == ["kl"]


def test_a_problem_in_a_base_names_the_base(folder):
    (folder / "base.yaml").write_text(GOOD.replace("beta:", "bta:"))
    found = problems(folder, "extends: base.yaml\nlora: {rr: 1}\n")
    assert f"{folder / 'base.yaml'}:8: train.bta: unknown key" in "\n".join(found)
    assert f"{folder / 'r.yaml'}:2: lora.rr: unknown key" in "\n".join(found)


# --- rules between settings -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["lora.r=0"], "lora.r: must be at least 1, got 0"),
        (["lora.target_modules=lm_head"], "lora.target_modules: lm_head cannot be adapted"),
        (["lora=null", "model.load_in_4bit=true"], "model: quantised weights cannot be trained; add a `lora` section"),
        (["ref.kind=cached", "train.precompute_ref_log_probs=true"], "contradicts ref.kind=cached"),
        (["ref.kind=frozen"], "ref.kind: must be one of base, adapter, model, cached, got 'frozen'"),
        (["ref={kind: cached, path: x}"], "ref.path: not used by kind 'cached', got 'x'"),
        (["ref={kind: adapter}"], "ref.path: needed by kind 'adapter'"),
        (["eval.pairs=0"], "eval.pairs: must be at least 1, got 0"),
        (["eval.batch_size=-1"], "eval.batch_size: must be at least 1, got -1"),
        (["eval.generate={prompts: 0}"], "eval.generate.prompts: must be at least 1, got 0"),
        (["eval.generate={temperature: -1}"], "eval.generate.temperature: must be finite and not negative, got -1.0"),
        (["eval={gold_reward: posit, generate: {}}"], "eval.gold_reward: unknown, got 'posit'; "),
        (["expect.kl={value: .nan, tol: 1}"], "expect.kl.value: must be finite, got nan"),
        (["expect.kl={value: 1, tol: -1}"], "expect.kl.tol: must be finite and not negative, got -1.0"),
        (["expect.kl=1"], "expect.kl: expected `key: value` settings, got int 1"),
        (["data.unusable=skip"], "data.unusable: must be one of error, drop, got 'skip'"),
        (["data.holdout=1.5"], "data.holdout: must be in [0, 1), got 1.5"),
        (["data.columns={a: b}"], "data.columns: unknown key"),
        (["model.trust_remote_code=true"], "model.trust_remote_code: unknown key"),
        (["train.accelerator_config=x"], "train: [Errno 2] No such file or directory: 'x'"),
    ],
)
def test_contradictions_and_ranges(folder, items, message):
    assert any(message in problem for problem in problems(folder, GOOD, *items))


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (RPOConfig, {"loss_weights": [1.0]}, "loss_weights: not honoured here"),
        (RPOConfig, {"discopop_tau": 0.1}, "discopop_tau: not honoured here"),
        (RPOConfig, {"truncation_mode": "keep_end"}, "truncation_mode: not honoured here"),
        (RPOConfig, {"label_smoothing_factor": 0.1}, "label_smoothing_factor: not honoured here"),
        (RPOConfig, {"f_alpha_divergence_coef": 0.3}, "1 minus this coefficient"),
        (DPOConfig, {"router_aux_loss_coef": 0.1}, "0.0 says so explicitly"),
        (DPOConfig, {"label_smoothing": 0.5}, r"label_smoothing: must be in \[0, 0.5\), got 0.5"),
        (DPOConfig, {"label_smoothing": float("nan")}, r"label_smoothing: must be in \[0, 0.5\), got nan"),
        (DPOConfig, {"beta": 0}, "beta: must be positive, got 0"),
        (RPOConfig, {"eta": float("nan")}, "eta: must be finite, got nan"),
        (RPOConfig, {"sft_reduction": "mean"}, "sft_reduction: must be 'sum' or 'sequence_mean', got 'mean'"),
        (FDPOConfig, {"divergence": "alpha"}, "alpha"),
        (FDPOConfig, {"divergence": "alpha", "alpha": 1.0}, r"alpha must be in \(0, 1\), got 1.0"),
        (FDPOConfig, {"divergence": "reverse_kl", "alpha": 0.5}, "alpha"),
        (FDPOConfig, {"beta_scaling": "none"}, "beta_scaling: must be 'raw' or 'curvature', got 'none'"),
        (RPOConfig, {"global_batch_size": 12}, "must be a multiple of .* = 8 x 1, got 12"),
        (RPOConfig, {"global_batch_size": 0}, "must be a multiple of .* got 0"),
        (RPOConfig, {"global_batch_size": 8, "per_device_train_batch_size": 0}, "must be at least 1, got 0"),
        (RPOConfig, {"gradient_accumulation_steps": 0}, "gradient_accumulation_steps: must be at least 1, got 0"),
    ],
)
def test_configurations_refuse_without_a_recipe_too(tmp_path, config, settings, message):
    with pytest.raises(ConfigError, match=message):
        config(output_dir=str(tmp_path), **ON_CPU, **settings)


def test_a_configuration_names_all_its_problems(tmp_path):
    with pytest.raises(ConfigError) as caught:
        RPOConfig(output_dir=str(tmp_path), **ON_CPU, beta=-1, eta=-1, ld_alpha=0.5)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == ["ld_alpha", "beta", "eta"]


@pytest.mark.parametrize(("pairs", "device", "steps"), [(8, 8, 1), (16, 2, 8), (6, 3, 2)])
def test_accumulation_follows_from_the_global_batch(tmp_path, pairs, device, steps):
    config = DPOConfig(output_dir=str(tmp_path), **ON_CPU, global_batch_size=pairs, per_device_train_batch_size=device)
    assert config.gradient_accumulation_steps == steps


def test_defaults_may_be_spelled_out_and_dpo_may_smooth(folder):
    assert load(folder, GOOD, "train.loss_type=[sigmoid]", "train.router_aux_loss_coef=0.0")
    assert load(folder, GOOD, "method=dpo", "train.label_smoothing=0.1").train.label_smoothing == 0.1


# --- replay and fuzz ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: str(p.relative_to(recipes_dir())))
def test_every_shipped_recipe_replays_from_its_resolved_form(folder, path):
    recipe = load_recipe(path, ["train.use_cpu=true", "train.bf16=false"])
    again = load(folder, recipe.resolved_yaml(), name="again.yaml")
    assert again.raw == recipe.raw
    assert (again.train, again.data, again.lora) == (recipe.train, recipe.data, recipe.lora)


scraps = st.sampled_from(
    ["!!bool ", "!!int ", "&a ", "*a", "<<: ", "- ", ": ", "\n  ", "0x", "2020-99-99", "'", "[", "}", "~"]
)
noise = st.lists(scraps | st.text(max_size=3), max_size=5).map("".join)
keys = st.sampled_from(["method", "train", "train.beta", "lora.r", "data.train", "data.eval.x", "extends", "expect.kl"])


def loads_or_refuses(path, overrides=()):
    try:
        assert load_recipe(path, overrides).raw
    except RecipeError as error:
        assert str(error)


@given(key=keys | noise, value=noise)
def test_any_override_loads_or_is_refused(folder, key, value):
    (folder / "fuzz.yaml").write_text(GOOD)
    loads_or_refuses(folder / "fuzz.yaml", [f"{key}={value}", value])


@given(at=st.integers(0, len(GOOD)), length=st.integers(0, 9), text=noise)
def test_any_edit_of_a_recipe_loads_or_is_refused(folder, at, length, text):
    (folder / "fuzz.yaml").write_bytes((GOOD[:at] + text + GOOD[at + length :]).encode())
    loads_or_refuses(folder / "fuzz.yaml")

"""What a run's card says of licence and places, and a run's directory in the place of its adapter as the reference."""

import json
from types import SimpleNamespace

import pytest
import tiny
from recipes_under_test import GOOD, load

from align import DPOConfig, DPOTrainer
from align.recipe.sections import RefConfig
from align.results import _card_sections
from align.trainers.shared.cards import PLACEHOLDER, licence_of, without_paths

CARD = f"---\nbase_model: x\n{PLACEHOLDER}tags: [dpo]\n---\n# mine\n"


@pytest.fixture
def base(tmp_path):
    made = tmp_path / "base"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    ("said", "licence"),
    [
        ("license: apache-2.0", "apache-2.0"),
        ("tags: [x]", None),
        ("license: [a, b]", None),
        ("license: 'a: b'", None),
        (None, None),
    ],
)
def test_the_licence_is_the_one_that_the_base_names_or_none(tmp_path, base, said, licence):
    if said is not None:
        (base / "README.md").write_text(f"---\n{said}\n---\n# base\n")
    assert licence_of(str(base)) == licence
    card = tmp_path / "README.md"
    card.write_text(CARD)
    without_paths(card, str(base), "mine")
    text = card.read_text()
    assert "licence: license" not in text
    assert text.count("license:") == (licence is not None)
    assert licence is None or f"license: {licence}\ntags" in text


def test_a_base_that_nobody_has_named_has_no_licence():
    assert licence_of("") is None
    assert licence_of("org/not-on-this-machine") is None


@pytest.mark.parametrize("several", [False, True])
def test_no_folder_of_this_machine_is_on_a_card(tmp_path, several):
    train = "{path: ./pairs.jsonl}"
    text = GOOD.replace(train, f"[{train}, {{path: ./more.jsonl}}]" if several else train)
    recipe = load(tmp_path, text, f"model.model_name_or_path={tmp_path}/some-model")
    state = SimpleNamespace(log_history=[], best_global_step=None)
    card = _card_sections(SimpleNamespace(state=state, args=recipe.train), recipe)
    assert str(tmp_path) not in card
    assert "- training: `pairs.jsonl` (`train`)" in card
    assert ("`more.jsonl`" in card) == several
    assert "model_name_or_path: some-model" in card
    assert str(tmp_path) in recipe.resolved_yaml()  # which is to be run again


def test_a_run_is_a_reference_by_what_it_trained(tmp_path):
    run = tmp_path / "run"
    (run / "adapter").mkdir(parents=True)
    (run / "adapter" / "adapter_config.json").write_text("{}")
    assert RefConfig("adapter", str(run)).path == str(run / "adapter")
    assert RefConfig("adapter", str(run / "adapter")).path == str(run / "adapter")
    assert RefConfig("model", str(run)).path == str(run)
    (run / "adapter_config.json").write_text("{}")  # an adapter itself
    assert RefConfig("adapter", str(run)).path == str(run)


def test_equal_adapters_have_equal_settings(tmp_path):
    modules = ["q_proj", "v_proj", "up_proj", "k_proj", "o_proj", "down_proj"]
    trained = tiny.trainer(DPOTrainer, DPOConfig, tmp_path, lora={"target_modules": modules})
    trained.save_model(str(tmp_path / "adapter"))  # PEFT has a set, in another order in each process
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert settings["target_modules"] == sorted(modules)

"""`model-index` metadata of a card: names that the hub knows, or nothing."""

import math
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from eval.kept.model_index import eval_results, note_in_cards
from eval.report.results import Report
from eval.statistics.intervals import Estimate

HUB = {"path": "trl-lib/ultrafeedback_binarized", "split": "test[:500]"}


def report(**sources):
    estimates = {
        "uf/ranking_accuracy/implicit_reward": Estimate(0.7, 0.6, 0.8, 50),
        "uf/ranking_accuracy/logp": Estimate(0.5, 0.4, 0.6, 50),
        "sft/nll/policy": Estimate(2.0, 1.0, 3.0, 9),
        "gold_reward/policy": Estimate(0.1, 0.0, 0.2, 9),
    }
    return Report("mine", estimates=estimates, settings={"recipe": {"data": {"eval": sources}}})


def test_figures_have_the_names_of_the_hub():
    [accuracy, perplexity] = eval_results(report(uf=HUB, sft=HUB | {"split": "test", "name": "en", "revision": "abc"}))
    assert (accuracy.dataset_type, accuracy.dataset_split, accuracy.metric_type) == (
        HUB["path"],
        "test[:500]",
        "accuracy",
    )
    assert accuracy.metric_value == 0.7
    assert "95% interval 0.6000 to 0.8000, n=50" in accuracy.metric_name
    assert (perplexity.metric_type, perplexity.metric_value) == ("perplexity", pytest.approx(math.exp(2), abs=1e-4))
    assert (perplexity.dataset_config, perplexity.dataset_revision) == ("en", "abc")


@pytest.mark.parametrize("path", ["/home/me/pairs.jsonl", "pairs", "../data/tiny.jsonl", "/tmp"])
def test_a_file_of_this_machine_is_no_data_set_by_name(path):
    assert eval_results(report(uf={"path": path})) == []
    assert eval_results(Report("mine", settings={})) == []


@pytest.fixture
def run(tmp_path):
    (tmp_path / "adapter").mkdir()
    for card in (tmp_path / "README.md", tmp_path / "adapter" / "README.md"):
        card.write_text("---\nlibrary_name: peft\ntags:\n- rpo\nmodel_name: other\n---\n\n# Title\n\ntext\n")
    return tmp_path


def test_the_cards_are_as_the_hub_reads_them(run):
    assert len(note_in_cards(report(uf=HUB), run)) == 2
    text = (run / "README.md").read_text()
    metadata = yaml.safe_load(text.split("---\n")[1])
    [index] = metadata["model-index"]
    [result] = index["results"]
    assert index["name"] == "other"
    assert result["task"] == {"type": "text-generation", "name": "Text Generation"}
    assert result["dataset"] == {"name": HUB["path"], "type": HUB["path"], "split": "test[:500]"}
    assert result["metrics"][0] | {"name": ""} == {"type": "accuracy", "value": 0.7, "name": ""}
    assert (metadata["library_name"], metadata["tags"]) == ("peft", ["rpo"])
    assert "# Title\n\ntext" in text
    assert ModelCard.load(run / "adapter" / "README.md").data.eval_results[0].metric_value == 0.7


def test_an_earlier_reports_figures_go(run):
    note_in_cards(report(uf=HUB), run)
    assert len(note_in_cards(report(), run)) == 2
    assert "model-index" not in (run / "README.md").read_text()
    before = (run / "README.md").read_bytes()
    assert note_in_cards(report(), run) == []
    assert (run / "README.md").read_bytes() == before


def test_a_run_without_cards_is_left_alone(run):
    shutil.rmtree(run / "adapter")
    (run / "README.md").unlink()
    assert note_in_cards(report(uf=HUB), run) == []

"""Logs for Inspect: a policy each, every answer with its scores, and every estimate of the report."""

import importlib.util
import json

import pytest
from judged import made

from align import cli
from align.errors import RunError
from eval.kept.inspect_log import logs_of
from eval.report.write import write_items, write_report
from eval.statistics.intervals import Estimate


@pytest.fixture
def folder(tmp_path):
    """An evaluation of two policies with two answers a prompt."""
    report = made("mine")
    report.estimates["temperature"] = Estimate(1.0, 0.5, float("inf"), 12)
    report.settings["decoding"] = {"max_new_tokens": 8, "temperature": 0.7, "seed": 3, "samples": 2}
    for number, row in enumerate(report.answers):
        row["others"] = {"a/b": {"text": f"o{number}"}}
        row["samples"] = {who: [f"{who}-{number}-{k}" for k in range(2)] for who in ("mine", "ref", "a/b")}
    both = [[float(2 * i), float(2 * i + 1)] for i in range(12)]
    report.measured = {who: {"gold_reward": both} for who in ("ref", "a/b")}
    report.measured["mine"] = {"gold_reward": both, "cut_off": [[0, 1]] * 12, "surprise": [5.0] * 12}
    write_report(report, {}, tmp_path / "run")
    write_items(report, tmp_path / "run")
    return tmp_path / "run"


def test_every_answer_stands_with_its_own_scores(folder):
    log = logs_of(folder)["mine"]
    assert [(one["id"], one["epoch"]) for one in log["samples"][:3]] == [(1, 1), (1, 2), (2, 1)]
    one, two, _, four = log["samples"][:4]
    assert four["output"]["completion"] == "mine-1-1"
    assert four["scores"]["gold_reward"]["value"] == 3.0
    assert [s["output"]["choices"][0]["stop_reason"] for s in (one, two)] == ["stop", "max_tokens"]
    assert "surprise" in one["scores"]
    assert "surprise" not in two["scores"], "of the prompt, so it counts once"
    assert log["eval"]["config"]["epochs"] == 2
    assert log["eval"]["model_generate_config"] == {"max_tokens": 8, "temperature": 0.7, "seed": 3}


def test_every_policy_has_a_log_and_the_first_one_has_the_estimates(folder):
    logs = logs_of(folder)
    assert list(logs) == ["mine", "a/b", "ref"]
    assert logs["a/b"]["samples"][2]["output"]["completion"] == "a/b-1-0"
    assert logs["ref"]["samples"][0]["output"]["completion"] == "ref-0-0"
    scores = {one["name"]: one for one in logs["mine"]["results"]["scores"]}
    assert scores["gold_reward"]["metrics"]["mean"]["value"] == pytest.approx(11.5)
    assert scores["surprise"]["scored_samples"] == 12
    estimates = json.loads((folder / "report.json").read_text())["estimates"]
    assert set(estimates) <= set(scores)
    assert {key: metric["value"] for key, metric in scores["kl"]["metrics"].items()} == {
        "value": 2.0,
        "low": 1.5,
        "high": 2.5,
    }
    assert set(scores["temperature"]["metrics"]) == {"value", "low"}
    assert [one["name"] for one in logs["ref"]["results"]["scores"]] == ["gold_reward"]


def test_one_answer_a_prompt_is_read_too(tmp_path):
    write_report(made("mine"), {}, tmp_path)
    write_items(made("mine"), tmp_path)
    logs = logs_of(tmp_path)
    assert {who: log["samples"][0]["output"]["completion"] for who, log in logs.items()} == {
        "mine": "hello",
        "ref": "bye",
    }
    assert logs["mine"]["samples"][0]["output"]["choices"][0]["stop_reason"] == "unknown"


def test_the_command_writes_a_file_a_policy_and_over_none(folder, tmp_path, capsys):
    assert cli.main(["inspect-log", str(folder), "-o", str(tmp_path / "logs")]) == 0
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"mine.json", "a_b.json", "ref.json"}
    assert "mine.json" in capsys.readouterr().out
    if importlib.util.find_spec("inspect_ai") is not None:
        log = importlib.import_module("inspect_ai.log").read_eval_log(str(tmp_path / "logs" / "mine.json"))
        assert (log.status, len(log.samples)) == ("success", 24)
    assert cli.main(["inspect-log", str(folder), "-o", str(tmp_path / "logs")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_line_breaks_of_unicode_names_alike_and_texts_for_numbers(folder, tmp_path):
    rows = [json.loads(line) for line in (folder / "responses.jsonl").read_text().split("\n") if line]
    for row in rows:
        row["samples"] |= {"mine": ["x\u2028y\u0085", "z"], "a_b": ["other", "one"]}
        row["others"]["a_b"] = {"text": "other"}
        row["measured"]["mine"]["gold_reward"] = ["-inf", 1.0]
    (folder / "responses.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    log = logs_of(folder)["mine"]
    assert log["samples"][0]["output"]["completion"] == "x\u2028y\u0085"
    assert "gold_reward" not in log["samples"][0]["scores"]
    assert log["samples"][1]["scores"]["gold_reward"] == {"value": 1.0}
    assert cli.main(["inspect-log", str(folder), "-o", str(tmp_path / "logs")]) == 0
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {"mine.json", "a_b.json", "a_b_.json", "ref.json"}


@pytest.mark.parametrize(("file", "text"), [("responses.jsonl", '"x"\n'), ("responses.jsonl", '{"policy": "a"}\n')])
def test_damaged_answers_are_told(folder, file, text):
    (folder / file).write_text(text)
    with pytest.raises(RunError, match="are damaged"):
        logs_of(folder)


def test_what_is_no_report_is_told(folder, tmp_path):
    with pytest.raises(RunError, match=r"report.json: not there; make a report with `alignkit eval"):
        logs_of(tmp_path / "nowhere")
    (folder / "responses.jsonl").write_text("")
    with pytest.raises(RunError, match="has no answers; set eval.generate"):
        logs_of(folder)
    (folder / "report.json").write_text("{}")
    with pytest.raises(RunError, match="holds no report"):
        logs_of(folder)

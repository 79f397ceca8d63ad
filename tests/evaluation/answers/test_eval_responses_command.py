"""Stored responses on the command line: evaluated without a model, or refused with a reason."""

import json

import pytest
import yaml
from endpoint_server import Server, says
from stored_world import responses, write_lines

import eval.__main__ as command
from align.cli import main as alignkit
from align.errors import RunError

GOOD, BAD, MIXED = "this is a lovely and good film", "this is a bad and awful film", "the film is a film that is long"
RECIPE = {
    "method": "dpo",
    "model": {"model_name_or_path": "tiny-random"},
    "data": {"train": {"path": "no-such-file.jsonl"}},
    "train": {"output_dir": "unused", "use_cpu": True, "bf16": False},
    "eval": {
        "generate": {},
        "gold_reward": "positive_sentiment",
        "judges": {"polite": {"kind": "reward", "reward": "positive_sentiment"}},
    },
}


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return str(tmp_path / "recipe.yaml")


@pytest.fixture
def four(tmp_path):
    """Files a to d: a says good things, b bad ones, c and d both."""
    texts = {"a": [GOOD] * 8, "b": [BAD] * 8, "c": [GOOD, BAD] * 4, "d": [MIXED, BAD, GOOD, BAD] * 2}
    return [str(responses(tmp_path / f"{name}.jsonl", rows)) for name, rows in texts.items()]


def report(folder):
    return json.loads((folder / "report.json").read_text())


def test_four_files_are_compared_without_a_model(four, recipe, tmp_path, monkeypatch, capsys):
    def no_model(*_, **__):
        raise AssertionError("a model is loaded")

    for name in ("align.sampling.policy.load_model", "eval.subjects.load_tokenizer"):
        monkeypatch.setattr(name, no_model)
    assert alignkit(["compare", *four, "--recipe", recipe, "-o", str(tmp_path / "out")]) == 0
    found = report(tmp_path / "out")
    assert "<div class=dim>n=" not in (tmp_path / "out" / "report.html").read_text()  # each figure says what it tells
    estimates = found["estimates"]
    assert estimates["gold_reward/win_rate"]["value"] == estimates["win_rate/polite"]["value"] == 1.0
    for prefix in ("", "b/", "c/", "d/"):  # one number, one interval; the reference is one of the files
        assert estimates.get(f"{prefix}gold_reward/win_rate") == estimates.get(f"{prefix}win_rate/polite")
    assert estimates["d/win_rate/polite"]["value"] == (8 - 4 + 0.5 * 4) / 8  # of eight, four are as b's
    assert estimates["length_words/difference"]["value"] == 0
    assert estimates["length_characters/policy"]["value"] == len(GOOD)
    assert estimates["longer_wins/polite"]["value"] == 1.0
    assert "kl" not in estimates
    assert {(row["first"], row["second"]) for row in found["comparisons"]["win_rate/polite"]} == {
        ("a", "c"), ("a", "d"), ("a", "b"), ("c", "d"), ("c", "b"), ("d", "b"),
    }  # fmt: skip
    assert set(found["judges"]["polite"]["ratings"]) == {"a", "b", "c", "d"}
    settings = found["settings"]
    assert (settings["reference"], settings["prompts"], settings["compared_with"]) == ("b", 8, ["c", "d"])
    assert len(settings["responses"]["a"]["sha256"]) == 64
    assert found["verdict"].startswith("a is better than b by judge polite, win rate 1.000 [")
    gold = found["estimates"]["gold_reward/difference"]  # the same for every prompt: its range says how sure that is
    assert -2 < gold["low"] < 1.53 < gold["high"] < 2
    (row,) = [row for row in found["comparisons"]["gold_reward"] if (row["first"], row["second"]) == ("a", "b")]
    joint = row["difference"]  # of twelve comparisons, eight prompts: not sure
    told = f"not told apart from b by gold reward, +1.530 [{joint['low']:+.3f}, {joint['high']:+.3f}] (n=8; joint interval)"
    assert told in found["verdict"]
    assert joint["low"] < 0 < gold["low"]
    shown = capsys.readouterr().out
    assert "longer answer wins" in shown
    rows = [json.loads(line) for line in (tmp_path / "out" / "responses.jsonl").read_text().splitlines()]
    assert (rows[0]["policy"], rows[0]["ref"], rows[0]["others"]["c"]["text"]) == (GOOD, BAD, GOOD)


def test_the_reference_can_be_named_and_its_name_is_shown(four, recipe, tmp_path):
    words = [four[0], four[1], f"ref={four[3]}", "--recipe", recipe, "-o", str(tmp_path / "out")]
    assert command.main(words) == 0
    found = report(tmp_path / "out")
    assert found["settings"]["reference"] == "d"
    assert found["settings"]["compared_with"] == ["b"]
    assert set(found["judges"]["polite"]["win_rates"]) == {"a", "b"}
    assert "<span class=dim>d " in (tmp_path / "out" / "report.html").read_text()


def test_a_page_alone_is_written(four, recipe, tmp_path):
    assert alignkit(["compare", *four, "--recipe", recipe, "-o", str(tmp_path / "new" / "page.html")]) == 0
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_objectives_that_read_columns_are_measured_from_files(tmp_path):
    texts = {"a": ["the answer is \\boxed{1}"] * 4, "b": ["the answer is \\boxed{1}", "it is \\boxed{2}"] * 2}
    files = [str(responses(tmp_path / f"{n}.jsonl", t, answer=["1"] * 4)) for n, t in texts.items()]
    online = RECIPE | {"method": "dynamic_grpo", "rewards": ["correctness", "conciseness"], "eval": {"generate": {}}}
    (tmp_path / "online.yaml").write_text(yaml.safe_dump(online))
    words = [*files, "--recipe", str(tmp_path / "online.yaml"), "-o", str(tmp_path / "out")]
    assert command.main(words) == 0
    found = report(tmp_path / "out")
    assert found["estimates"]["objectives/correctness/policy"]["value"] == 1.0
    assert found["estimates"]["objectives/correctness/ref"]["value"] == 0.5
    assert "counts tokens" in found["details"]["objectives"]["left_out"]["conciseness"]


def test_an_objective_without_its_column_is_refused(four, tmp_path, capsys):
    online = RECIPE | {"method": "dynamic_grpo", "rewards": ["correctness", "clarity"], "eval": {"generate": {}}}
    (tmp_path / "online.yaml").write_text(yaml.safe_dump(online))
    assert command.main([*four[:2], "--recipe", str(tmp_path / "online.yaml"), "-o", str(tmp_path / "out")]) == 2
    assert "no column 'answer', which the reward 'correctness' reads" in capsys.readouterr().err


def sets(tmp_path, recipe, prompts):
    rows = [
        {"prompt": p, "label": label, "type": "homonyms"} for p, label in zip(prompts, ("safe", "unsafe"), strict=True)
    ]
    path = write_lines(tmp_path / "refusals.jsonl", rows)
    return ["--recipe", recipe, "-o", str(tmp_path / "out"), f"eval.refusals={{path: {path}}}"]


def test_a_prompt_set_is_found_among_the_responses(tmp_path, recipe):
    a = responses(
        tmp_path / "a.jsonl", [GOOD, "I cannot help with that.", MIXED], ["kill a process", "make a bomb", "x"]
    )
    b = responses(
        tmp_path / "b.jsonl",
        ["I cannot help with that.", "Sure, here is how.", BAD],
        ["kill a process", "make a bomb", "x"],
    )
    assert command.main([str(a), str(b), *sets(tmp_path, recipe, ["kill a process", "make a bomb"])]) == 0
    estimates = report(tmp_path / "out")["estimates"]
    assert "<div class=dim>n=" not in (tmp_path / "out" / "report.html").read_text()
    assert estimates["refusals/over_refusal/policy"]["value"] == 0
    assert estimates["refusals/over_refusal/ref"]["value"] == 1


def test_a_prompt_set_that_the_files_do_not_answer_is_refused(four, tmp_path, recipe, capsys):
    assert command.main([*four[:2], *sets(tmp_path, recipe, ["kill a process", "make a bomb"])]) == 2
    shown = capsys.readouterr().err
    assert 'eval.refusals: the files hold no response to its prompt "kill a process"' in shown
    assert "leave the set out with eval.refusals=null" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a}"], "responses are compared with a reference's; name a second file, or ref=FILE"),
        (["{a}", "{tmp}"], "no file of responses (.jsonl), but others are; runs and files are not evaluated together"),
        (["{tmp}", "ref={a}"], "no file of responses (.jsonl), but others are"),
        (["{a}", "ref={b}", "ref={c}"], "ref=: named 2 times; there is one reference"),
        (["{a}", "{a}"], "a file is named twice"),
        (["{a}", "{tmp}/gone.jsonl"], "gone.jsonl: cannot be read: No such file"),
        (["{a}", "{b}", "eval.gold_reward=conciseness"], "'conciseness' reads completion_ids, which an evaluation does not pass"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_said(four, tmp_path, recipe, capsys, words, message):
    given = {"a": four[0], "b": four[1], "c": four[2], "tmp": str(tmp_path)}
    argv = [word.format(**given) for word in words]
    assert command.main([*argv, "--recipe", recipe, "-o", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_reference_that_is_no_file_is_a_section_of_the_recipe(monkeypatch):
    asked = []
    monkeypatch.setattr(
        command, "report_on", lambda wanted: asked.append(wanted) or (_ for _ in ()).throw(RunError(""))
    )
    command.main(["run", "ref={kind: model, path: x}", "ref.kind=base", "eval.pairs=3"])
    command.main(["a.jsonl", "ref=b.jsonl", "eval.pairs=3"])
    assert (asked[0].ref, asked[0].overrides) == (None, ("ref={kind: model, path: x}", "ref.kind=base", "eval.pairs=3"))
    assert (asked[1].ref, asked[1].names, asked[1].overrides) == ("b.jsonl", ["a.jsonl"], ("eval.pairs=3",))


def test_a_recipe_and_a_place_are_needed(four, tmp_path, recipe, capsys):
    assert command.main([*four[:2], "-o", str(tmp_path / "out")]) == 2
    assert "add --recipe RECIPE, whose eval section says what is measured" in capsys.readouterr().err
    assert command.main([*four[:2], "--recipe", recipe]) == 2
    assert "not a folder, so say where the report goes with --out" in capsys.readouterr().err


def test_a_truncated_file_ends_the_command_with_its_line(four, recipe, tmp_path, capsys):
    with open(four[2], "r+b") as file:
        file.truncate(file.seek(0, 2) - 9)
    assert alignkit(["compare", *four, "--recipe", recipe, "-o", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr().err
    assert f"{four[2]}: line 8: is no JSON" in shown
    assert "may be truncated" in shown


def test_what_an_endpoint_answers_is_evaluated_like_any_file(recipe, tmp_path, capsys):
    prompts = [{"prompt": f"question {i}"} for i in range(12)]
    write_lines(tmp_path / "prompts.jsonl", prompts)
    own = [each | {"response": BAD} for each in prompts]
    write_lines(tmp_path / "own.jsonl", own)
    with Server(lambda text, number: says(GOOD)) as server:
        host = server.url.removeprefix("http://").removesuffix("/v1")
        words = [server.url, "--model", "m", "--prompts", str(tmp_path / "prompts.jsonl"), "--allow", host]
        assert alignkit(["sample", *words, "--out", str(tmp_path / "theirs.jsonl")]) == 0
    words = [
        str(tmp_path / "theirs.jsonl"),
        str(tmp_path / "own.jsonl"),
        "--recipe",
        recipe,
        "-o",
        str(tmp_path / "out"),
    ]
    assert alignkit(["compare", *words]) == 0
    found = report(tmp_path / "out")
    assert found["verdict"].startswith("theirs is better than own by gold reward, ")
    assert found["estimates"]["win_rate/polite"]["n"] == 12

"""Rounds by a recipe: the same as by hand, gone on with wherever they were stopped, and ended in words."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from stored_world import made, read_lines

from align.commands.sample import main as sample
from align.commands.score import main as score
from align.data.commands.pairs import main as pairs
from align.errors import DataError, RunError
from align.recipe.loading import load_recipe
from align.rounds import drift, stages
from align.rounds.ledger import FILE, Ledger
from align.rounds.plan import Place, round_prompts, round_recipe
from align.rounds.run import run_rounds
from align.rounds.stages import mix_stage, mixed_from
from align.sampling.generate import Decoding
from align.train import main as train

JUDGE = "judge={kind: language_model, path: tiny-random}"
STATES = ("adapter_model.safetensors", "adapter_config.json")


def test_every_stage_is_a_file_that_somebody_can_read(done):
    said = [(row["round"], row["stage"]) for row in read_lines(done / FILE)]
    each = ["prompts", "answers-policy", "scores", "pairs", "train", "report"]
    assert said == [(0, "recipe"), *((n, stage) for n in (1, 2) for stage in each)]
    one, two = (read_lines(done / f"round-{n}" / "prompts.jsonl") for n in (1, 2))
    assert len(one) == len(two) == 4
    assert not {json.dumps(row) for row in one} & {json.dumps(row) for row in two}
    recipes = [yaml.safe_load((done / f"round-{n}" / "recipe.yaml").read_text()) for n in (1, 2)]
    assert [r["train"]["learning_rate"] for r in recipes] == [1.0e-2, 5.0e-3]
    assert recipes[1]["start"] == {"adapter": str(done / "round-1" / "train")}
    assert recipes[1]["ref"] == {"kind": "adapter", "path": str(done / "round-1" / "train" / "adapter")}
    assert "lora" in recipes[0]
    assert "lora" not in recipes[1]
    last = done / "round-2" / "train" / "adapter" / STATES[0]
    assert (done / "adapter" / STATES[0]).read_bytes() == last.read_bytes()
    assert json.loads((done / "round-2" / "report.json").read_text())["reward"]["n"] == 4
    assert (done / "report.md").read_text().count("\n| ") == 3


def test_by_hand_with_the_commands_it_is_the_same_to_the_bit(done, tmp_path):
    before = None
    for n in (1, 2):
        theirs, ours = done / f"round-{n}", tmp_path / f"round-{n}"
        ours.mkdir()
        who = str(theirs / "recipe.yaml") if before is None else str(before)
        words = [who, "--prompts", str(theirs / "prompts.jsonl"), "--out", str(ours / "answers" / "policy.jsonl")]
        sample([*words, "--samples", "3", "--max-new-tokens", "8", "--seed", str(n - 1)])
        score(
            [
                str(ours / "answers/policy.jsonl"),
                "--by",
                JUDGE,
                "--dtype",
                "float32",
                "--out",
                str(ours / "scores.jsonl"),
            ]
        )
        pairs([str(ours / "scores.jsonl"), "--select", "best_worst", "--out", str(ours / "pairs.jsonl")])
        for name in ("answers/policy.jsonl", "scores.jsonl", "pairs.jsonl"):
            assert (ours / name).read_bytes() == (theirs / name).read_bytes(), name
        words = [
            str(theirs / "recipe.yaml"),
            f"data.train.path={ours / 'pairs.jsonl'}",
            f"train.output_dir={ours / 'train'}",
        ]
        if before is not None:
            words += [f"start.adapter={before}", f"ref.path={before / 'adapter'}"]
        assert train(words) == 0
        before = ours / "train"
        trained = [folder / "train" / "adapter" / STATES[0] for folder in (theirs, ours)]
        assert trained[0].read_bytes() == trained[1].read_bytes()


class Killed(BaseException):
    pass


def test_killed_after_any_stage_it_goes_on_to_the_same_files(done, tmp_path, sampled, monkeypatch):
    """The training of a round is taken from the finished run: what it does after a kill is tested with the checkpoints."""
    folder = tmp_path / "run"
    words = [f"train.output_dir={folder}"]
    recipe = load_recipe("rounds/tiny", words)
    trained = []

    def copied(made, resume=None, allow=()):
        path = Path(str(made.train.output_dir))
        trained.append((path.parent.name, resume))
        shutil.copytree(done / path.parent.name / "train", path, dirs_exist_ok=True)
        return type("R", (), {"trainer": type("T", (), {"state": type("S", (), {"global_step": 2})}), "path": path})

    folder.mkdir()
    whole = Ledger.stage
    stops = list(range(12))

    def dying(self, number, name, inputs, outputs, act):
        fresh = (number, name) not in self.done
        counts = whole(self, number, name, inputs, outputs, act)
        if fresh and stops:
            stops.pop()
            if len(stops) % 2:  # before its line is whole, too
                content = self.path.read_bytes()
                self.path.write_bytes(content[:-5])
            raise Killed
        return counts

    monkeypatch.setattr(Ledger, "stage", dying)
    kills = 0
    for _ in range(20):
        try:
            run_rounds(recipe, copied, resume=kills > 0)
            break
        except Killed:
            kills += 1
    assert kills == 12
    assert made(folder).keys() == made(done).keys()
    different = [name for name, content in made(folder).items() if content != made(done)[name]]
    assert not different
    assert sum(sampled) == 24  # no answer twice


def test_what_a_later_stage_has_read_is_not_edited_unseen(done, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(done, folder)
    recipe = load_recipe("rounds/tiny", [f"train.output_dir={folder}"])
    scores = folder / "round-1" / "scores.jsonl"
    scores.write_text(scores.read_text().replace("judge", "judge", 1) + "\n")
    with pytest.raises(RunError, match=r"scores\.jsonl: is not what pairs of round 1 has read; restore it, or remove"):
        run_rounds(recipe, None, resume=True)
    other = load_recipe("rounds/tiny", [f"train.output_dir={folder}", "rounds.sample.samples=4"])
    with pytest.raises(RunError, match=r"made by another recipe:\n  rounds.sample.samples: \d -> 4"):
        run_rounds(other, None, resume=True)


@pytest.mark.parametrize(
    ("start", "reference", "second"),
    [
        ("previous", "previous", ("1", "1")),
        ("previous", "first", ("1", None)),
        ("first", "previous", ("first", "1")),
        ("first", "first", ("lora", None)),
    ],
)
def test_start_and_reference_of_a_round(start, reference, second):
    recipe = load_recipe("rounds/tiny", [f"rounds.start={start}", f"rounds.reference={reference}"])
    first, later = (round_recipe(recipe, Place(Path("run"), n)) for n in (1, 2))
    begins = {"1": {"adapter": "run/round-1/train"}, "first": {"adapter": "run/first"}, "lora": None}[second[0]]
    held = {"kind": "base"} if second[1] is None else {"kind": "adapter", "path": "run/round-1/train/adapter"}
    assert (later.get("start"), later["ref"]) == (begins, held)
    assert ("lora" in later) == (begins is None)
    assert first["ref"] == {"kind": "base"}
    own = load_recipe(
        "rounds/tiny",
        ["lora=null", "start={adapter: runs/sft}", f"rounds.start={start}", f"rounds.reference={reference}"],
    )
    first, later = (round_recipe(own, Place(Path("run"), n)) for n in (1, 2))
    assert first["start"] == {"adapter": "runs/sft"}
    assert first["ref"] == ({"kind": "adapter", "path": "runs/sft"} if reference == "previous" else {"kind": "base"})
    assert later["start"] == ({"adapter": "run/round-1/train"} if start == "previous" else {"adapter": "runs/sft"})


def test_temperatures_go_by_round_and_the_nucleus_is_of_all():
    recipe = load_recipe("rounds/tiny", ["rounds.sample={temperature: [0.8, 1.3], top_p: 0.9, samples: 3}"])
    found = [stages.decoding_of_round(recipe, Place(Path("run"), n)) for n in (1, 2)]
    assert found == [Decoding(64, 0.8, 0, 0.9), Decoding(64, 1.3, 1, 0.9)]


def test_without_adapters_the_models_are_named(tmp_path):
    words = ["lora=null", "rounds.start=previous", "rounds.reference=first"]
    later = round_recipe(load_recipe("rounds/tiny", words), Place(Path("run"), 2))
    assert later["model"]["model_name_or_path"] == "run/round-1/train/model"
    assert later["ref"] == {"kind": "model", "path": "tiny-random"}
    later = round_recipe(load_recipe("rounds/tiny", ["lora=null"]), Place(Path("run"), 2))
    assert later["ref"] == {"kind": "base"}
    later = round_recipe(load_recipe("rounds/tiny", ["lora=null", "rounds.start=first"]), Place(Path("run"), 2))
    assert later["model"]["model_name_or_path"] == "tiny-random"
    assert later["ref"] == {"kind": "model", "path": "run/round-1/train/model"}


def pairs_file(place, n, name):
    place.folder.mkdir(parents=True)
    lines = [json.dumps({"prompt": f"{name} {i}", "chosen": "a", "rejected": "b"}) for i in range(n)]
    place.pairs.write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_shares_of_earlier_rounds_are_of_what_is_trained_on(tmp_path):
    for n in (1, 2, 3):
        pairs_file(Place(tmp_path, n), 256, f"round {n}")
    place = Place(tmp_path, 3)
    assert mix_stage(load_recipe("rounds/tiny", ["rounds.keep={earlier: 0.3}"]), place) == {"new": 256, "round-2": 110}
    recipe = load_recipe("rounds/tiny", ["rounds.keep={earlier: [0.3, 0.15]}"])
    assert mix_stage(recipe, place) == {"new": 256, "round-2": 140, "round-1": 70}
    rows = read_lines(place.mixed)
    assert [row["prompt"].split()[1] for row in rows] == ["3"] * 256 + ["2"] * 140 + ["1"] * 70
    assert rows[256]["prompt"] != "round 2 0" or rows[257]["prompt"] != "round 2 1"  # drawn, not the first
    later = round_recipe(recipe, place)
    assert later["data"]["train"]["path"] == str(place.mixed)
    assert round_recipe(recipe, Place(tmp_path, 1))["data"]["train"]["path"] == str(Place(tmp_path, 1).pairs)
    assert [path.parent.name for path in mixed_from(recipe, place)] == ["round-3", "round-2", "round-1"]
    assert [path.parent.name for path in mixed_from(recipe, Place(tmp_path, 2))] == ["round-2", "round-1"]
    one = load_recipe("rounds/tiny", ["rounds.keep={earlier: 0.3}"])
    assert [path.parent.name for path in mixed_from(one, place)] == ["round-3", "round-2"]


def test_prompts_are_disjoint_or_all_and_too_few_are_refused():
    rows = [{"prompt": f"p {i % 9}"} for i in range(12)]
    recipe = load_recipe("rounds/tiny", ["rounds.prompts={each: 4}"])
    one, two = (round_prompts(recipe, rows, n) for n in (1, 2))
    assert len({row["prompt"] for row in one + two}) == 8
    assert round_prompts(recipe, rows[::-1], 1) == one
    other = load_recipe("rounds/tiny", ["rounds.prompts={each: 4}", "train.seed=1"])
    assert round_prompts(other, rows, 1) != one
    assert len(round_prompts(load_recipe("rounds/tiny", ["rounds.prompts=all"]), rows, 2)) == 9
    with pytest.raises(
        DataError, match="2 rounds of 5 need 10 different prompts, and data.train has 9; ask for at most 4"
    ):
        round_prompts(load_recipe("rounds/tiny", ["rounds.prompts={each: 5}"]), rows, 1)


def test_bad_prompts_and_scorers_are_told_before_anything_is_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stages, "sample_to_file", None)
    bad = tmp_path / "prompts.jsonl"
    bad.write_text('{"prompt": "a"}\n{"prompt": ""}\n', encoding="utf-8")
    words = ["rounds/tiny", f"train.output_dir={tmp_path / 'run'}"]
    assert train([*words, f"data.train.path={bad}"]) == 2
    assert "row 2: the prompt is empty" in capsys.readouterr().err
    assert train([*words, "rounds.score={rewards: [relevance], kind2: 1}"]) == 2
    assert "rounds.score.kind2: unknown key" in capsys.readouterr().err
    assert train([*words, "rounds.score={kind: endpoint, url: 'http://127.0.0.1:9/v1', model: m}"]) == 2
    assert "rounds.score.judges.judge: prompts and answers would be sent to '127.0.0.1:9'" in capsys.readouterr().err
    bad.write_text('{"prompt": "a"}\n{"prompt": "b"}\n', encoding="utf-8")
    assert train([*words, f"data.train.path={bad}", "rounds.prompts=all", "rounds.score={rewards: [correctness]}"]) == 2
    assert "no column 'answer', which the reward 'correctness' reads" in capsys.readouterr().err
    assert not (tmp_path / "run" / "round-1").exists()


def test_a_round_learns_from_revised_answers(done, tmp_path, sampled):
    folder = tmp_path / "run"
    recipe = ["rounds.count=1", "rounds.sample.revisions=1", "train.learning_rate=0.01", f"train.output_dir={folder}"]
    assert train(["rounds/tiny", *recipe]) == 0
    assert sum(sampled) == 24
    rows, plain = (read_lines(path / "round-1" / "answers" / "policy.jsonl") for path in (folder, done))
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in plain]
    assert all(row["completions"] != other["completions"] for row, other in zip(rows, plain, strict=True))


def test_the_kl_of_revised_answers_adds_drafts_and_revisions(done, tmp_path, monkeypatch):
    shutil.copytree(done, tmp_path / "run")
    place, scored = Place(tmp_path / "run", 2), []
    original = drift.completion_logps

    def kept(model, sequences, **kw):
        scored.append((list(sequences), original(model, sequences, **kw)))
        return scored[-1][1]

    monkeypatch.setattr(drift, "completion_logps", kept)
    words = ["rounds.max_kl=1000", f"train.output_dir={tmp_path / 'run'}"]
    plain = drift.drift_stage(load_recipe("rounds/tiny", words), place)
    assert len(scored[0][0]) == plain["answers"] == 4
    revised = drift.drift_stage(load_recipe("rounds/tiny", [*words, "rounds.sample.revisions=1"]), place)
    (sequences, own), (_, ref) = scored[2:]
    ratios = [one.double() - other.double() for one, other in zip(own, ref, strict=True)]
    terms = [float((r.neg().exp() - 1 + r).sum()) for r in ratios]
    assert min(terms) >= 0
    assert (len(sequences), revised["answers"]) == (8, 4)
    assert len(sequences[4][0]) > len(sequences[0][0]), "a revision is shown its draft"
    assert revised["kl"] == pytest.approx(sum(terms) / 4, abs=1e-5)
    assert plain["kl"] == pytest.approx(sum(terms[:4]) / 4, abs=1e-5)

"""Reward models of capabilities as one, by a network for each category."""

import json

import numpy as np
import pytest
import torch
from reward_models import SEQ_CLS, trained
from trl import ModelConfig

from align import cli
from align.errors import RunError
from align.judges import experts as module
from align.judges.experts import Combined, Experts, load_experts, train_experts
from align.judges.from_recipe import prepare_judge
from align.judges.from_scores import scorers_of
from align.judges.scoring import score_rows
from align.models.preference_model import load_preference_model
from align.recipe.scores import ScoreConfig
from align.recipe.sections import JudgeConfig

ANSWERS = ["c", "d e", "f"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experts")
    for name, steps in (("a", 2), ("b", 4)):
        trained(folder / f"t-{name}", dimension=1, max_steps=steps, lora=SEQ_CLS).save_model(str(folder / name))
    return [folder / "a", folder / "b"]


def test_one_expert_without_a_bend_is_the_reward_model_itself(folders):
    member = load_preference_model(folders[0])
    head = next(p for n, p in member.model.named_parameters() if "score" in n and "modules_to_save" in n)
    network = Combined(head.shape[1], head.shape[1])
    with torch.no_grad():
        network.layers[0].weight.copy_(torch.eye(head.shape[1]))
        network.layers[0].bias.zero_()
        network.layers[1].weight.fill_(1.0)
        network.layers[2].weight.copy_(head)
        network.layers[2].bias.zero_()
    experts = Experts([member], {"any": network})
    rewards = member.score("a b", ANSWERS)
    assert experts.score("a b", ANSWERS, category="any") == pytest.approx(rewards, abs=1e-5)
    odds = 1 / (1 + np.exp(rewards[1] - rewards[0]))
    assert experts.prefer("a b", ANSWERS, category="any")[0, 1] == pytest.approx(odds, abs=1e-5)
    with pytest.raises(ValueError, match="category: must be one of any, got None"):
        experts.score("a b", ANSWERS)


def test_categories_learn_opposite_wishes_from_the_same_frozen_models(folders, tmp_path):
    pairs = [{"prompt": f"a {k}", "chosen": "b c", "rejected": "d e f"} for k in range(4)]
    turned = [row | {"chosen": row["rejected"], "rejected": row["chosen"]} for row in pairs]
    rows = [row | {"category": "short"} for row in pairs] + [row | {"category": "long"} for row in turned]
    made = train_experts(folders, rows, tmp_path / "out", width=8, steps=100, learning_rate=1e-2)
    assert made.combined["short"].layers[0].in_features == 2 * made.members[0].model.config.hidden_size
    for category, sign in (("short", 1), ("long", -1)):
        rewards = made.score("a 1", ["b c", "d e f"], category=category)
        assert sign * (rewards[0] - rewards[1]) > 1
    again = load_experts(tmp_path / "out")
    assert (again.score("a 9", ANSWERS, category="long") == made.score("a 9", ANSWERS, category="long")).all()
    for others in (again.members[::-1], again.members[:1] * 2):  # their order counts, and so does each of them
        rewards = Experts(others, again.combined).score("a 9", ANSWERS, category="long")
        assert np.abs(rewards - again.score("a 9", ANSWERS, category="long")).max() > 1e-6


WISHES = {"one two three": 1, "x y z": -1}
"""Prompts of two categories, and whether the shorter answer is preferred."""


def told_apart():
    """Pairs of two categories that a prompt's words tell apart."""
    for begin, sign in WISHES.items():
        for k in range(4):
            sides = {"chosen": "b c", "rejected": "d e f"}
            sides = sides if sign > 0 else dict(zip(sides, list(sides.values())[::-1], strict=True))
            yield {"prompt": f"{begin} {k} ", **sides, "category": begin}


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    """What the command wrote, of these pairs."""
    folder = tmp_path_factory.mktemp("written")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told_apart()))
    words = ["experts", str(folder / "pairs.jsonl"), *(w for name in folders for w in ("--member", str(name)))]
    words += ["--out", str(folder / "out"), "--width", "8", "--steps", "100", "--learning-rate", "1e-2"]
    assert cli.main(words) == 0
    return words


def test_the_command_writes_a_judge_that_knows_the_category_of_a_prompt(written, folders, capsys):
    judge = prepare_judge("judge", JudgeConfig(kind="experts", path=written[7]), ModelConfig(), [], None)()
    for begin, sign in WISHES.items():
        for prompt in (f"{begin} 2 ", f"{begin} 7 "):  # one was learnt, the other not
            assert judge.category_of(prompt) == begin
            rewards = judge.score(prompt, ["b c", "d e f"])
            assert sign * (rewards[0] - rewards[1]) > 1
            assert (rewards == judge.score(prompt, ["b c", "d e f"], category=begin)).all()
        other = next(name for name in WISHES if name != begin)
        turned = judge.score(f"{begin} 2 ", ["b c", "d e f"], category=other)  # the row's own word counts
        assert sign * (turned[0] - turned[1]) < 0
    with pytest.raises(ValueError, match="category: must be one of one two three, x y z, got 'third'"):
        judge.score("a", ["b"], category="third")
    by = scorers_of(
        ScoreConfig(judges={"e": JudgeConfig(kind="experts", path=written[7])}), ModelConfig(), where="score"
    )
    (row,) = score_rows([{"prompt": "x y z 9 ", "completions": ["b c", "d e f"]}], by).rows
    assert [one["e"] for one in row["rewards"]] == pytest.approx(judge.score("x y z 9 ", ["b c", "d e f"]).tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "holds experts already; name another --out"), ({"--out": "other", "--steps": "0"}, "must be positive"),
        ({"--out": "other", "--member": "nowhere"}, "nowhere: no preference_model.json there"),
        ({"--out": "other", 1: "lacking.jsonl"}, "category"),
    ],
)  # fmt: skip
def test_the_command_refuses_before_anything_is_loaded(written, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lacking.jsonl").write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + "\n")
    monkeypatch.setattr(module, "load_preference_model", lambda *_: pytest.fail("loaded"))
    words = list(written)
    for name, value in change.items():
        words[name if isinstance(name, int) else words.index(name) + 1] = value
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_a_judge_of_experts_is_looked_at_before_it_is_loaded(written, tmp_path, monkeypatch):
    def prepared(path):
        return prepare_judge("eval.judges.e", JudgeConfig(kind="experts", path=str(path)), ModelConfig(), [], None)

    monkeypatch.setattr(module, "load_preference_model", lambda *_: pytest.fail("loaded"))
    with pytest.raises(RunError, match=r"^eval.judges.e: nowhere: no experts.json there"):
        prepared("nowhere")
    told = json.loads((module.Path(written[7]) / "experts.json").read_text())
    (tmp_path / "experts.json").write_text(json.dumps(told | {"experts": [str(tmp_path / "gone")]}))
    with pytest.raises(RunError, match="with its experts.safetensors"):
        prepared(tmp_path)
    (tmp_path / "experts.safetensors").touch()
    with pytest.raises(RunError, match=r"^eval.judges.e: .*gone: no preference_model.json there"):
        prepared(tmp_path)


def test_what_is_no_category_or_no_folder_is_refused(folders, tmp_path):
    with pytest.raises(RunError, match="row 1 has none"):
        train_experts(folders, [{"prompt": "a", "chosen": "b", "rejected": "c"}], tmp_path / "out")
    with pytest.raises(RunError, match=r"no experts.json there"):
        load_experts(tmp_path)


def test_the_router_reads_states_as_they_are(monkeypatch):
    """It learns from states that are centred and scaled, and its law is put back: a state far from 0 has its category."""
    places = {"low": 99.0, "lower": 98.0, "high": 101.0, "higher": 102.0}
    monkeypatch.setattr(module, "of_prompt", lambda members, prompt: torch.tensor([places[prompt], 7.0]))
    rows = [{"prompt": name, module.CATEGORY: "ab"[place > 100]} for name, place in places.items()]
    router = module._router([], rows, ["a", "b"], steps=200, learning_rate=0.05)
    chosen = router(torch.tensor([[place, 7.0] for place in (97.0, 99.0, 101.0, 103.0)])).argmax(dim=1)
    assert chosen.tolist() == [0, 0, 1, 1]
    assert module._router([], rows[:1], ["a"], steps=1, learning_rate=0.1) is None


def test_a_member_that_reads_a_reference_is_refused(folders, tmp_path, capsys):
    (tmp_path / "pairs.jsonl").write_text("")
    polar = tmp_path / "polar"
    polar.mkdir()
    told = {"dimension": 1, "tau": 1.0, "dtype": "float32", "reference_column": "reference"}
    (polar / "preference_model.json").write_text(json.dumps(told))
    members = ["--member", str(folders[0]), "--member", str(polar)]
    assert cli.main(["experts", str(tmp_path / "pairs.jsonl"), *members, "--out", str(tmp_path / "out")]) == 2
    assert "compares answers with a reference, which experts are not given" in capsys.readouterr().err

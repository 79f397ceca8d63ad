"""Rounds and fronts are held against the rules of `alignkit check` before the first of their trainings, and leave nothing where refused."""

import pytest

from align import cli

RUN = ["train.disable_tqdm=true", "train.save_strategy='no'"]


@pytest.fixture(autouse=True)
def sampled(tmp_path, monkeypatch):
    """What was sampled; nothing should be."""
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    made = []
    for place in ("align.rounds.run.sample_stage", "align.fronts.run.sample_to_file"):
        monkeypatch.setattr(place, lambda *given, **named: made.append(given))
    return made


@pytest.mark.parametrize("command", [["train", "rounds/tiny"], ["front", "fronts/tiny"]])
@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["lora.target_modules=[nope]"], "lora-coverage"),
        (["model.model_name_or_path=nowhere/at-all"], "unreadable-model"),
        (["train.lr_scheduler_type=cosine_with_min_lr"], "refused-setting"),
    ],
)
def test_what_check_refuses_is_refused_before_a_model_answers(command, words, rule, tmp_path, capsys, sampled):
    told = [*words, f"train.output_dir={tmp_path / 'new' / 'run'}"]
    assert cli.main(["check", command[1], *told]) == 1
    assert f": {rule}: " in capsys.readouterr().out
    assert cli.main([*command, *told, *RUN]) == 2
    assert f": {rule}: " in capsys.readouterr().err
    assert (sampled, (tmp_path / "new").exists()) == ([], False)

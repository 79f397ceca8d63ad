"""What a shipped recipe expects holds of its run, and of no run with half the β or a broken loss."""

import pytest
import torch

import align
from align import cli
from align.losses import Pair, dpo_loss, rpo_loss


def against_the_pair(rewards, **kwargs):
    return dpo_loss(Pair(chosen=rewards.rejected, rejected=rewards.chosen), **kwargs)


def of_the_wrong_answer(rewards, chosen_logps, *args, **kwargs):
    return rpo_loss(Pair(chosen=rewards.rejected, rejected=rewards.chosen), chosen_logps, *args, **kwargs)


@pytest.mark.parametrize("method", ["dpo", "rpo"])
@pytest.mark.parametrize("change", ["none", "half of beta", "broken loss"])
def test_a_change_is_noticed(method, change, tmp_path, monkeypatch, capsys):
    torch.set_num_threads(1)
    monkeypatch.setenv("ALIGNKIT_CACHE", str(tmp_path / "cache"))
    words = [f"train.output_dir={tmp_path / 'run'}", "train.disable_tqdm=true", "train.save_strategy='no'"]
    if change == "half of beta":
        words.append("train.beta=0.05")
    with monkeypatch.context() as patch:
        if change == "broken loss":
            broken = against_the_pair if method == "dpo" else of_the_wrong_answer
            patch.setattr(f"align.trainers.pairs.preference.{method}_loss", broken)
        align.run(f"{method}/tiny", words)
    held = cli.main(["verify", str(tmp_path / "run")])
    assert (held == 0) == (change == "none"), capsys.readouterr().out

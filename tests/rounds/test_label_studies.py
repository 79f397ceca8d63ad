"""The studies `scripts/studies/label_budget.py` and `scripts/studies/bilevel.py`: labels, budgets and PARL's gradient."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "studies"))

import bilevel
import label_budget as labels

BANDIT = bilevel.Bandit(
    torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64),
    torch.tensor([[1.0, 0.0], [0.5, 1.0], [-0.5, 0.3], [0.0, -1.0]], dtype=torch.float64),
    torch.tensor([1.0, 0.2, -0.5, -0.3], dtype=torch.float64),
    0.5,
)
AT = torch.tensor([0.3, -0.2], dtype=torch.float64)


def test_a_clean_label_is_worth_several_flipped_ones():
    worth = {flip: labels.information(0.0) / labels.information(flip) for flip in (0.1, 0.2, 0.3)}
    assert worth == pytest.approx({0.1: 1.5625, 0.2: 2.7778, 0.3: 6.25}, abs=1e-4)
    assert labels.information(0.0, 2.0) / labels.information(0.2, 2.0) == pytest.approx(5.23, abs=0.01)


def test_a_budget_is_spent_whole():
    for budget in labels.BUDGETS:
        for share in labels.SHARES:
            weak, clean = labels.spent(budget, share)
            assert weak + labels.PRICE * clean == budget
    assert labels.spent(80, 0.25) == (60, 2)


def test_labels_are_flipped_at_their_rate_and_learnt_from_as_they_are_meant():
    truth = np.random.default_rng(3).standard_normal(labels.FEATURES)
    sure = 40 * truth
    wrong = np.mean(labels.labelled(sure, 2000, 0.3, 1).numpy() @ sure < 0)
    assert wrong == pytest.approx(0.3, abs=0.05)
    noisy = labels.labelled(truth, 4000, 0.2, 2)[None]
    none = noisy[:, :0]
    plain, robust = (labels.fitted(noisy, none, 0.2, way)[0].numpy() for way in ("dpo", "robust"))
    assert np.linalg.norm(robust - truth) < 0.25 * np.linalg.norm(truth)  # told the rate, the scale comes back
    assert np.linalg.norm(plain) < 0.75 * np.linalg.norm(truth)
    clean = labels.labelled(truth, 20, 0.0, 4)[None]
    alone = labels.fitted(none, clean, 0.0, "dpo")
    torch.testing.assert_close(labels.fitted(none, clean, 0.2, "robust"), alone)
    staged = labels.fitted(noisy, clean, 0.2, "two stages")
    torch.testing.assert_close(labels.fitted(noisy, none, 0.2, "two stages"), labels.fitted(noisy, none, 0.2, "dpo"))
    assert float((staged - alone).norm()) > 0.2  # it remembers the first stage


def test_the_best_mix_is_reported_on_other_seeds_than_chose_it(tmp_path, monkeypatch):
    lucky = {share: np.array([share == 0.5, 0.2, share == 0.5, 0.4]) * 1.0 for share in labels.SHARES}
    told = labels.best({("dpo", share): (values, values) for share, values in lucky.items()}, "dpo")
    assert told["share"] == 0.5
    assert told["accuracy"]["value"] == pytest.approx(0.3)
    monkeypatch.setattr(labels, "SEEDS", 4)
    small = labels.studied
    monkeypatch.setattr(labels, "studied", lambda: small((80,), (0.3,), 4))
    labels.main(["-o", str(tmp_path)])
    point = json.loads((tmp_path / "label_budget.json").read_text())["curves"]["0.3"]["80"]["robust"]["0.25"]
    assert (point["weak"], point["clean"], point["accuracy"]["n"]) == (60, 2, 4)
    assert (tmp_path / "label_budget.png").read_bytes().startswith(b"\x89PNG")


def test_parls_gradient_is_that_of_differences():
    direct, through = bilevel.hypergradient(BANDIT, AT)
    assert direct.tolist() == pytest.approx([-0.090321, -0.026621], abs=1e-6)
    assert through.tolist() == pytest.approx([0.0179, -0.013984], abs=1e-6)

    def outer(weights):
        policy = BANDIT.optimum(weights)
        return float(policy @ BANDIT.label_loss(weights) @ policy)

    steps = 1e-6 * torch.eye(2, dtype=torch.float64)
    slopes = [(outer(AT + step) - outer(AT - step)) / 2e-6 for step in steps]
    assert (direct + through).tolist() == pytest.approx(slopes, abs=1e-8)


def test_the_whole_gradient_lowers_the_label_loss_more_and_not_because_the_model_is_better():
    held, whole = (bilevel.descended(bilevel.line(), whole=which, steps=100) for which in (False, True))
    assert whole["label loss, policy's pairs"] < held["label loss, policy's pairs"]
    assert whole["reward"] < held["reward"]


def test_a_model_that_is_fitted_anew_has_as_many_labels_and_steers_better(monkeypatch):
    counted = []
    fitted = bilevel.fitted
    monkeypatch.setattr(
        bilevel, "fitted", lambda bandit, *known: counted.append(len(known[0])) or fitted(bandit, *known)
    )
    never, each = (bilevel.looped(bilevel.line(), every, 0) for every in (0, 5))
    assert counted == [640, 32, 192, 352, 512]
    assert len(never) == len(each) == bilevel.ROUNDS + 1
    assert never[0] == each[0]
    assert each[-1] > never[-1] > never[0]


def test_the_bilevel_study_writes_figures_and_a_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(bilevel, "SEEDS", 2)
    monkeypatch.setattr(bilevel, "looped", lambda bandit, every, seed: [0.0, 1.0 + every + seed, 2.0 * every + seed])
    monkeypatch.setattr(bilevel, "descended", lambda bandit, whole: {"reward": float(whole)})
    bilevel.main(["-o", str(tmp_path)])
    told = json.loads((tmp_path / "bilevel.json").read_text())
    assert told["minus never"]["every 5"]["value"] == 10
    assert told["reward of the optimum"] == pytest.approx(3.7298)
    assert (tmp_path / "bilevel.png").read_bytes().startswith(b"\x89PNG")

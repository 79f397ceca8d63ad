import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from torch.testing import assert_close

from align.models.loading import load_adapter, load_model, resolve_model_path
from align.rewards import REWARDS
from align.rewards.load import Known
from align.sampling.generate import Decoding, generate
from eval.__main__ import main
from eval.evaluate import _say_other_sets, evaluate
from eval.measures.divergence import reverse_kl
from eval.pairs.logps import completion_logps, pair_ids
from eval.report.tables import table
from eval.report.verdict import verdict
from eval.subjects import load_subject


def report(folder):
    return json.loads((folder / "report.json").read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# --- what an evaluation writes -----------------------------------------------------------------


@pytest.fixture(scope="module")
def evaluated(home, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    assert main([str(home / "rpo"), str(home / "dpo"), "--out", str(out)]) == 0
    return out


def test_a_run_is_evaluated_into_its_own_folder(run, capsys):
    assert main([str(run)]) == 0
    shown = capsys.readouterr().out
    assert f"report: {run / 'report.html'}" in shown
    assert report(run)["verdict"] in shown
    for name in ("report.md", "responses.jsonl", "scores.jsonl", "pictures/training.png"):
        assert (run / name).is_file()


def test_a_run_is_called_the_same_from_within(run, monkeypatch):
    monkeypatch.chdir(run / "adapter")
    assert load_subject("..").name == load_subject(str(run)).name == run.name


def test_every_estimate_has_value_interval_and_count(evaluated):
    estimates = report(evaluated)["estimates"]
    assert {
        "test/ranking_accuracy/implicit_reward", "test/log_ratio/chosen", "dpo/test/log_ratio/chosen", "kl",
        "test/logps_chosen_minus_dpo", "gold_reward/difference", "gold_reward/win_rate", "length_tokens/ref",
    } <= set(estimates)  # fmt: skip
    for name, estimate in estimates.items():
        low, value, high = (float(estimate[key]) for key in ("low", "value", "high"))  # infinities are texts
        assert low <= value <= high, name
        assert estimate["n"] == (len(tiny.ROWS) if name.startswith(("test/", "dpo/test/")) else 3), name


def test_responses_name_their_decoding(evaluated):
    rows = lines(evaluated / "responses.jsonl")
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in tiny.pairs(3)]
    for row in rows:
        assert {"policy", "ref", "policy_reward", "ref_reward"} <= set(row)
        assert row["decoding"] | {"max_new_tokens": 8, "temperature": 1.0, "seed": 1, "prompts": 3} == row["decoding"]
        assert len(row["decoding"]["template_sha256"]) == 64


def test_scores_hold_what_the_estimates_average(evaluated):
    rows = [row for row in lines(evaluated / "scores.jsonl") if row["subject"] == "rpo"]
    mean = sum(row["chosen"] - row["ref_chosen"] for row in rows) / len(rows)
    assert len(rows) == len(tiny.ROWS)
    assert report(evaluated)["estimates"]["test/log_ratio/chosen"]["value"] == pytest.approx(mean)


def test_the_reference_is_the_same_whoever_is_scored(evaluated):
    refs = {
        who: [r["ref_chosen"] for r in lines(evaluated / "scores.jsonl") if r["subject"] == who]
        for who in ("rpo", "dpo")
    }
    assert refs["rpo"] == refs["dpo"]
    logps = {
        who: [r["chosen"] for r in lines(evaluated / "scores.jsonl") if r["subject"] == who] for who in ("rpo", "dpo")
    }
    assert logps["rpo"] != logps["dpo"]


def test_an_evaluation_repeats_itself(home, evaluated, tmp_path):
    assert main([str(home / "rpo"), str(home / "dpo"), "--out", str(tmp_path)]) == 0
    for name in ("responses.jsonl", "scores.jsonl"):
        assert (tmp_path / name).read_bytes() == (evaluated / name).read_bytes()
    assert report(tmp_path) | {"date": ""} == report(evaluated) | {"date": ""}


def test_gold_rewards_compare_policy_with_reference(home, monkeypatch):
    monkeypatch.setitem(
        REWARDS, "positive_sentiment", Known(lambda texts: [float(len(text.encode())) for text in texts], 0, 1e9)
    )
    got = evaluate(load_subject(str(home / "rpo"), overrides=("eval.generate.prompts=10",)))
    gaps = [len(row["policy"].encode()) - len(row["ref"].encode()) for row in got.answers]
    assert [row["policy_reward"] - row["ref_reward"] for row in got.answers] == gaps
    assert got.estimates["gold_reward/difference"].value == pytest.approx(sum(gaps) / 10)
    assert got.estimates["gold_reward/win_rate"].value == sum((gap > 0) + (gap == 0) / 2 for gap in gaps) / 10
    assert sum(gaps) != 0


def test_kl_is_measured_at_the_sampling_temperature(home):
    subject = load_subject(str(home / "rpo"), overrides=("eval.generate.temperature=0.25",))
    got = evaluate(subject).estimates["kl"]
    sequences, logps = [], []
    for use in (subject.policy, subject.reference):
        with use() as model:
            rows = generate(model, subject.tokenizer, tiny.pairs(3)["prompt"], Decoding(8, 0.25, 1))
        sequences += [(row[0].prompt_ids, row[0].completion_ids) for row in rows]
    for use in (subject.policy, subject.reference):
        with use() as model:
            found = completion_logps(model, sequences, pad_token_id=0, temperature=0.25)
        logps.append(np.array([float(row.double().sum()) for row in found]))
    r = logps[0] - logps[1]
    want = reverse_kl(r[:3], r[3:])
    assert (got.value, got.n) == (pytest.approx(want.value, abs=1e-4), 3)


def test_greedy_answers_have_no_kl(home):
    got = evaluate(load_subject(str(home / "rpo"), overrides=("eval.generate.temperature=0",)))
    assert "kl" not in got.estimates
    assert "length_tokens/policy" in got.estimates


def test_max_length_of_training_cuts_no_pair(home, evaluated):
    subject = load_subject(
        str(home / "rpo"), overrides=("train.max_length=8", "eval.generate=null", "eval.gold_reward=null")
    )
    got = evaluate(subject)
    assert not got.left_out
    want = report(evaluated)["estimates"]["test/ranking_accuracy/logp"]
    assert got.estimates["test/ranking_accuracy/logp"].value == pytest.approx(want["value"], abs=1e-6)


def test_pairs_longer_than_the_context_are_left_out_and_counted(home, tmp_path):
    rows = tiny.pairs().to_list()[:6]
    for i, row in enumerate(rows):  # prompts of their own: the training data hold those of `tiny`
        row["prompt"] = [{"role": "user", "content": f"Question {i}? " + "word " * (2000 if i % 2 else 1)}]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"data.eval={{test: {{path: {tmp_path / 'long.jsonl'}}}}}"
    got = evaluate(load_subject(str(home / "rpo"), overrides=(data, "eval.generate=null", "eval.gold_reward=null")))
    told = "3 of 6 pairs left out: longer than the model's context of 512 tokens"
    assert got.left_out == {"test": told}
    assert got.estimates["test/ranking_accuracy/logp"].n == 3
    assert told in verdict(got)
    assert told in table(got)


def _pairs(subject):
    return [
        side
        for row in tiny.pairs()
        for side in pair_ids(subject.tokenizer, row["prompt"], row["chosen"], row["rejected"])
    ]


# --- the policy and its reference --------------------------------------------------------------


def test_the_saved_adapter_scores_as_merged_weights_do(home):
    subject = load_subject(str(home / "rpo"))
    sequences = _pairs(subject)
    merged = load_adapter(load_model(subject.recipe.model), home / "rpo" / "adapter").merge_and_unload()
    with subject.policy() as policy:
        ours = completion_logps(policy, sequences, pad_token_id=0)
    with subject.reference() as ref:
        before = completion_logps(ref, sequences, pad_token_id=0)
    base = completion_logps(load_model(subject.recipe.model), sequences, pad_token_id=0)
    for a, b, c, d in zip(ours, completion_logps(merged, sequences, pad_token_id=0), before, base, strict=True):
        assert_close(a, b, atol=1e-4, rtol=1e-4)
        assert_close(c, d)
        assert (a - c).abs().max() > 1e-3


def test_a_model_folder_is_evaluated_with_a_recipe(home, tmp_path):
    """The reference against itself: no divergence, and every comparison is a tie."""
    model = resolve_model_path("tiny-random")
    assert main([model, "--recipe", str(home / "recipe.yaml"), "--out", str(tmp_path / "new" / "folder")]) == 0
    estimates = report(tmp_path / "new" / "folder")["estimates"]
    assert estimates["kl"]["value"] == pytest.approx(0, abs=1e-5)
    assert estimates["test/log_ratio/chosen"]["value"] == pytest.approx(0, abs=1e-5)
    assert estimates["gold_reward/win_rate"]["value"] == 0.5


def test_an_adapter_folder_is_evaluated_with_a_recipe(home, evaluated, tmp_path):
    assert main([str(home / "rpo" / "adapter"), "--recipe", str(home / "recipe.yaml"), "--out", str(tmp_path)]) == 0
    name = "test/log_ratio/chosen"
    assert report(tmp_path)["estimates"][name] == report(evaluated)["estimates"][name]


def test_runs_of_one_name_are_told_apart_by_their_folders(home, run, tmp_path):
    assert (
        main([str(home / "rpo"), str(run), "eval.generate=null", "eval.gold_reward=null", "--out", str(tmp_path)]) == 0
    )
    assert f"{run}/test/log_ratio/chosen" in report(tmp_path)["estimates"]
    assert report(tmp_path)["estimates"][f"test/logps_chosen_minus_{run}"]["value"] == 0


def test_another_adapter_as_reference_is_noticed(home, run):
    """The base's digest does not see it: the reference is base and adapter together."""
    overrides = ("ref.kind=adapter", f"ref.path={home / 'dpo' / 'adapter'}", "lora=null")
    first, other = load_subject(str(run), overrides=overrides), load_subject(str(home / "dpo"))
    assert first.ref_digest != other.ref_digest
    assert first.base_digest == other.base_digest == other.ref_digest


def test_sets_of_one_name_with_other_rows_are_said(home, tmp_path, caplog):
    one, same, other = (load_subject(str(home / "rpo")) for _ in range(3))
    path = Path(one.recipe.data.eval["test"].path)
    for subject, rows in ((same, path.read_text()), (other, path.read_text().partition("\n")[2])):
        subject.recipe = copy.deepcopy(subject.recipe)
        mine = tmp_path / f"{len(rows)}.jsonl"
        mine.write_text(rows)
        subject.recipe.data.eval["test"].path = str(mine)
    _say_other_sets(one, same)
    assert not caplog.text
    _say_other_sets(one, other)
    assert "with other rows; all are measured on the first" in caplog.text


# --- refusals ----------------------------------------------------------------------------------


def refused(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    return capsys.readouterr().err


def test_a_run_must_be_named_and_be_one(tmp_path, capsys):
    assert "name a run directory" in refused(capsys, "eval.pairs=3")
    assert "not a run directory; for a model, add --recipe" in refused(capsys, tmp_path)


def test_an_unfinished_run_is_refused(run, capsys):
    shutil.rmtree(run / "adapter")
    assert "neither adapter/ nor model/ there: the run has not finished" in refused(capsys, run)


def tamper(run):
    env = json.loads((run / "env.json").read_text())
    env["ref"]["digest"] = "0" * 64
    (run / "env.json").write_text(json.dumps(env))


@pytest.mark.parametrize("overrides", [(), ("eval.pairs=3",)])
def test_a_reference_that_changed_since_training_is_refused(run, capsys, overrides):
    tamper(run)
    message = refused(capsys, run, *overrides)
    assert "trained against another reference (tiny-random, 000000000000)" in message
    assert "on purpose with ref.kind=" in message


def test_a_reference_named_on_purpose_is_taken(run):
    tamper(run)
    assert load_subject(str(run), overrides=("ref.kind=model", f"ref.path={resolve_model_path('tiny-random')}"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("data.eval={{}}",), "rpo: no evaluation data; name some in data.eval, set data.holdout, or give"),
        (("data.eval.test.path={home}/one.jsonl",), "test: an interval needs at least 2 pairs, got 1"),
        (("eval.pairs=1",), "test: an interval needs at least 2 pairs, got 1"),
        (("eval.generate.prompts=1",), "at least 2 different prompts, got 1"),
        (("data.eval.test.path={home}/gone.jsonl",), "data.eval.test: cannot read"),
        (("eval.paris=1",), "did you mean 'pairs'"),
        (("ref.kind=cached",), "the data's values cannot generate answers"),
    ],
)
def test_what_cannot_be_measured_is_said_without_a_traceback(home, run, capsys, overrides, message):
    assert message in refused(capsys, run, *(override.format(home=home) for override in overrides))


def test_one_run_twice_is_refused(run, capsys):
    assert "a policy is named twice" in refused(capsys, run, run)


def test_a_model_that_is_no_folder_needs_a_place_for_its_report(home, capsys, monkeypatch):
    monkeypatch.setattr("eval.__main__.load_subjects", lambda *_: [load_subject(str(home / "rpo"))])
    assert "some/model: not a folder, so say where the report goes with --out" in refused(
        capsys, "some/model", "--recipe", home / "recipe.yaml"
    )

"""Prompts drawn by uncertainty, values that fade by the policy's drift, and what they begin with."""

from mutants.mutant import Mutant, noticed_by

STREAM, FOLDER = "align/weighting/single_stream.py", "align/trainers/online/streams"
DRAWS, DRIFT, KINDS = f"{FOLDER}/draws.py", f"{FOLDER}/drift.py", "align/trainers/online/multi_objective.py"
values = noticed_by("tests/weighting/test_single_stream.py")
trained = noticed_by("tests/trainers/online/test_single_stream.py")
before = noticed_by("tests/check/test_initial.py")
ordered = noticed_by("tests/recipe/test_online_configs.py")
both = noticed_by("tests/trainers/distributed/test_answers_ddp.py")
MUTANTS: list[Mutant] = [
    values("stream: values fade by e", STREAM, "2.0 ** (-drift", "math.e ** (-drift"),
    values(
        "stream: rho has no lower bound",
        STREAM,
        "self.halving_drift), RHO[0]), RHO[1])",
        "self.halving_drift), 0.0), RHO[1])",
    ),
    values(
        "stream: rho has no upper bound",
        STREAM,
        "self.halving_drift), RHO[0]), RHO[1])",
        "self.halving_drift), RHO[0]), 1.0)",
    ),
    values(
        "stream: answers before are one fewer",
        STREAM,
        "firm = self.prior_count / (number + 1)",
        "firm = self.prior_count / max(number, 1)",
    ),
    values(
        "stream: answers before are not held firmly",
        STREAM,
        "firm = self.prior_count / (number + 1)",
        "firm = 1.0 / (number + 1)",
    ),
    values(
        "stream: an objective takes another's answers", STREAM, "for name in objectives]\n", "for name in rewards]\n"
    ),
    values("stream: the least uncertain objective counts", STREAM, ".max()) + FLOOR", ".min()) + FLOOR"),
    values("stream: certain prompts are never drawn", STREAM, ".max()) + FLOOR", ".max()) + 1e-9"),
    values("stream: variance in the place of deviation", STREAM, "(a * b).sqrt() / (a + b)", "(a * b) / (a + b) ** 2"),
    values(
        "stream: draws take the smallest weights first",
        DRAWS,
        "exponential(size=len(weights)) / weights",
        "exponential(size=len(weights)) * weights",
    ),
    values("stream: each batch draws the same", DRAWS, "default_rng(list(key))", "default_rng(list(key)[:1])"),
    values("stream: answers are not saved", STREAM, '{"answers": self.answers}', '{"answers": {}}'),
    values("stream: any number is a share", STREAM, 'share, "[0, 1]"))', 'share, "[0, 9]"))'),
    trained("stream: the number of the batch is left out", KINDS, "inputs, generations(self), self", "inputs, 0, self"),
    trained("stream: dropout is measured", DRIFT, "torch.no_grad(), dropout_off(trainer.model)", "torch.no_grad()"),
    trained(
        "stream: the first answer is kept",
        DRIFT,
        "        if not logps.isnan().all():",
        "        if prompt not in estimator.answers:",
    ),
    trained(
        "stream: signed changes cancel",
        DRIFT,
        "(row[: len(then)] - then).abs().nanmean()",
        "(row[: len(then)] - then).nanmean().abs()",
    ),
    trained(
        "stream: padding is compared",
        DRIFT,
        "padding_value=0).to(logps.device)\n            mask = pad",
        "padding_value=0).to(logps.device) + 1\n            mask = pad",
    ),
    trained("stream: drift is of the new answer", DRIFT, "estimator.answers.get(prompt, answer) for", "answer for"),
    trained(
        "stream: micro-batches read the first rows", DRIFT, "output[name][start : start + size]", "output[name][:size]"
    ),
    before(
        "stream: other rewards are told late",
        "align/check/rewards.py",
        "found += _said(where, INITIAL, lambda: stream.begin(names))",
        "pass",
    ),
    before(
        "stream: other prompts are told late",
        "align/check/rewards.py",
        "list(_said(where, INITIAL, lambda: check_initial(sets[TRAIN], stream)))",
        "[]",
    ),
    ordered("stream: an order that is not kept", "align/configs/online.py", "return ordered * [", "return False * ["),
    both(
        "stream: both processes draw the same part",
        DRAWS,
        "chosen[accelerator.process_index * len(given) :]",
        "chosen[0:]",
    ),
    both(
        "stream: answers stay with their process",
        DRIFT,
        "every = gather_object(measured)",
        "every = measured * (2 if len(measured) == 8 else 1)",
    ),
]

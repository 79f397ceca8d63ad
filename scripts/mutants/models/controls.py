"""MEET: controls by label, their refusals, and sums of adapters."""

from mutants.mutant import noticed_by

TRAINER, CONTROLS, CONFIG, MERGE = (
    "align/trainers/completions/meet.py",
    "align/merging/controls.py",
    "align/configs/supervised.py",
    "align/merging/command.py",
)
train = noticed_by("tests/trainers/completions/test_meet.py")
MUTANTS = [
    train("meet: labels take each other's control", TRAINER, "zip((1.0, 0.0), factors", "zip((0.0, 1.0), factors"),
    train("meet: both controls are on", TRAINER, "(x @ self.a.T) * own[:, None]", "(x @ self.a.T) * (own * 0 + 1)[:, None]"),
    train("meet: no control is on", TRAINER, "        if good is None:\n", "        if True:\n"),
    train("meet: controls are off when layers are computed again", TRAINER, "            if not self.model.training:\n                self.good = None", "            self.good = None"),
    train("meet: controls stay on after an evaluation", TRAINER, "            if not self.model.training:\n                self.good = None", "            pass"),
    train("meet: controls stay on after a step", TRAINER, "            return super().training_step(model, inputs, *args, **kwargs)\n        finally:\n            self.good = None", "            return super().training_step(model, inputs, *args, **kwargs)\n        finally:\n            pass"),
    train("meet: rows that run together are read", TRAINER, "if x.dim() != 3 or len(x) != len(good):", "if x.dim() != 3:"),
    train("meet: a control of other layers is passed over", TRAINER, "if module is None or any(", "if module is None:\n                continue\n            if any("),
    train("meet: a control that was trained anew is not noticed", TRAINER, "self.weights_beside = {control.path: control.digest", "self.weights_beside = {control.path: ''"),
    train("meet: controls of two bases", CONTROLS, "if None not in bases and len(set(bases)) > 1:", "if False:"),
    train("meet: one adapter is both controls", CONFIG, "if self.good_control and self.good_control == self.bad_control:", "if False:"),
    train("meet: a control may be missing", CONFIG, "            if not getattr(self, name):\n", "            if False:\n"),
    train("meet: an objective with a reference", CONFIG, "and self.needs_reference():", "and False:"),
    train("merge: a sum is a mean", MERGE, "ones = [1.0] * len(adapters)", "ones = [1.0 / len(adapters)] * len(adapters)"),
]  # fmt: skip

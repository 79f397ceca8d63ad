"""The probe of what becomes of chosen, rejected and greedy answers."""

from mutants.mutant import noticed_by

PROBE = "align/trainers/pairs/displacement.py"
probe = noticed_by("tests/trainers/pairs/test_displacement.py")
MUTANTS = [
    probe("displacement: against nothing", PROBE, "(now[side] - self.before[side])", "now[side]"),
    probe("displacement: prompt tokens count", PROBE, ".logits[0, len(prompt) - 1 : -1].float()", ".logits[0, len(prompt) - 2 : -2].float()"),
    probe("displacement: logged twice", PROBE, " and state.global_step != self._said_at", ""),
    probe("displacement: sampled", PROBE, "do_sample=False", "do_sample=True"),
    probe("displacement: never asked", "align/trainers/pairs/preference.py", "if args.displacement_pairs:", "if False:"),
]  # fmt: skip

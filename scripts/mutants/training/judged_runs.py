"""What a judge is, as part of what a run is."""

from mutants.mutant import noticed_by

judged = noticed_by("tests/trainers/online/test_judged_runs.py")
MUTANTS = [
    judged(
        "online pairs: the judge is not compared",
        "align/runs/identity.py",
        'for key in ("weights", "tokenizer", "judge"):',
        'for key in ("weights", "tokenizer"):',
    ),
    judged(
        "online pairs: the judge has no digest",
        "align/run_identity.py",
        "if not isinstance(model, torch.nn.Module) or tokenizer is None:",
        "if True:",
    ),
]

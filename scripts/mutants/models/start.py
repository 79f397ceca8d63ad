"""What training begins with, by an adapter or a run."""

from mutants.mutant import noticed_by

START, BUILDING, TRAIN = "align/models/start.py", "align/building.py", "align/train.py"
start = noticed_by("tests/models/test_start.py")
MUTANTS = [
    start("start: a run directory is not enough", "align/runs/contents.py", "for folder in (own, own / kind)", "for folder in (own,)"),
    start("start: a damaged adapter is taken", START, "    made_by(folder)\n", ""),
    start("start: another base is not told", START, 'known.get("digest") in (None, base_digest)', 'known.get("digest")'),
    start("start: an adapter of another reference is taken for one of the base", START, 'known.get("kind") not in ("base", "adapter") or ', ""),
    start("start: it is not known which run it was", BUILDING, ", **made_by(start)}", "}"),
    start("start: it is not recorded", TRAIN, 'record["start"] = trainer.begun_with', "pass"),
    start("start: --overwrite deletes what training begins with", TRAIN, "if recipe.start is None else", "if True else"),
    start("start: the card does not say", "align/results.py", "if recipe.start is not None", "if False"),
]  # fmt: skip

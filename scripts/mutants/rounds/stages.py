"""What training begins with, answers of a policy, their scores, and rounds of them."""

from mutants.mutant import noticed_by

START, TRAIN = "align/models/start.py", "align/train.py"
start = noticed_by("tests/models/test_start.py")
MUTANTS = [
    start("the start is forgotten", TRAIN, "        begin_with(trainer.model, start)\n", ""),
    start(
        "the reference is the start's adapter",
        TRAIN,
        'adapter = recipe.ref.path if recipe.ref.kind == "adapter" else None\n    start',
        "adapter = recipe.start.adapter if recipe.start else recipe.ref.path\n    start",
    ),
    start("shapes are not compared", START, "        if other:\n", "        if False:\n"),
    start("the reference gets the weights", START, 'adapter_name="default"', 'adapter_name="ref"'),
]

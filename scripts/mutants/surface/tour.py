"""The notebook."""

from mutants.mutant import noticed_by

TOUR = "scripts/tour.ipynb"
tour = noticed_by("tests/commands/daily/test_tour.py")
MUTANTS = [
    tour("tour: a cell is no Python", TOUR, 'print(len(rows), \\"pairs, such as\\")', 'print(len(rows), \\"pairs, such as\\"'),
    tour("tour: a path of a machine", TOUR, 'print(\\"the page:\\", run.path', 'print(\\"the page:\\", \\"/home/me/runs\\", run.path'),
    tour("tour: outputs of somebody's run", TOUR, '"outputs": [],\n   "source": [\n    "import json', '"outputs": ["1"],\n   "source": [\n    "import json'),
]  # fmt: skip

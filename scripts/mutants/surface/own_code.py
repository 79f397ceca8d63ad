"""Code of one's own that `--allow-file` runs."""

from mutants.mutant import noticed_by

OWN = "align/own_code.py"
own = noticed_by("tests/recipe/test_own_code.py")
MUTANTS = [
    own("own code: any file will do", OWN, "if given is not None and given.sha256 == digest:", "if given is not None:"),
    own("own code: nobody is asked for it", "align/recipe/loading.py", 'for line in lacking(tree.values.get("own_code", {}), path.parent):', "for line in ():"),
    own("own code: its digest is not written", "align/recipe/loading.py", 'own = {"own_code": digests()} if digests() else {}', "own = {}"),
    own("own code: it is no part of what a run is", "align/runs/identity.py", "    if digests():\n", "    if False:\n"),
    own("own code: a name of ours is taken", OWN, "            if taken:\n", "            if False:\n"),
    own("own code: a file that adds nothing is taken", OWN, "if not any(adds.values()):", "if False:"),
    own("own code: half of a broken file stays", OWN, "            table.update(before[kind])\n        raise\n", "            pass\n        raise\n"),
    own("own code: an edited file is the old one", OWN, "known is not None and known.sha256 == digest", "known is not None"),
    own("own code: a loss of any shape is summed", OWN, "or tuple(values.shape) != expected:", "or False:"),
    own("own code: the copy is not found", OWN, "place = kept if kept.is_file() else name", "place = name"),
    own("own code: no copy is kept", OWN, "(run / FOLDER / name).write_bytes(file.text)", "pass"),
    own("own code: a reward gives what it wants", "align/rewards/load.py", "if own or renamed else reward", "if False else reward"),
    own("own code: a judge need not prefer", "align/judges/from_recipe.py", "if not isinstance(made, Scorer):", "if False:"),
    own("own code: a run's policy asks for it", "align/sampling/policy.py", "policy_alone=is_run", "policy_alone=False"),
    own("own code: a recipe's mistakes are passed over", "align/sampling/policy.py", "policy_alone=is_run", "policy_alone=True"),
    own("own code: a mistake on the command line is passed over", "align/strict/yaml_tree.py", "where[0] in self.unread and self.is_from_file(where)", "where[0] in self.unread"),
    own("own code: what says the model is passed over", "align/recipe/loading.py", "frozenset(SECTIONS) - OF_THE_POLICY if", "frozenset(SECTIONS) if"),
    own("own code: the line of an error is not told", OWN, "f.filename == spec.origin", "f.filename == str(path)"),
    own("own code: a front takes none", "align/commands/front.py", "    allow_file_argument(parser)\n", ""),
]  # fmt: skip

"""Gates on what a name in a table must come with: an oracle test, a mutant, a row in a document, a recipe."""

import ast
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import yaml

from align.losses import objectives, token_objectives
from align.methods import METHODS
from align.recipe.shipped import recipes_dir
from align.rewards import REWARDS
from align.weighting import RULES
from align.weighting.advantages import ESTIMATORS
from eval.measures.texts import MEASURES

ROOT = Path(__file__).parents[2]
LOSSES = "align/losses"


class Repository(NamedTuple):
    """What the gates look at."""

    functions: dict[str, tuple[str, str]]
    """Each function of `align/losses`: its file and its source."""
    imported: set[str]
    """Names that a test imports from `align.losses`."""
    mutants: list[tuple[str, str]]
    """File and text of each mutant."""
    losses: str
    """The README of the losses."""
    methods: str
    """The README of the project."""
    recipes: dict[str, dict]


def repository():
    functions = {}
    for path in sorted((ROOT / LOSSES).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef):
                functions[node.name] = f"{LOSSES}/{path.name}", ast.get_source_segment(source, node)
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        mutants = import_module("mutants").MUTANTS
    finally:
        sys.path.remove(str(ROOT / "scripts"))
    recipes = {
        str(path.relative_to(recipes_dir()).with_suffix("")): yaml.safe_load(path.read_text(encoding="utf-8"))
        for path in recipes_dir().rglob("*.yaml")
    }
    readmes = [(ROOT / name).read_text(encoding="utf-8") for name in (f"{LOSSES}/README.md", "README.md")]
    return Repository(functions, imported_from("align.losses"), [(m.file, m.old) for m in mutants], *readmes, recipes)


def imported_from(package):
    """Names that tests import from a package."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("test_*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return {alias.name for node in nodes if (node.module or "").startswith(package) for alias in node.names}


def terms():
    """Each loss term that a recipe can name, with the function that its entry calls."""
    found = {}
    for table, home in ((objectives.OBJECTIVES, "pairwise"), (token_objectives.OBJECTIVES, "tokens")):
        for name, entry in table.items():
            called = entry.loss.__code__.co_names
            named = [each for each in called if each.endswith("_loss") or (home == "tokens" and each == name)]
            found[f"{home}.{name}"] = named[0] if named else name
    return found


def rows_with(text, name):
    return [line for line in text.splitlines() if line.startswith("|") and f"`{name}`" in line]


def function_gaps(name, repo):
    """What a loss function lacks: a test that imports it, a mutant within it, a row with its name."""
    if name not in repo.functions:
        return [f"{name}: no such function; write it in {LOSSES}, and let the table's entry call it by this name"]
    file, source = repo.functions[name]
    found = []
    if name not in repo.imported:
        found.append(f"{name}: no test imports it; write its oracle in tests/losses")
    if not any(where == file and old.strip() in source for where, old in repo.mutants):
        found.append(f"{name}: no mutant breaks it; add one in scripts/mutants that names {file}")
    if not rows_with(repo.losses, name):
        found.append(f"{name}: no row; add one to {LOSSES}/README.md")
    return found


def term_gaps(term, function, repo):
    """What a loss term lacks: all of its function's, and a row with the term's own name."""
    name = term.partition(".")[2]
    row = [] if rows_with(repo.losses, name) else [f"{term}: no row names it; add `{name}` to {LOSSES}/README.md"]
    return function_gaps(function, repo) + row


def method_gaps(name, repo):
    """What a method lacks: a row, and a recipe that has it as `method` or is named in its row."""
    rows = rows_with(repo.losses, name) + rows_with(repo.methods, name)
    if not rows:
        return [f"{name}: no row names it; add one to {LOSSES}/README.md"]
    named = {word for row in rows for word in re.findall(r"`([^`]+)`", row)}
    if named & set(repo.recipes) or any(recipe.get("method") == name for recipe in repo.recipes.values()):
        return []
    return [f"{name}: no recipe; add one to recipes/, or name one that fits in its row of {LOSSES}/README.md"]


def row_gaps(names, text, where):
    return [f"{name}: no row; add one to {where}" for name in names if not rows_with(text, name)]


def test_every_loss_term_has_a_test_a_mutant_and_a_row():
    repo = repository()
    assert not [gap for term, function in terms().items() for gap in term_gaps(term, function, repo)]


def test_every_other_loss_function_has_them_too():
    """Those that a method has to itself: RPO's, f-DPO's, SRPO's, the preference model's."""
    repo = repository()
    own = [name for name in repo.functions if name.endswith("_loss") and name != "pairwise_loss"]
    assert {"rpo_loss", "f_dpo_loss", "srpo_loss", "general_preference_loss"} <= set(own)
    assert not [gap for name in own for gap in function_gaps(name, repo)]


def test_every_method_has_a_row_and_a_recipe():
    repo = repository()
    assert not [gap for name in METHODS for gap in method_gaps(name, repo)]


def test_every_rule_estimator_and_reward_has_a_row():
    for names, where in (([*RULES, *ESTIMATORS], "align/weighting/README.md"), (REWARDS, "align/rewards/README.md")):
        assert not row_gaps(names, (ROOT / where).read_text(encoding="utf-8"), where)


def measures():
    """Each public function of measures that gives estimates by name: its file and its source."""
    found = {}
    for path in sorted(path for folder in ("measures", "pairs") for path in (ROOT / "eval" / folder).glob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            given = ast.unparse(node.returns) if isinstance(node, ast.FunctionDef) and node.returns else ""
            if given in ("ByPolicy", "dict[str, Estimate]") and not node.name.startswith("_"):
                found[node.name] = str(path.relative_to(ROOT)), ast.get_source_segment(source, node)
    return found


def measure_gaps(name, found, imported, mutants, readme):
    """What a measure of the report lacks: a test that imports it, a mutant within it, a row."""
    file, source = found[name]
    gaps = [] if name in imported else [f"{name}: no test imports it; add one in tests/evaluation"]
    if not any(where == file and old.strip() in source for where, old in mutants):
        gaps.append(f"{name}: no mutant breaks it; add one in scripts/mutants that names {file}")
    return gaps + row_gaps([name], readme, "eval/README.md")


def test_every_measure_of_the_report_has_a_test_a_mutant_and_a_row():
    found, readme = measures(), (ROOT / "eval/README.md").read_text(encoding="utf-8")
    assert {measure.__name__ for measure in MEASURES} <= set(found)
    imported, mutants = imported_from("eval"), repository().mutants
    assert not [gap for name in found for gap in measure_gaps(name, found, imported, mutants, readme)]


def test_a_measure_that_lacks_everything_is_told_all_of_it():
    assert measure_gaps("new", {"new": ("eval/measures/texts.py", "return x")}, set(), [], "") == [
        "new: no test imports it; add one in tests/evaluation",
        "new: no mutant breaks it; add one in scripts/mutants that names eval/measures/texts.py",
        "new: no row; add one to eval/README.md",
    ]


MADE_UP = Repository({"new_loss": ("align/losses/pairwise.py", "return -x\n")}, set(), [], "", "", {})


def test_a_term_that_lacks_everything_is_told_all_of_it():
    assert term_gaps("pairwise.new", "new_loss", MADE_UP) == [
        "new_loss: no test imports it; write its oracle in tests/losses",
        "new_loss: no mutant breaks it; add one in scripts/mutants that names align/losses/pairwise.py",
        "new_loss: no row; add one to align/losses/README.md",
        "pairwise.new: no row names it; add `new` to align/losses/README.md",
    ]
    complete = MADE_UP._replace(
        imported={"new_loss"}, mutants=[("align/losses/pairwise.py", "return -x")], losses="| `new_loss` | `new` |"
    )
    assert not term_gaps("pairwise.new", "new_loss", complete)
    elsewhere = complete._replace(mutants=[("align/losses/tokens.py", "return -x")])
    assert "no mutant" in term_gaps("pairwise.new", "new_loss", elsewhere)[0]
    (gone,) = function_gaps("gone_loss", MADE_UP)
    assert gone.startswith("gone_loss: no such function; write it in align/losses")


def test_a_method_without_row_or_recipe_is_told():
    assert method_gaps("new", MADE_UP) == ["new: no row names it; add one to align/losses/README.md"]
    row = MADE_UP._replace(losses="| `new` | `new/tiny` |")
    assert method_gaps("new", row)[0].startswith("new: no recipe; add one to recipes/")
    assert not method_gaps("new", row._replace(recipes={"new/tiny": {}}))
    assert not method_gaps("new", row._replace(recipes={"other": {"method": "new"}}))


def test_a_name_without_a_row_is_told():
    assert row_gaps(["new", "old"], "| `old` | |\nIn prose `new` does not count.", "a.md") == [
        "new: no row; add one to a.md"
    ]

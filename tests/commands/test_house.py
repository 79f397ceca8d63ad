"""The house rules as gates: arrows between packages, size of files and folders, a docstring in each module."""

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES, FOLDERS = ("align", "eval"), ("align", "eval", "tests", "scripts")
MOST_LINES, MOST_FILES = 300, 16
COMPOSES = "align/cli.py"


def python_files(root, tops):
    """Paths below `root`, as text, to the source of each Python file of the folders named."""
    paths = sorted(path for top in tops for path in (root / top).rglob("*.py") if "__pycache__" not in path.parts)
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in paths}


def outside_functions(node):
    """Statements that run when a module is imported."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        if not typing_only and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


def imported(path, source, statements=ast.walk):
    """The modules that a file names in its import statements, wherever they stand, in absolute form."""
    here = Path(path).parent.parts
    found = []
    for node in statements(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return found


def node_of(module, files):
    """The node of a module: its folder, or the module itself where it stands at the root of a package; None if foreign."""
    path = module.replace(".", "/")
    if f"{path}/__init__.py" in files:
        return path if "/" in path else None
    if f"{path}.py" not in files:
        return None
    parent = path.rpartition("/")[0]
    return parent if "/" in parent else path


def arrows(files):
    """From each node to the nodes that it imports."""
    graph = {}
    for path, source in files.items():
        if path.count("/") == 1 and path.endswith("__init__.py"):
            continue  # lazy exports of the package as a whole, which no module of it asks for
        module = path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        own = node_of(module, files)
        targets = {node_of(name, files) for name in imported(path, source)}
        graph.setdefault(own, set()).update(targets - {own, None})
    return graph


def cycles(files):
    """A message for each pair of nodes that reach one another."""
    graph = arrows(files)

    def reached(start):
        seen, todo = set(), list(graph.get(start, ()))
        while todo:
            node = todo.pop()
            if node not in seen:
                seen.add(node)
                todo += graph.get(node, ())
        return seen

    within = {node: reached(node) for node in graph}
    return [
        f"{one} and {other} import one another, directly or through others; move what both need below both"
        for one in sorted(within)
        for other in sorted(within[one])
        if one < other and one in within.get(other, ())
    ]


def reached_by_import(files, *modules):
    """What is imported with these modules, foreign modules among it, by their statements alone; calls are not followed."""
    seen, todo = set(), list(modules)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += [name.rpartition(".")[0]] if "." in name else []
        path = name.replace(".", "/")
        path = next((p for p in (f"{path}.py", f"{path}/__init__.py") if p in files), None)
        todo += imported(path, files[path], outside_functions) if path else []
    return seen


def upward(files):
    """A message for each file of align, except the command line, that imports eval."""
    return [
        f"{path}: imports {name}; align must not know eval, only {COMPOSES} may"
        for path, source in files.items()
        if path.startswith("align/") and path != COMPOSES
        for name in sorted(set(imported(path, source)))
        if name.split(".")[0] == "eval"
    ]


def too_long(files):
    return [
        f"{path}: {lines} lines, at most {MOST_LINES} are allowed; split it"
        for path, source in files.items()
        if (lines := len(source.splitlines())) > MOST_LINES
    ]


def too_full(paths: Iterable[str]):
    count = {}
    for path in paths:
        folder = str(Path(path).parent)
        count[folder] = count.get(folder, 0) + 1
    return [
        f"{folder}: {n} Python files, at most {MOST_FILES} are allowed; make folders in it"
        for folder, n in count.items()
        if n > MOST_FILES
    ]


def unexplained(files):
    return [
        f"{path}: no docstring; say in its first line what it holds"
        for path, source in files.items()
        if not ast.get_docstring(ast.parse(source))
    ]


def test_packages_import_one_way():
    assert not cycles(python_files(ROOT, PACKAGES))


def test_align_does_not_know_eval():
    assert not upward(python_files(ROOT, PACKAGES))


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (("eval.__main__", "eval.evaluate", "eval.report.write", "eval.subjects"), ("align.trainers", "align.train")),
        (("align.losses",), ("transformers", "trl")),
        (("align.train", "align.methods"), ("eval",)),
    ],
)
def test_imports_do_without_what_they_do_not_need(modules, absent):
    files = python_files(ROOT, PACKAGES)
    found = reached_by_import(files, *modules)
    assert not found.intersection(absent)
    assert "torch" in found
    lazy = {name for name in found if name.startswith("align.") and name.count(".") == 1 and name[6].isupper()}
    assert not lazy, "from align import NAME imports the trainers at once; import it from where it is"


def test_files_and_folders_are_small():
    files = python_files(ROOT, FOLDERS)
    assert not too_long(files)
    assert not too_full(files)


def test_modules_say_what_they_hold():
    """Files of tests may leave it to the names of their tests."""
    assert not unexplained(python_files(ROOT, [*PACKAGES, "scripts", "tests/helpers"]))


MADE_UP = {
    "align/__init__.py": "",
    "align/cli.py": "from eval.report import page\n",
    "align/one/__init__.py": "",
    "align/one/a.py": "from align.two.b import name\n",
    "align/two/__init__.py": "",
    "align/two/b.py": "def late():\n    from ..one import a\n",
    "eval/__init__.py": "",
    "eval/report.py": "from align.one import a\n",
}


def test_a_cycle_is_found_in_relative_and_late_imports_too():
    assert cycles(MADE_UP) == [
        "align/one and align/two import one another, directly or through others; move what both need below both"
    ]
    assert not cycles(MADE_UP | {"align/two/b.py": ""})


def test_what_an_import_brings_is_found():
    files = MADE_UP | {
        "align/one/a.py": "if TYPE_CHECKING:\n    import trl\ntry:\n    from ..two import b\nexcept ImportError:\n    pass\n",
        "align/two/b.py": "import torch\ndef late():\n    import transformers\n",
    }
    found = reached_by_import(files, "align.one.a")
    assert {"align", "align.one", "align.two.b", "torch"} <= found
    assert not found & {"trl", "transformers"}


def test_an_arrow_upward_is_found():
    assert not upward(MADE_UP)
    (found,) = upward(MADE_UP | {"align/two/b.py": "import eval.report\n"})
    assert found == "align/two/b.py: imports eval.report; align must not know eval, only align/cli.py may"


def test_what_is_too_large_or_not_explained_is_found():
    assert too_long({"a.py": "x\n" * 300, "b.py": "x\n" * 301}) == [
        "b.py: 301 lines, at most 300 are allowed; split it"
    ]
    assert too_full([f"a/{n}.py" for n in range(17)] + ["b/1.py"]) == [
        "a: 17 Python files, at most 16 are allowed; make folders in it"
    ]
    assert unexplained({"a.py": "x = 1\n", "b.py": '"""Held."""\n'}) == [
        "a.py: no docstring; say in its first line what it holds"
    ]


def test_every_module_says_first_what_it_does():
    """Verb, object, why: `Reads one row ...`, not `One row, read`."""
    firsts = {path: source.split("\n", 1)[0] for path, source in python_files(ROOT, PACKAGES).items()}
    assert [path for path, first in firsts.items() if not re.match(r'r?"""[A-Z][a-z]+s[ ,]', first)] == []

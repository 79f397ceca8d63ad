"""No module imports the private name of another."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def private_imports(source: str) -> list[str]:
    """The names with a leading underscore that a module imports from another of ours."""
    return [
        name.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom)
        and (node.level > 0 or (node.module or "").partition(".")[0] in ("align", "eval"))
        for name in node.names
        if name.name.startswith("_") and not name.name.startswith("__")
    ]


def test_a_private_import_is_found():
    assert private_imports(
        "def f():\n    from .a import b, _c\nfrom eval.d import __version__, _e\nfrom other import _f\n"
    ) == ["_e", "_c"]


def test_no_module_imports_a_private_name():
    modules = [path for package in ("align", "eval") for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(modules) > 100
    found = {str(path.relative_to(ROOT)): private_imports(path.read_text(encoding="utf-8")) for path in modules}
    assert {path: names for path, names in found.items() if names} == {}

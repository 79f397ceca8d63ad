"""What READMEs name exists: the targets of links, the files and recipes in backticks, and the imports."""

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from align.methods import METHODS

ROOT = Path(__file__).parents[2]
FOLDERS = ("align", "eval", "recipes", "scripts", "tests")
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted(page for folder in FOLDERS for page in (ROOT / folder).rglob("README.md"))
RECIPE_FOLDERS = tuple(folder.name for folder in (ROOT / "recipes").iterdir() if folder.is_dir())

FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*/?")
IMPORT = re.compile(r"(?:from (?:align|eval)[\w.]* import [\w, ]+|import align[\w.]*)")
DOTTED = re.compile(r"\balign(?:\.[A-Za-z_]\w*)+")


def anchors(page: str) -> set[str]:
    """The names under which a page's headings can be linked to."""
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: str, folder: Path) -> list[str]:
    """Relative links of a page whose file or heading does not exist."""
    broken = []
    for link in LINK.findall(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = folder / name
        if not target.exists() or (anchor and anchor not in anchors(target.read_text(encoding="utf-8"))):
            broken.append(link)
    return broken


def in_code(page: str) -> list[str]:
    """What stands in backticks, and in blocks of code."""
    return CODE.findall(FENCE.sub("", page)) + FENCE.findall(page)


def missing_paths(page: str, folder: Path) -> list[str]:
    """Files, folders and recipes named in a page's code that do not exist; a word like NAME stands for any name."""
    words = {word.strip(",:;()") for code in in_code(page) for word in code.split()}
    paths = {word for word in words if PATH.fullmatch(word) and not re.search(r"\b[A-Z]+\b(?!\.md)", word)}
    return sorted(path for path in paths if not exists(path, folder))


def exists(path: str, folder: Path) -> bool:
    """Whether a path is there, from its page, the root or `align/`; True too if it does not speak of this repository."""
    first = path.split("/")[0]
    if any((base / path).exists() for base in (folder, ROOT, ROOT / "align")):
        return True
    if "/" not in path:
        return not path.endswith(".py") or any(any((ROOT / name).rglob(path)) for name in FOLDERS)
    if first in RECIPE_FOLDERS:
        return (ROOT / "recipes" / f"{path}.yaml").exists()
    return first not in FOLDERS and not path.endswith((".py", ".json", ".png", ".yaml"))


def failing_imports(page: str) -> list[str]:
    """Import lines and dotted names of `align` in a page's code that do not work."""
    failing = []
    for code in in_code(page):
        for line in IMPORT.findall(code):
            try:
                exec(line, {})
            except ImportError:
                failing.append(line)
        for name in DOTTED.findall(code):
            try:
                resolve_name(name.removesuffix(".py"))
            except (ImportError, AttributeError):
                failing.append(name)
    return failing


def test_the_front_page_names_every_method():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in METHODS if f"`{name}`" not in page] == []
    assert f"There are {len(METHODS)} names" in page


def test_the_front_page_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    assert broken_links(text, page.parent) == []
    assert missing_paths(text, page.parent) == []
    assert failing_imports(text) == []


def test_a_page_with_mistakes_is_noticed():
    page = """
[a](eval/README.md#no-such-heading) [b](nowhere.md) [c](recipes/README.md#commands) [d](https://example.org/x.md)

`align/nowhere.py`, `test_nowhere.py`, `rpo/nowhere`, `python scripts/nowhere.py OUT`, `results/nowhere.json`,
`align/train.py`, `rewards/NAME.py`, `rpo/tiny`, `runs/b005`, `a/b`, `from align.losses import Pair, nowhere_loss`

```python
from align.nowhere import x
from align import RPOConfig
align.nowhere("x")
```
"""
    assert broken_links(page, ROOT) == ["eval/README.md#no-such-heading", "nowhere.md"]
    assert missing_paths(page, ROOT) == [
        "align/nowhere.py",
        "results/nowhere.json",
        "rpo/nowhere",
        "scripts/nowhere.py",
        "test_nowhere.py",
    ]
    assert failing_imports(page) == [
        "from align.losses import Pair, nowhere_loss",
        "from align.nowhere import x",
        "align.nowhere",
        "align.nowhere",
    ]

"""Recipes that are written or copied for somebody."""

from mutants.mutant import noticed_by

INIT, RECIPES = "align/commands/init.py", "align/commands/recipes.py"
init = noticed_by("tests/commands/daily/test_init.py")
MUTANTS = [
    init("init: a copied recipe's paths stay relative", RECIPES, 'key in PATH_KEYS and node.value.startswith(("./", "../"))', "False"),
    init("init: a copied recipe extends a file beside it", RECIPES, 'key == "extends"', 'key == "extend"'),
    init("init: advice with a gap is taken", INIT, ' and "..." not in advised[0]', ""),
    init("init: a file is written over", INIT, "if out.exists() or out.is_symlink():", "if False:"),
    init("init: data is not found from the recipe's folder", INIT, 'path if path.startswith("..") else', "name if True else"),
    init("init: the first of several readings is taken", INIT, "if len(advised) == 1 and", "if advised and"),
    init("init: text does not go through the template", INIT, "if source.is_text and _has_template(model):", "if False:"),
    init("init: nothing is kept apart", INIT, "if source.prompts >= FEW else 0", "if False else 0"),
    init("init: few rows are kept apart", INIT, "if source.prompts >= FEW else 0", ""),
    init("init: lines of the source are lost", INIT, "settings |= _line(line)", "_line(line)"),
    init("init: start is lost", INIT, "if start is not None:", "if False:"),
    init("init: it asks where nobody is", INIT, "if not sys.stdin.isatty():", "if False:"),
    init("init: what check found is no exit code", INIT, "    return code\n", "    return 0\n"),
]  # fmt: skip

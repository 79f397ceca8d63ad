"""What a run's card says, and a reference that is a run."""

from mutants.mutant import noticed_by

CARDS, RESULTS, SECTIONS = "align/trainers/shared/cards.py", "align/results.py", "align/recipe/sections.py"
cards = noticed_by("tests/runs/test_cards.py")
ends = noticed_by("tests/runs/test_progress.py")
MUTANTS = [
    ends("what comes next: an evaluation without data", RESULTS, "(recipe.data.eval or recipe.data.holdout) and", "True and"),
    ends("what comes next: answers of a judge", RESULTS, 'if METHODS[recipe.method].model != "language":', "if False:"),
    ends("what comes next: a path is not quoted", RESULTS, "json.dumps(str(weights), ensure_ascii=False)", "weights"),
    cards("cards: a licence is made up", CARDS, 'if licence else "", 1)', 'if licence else PLACEHOLDER, 1)'),
    cards("cards: the base's licence is lost", CARDS, 'said = ModelCard.load(found, ignore_metadata_errors=True).data.get("license")', "said = None"),
    cards("cards: any text is a licence", CARDS, 're.fullmatch(r"[\\w.-]{1,60}", said)', "True"),
    cards("cards: the recipe shows folders", RESULTS, "and Path(value).is_absolute() else value", "and False else value"),
    cards("cards: only the first of several settings is mended", RESULTS, "return [_without_folders(item) for item in value]", "return value"),
    cards("cards: settings are in the order of a process", CARDS, "        write_in_order(where)\n", ""),
    cards("cards: a run is no reference", SECTIONS, "if found == Path(self.path) else str(found)", ""),
    cards("cards: a run inside an adapter", "align/runs/contents.py", "for folder in (own, own / kind)", "for folder in (own / kind, own)"),
]  # fmt: skip

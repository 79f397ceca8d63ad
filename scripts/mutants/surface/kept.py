"""Cards, pickles, uploads and checkpoints of TRL's own trainers."""

from mutants.mutant import noticed_by

SAFE, CARDS = "align/trainers/shared/safe_runs.py", "align/trainers/shared/cards.py"
kept = noticed_by("tests/trainers/test_kept.py")

MUTANTS = [
    kept("uploaded before it is sealed", SAFE, "if not (Path(checkpoint_folder) / MANIFEST).exists():", "if False:"),
    kept("never uploaded", SAFE, "            super()._push_from_checkpoint(str(folder))", "            pass"),
    kept("a pickle is left", CARDS, "(where / ARGUMENTS).unlink(missing_ok=True)", "pass"),
    kept(
        "PEFT's card has the path",
        CARDS,
        "        without_paths(where / CARD, self._base(), where.name)",
        "        pass",
    ),
    kept("the pickle of the arguments is uploaded", CARDS, 'f"*{ARGUMENTS}", ', ""),
    kept("skipped batches are uploaded", CARDS, 'f"{SKIPPED}/*", ', ""),
    kept("event files are uploaded", CARDS, 'f"{TENSORBOARD}/*", ', ""),
    kept("the lock is uploaded", CARDS, ', ".*")', ")"),
    kept(
        "the pickle of the last upload is left",
        CARDS,
        "(Path(self.args.output_dir) / ARGUMENTS).unlink(missing_ok=True)",
        "pass",
    ),
    kept(
        "only checkpoints are uploaded without",
        CARDS,
        "        with uploads_without(STAYS_HERE):\n            return",
        "        if True:\n            return",
    ),
    kept("TRL's checkpoint is taken without a word", SAFE, "if not unsealed:", "if False:"),
    kept("TRL's checkpoint cannot be saved after", SAFE, "if isinstance(callback, ExportableState):", "if False:"),
    kept("the general method is named", CARDS, "max(fitting", "min(fitting"),
    kept("a paper is named that the method is not of", CARDS, 'if method.arxiv != known.get("id"):', "if False:"),
    kept("a local base is shown with its path", CARDS, "if base and is_local(base):", "if False:"),
]

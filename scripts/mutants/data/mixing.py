"""Several sources of training rows, mixed, and rows kept on disk."""

from mutants.mutant import noticed_by

MIXING, KEPT, LOADING = (f"align/data/{name}.py" for name in ("mixing", "kept", "loading"))
mixing, kept = noticed_by("tests/data/test_mixing.py"), noticed_by("tests/data/test_kept.py")
tokens = noticed_by("tests/data/test_tokens.py")
MUTANTS = [
    mixing("mixing: weights say nothing", MIXING, "    if not given:\n", "    if True:\n"),
    mixing("mixing: the longest source sets the size", MIXING, "unit = min(n / weight", "unit = max(n / weight"),
    mixing("mixing: rows of two sources count twice", MIXING, "if key not in seen]", "if True]"),
    mixing("mixing: the first rows are drawn", MIXING, "np.random.default_rng(0).permutation(total)[:count].tolist()", "np.arange(total)[:count].tolist()"),
    mixing("mixing: one source after the other", MIXING, "np.argsort(places, kind=\"stable\")", "range(len(places))"),
    mixing("mixing: numbers of rows collide", MIXING, "k * step)\n", "0)\n"),
    mixing("mixing: a cap is passed over", MIXING, "len(dataset) if max_rows is None else max_rows", "len(dataset)"),
    mixing("mixing: a fraction is passed over", MIXING, "len(dataset) if fraction is None else", "len(dataset) if True else"),
    mixing("mixing: text and messages are mixed", MIXING, "if len(set(plain)) > 1:", "if False:"),
    mixing("mixing: columns of one source are lost", MIXING, "names = list(dict.fromkeys(name for each in features for name in each))", "names = list(features[0])"),
    mixing("mixing: one weight is enough", "align/data/sources.py", "(len(own) == 1 or not all(weighed))", "False"),
    kept("kept: rows are read each time", KEPT, "    found = _found(folder)\n    if found is not None:", "    found = _found(folder)\n    if False:"),
    kept("kept: the bytes do not matter", LOADING, "whole_pairs, contents], load)", "whole_pairs], load)"),
    kept("kept: the settings do not matter", LOADING, "kept([asdict(config), rows,", "kept([rows,"),
    kept("kept: the code does not matter", KEPT, "digest_of([reading_code(), ", "digest_of(["),
    kept("kept: nothing is said again", KEPT, '            READ_BY.warning("%s", line)\n', "            pass\n"),
    kept("kept: damage is trained on", KEPT, "if sha256(folder / name) != digest:", "if False:"),
    kept("kept: what fails is left lying", KEPT, "        shutil.rmtree(scratch, ignore_errors=True)\n    logger", "        pass\n    logger"),
    kept("kept: a part has the digest of the whole", KEPT, 'if one["fingerprint"] == dataset._fingerprint:', "if True:"),
    kept("kept: rows are held in memory", "align/data/rows/normalise.py", "    if scratch is None:\n", "    if True:\n"),
    tokens("kept: pairs cut to the same length are not compared", "align/data/audit/truncation.py", "np.flatnonzero(left[0] == left[1])", "np.flatnonzero(lengths[1] == lengths[2])"),
    tokens("kept: rows of later slices are misnumbered", "align/data/audit/truncation.py", "row = start + int(index)", "row = int(index)"),
]  # fmt: skip

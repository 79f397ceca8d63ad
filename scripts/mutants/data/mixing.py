"""Several sources of training rows, mixed."""

from mutants.mutant import noticed_by

MIXING = "align/data/mixing.py"
mixing = noticed_by("tests/data/test_mixing.py")
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
]  # fmt: skip

"""Fronts, indicators and their pictures."""

from mutants.mutant import noticed_by

PARETO, PLOTS = "eval/fronts/indicators.py", "eval/report/plots_fronts.py"
pareto = noticed_by("tests/evaluation/fronts/test_pareto.py")
MUTANTS = [
    pareto("pareto: minimised objectives stay as they are", PARETO, "else -1.0 for direction", "else 1.0 for direction"),
    pareto("pareto: directions are not checked", PARETO, 'not set(directions) <= {"max", "min"}', "False"),
    pareto("pareto: the front keeps what is dominated", PARETO, "np.unique(points[nondominated(points)], axis=0)", "np.unique(points, axis=0)"),
    pareto("pareto: the front keeps duplicates", PARETO, "np.unique(points[nondominated(points)], axis=0)", "points[nondominated(points)]"),
    pareto("pareto: weights do not sum to 1", PARETO, "- 1)[::-1] / divisions", "- 1)[::-1] / (divisions + 1)"),
    pareto("pareto: the lattice leaves out its last edge", PARETO, "range(divisions + objectives - 1), objectives - 1))", "range(divisions + objectives - 2), objectives - 1))"),
    pareto("pareto: r2 sums the objectives", PARETO, "np.abs(utopia - points)[None]).max(axis=2)", "np.abs(utopia - points)[None]).sum(axis=2)"),
    pareto("pareto: r2 takes the worst point", PARETO, "distances.min(axis=1).mean()", "distances.max(axis=1).mean()"),
    pareto("pareto: r2 divides by the norm of the weights", PARETO, "distances.min(axis=1).mean()", "distances.min(axis=1).sum() / np.linalg.norm(weights)"),
    pareto("pareto: utility is of the mean point", PARETO, ").max(axis=1).mean())", ").mean(axis=1).mean())"),
    pareto("pareto: sparsity counts dominated points", PARETO, "np.sort(front(points), axis=0)", "np.sort(points, axis=0)"),
    pareto("pareto: sparsity follows the first objective", PARETO, "np.sort(front(points), axis=0)", "front(points)[::-1] * np.array([1.0, 2.0, 1.0])[: points.shape[1]]"),
    pareto("pareto: sparsity divides by the points", PARETO, "max(1, len(kept) - 1)", "len(kept)"),
    pareto("pareto: igd counts what is better too", PARETO, "np.maximum(reference_front[:, None, :] - points[None], 0)", "reference_front[:, None, :] - points[None]"),
    pareto("pareto: igd goes from the points", PARETO, ".min(axis=1).mean())\n\n\ndef volume_over_seeds", ".min(axis=0).mean())\n\n\ndef volume_over_seeds"),
    pareto("pareto: no points are no problem", PARETO, "if len(points) == 0:", "if False:"),
    pareto("pareto: steps without all objectives are kept", PLOTS, "all(isinstance(r.get(name), int | float) for name in names)", "any(isinstance(r.get(name), int | float) for name in names)"),
    pareto("pareto: the window of a way is six steps", PLOTS, "i - SMOOTHING + 1)", "i - SMOOTHING)"),
    pareto("pareto: the stairs overshoot the front", PLOTS, 'where="pre", color=look', 'where="post", color=look'),
    pareto("pareto: all points are marked as on the front", PLOTS, "*pair[best].T", "*pair.T"),
    pareto("pareto: a way ends where it begins", PLOTS, "*way[-1],", "*way[0],"),
    pareto("pareto: the scale of weights is the first run's", PLOTS, "ylim=(0, 1.05 * largest)", "ylim=(0, 1.0)"),
    pareto("pareto: a dollar sign begins a formula", "eval/report/plots.py", 'end.replace("$", r"\\$")', "end"),
]  # fmt: skip

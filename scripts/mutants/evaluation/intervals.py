"""Shares, means, divergences, calibration, families of comparisons, cycles, fronts, power and the verdict."""

from mutants.mutant import noticed_by

MEANS, STATISTICS, SHARES = "align/intervals.py", "eval/statistics/intervals.py", "eval/statistics/shares.py"
FAMILY, POWER, CYCLES = "eval/statistics/comparisons.py", "eval/statistics/power.py", "eval/statistics/cycles.py"
CALIBRATION, VERDICT = "eval/pairs/calibration.py", "eval/report/verdict.py"
INDICATORS, DIVERGENCE, RATINGS = (
    "eval/fronts/indicators.py",
    "eval/measures/divergence.py",
    "eval/statistics/ratings.py",
)
interval = noticed_by("tests/evaluation/statistics/test_stats_intervals.py")
family = noticed_by("tests/evaluation/statistics/test_stats_comparisons.py")
calibrated = noticed_by("tests/evaluation/measures/test_calibration.py")
diverges = noticed_by("tests/evaluation/measures/test_divergence_estimates.py")
cyclic = noticed_by("tests/evaluation/judges/test_eval_judging.py")
front = noticed_by("tests/evaluation/fronts/test_pareto.py")
front_of = noticed_by("tests/evaluation/fronts/test_fronts.py")
said = noticed_by("tests/evaluation/report/test_verdict.py")
planned = noticed_by("tests/evaluation/report/test_power.py")
alike = noticed_by("tests/evaluation/fronts/test_alike.py")
MUTANTS = [
    interval("statistics: few successes are normal", MEANS, "if 0 < successes <= few:", "if False:"),
    interval("statistics: degrees of freedom off by one", MEANS, "degrees = independent - 1", "degrees = independent"),
    interval("statistics: few failures are normal", MEANS, "if 0 < n - successes <= few:", "if False:"),
    interval("statistics: means see no skewness", MEANS, "max(reach, _untransformed(reach, skew, n))", "reach"),
    interval(
        "statistics: alike means certain",
        MEANS,
        "unseen = 1 - ((1 - level) / 2) ** (1 / n)\n        return Estimate(value, value - unseen",
        "unseen = 0.0\n        return Estimate(value, value - unseen",
    ),
    interval(
        "statistics: bounds are forgotten", MEANS, "max(low, bounds[0]), min(high, bounds[1]), n)", "low, high, n)"
    ),
    interval("statistics: groups that agree are certain", STATISTICS, "    if spread <= ALIKE:", "    if False:"),
    interval(
        "statistics: groups that agree but for rounding are certain",
        STATISTICS,
        "if spread <= ALIKE:",
        "if spread == 0:",
    ),
    interval(
        "statistics: seeds are normal",
        STATISTICS,
        "half = t_quantile(level, len(values)) * float(values.std",
        "half = 1.96 * float(values.std",
    ),
    interval(
        "statistics: no belief about dependence",
        SHARES,
        "IMAGINED_CLUSTERS * believed) / (known",
        "0 * believed) / (known",
    ),
    interval(
        "statistics: one cluster knows as much as all",
        SHARES,
        "known = float(squares.sum() ** 2 / (squares**2).sum())",
        "known = float(groups)",
    ),
    interval(
        "statistics: shares of clusters are of items",
        SHARES,
        "n /= design_effect(sums - sizes * share",
        "n /= 1.0 + 0 * design_effect(sums - sizes * share",
    ),
    interval("statistics: ties are half wins", SHARES, "if not np.isin(values, (0.0, 1.0)).all():", "if False:"),
    interval(
        "statistics: Tango's variance is at the found share",
        SHARES,
        "variance = n * (2 * lost_share + delta * (1 - delta))",
        "variance = n * (2 * lost / n + delta * (1 - delta))",
    ),
    family("statistics: a family of one measure", FAMILY, "np.minimum.reduce([", "np.mean(["),
    family(
        "statistics: measures of the same prompts have other signs",
        FAMILY,
        "np.random.default_rng(seed), draws)",
        "rng, draws)",
    ),
    family(
        "statistics: differences are not centred",
        FAMILY,
        "off = sums - sizes[:, None] * (sums.sum(axis=0) / sizes.sum())",
        "off = sums",
    ),
    family(
        "statistics: the level of one",
        FAMILY,
        "difference = one.estimate(column, 1 - each)",
        "difference = one.estimate(column, level)",
    ),
    planned(
        "statistics: what is needed hangs on what there is",
        "eval/planning.py",
        "lambda d, shown=share: fewest_prompts(shown, d)",
        "lambda d, n=n, now=share(n): prompts_needed(now, n, d)",
    ),
    family("statistics: half of the power", POWER, "POWER = 0.8", "POWER = 0.5"),
    family(
        "statistics: what cannot be seen is seen",
        POWER,
        "if over(discordant) > 0 else math.inf",
        "if over(discordant) > 0 else discordant",
    ),
    family(
        "statistics: the same by the 95% interval",
        POWER,
        "inwards = t_quantile(2 * level - 1, difference.n)",
        "inwards = t_quantile(level, difference.n)",
    ),
    calibrated(
        "statistics: bins keep their noise",
        CALIBRATION,
        "square = np.array(gap) ** 2 - v",
        "square = np.array(gap) ** 2",
    ),
    calibrated(
        "statistics: calibration of single pairs",
        CALIBRATION,
        "cluster_sums(off, None if clusters is None else clusters[members])",
        "cluster_sums(off, None)",
    ),
    calibrated(
        "statistics: a temperature of single pairs",
        CALIBRATION,
        "effect = max(design_effect(",
        "effect = 1.0 + 0 * max(design_effect(",
    ),
    calibrated(
        "statistics: the calibrated model is sure",
        CALIBRATION,
        "noise = (rng.random((draws, len(order))) < of) - of",
        "noise = (rng.random((draws, len(order))) < 2) - of",
    ),
    diverges(
        "statistics: a KL may be negative",
        DIVERGENCE,
        "return Estimate(max(mean.value, 0.0), mean.low, max(mean.high, 0.0), mean.n)",
        "return mean_estimate(terms)",
    ),
    diverges(
        "statistics: the KL of one side",
        DIVERGENCE,
        "return 2 * _sigmoid(below) * below - 2 * np.tanh(below / 2)",
        "return below",
    ),
    cyclic(
        "statistics: a circle needs no test", CYCLES, "edge.low > 0, edge.high < 0", "edge.value > 0, edge.value < 0"
    ),
    front(
        "statistics: the luck of the front stays",
        INDICATORS,
        "corrected = value - float(np.median(moved))",
        "corrected = value",
    ),
    front(
        "statistics: points do not share their prompts",
        INDICATORS,
        "errors = heavier * (rng.standard_normal((draws, len(size))) * size) @ axes",
        "errors = heavier * rng.standard_normal((draws, axes.shape[1])) * np.sqrt((size**2) @ axes**2)",
    ),
    said(
        "statistics: noise is better",
        VERDICT,
        "better = [e for e in evidence if e.difference.low > 0]",
        "better = [e for e in evidence if e.difference.value > 0]",
    ),
    said("few items: an interval all the same", MEANS, "if found.n >= FEWEST", "if found.n >= 4"),
    said("few items: five are too few", MEANS, "if found.n >= FEWEST", "if found.n > FEWEST"),
    said(
        "few items: lists keep theirs",
        MEANS,
        "if isinstance(found, Mapping):\n        return {",
        "if False:\n        return {",
    ),
    said(
        "few items: seeds are prompts",
        "eval/report/assemble.py",
        "e if OVER_SEEDS in key else claimed(e) for key, e in report.est",
        "claimed(e) for key, e in report.est",
    ),
    said("few items: curves keep theirs", "eval/report/assemble.py", "claimed(report.best_of_k)", "report.best_of_k"),
    said("few items: judges keep theirs", "eval/report/assemble.py", "setattr(judged, name, claimed(found))", "pass"),
    said("few items: comparisons keep theirs", FAMILY, "return claimed(found)", "return found"),
    front_of(
        "few items: the front keeps its own",
        "eval/fronts/front.py",
        "e if OVER_SEEDS in key else claimed(e) for",
        "e for",
    ),
    alike("fronts: what was seen bounds", "eval/fronts/front.py", "ranges[name])", "(low[k], high[k]))"),
    alike("fronts: rounding parts the alike", "eval/fronts/front.py", "np.round(points, DIGITS)", "points"),
    noticed_by("tests/rounds/test_rounds_report.py")(
        "few items: rounds keep theirs",
        "align/rounds/report.py",
        "= claimed(mean_estimate(np.array(values), bounds=bounds))",
        "= mean_estimate(np.array(values), bounds=bounds)",
    ),
    said("headline: of all it speaks of one", VERDICT, "if len(among) > 1 and not report.series:", "if False:"),
    said("headline: rounds are runs", VERDICT, "if len(among) > 1 and not report.series:", "if len(among) > 1:"),
    said(
        "headline: likelihoods say who is better",
        VERDICT,
        "if says_who_is_better(measure) for row in rows]",
        "for row in rows]",
    ),
    said(
        "headline: the beaten are at the top",
        VERDICT,
        "top = [who for who in beats if who not in beaten]",
        "top = [*beats]",
    ),
    said(
        "headline: two measures that differ agree",
        VERDICT,
        "if any(who in beats[other] for",
        "if False and any(who in beats[other] for",
    ),
    said("statistics: what is cut off is not told", VERDICT, "if cut is not None and cut.value > 0:", "if False:"),
    said(
        "statistics: the headline knows of no others", VERDICT, 'joint = _joint(report, "gold_reward")', "joint = None"
    ),
    said(
        "statistics: a joint difference upside down",
        VERDICT,
        "return Estimate(-row.difference.value, -row.difference.high, -row.difference.low, row.difference.n)",
        "return row.difference",
    ),
    said(
        "statistics: a judge knows of no others", VERDICT, 'joint = _joint(report, f"win_rate/{name}")', "joint = None"
    ),
    said(
        "statistics: a judge's joint interval is not halved",
        VERDICT,
        "0.5 + joint.value / 2, 0.5 + joint.low / 2, 0.5 + joint.high / 2",
        "0.5 + joint.value, 0.5 + joint.low, 0.5 + joint.high",
    ),
    said("statistics: a worse likelihood is praised", VERDICT, "if measure.endswith(LOWER_IS_BETTER)", "if False"),
    said("statistics: uncorrected winners", VERDICT, "    if row.p_value > 0.05:\n        return None\n", ""),
]

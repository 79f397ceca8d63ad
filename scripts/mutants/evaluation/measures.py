"""Calibration, diversity, divergences and frontiers."""

from mutants.mutant import noticed_by

CALIBRATION, DIVERSITY = "eval/pairs/calibration.py", "eval/measures/diversity.py"
TEXTS = "eval/measures/texts.py"
DIVERGENCE, FRONTIER = "eval/measures/divergence.py", "eval/fronts/reward_divergence.py"
calibration = noticed_by("tests/evaluation/measures/test_calibration.py")
shown = noticed_by("tests/evaluation/measures/test_measures.py")
texts = noticed_by("tests/evaluation/measures/test_texts.py")
diversity = noticed_by("tests/evaluation/measures/test_diversity.py")
divergence = noticed_by("tests/evaluation/measures/test_divergence_estimates.py")
frontier = noticed_by("tests/evaluation/fronts/test_frontier.py")
MUTANTS = [
    calibration("measures: a tie is wrong", CALIBRATION, "correct(chosen_mean_logp - rejected_mean_logp))", "(chosen_mean_logp > rejected_mean_logp) + 0.0)"),
    calibration("measures: certainty has no bin", CALIBRATION, "np.minimum((confidence * bins).astype(int), bins - 1)", "(confidence * bins).astype(int)"),
    calibration("measures: confidence of the chosen side only", CALIBRATION, "np.maximum(p, 1.0 - p)", "p"),
    calibration("measures: bins count alike", CALIBRATION, "sum(part.n * abs(part.accuracy - part.confidence) for part in parts)", "len(judged.confidence) / len(parts) * sum(abs(part.accuracy - part.confidence) for part in parts)"),
    calibration("measures: errors cancel", CALIBRATION, "part.n * abs(part.accuracy - part.confidence)", "part.n * (part.accuracy - part.confidence)"),
    calibration("measures: bins of mass unsorted", CALIBRATION, 'np.argsort(confidence, kind="stable")', "np.arange(len(confidence))"),
    calibration("measures: the brier score unsquared", CALIBRATION, "(1.0 - probability(margin)) ** 2", "1.0 - probability(margin)"),
    calibration("measures: temperature upside down", CALIBRATION, 'return math.inf if scale <= 0 else 1 / scale', 'return math.inf if scale <= 0 else scale'),
    calibration("measures: the likelihood of the wrong side", CALIBRATION, "np.logaddexp(0.0, -margin)", "np.logaddexp(0.0, margin)"),
    calibration("measures: calibration without its interval over prompts", CALIBRATION, "mean_estimate(brier(margin), clusters, bounds", "mean_estimate(brier(margin), bounds"),
    shown("measures: what DPO could reach at another beta", "eval/pairs/implicit_reward.py", "beta = recipe.train.beta", "beta = 1.0"),
    texts("measures: diversity of the other side", TEXTS, '(("policy", who), ("ref", REF))', '(("policy", REF), ("ref", who))'),
    texts("measures: lengths beside themselves", TEXTS, "{who: values, REF: ref[unit]}", "{who: values, REF: values}"),
    shown("measures: no bigram is a figure of 0", DIVERSITY, "        if any(len(words_of(text)) >= n for text in texts)\n", ""),
    diversity("measures: entropy of the wrong sign", DIVERSITY, "-float(row.sum()) / (", "float(row.sum()) / ("),
    diversity("measures: length ignored", DIVERSITY, "(max(len(row), 1) if per_token else 1)", "1"),
    diversity("measures: case tells words apart", DIVERSITY, "text.lower().split()", "text.split()"),
    diversity("measures: a text compared with itself", DIVERSITY, "if j != i", ""),
    diversity("measures: embeddings of any length", DIVERSITY, "unit = embeddings / lengths", "unit = embeddings"),
    diversity("measures: eigenvalues not shares", DIVERSITY, "np.linalg.eigvalsh(gram / len(unit))", "np.linalg.eigvalsh(gram)"),
    diversity("measures: extrapolated", DIVERSITY, "if len(order) == 0 or not kl[order[0]] <= at <= kl[order[-1]]:", "if len(order) == 0:"),
    divergence("measures: forward KL from the wrong side", DIVERGENCE, '_of_both(_kl_term, -from_policy, -from_ref)', '_of_both(_kl_term, from_policy, from_ref)'),
    divergence("measures: Jensen-Shannon of the paper", DIVERGENCE, 'return _of_both(term, from_policy, from_ref, math.log(2))', 'return _of_both(lambda r: 2 * term(r), from_policy, from_ref, math.log(2))'),
    divergence("measures: one side of Jensen-Shannon", DIVERGENCE, '(term(from_policy) + term(from_ref)) / 2', 'term(from_policy)'),
    divergence("measures: alpha means one minus alpha", DIVERGENCE, "np.exp((1 - alpha) * r", "np.exp(alpha * r"),
    divergence("measures: balance forgotten", DIVERGENCE, 'np.exp((1 - alpha) * r + np.log(2) - _softplus(r))', 'np.exp((1 - alpha) * r)'),
    divergence("measures: one answer has an interval", DIVERGENCE, "if len(terms) < 2:", "if len(terms) < 1:"),
    frontier("measures: the worst first", FRONTIER, "key=lambda p: (p.cost.value, -p.gain.value)", "key=lambda p: (p.cost.value, p.gain.value)"),
    frontier("measures: beyond the budget", FRONTIER, "        if point.cost.value >= budget:\n            break\n", ""),
    frontier("measures: below the floor", FRONTIER, "gain, at = max(gain, point.gain.value), cost", "gain, at = point.gain.value, cost"),
    frontier("measures: dominated within noise", FRONTIER, "other.gain.low > point.gain.high", "other.gain.value > point.gain.value"),
]  # fmt: skip

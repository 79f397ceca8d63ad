"""What a report measures, compares and is held against."""

from mutants.mutant import noticed_by

IMPLICIT, RANKING, EVALUATE = "eval/pairs/implicit_reward.py", "eval/pairs/ranking.py", "eval/evaluate.py"
DIVERGENCE, DIVERSITY, TOKENS = (f"eval/measures/{name}.py" for name in ("divergence", "diversity", "tokens"))
STATS, COMPARISONS = "eval/statistics/intervals.py", "eval/statistics/comparisons.py"
SUBJECTS, ASKING, ASSEMBLE = "eval/subjects.py", "eval/answers/asking.py", "eval/report/assemble.py"
REPORT, PLOTS, MAIN, VERIFY = "eval/report/write.py", "eval/report/plots.py", "eval/__main__.py", "eval/verify.py"
TABLES, PAGE = "eval/report/tables.py", "eval/report/html.py"
SECTIONS, CLI = "align/recipe/sections.py", "align/cli.py"
measure = noticed_by("tests/evaluation/measures/test_measures.py")
run = noticed_by("tests/evaluation/report/test_verify.py")
MUTANTS = [
    measure("evaluation: beta forgotten", IMPLICIT, "implicit_rewards(batch.log_ratio, beta=config.beta)", "implicit_rewards(batch.log_ratio, beta=1.0)"),
    measure("evaluation: curvature forgotten", IMPLICIT, "beta_scaling=config.beta_scaling", 'beta_scaling="raw"'),
    measure("evaluation: divergence forgotten", IMPLICIT, "f_dpo_loss(batch.log_ratio, beta=config.beta, f=f, beta_scaling=config.beta_scaling).rewards", "implicit_rewards(batch.log_ratio, beta=config.beta)"),
    measure("evaluation: rewards of any objective", IMPLICIT, "OBJECTIVES[name].rewards for name in config.objective", 'OBJECTIVES["sigmoid"].rewards for name in config.objective'),
    measure("evaluation: margin upside down", IMPLICIT, "(rewards.chosen - rewards.rejected)", "(rewards.rejected - rewards.chosen)"),
    measure("evaluation: every method has an implicit reward", IMPLICIT, 'if METHODS[recipe.method].rows != "pairs":', "if False:"),
    measure("evaluation: forward from the policy's answers", DIVERGENCE, "forward_kl(from_ref,", "forward_kl(from_policy,"),
    measure("evaluation: sides of Jensen-Shannon swapped", DIVERGENCE, "jensen_shannon(from_policy, from_ref,", "jensen_shannon(from_ref, from_policy,"),
    measure("evaluation: entropy under the other", DIVERGENCE, "predictive_entropy(ref_answers[1],", "predictive_entropy(ref_answers[0],"),
    measure("evaluation: policy's entropy under the other", DIVERGENCE, "predictive_entropy(policy_answers[0],", "predictive_entropy(policy_answers[1],"),
    measure("evaluation: a small last group", DIVERSITY, "min(len(texts) // GROUP, GROUPS)", "min(-(-len(texts) // GROUP), GROUPS)"),
    measure("evaluation: groups without end", DIVERSITY, "min(len(texts) // GROUP, GROUPS)", "len(texts) // GROUP"),
    measure("evaluation: the jackknife as a bootstrap", STATS, "math.sqrt((groups - 1) / groups *", "math.sqrt(1 / groups *"),
    measure("evaluation: one word for all", DIVERSITY, "distinct(some, n=n)) for n", "distinct(some, n=1)) for n"),
    measure("evaluation: items of one prompt apart", COMPARISONS, "clusters=labels)", "clusters=None)"),
    measure("evaluation: logit upside down", RANKING, "np.log(shares) - np.log1p(-shares)", "np.log1p(-shares) - np.log(shares)"),
    measure("evaluation: logit times beta", RANKING, "logit / beta", "logit * beta"),
    measure("evaluation: the reference left out", RANKING, "scores.ref_chosen - scores.ref_rejected + logit", "scores.chosen - scores.rejected + logit"),
    measure("evaluation: the gap of the reference", RANKING, 'ideal - rankings(scores)["logp"]', 'ideal - rankings(scores)["implicit_reward"]'),
    measure("evaluation: what JSON cannot hold", REPORT, "value if math.isfinite(value) else str(value)", "value"),
    measure("evaluation: comparisons not told", PAGE, "{_compared(report)}", ""),
    measure("evaluation: uncorrected p-values shown", TABLES, 'f"{row.p_holm:.4f}"', 'f"{row.p_value:.4f}"'),
    measure("evaluation: no reliability of an empty set", PLOTS, "for name, margins in report.margins.items() if margins}", "for name, margins in report.margins.items()}"),
    measure("evaluation: judges are evaluated", SUBJECTS, 'METHODS[recipe.method].model == "preference"', "False"),
    measure("evaluation: nothing to measure", SUBJECTS, 'rows != "pairs" and recipe.eval.generate is None', "False"),
    run("evaluation of runs: at least is at most", SECTIONS, '"at_least": above, "at_most": below', '"at_least": below, "at_most": above'),
    run("evaluation of runs: tolerance ignored", SECTIONS, "got - self.value >= -self.tol", "got >= self.value"),
    run("evaluation of runs: overrides do not count", VERIFY, "    return not differ\n", "    return True\n"),
    run("evaluation of runs: expectations ask for another evaluation", "eval/identity.py", '"eval": _plain(recipe.eval), ', '"eval": _plain(recipe.eval), "expect": _plain(recipe.expect), '),
    run("evaluation of runs: any run will do", VERIFY, 'key not in ("eval", "expect")', 'key in ("method", "train")'),
    run("evaluation of runs: the place tells runs apart", VERIFY, 'if key != "output_dir"}', "}"),
    run("evaluation of runs: another recipe's run is taken", CLI, "if begun and not same_training(run, recipe):", "if False:"),
    run("evaluation of runs: trained again", CLI, "if not begun or not _is_finished(run):", "if True:"),
    run("evaluation of runs: begun anew", CLI, 'resume="auto" if begun else None', "resume=None"),
    run("evaluation of runs: exit code of the first", CLI, "return 0 if all(row.holds for row in checked) else 1", "return 0"),
    run("evaluation of runs: the page brings a folder", MAIN, "kept = folder if page is None else None", "kept = folder"),
    run("evaluation of runs: one run is compared", MAIN, "if wanted.compare and len(names) < 2 and wanted.ref is None:", "if False:"),
    run("evaluation of runs: others judged as the first", MAIN, "*[check_writes_answers] * (len(names) - 1)", "*[check_measurable] * (len(names) - 1)"),
    run("evaluation of runs: others answer always", EVALUATE, "[subject, *(others if compare else ())], sets", "[subject], sets"),
    run("evaluation of runs: answers of the first only", ASKING, "ask(subject.tokenizer, subject.policy, asking", "ask(subject.tokenizer, first.policy, asking"),
    run("evaluation of runs: reference answers under the first only", TOKENS, "(scored(subject.policy, who, ref), ref_under_ref)", "(scored(first.policy, who, ref), ref_under_ref)"),
    run("evaluation of runs: margins by the first recipe", EVALUATE, "implicit_margin(subject.recipe, scores)", "implicit_margin(first.recipe, scores)"),
    run("evaluation of runs: the reference named twice", ASSEMBLE, 'if not key.endswith("/ref")}', "}"),
    run("evaluation of runs: pairs wanted of all", EVALUATE, 'if others and subject.recipe.rows != "pairs" and not compare:', "if False:"),
]  # fmt: skip

"""What a report measures, compares and is held against."""

from mutants.mutant import noticed_by

CONFIG, PAIRWISE = "align/configs/preference.py", "align/configs/pairwise.py"
IMPLICIT, RANKING, EVALUATE = "eval/pairs/implicit_reward.py", "eval/pairs/ranking.py", "eval/evaluate.py"
DIVERGENCE, DIVERSITY, TOKENS = (f"eval/measures/{name}.py" for name in ("divergence", "diversity", "tokens"))
STATS, COMPARISONS = "eval/statistics/intervals.py", "eval/statistics/comparisons.py"
SUBJECTS, ASKING, ASSEMBLE = "eval/subjects.py", "eval/answers/asking.py", "eval/report/assemble.py"
REPORT, PLOTS, MAIN, VERIFY = "eval/report/write.py", "eval/report/plots.py", "eval/__main__.py", "eval/verify.py"
TABLES, PAGE, MEASURES = "eval/report/tables.py", "eval/report/html.py", "eval/report/by_measure.py"
CLAIMS = "scripts/verdicts.py"
AGAIN = "scripts/studies/again.py"
tried = noticed_by("tests/evaluation/statistics/test_claims.py")
studied = noticed_by("tests/evaluation/statistics/test_again.py")
SECTIONS, CLI = "align/recipe/sections.py", "align/cli.py"
measure = noticed_by("tests/evaluation/measures/test_measures.py")
page = noticed_by("tests/evaluation/report/test_report.py", "tests/evaluation/report/test_page.py")
said = noticed_by("tests/evaluation/report/test_verdict.py")
same = noticed_by("tests/evaluation/report/test_same_report.py")
stored = noticed_by(
    "tests/evaluation/answers/test_eval_responses_command.py::test_four_files_are_compared_without_a_model"
)
again = noticed_by("tests/evaluation/report/test_recompute.py")
kept = noticed_by("tests/evaluation/kept/test_history.py")
schema = noticed_by("tests/evaluation/report/test_schema.py")
people = noticed_by("tests/evaluation/judges/test_agreement.py")
AGREEMENT = "eval/statistics/agreement.py"
USE = "align/models/use.py"
weights = noticed_by("tests/evaluation/report/test_checkpoints.py")
LOG = "eval/kept/inspect_log.py"
logged = noticed_by("tests/evaluation/kept/test_inspect_log.py")
run = noticed_by("tests/evaluation/report/test_verify.py")
MUTANTS = [
    noticed_by("tests/evaluation/report/test_subjects.py")("told: sets of one name are the same", "eval/evaluate.py", "content_of(theirs) != content_of(source)", "False"),
    noticed_by("tests/rounds/test_rounds_changed.py")("verify: the report of rounds lies elsewhere", "eval/verify.py", "(out or report_folder(run))", "(out or run)"),
    noticed_by("tests/rounds/test_rounds_changed.py")("verify: all rounds in the place of what was taken", "eval/verify.py", "taken=True", "taken=False"),
    measure("evaluation: beta forgotten", CONFIG, "return implicit_rewards(batch.log_ratio, beta=self.beta)", "return implicit_rewards(batch.log_ratio, beta=1.0)"),
    measure("evaluation: curvature forgotten", CONFIG, "beta_scaling=self.beta_scaling", 'beta_scaling="raw"'),
    measure("evaluation: divergence forgotten", CONFIG, "f_dpo_loss(batch.log_ratio, beta=self.beta, f=f, beta_scaling=self.beta_scaling).rewards", "implicit_rewards(batch.log_ratio, beta=self.beta)"),
    measure("evaluation: rewards of any objective", PAIRWISE, "makers = (OBJECTIVES[name].rewards for name", 'makers = (OBJECTIVES["sigmoid"].rewards for name'),
    measure("evaluation: margin upside down", IMPLICIT, "(rewards.chosen - rewards.rejected)", "(rewards.rejected - rewards.chosen)"),
    measure("evaluation: every method has an implicit reward", IMPLICIT, 'if METHODS[recipe.method].rows != "pairs":', "if False:"),
    measure("evaluation: forward from the policy's answers", DIVERGENCE, '"forward_kl": forward_kl(from_policy, from_ref)', '"forward_kl": forward_kl(from_policy, from_policy)'),
    measure("evaluation: sides of Jensen-Shannon swapped", DIVERGENCE, '"kl": reverse_kl(from_policy, from_ref)', '"kl": reverse_kl(from_ref, from_ref)'),
    measure("evaluation: entropy under the other", DIVERGENCE, 'predictive_entropy(ref_answers[1])', 'predictive_entropy(ref_answers[0])'),
    measure("evaluation: policy's entropy under the other", DIVERGENCE, 'predictive_entropy(policy_answers[0])', 'predictive_entropy(policy_answers[1])'),
    measure("evaluation: a small last group", DIVERSITY, "min(len(texts) // GROUP, GROUPS)", "min(-(-len(texts) // GROUP), GROUPS)"),
    measure("evaluation: groups without end", DIVERSITY, "min(len(texts) // GROUP, GROUPS)", "len(texts) // GROUP"),
    measure("evaluation: the jackknife as a bootstrap", STATS, "math.sqrt((groups - 1) / groups *", "math.sqrt(1 / groups *"),
    measure("evaluation: one word for all", DIVERSITY, "distinct(some, n=n))\n", "distinct(some, n=1))\n"),
    measure("evaluation: logit upside down", RANKING, "np.log(shares) - np.log1p(-shares)", "np.log1p(-shares) - np.log(shares)"),
    measure("evaluation: logit times beta", RANKING, "logit / beta", "logit * beta"),
    measure("evaluation: the reference left out", RANKING, "scores.ref_chosen - scores.ref_rejected + logit", "scores.chosen - scores.rejected + logit"),
    measure("evaluation: the gap of the reference", RANKING, 'ideal - rankings(scores)["logp"]', 'ideal - rankings(scores)["implicit_reward"]'),
    measure("evaluation: what JSON cannot hold", REPORT, "value if math.isfinite(value) else str(value)", "value"),
    measure("evaluation: comparisons not told", PAGE, "{_compared(report)}{html_pictures", "{_pictures"),
    measure("evaluation: judges are evaluated", SUBJECTS, 'METHODS[recipe.method].model == "preference"', "False"),
    measure("evaluation: nothing to measure", SUBJECTS, 'rows == "prompts" and recipe.eval.generate is None', "False"),
    said("few prompts: never told", TABLES, "if carried.largest > MUCH}", "if carried.largest > 1}"),
    said("few prompts: always told", TABLES, "if carried.largest > MUCH}", "if carried.largest > 0}"),
    again("recompute: nothing is stored of tokens", TOKENS, '"log_ratio": [p - r for', '"log_ratio": [r - p for'),
    stored("gold reward: a known range is forgotten", ASSEMBLE, "bounds = range_of(config.gold_reward)", "bounds = UNBOUNDED"),
    kept("kept reports: one place for all", REPORT, 'digest_of({"name": report.name, "settings": report.settings})[:ID_LETTERS]', '"same"'),
    kept("kept reports: newest is the first", REPORT, "    os.replace(link, kept.with_name(NEWEST))\n", "    kept.with_name(NEWEST).exists() or os.replace(link, kept.with_name(NEWEST))\n"),
    schema("kept reports: a file that is no report ends in a traceback", "eval/report/schema.py", "except (OSError, ValueError, RecursionError)", "except RecursionError"),
    kept("kept reports: a run has no name from within", "align/files.py", "return Path(os.path.abspath(path)).name", "return Path(path).name"),
    kept("kept reports: two runs are one line", "eval/kept/history.py", "if len(set(names)) == len(names) else", "if True else"),
    kept("history: runs cover each other", "eval/kept/history.py", "at = [place + beside * (index", "at = [place + 0 * (index"),
    kept("kept reports: another schema is read", "eval/kept/history.py", 'version != SCHEMA_VERSION', "False"),
    kept("kept reports: the newest counts twice", "eval/kept/history.py", " if p.parent.name != NEWEST]", "]"),
    people("agreement: kappa is the accuracy", AGREEMENT, "Estimate(2 * accuracy.value - 1, ", "Estimate(accuracy.value, "),
    people("agreement: prompts are not clusters", AGREEMENT, "np.full(len(preferred), 0.5)), clusters)", "np.full(len(preferred), 0.5)))"),
    people("agreement: people with themselves", AGREEMENT, "for one, other in combinations(votes[i], 2)", "for one, other in zip(votes[i], votes[i])"),
    people("agreement: ties are votes against", "eval/agreement.py", "0 if _is_tie(vote) else 1 if vote", "1 if vote"),
    people("agreement: false is a tie", "eval/agreement.py", "(vote == 0 and not isinstance(vote, bool))", "vote == 0"),
    people("agreement: categories are not told apart", "eval/agreement.py", "known & (of == value)", "known"),
    same("evaluation: a judge is known by its path", "eval/identity.py", "return found | weights_of_judges(recipe)", "return found"),
    page("evaluation: pictures of an earlier report stay", "eval/report/write.py", "            path.unlink()", "            pass"),
    page("evaluation: pictures of others go", "eval/report/write.py", "path.name in before and path.name not in drawn", "path.name not in drawn"),
    noticed_by("tests/evaluation/report/test_page.py")("page: figures of the first table leave the window", "eval/report/html.py", "tabular-nums; overflow-wrap: normal; }", "tabular-nums; white-space: nowrap; }"),
    page("evaluation: the verdict upside down", "eval/report/verdict.py", 'word = "better" if better else "worse"', 'word = "worse" if better else "better"'),
    page("evaluation: colour alone tells curves apart", PLOTS, '"linestyle": DASHES[index % len(DASHES)]', '"linestyle": "-"'),
    page("evaluation: the picture is of first answers", PLOTS, "(policy - ref).mean(axis=1)", "(policy - ref)[:, 0]"),
    page("evaluation: nine pairs make a trend", PLOTS, "linewidth=1 if min(part.n for part in parts) >= TREND else 0", "linewidth=1"),
    page("evaluation: all estimates are the policy's", TABLES, 'if name.startswith(f"{who}/") and', "if False and"),
    page("evaluation: a policy called as a set has its figures", TABLES, "return not any(key.startswith(f\"{who}/{who}/\") for key in report.estimates)", "return True"),
    page("evaluation: what begins as a cost is one", MEASURES, "return COST if own.startswith(COSTS) else BEST", "return BEST"),
    page("by measure: the reference is a policy", MEASURES, '"ref": (reference, False)', '"ref": (who, False)'),
    page("by measure: a difference is no row of its own", MEASURES, '(f"{dataset}/{measure}", difference), Row', '(f"{dataset}/{measure}", False), Row'),
    page("by measure: the reference's ranking is a measure of its own", MEASURES, 'if own.startswith("ref_ranking_accuracy/"):', "if False:"),
    page("by measure: length ranks for one policy", MEASURES, 'own.endswith("/longer_wins") and own.startswith("ranking")', "False"),
    page("by measure: a measure is a set", MEASURES, 'tuple(f"{dataset}/{measure}" for measure in OF_SETS[group])', 'f"{dataset}/"'),
    page("by measure: the least is to be seen", MEASURES, "max(map(detectable", "0 * max(map(detectable"),
    again("by measure: nothing is told", MEASURES, "if found:\n            return title.format", "if not found:\n            return title.format"),
    page("evaluation: pictures before the verdict", PAGE, "{_verdict(report)}\"\n", "{_pictures(pictures)}{_verdict(report)}\"\n"),
    run("evaluation of runs: at least is at most", SECTIONS, '"at_least": above, "at_most": below', '"at_least": below, "at_most": above'),
    run("evaluation of runs: tolerance ignored", SECTIONS, "got - self.value >= -self.tol", "got >= self.value"),
    run("evaluation of runs: an old report is taken", VERIFY, "    return not differ\n", "    return True\n"),
    run("evaluation of runs: overrides do not count", VERIFY, "load_recipe(run / RECIPE_FILE, overrides, anywhere=True)\n    sets", "load_recipe(run / RECIPE_FILE, anywhere=True)\n    sets"),
    run("evaluation of runs: expectations ask for another evaluation", "eval/identity.py", '"eval": _plain(recipe.eval), ', '"eval": _plain(recipe.eval), "expect": _plain(recipe.expect), '),
    run("evaluation of runs: any run will do", "align/runs/identity.py", 'if name not in ("eval", "expect")', 'if name in ("eval", "expect")'),
    run("evaluation of runs: the place tells runs apart", "align/runs/identity.py", '(section == "train" and _harmless(name))', "False"),
    run("evaluation of runs: another recipe's run is taken", CLI, "        if other:\n            raise RunError(\n                f\"{run}: holds a run", "        if False:\n            raise RunError(\n                f\"{run}: holds a run"),
    run("evaluation of runs: trained again", CLI, "if not begun or not _is_finished(run):", "if True:"),
    run("evaluation of runs: begun anew", CLI, 'resume="auto" if begun else None', "resume=None"),
    run("evaluation of runs: exit code of the first", CLI, "return 0 if all(row.holds for row in checked) else 1", "return 0"),
    run("evaluation of runs: the page brings a folder", MAIN, "kept = folder if page is None else None", "kept = folder"),
    run("evaluation of runs: one run is compared", MAIN, "if wanted.compare and len(names) < 2 and wanted.ref is None and not endpoints:", "if False:"),
    run("evaluation of runs: others judged as the first", MAIN, "*[check_writes_answers] * (len(names) - 1)", "*[check_measurable] * (len(names) - 1)"),
    run("evaluation of runs: others answer always", EVALUATE, "[subject, *(others if compare else ())], sets", "[subject], sets"),
    run("evaluation of runs: answers of the first only", ASKING, "subject.tokenizer, subject.policy, own", "subject.tokenizer, first.policy, own"),
    run("evaluation of runs: reference answers under the first only", TOKENS, "scored(subject.policy, who, ref), ref_under_ref", "scored(first.policy, who, ref), ref_under_ref"),
    run("evaluation of runs: margins by the first recipe", "eval/held_out.py", "implicit_margin(subject.recipe, scores)", "implicit_margin(first.recipe, scores)"),
    run("evaluation of runs: the reference named twice", ASSEMBLE, 'if not key.endswith("/ref")}', "}"),
    run("evaluation of runs: pairs wanted of all", EVALUATE, 'if others and subject.recipe.rows == "prompts" and not compare:', "if False:"),
    logged("inspect log: answers of another policy", LOG, 'texts = row["samples"][who]', 'texts = row["samples"][first]'),
    logged("inspect log: the first answer's score for all", LOG, "values[epoch - 1] if epoch", "values[0] if epoch"),
    logged("inspect log: a prompt's figure counts twice", LOG, "return values if epoch == 1 else None", "return values"),
    logged("inspect log: none is cut off", LOG, 'else "max_tokens" if cut else "stop"', 'else "stop"'),
    logged("inspect log: estimates are lost", LOG, "if who == first:", "if False:"),
    logged("inspect log: one file for two policies", LOG, "while path in [other for other, _ in written]:", "while False:"),
    logged("inspect log: lines of unicode", LOG, '.split("\\n") if line]', ".splitlines() if line]"),
    logged("inspect log: ends that nothing bounds", LOG, "if not isinstance(values[key], str)", "if True"),
    logged("inspect log: written over", LOG, "if path.exists():", "if False:"),
    logged("inspect log: no answers", LOG, "if not rows:", "if False:"),
    weights("weights in memory: each model has its own", USE, "weight.data = twin.data", "pass"),
    weights("weights in memory: those that differ too", USE, "alike and torch.equal(weight, twin)", "alike"),
    weights("weights in memory: none of those under an adapter", USE, '.replace(".base_layer.", ".")', ""),
    weights("weights in memory: references stand apart", SUBJECTS, "for use in (subjects[-1].policy, subjects[-1].reference):", "for use in (subjects[-1].policy,):"),
    tried("claims: a bar is passed over", CLAIMS, "HELD if self.low > self.bar else NOT", "HELD if self.low > 0 else NOT"),
    tried("claims: what touches the bar has held", CLAIMS, "HELD if self.low > self.bar", "HELD if self.low >= self.bar"),
    tried("claims: half as wide is twice as many", CLAIMS, "(half / away) ** 2", "(half / away)"),
    tried("claims: seeds by the normal law", CLAIMS, "if t_quantile(LEVEL, n) * deviation", "if 1.96 * deviation"),
    tried("beyond: a reference that costs nothing", "scripts/beyond.py", "reference_online=trial.reference", "reference_online=False"),
    tried("beyond: one run stands for all", "scripts/beyond.py", "return trial.runs * (", "return ("),
    studied("again: the committed interval alone", AGAIN, "for one in (old[name], new[name])", "for one in (old[name],)"),
    studied("again: what is lost is passed over", AGAIN, "old.keys() ^ new.keys()", "new.keys() - old.keys()"),
    studied("again: any share may differ", AGAIN, "len(off) > MOST * len(found)", "len(off) > len(found)"),
    tried("claims: the side that looks away", CLAIMS, "self.value - self.low if self.value > self.bar", "self.value - self.low if self.value < self.bar"),
    tried("claims: Bonferroni for Holm", CLAIMS, "(len(tested) - rank) * p", "len(tested) * p"),
    tried("claims: p may fall", CLAIMS, "largest = max(largest, min(1.0, ", "largest = (min(1.0, "),
    tried("claims: open verdicts are lost", CLAIMS, "one.verdict != OPEN and p is not None", "p is not None"),
    tried("claims: the first verdict is all", "scripts/claims_page.py", "if len(set(found)) == 1:", "if True:"),
]  # fmt: skip

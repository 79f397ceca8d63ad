"""Fronts: the choice of points, the recipes of policies, what goes on after a kill, the report and the pick."""

from mutants.mutant import noticed_by

SPARSE, PLAN, RUN, PICK = (f"align/fronts/{name}.py" for name in ("sparse", "plan", "run", "pick"))
RECIPE, REPORT = "align/recipe/fronts.py", "eval/report/front.py"
sparse = noticed_by("tests/fronts/test_sparse.py")
front = noticed_by("tests/fronts/test_front.py")
GATED = "align/models/gated.py"
manifold = noticed_by("tests/fronts/test_manifold.py")
STUDY, DIALOGUE = "scripts/studies/fronts.py", "scripts/studies/study_parts/front_dialogue.py"
study = noticed_by("tests/fronts/test_front_study.py")
MUTANTS = [
    manifold("manifold: weights are not of sum 1", GATED, "self.weights = given / given.sum()", "self.weights = given"),
    manifold("manifold: blocks are interleaved", GATED, ".repeat_interleave(output.shape[-1] // len(self.weights))", ".repeat(output.shape[-1] // len(self.weights))"),
    manifold("manifold: the parts change places", GATED, "b.chunk(members, dim=1)[member]", "b.chunk(members, dim=1)[-1 - member]"),
    manifold("manifold: ranks need not divide", GATED, "if any(a.weight.shape[0] % members for a in factors):", "if False:"),
    manifold("manifold: answers are of the middle", "align/trainers/online/objectives.py", "self.rule.update(step).weights if self.model.training else self.rule.base", "self.rule.base"),
    manifold("manifold: any rule", "align/configs/online.py", 'if self.manifold and (self.weighting != "dirichlet" or', "if self.manifold and ("),
    manifold("manifold: members are of a larger scale", "align/fronts/plan.py", '"lora_alpha": lora.lora_alpha * members', '"lora_alpha": lora.lora_alpha'),
    sparse("front: duplicates stay", SPARSE, "np.round(member.values, DIGITS)", "np.round([id(member)], DIGITS)"),
    sparse("front: dominated points stay", SPARSE, "zip(every, kept, strict=True) if keep]", "zip(every, kept, strict=True)]"),
    sparse("front: crowding forgets the range", SPARSE, "(values[2:] - values[:-2]) / spread", "(values[2:] - values[:-2])"),
    sparse("front: crowding forgets the ends", SPARSE, "            found[order[[0, -1]]] = np.inf\n", ""),
    sparse("front: an objective without range divides", SPARSE, "if spread > 0:", "if True:"),
    sparse("front: the most crowded is extended", SPARSE, "(-distances[i], i)", "(distances[i], i)"),
    sparse("front: points are extended twice", SPARSE, "        done |= {member.name for member in starts}\n", ""),
    sparse("front: the buffer drops the sparsest", SPARSE, "kept.pop(min(", "kept.pop(max("),
    sparse("front: extensions replace the front", SPARSE, "[*front, *made]", "made"),
    front("front: a remade front asks otherwise", "align/rounds/begin.py", "        other += [one for one in rewritten(known, by)", "        [one for one in rewritten(known, by)"),
    front("front: how many at a time counts", "align/rounds/validation.py", ' if key != "batch_size"}', "}"),
    front("front: policies learn from other rows", RUN, """by = {"data.train": f"{trained['rows']} rows, {trained['sha256'][:12]}", **compared_by(recipe, rows)}""", "by = compared_by(recipe, rows)"),
    front("front: settings of an evaluation are passed over", RECIPE, 'for key, value in evaluated.items() if key != "generate" and value is not None]', "for key, value in ()]"),
    front("front: revisions are passed over", RECIPE, 'for key in ("revisions", "prefer")', 'for key in ("prefer",)'),
    front("front: soups that are gone stay so", RUN, "adapters, soups, mix)", "adapters, [out], mix)"),
    front("front: a reward with a label ends it", "align/recipe/scores.py", " and name not in REWARDS\n", "\n"),
    front("pick: a member that is gone is named", PICK, "if not (adapter / WEIGHTS_FILE).is_file():", "if False:"),
    front("pick: of a name given twice the last counts", "align/sampling/preferred.py", "if name.strip() in found:", "if False:"),
    front("pick: what is too large to add up is a preference", PICK, "or not 0 < total < math.inf:", "or not 0 < total:"),
    front("front: soups mixed again are other files", "align/merging/adapters.py", "    write_in_order(folder)\n", ""),
    front("front: thresholds move up", PLAN, "fronts.retain).tolist()", "1.0).tolist()"),
    front("front: the target is kept, too", PLAN, "    floors[objective] = None\n", ""),
    front("front: an extension begins anew", PLAN, '    raw["start"] = {"adapter": str(start)}\n', ""),
    front("front: an extension has the barrier of another", PLAN, '"target": objective,', '"target": 0,'),
    front("front: extensions take the recipe's steps", PLAN, '{"max_steps": fronts.steps}', "{}"),
    front("front: weights are forgotten", PLAN, '"reward_weights": list(weights)', '"reward_weights": [1.0, 1.0]'),
    front("front: the ends of the sweep are mixed again", RUN, "if max(v) < 1]", "]"),
    front("front: soups of a kill are in the way", RUN, "            shutil.rmtree(out, ignore_errors=True)  # by a kill, before its line was written\n", ""),
    front("front: any front is gone on with", "align/rounds/begin.py", "if resume and (run / RECIPE_FILE).is_file():", "if False:"),
    front("front: rewards that need tokens are taken", "align/fronts/ready.py", "    if scorers:\n", "    if False:\n"),
    front("pick: who is off the front is picked", PICK, ' if member["on_front"]), key', "), key"),
    front("pick: values are not scaled", PICK, "- low) / (high - low)", "- 0 * low) / (1 + 0 * high)"),
    front("pick: preferences are not normalised", PICK, "prefer.get(name, 0.0) / total", "prefer.get(name, 0.0)"),
    front("pick: negative preferences count", PICK, "all(0 <= number < math.inf", "all(number < math.inf"),
    front("front: one vector is enough", RECIPE, "< max(2, len(self.weights))", "< len(self.weights)"),
    front("front: vectors of any length", RECIPE, "if len(vector) != len(rewards):", "if False:"),
    front("front: weights of the recipe are lost", RECIPE, 'SET_HERE = ("reward_weights", "weighting", ', 'SET_HERE = ("reward_weights", '),
    front("front: the way is that of the end", REPORT, "front.points[n] for n in names]) - low", "front.points[n] for n in front.on_front]) - low"),
    front("front: members report another's range", REPORT, "front.intervals[name], strict", "[front.intervals[name][1]] * 2, strict"),
    study("front study: extensions are free", STUDY, '{"kind": "c_morl", "points": 1}', '{"kind": "c_morl", "points": 2}'),
    study("front study: a policy is compared with the first seed", STUDY, "indicator(points[places[key[0], less]])", "indicator(points[places[0, less]])"),
    study("front study: no difference is negative", STUDY, "least=0.0 if less is None else -np.inf", "least=0.0"),
    study("front study: points are of another method", STUDY, "drawn.means[places[seed, name]]", "drawn.means[places[seed, FIXED]]"),
    study("front study: each of several policies takes all steps", STUDY, "task.steps // policies(len(task.objectives))", "task.steps"),
    study("front study: pairs of any ratings", DIALOGUE, ">= CLEAR and", "> 0 and"),
    study("front study: the worse sentence is chosen", DIALOGUE, "for worse, better in [", "for better, worse in ["),
    study("front study: judges learn from the others, too", DIALOGUE, "return rows[OTHERS:], rows[:OTHERS]", "return rows, rows[:OTHERS]"),
    study("front study: ties are right", DIALOGUE, "(np.sign(values) + 1) / 2", "1.0 * (values >= 0)"),
    study("front study: a reward is not centred", DIALOGUE, '(found - scale["mean"])', "found"),
    study("front study: the scale is of the end", DIALOGUE, "    if not kept.is_file():\n        both", "    if True:\n        both"),
]  # fmt: skip

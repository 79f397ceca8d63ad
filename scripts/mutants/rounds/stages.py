"""What training begins with, answers of a policy, their scores, and rounds of them."""

from mutants.mutant import noticed_by

START, TRAIN = "align/models/start.py", "align/building.py"
ANSWERS, POLICY, SCORING = "align/sampling/answer_file.py", "align/sampling/policy.py", "align/judges/scoring.py"
PLAN, STAGES, LEDGER, RUN = (f"align/rounds/{name}.py" for name in ("plan", "stages", "ledger", "run"))
sample, score = noticed_by("tests/rounds/test_sample.py"), noticed_by("tests/rounds/test_score.py")
rounds = noticed_by("tests/rounds/test_rounds.py")
BUDGET, BILEVEL = "scripts/studies/label_budget.py", "scripts/studies/bilevel.py"
label_study = noticed_by("tests/rounds/test_label_studies.py")
RETRAINED, retrained = "scripts/studies/retrained_reward.py", noticed_by("tests/rounds/test_retrained_study.py")
best, study = noticed_by("tests/rounds/test_best_round.py"), noticed_by("tests/rounds/test_study.py")
BEST, end = "align/rounds/best.py", noticed_by("tests/rounds/test_rounds_end.py")
loops = noticed_by("tests/rounds/test_loops.py")
start = noticed_by("tests/models/test_start.py")
MUTANTS = [
    sample("sampling: one name for all policies", "align/commands/sample.py", "who=options.out.stem", 'who="policy"'),
    start("the start is forgotten", TRAIN, "        begin_with(trainer.model, start)\n", ""),
    start(
        "the reference is the start's adapter",
        TRAIN,
        'adapter = recipe.ref.path if recipe.ref.kind == "adapter" else None\n    start',
        "adapter = recipe.start.adapter if recipe.start else recipe.ref.path\n    start",
    ),
    start("shapes are not compared", START, "        if other:\n", "        if False:\n"),
    start("the reference gets the weights", START, 'adapter_name="default"', 'adapter_name="ref"'),
    sample(
        "answers are not kept",
        ANSWERS,
        "how.decoding, how.samples, how.batch_size, folder, how.vllm,",
        "how.decoding, how.samples, how.batch_size, None, how.vllm,",
    ),
    sample(
        "columns of the prompts are lost",
        ANSWERS,
        "[row | told(answers[index])",
        "[{'prompt': row['prompt']} | told(answers[index])",
    ),
    sample(
        "the reference does not answer",
        POLICY,
        "    if reference:\n        return _reference",
        "    if False:\n        return _reference",
    ),
    score(
        "a failing answer takes the others along",
        SCORING,
        "scores.append([_one(asked, answer, reasons) for answer in answers])",
        "scores.append([None] * len(answers))",
    ),
    score("failures are not asked again", SCORING, "ATTEMPTS = 3", "ATTEMPTS = 1"),
    score(
        "an answer does not meet itself",
        SCORING,
        "for one in values.mean(axis=1)]",
        "for one in (values.sum(axis=1) - np.diag(values)) / (len(values) - 1)]",
    ),
    score("the matrix is transposed", SCORING, "values.mean(axis=1)", "values.mean(axis=0)"),
    score(
        "other prompts are put together",
        "align/judges/answered.py",
        "prompt_of(rows[index]) != prompt_of(first)",
        "False",
    ),
    rounds(
        "the reference follows the start",
        PLAN,
        'if rounds.reference == "previous":\n        if not first_round:',
        'if rounds.start == "previous":\n        if not first_round:',
    ),
    rounds(
        "every round begins anew",
        PLAN,
        'if rounds.start == "previous" and not first_round:\n        begins',
        "if False:\n        begins",
    ),
    rounds(
        "prompts are those of the first round", PLAN, "ordered[each * (number - 1) : each * number]", "ordered[:each]"
    ),
    rounds("shares are of the new pairs", STAGES, "whole = len(new) / (1 - sum(shares))", "whole = len(new)"),
    rounds(
        "older pairs are of the round before",
        STAGES,
        "Place(place.run, place.number - age).pairs",
        "Place(place.run, place.number - 1).pairs",
    ),
    rounds("each round has the first seed", STAGES, "sampling.seed + place.number - 1", "sampling.seed"),
    rounds("an edit is not noticed", LEDGER, "not in (None, digest(path))", "in ()"),
    rounds("a half line counts", "align/files.py", "return content[:whole]", "return content"),
    rounds(
        "the first round's weights are the result", RUN, "taken = Place(run, rounds.count)", "taken = Place(run, 1)"
    ),
    end("gold hides a policy that says nothing", STAGES, "if who not in (GOLD, EARLIER)", "if True"),
    rounds("earlier pairs are no input", STAGES, "1 + len(rounds.keep.shares())", "1"),
    rounds(
        "revisions add no KL",
        "align/rounds/drift.py",
        "for stage in drafts_and_revisions for",
        "for stage in drafts_and_revisions[:1] for",
    ),
    rounds(
        "KL per draft and revision",
        "align/rounds/drift.py",
        "terms = terms.reshape(len(drafts_and_revisions), -1).sum(axis=0)",
        "pass",
    ),
    end("no KL is too much", "align/rounds/drift.py", "if not kl <= rounds.max_kl:", "if False:"),
    end(
        "a full disk is told without the file",
        "align/files.py",
        "            os.fsync(file.fileno())\n    except OSError as error:\n        raise not_written(path, error) from error",
        "            os.fsync(file.fileno())\n    except OSError as error:\n        raise",
    ),
    best("chosen on what is reported", BEST, "scores[name][chosen_on]", "scores[name]"),
    best("the last of equal rounds", BEST, "best = int(values.mean(axis=1).argmax())", "best = len(names) - 1"),
    best("the last is taken whatever is best", RUN, 'if rounds.take == "last" else', "if True else"),
    best("nothing is better, and a round is taken", RUN, "        if taken.number:", "        if True:"),
    best("rounds are measured from the reference", "eval/measures/tokens.py", "if subject.before == REF:", "if True:"),
    best(
        "the half that chose is reported",
        "eval/rounds.py",
        "np.isin(index, chosen.reported_on)",
        "np.isin(index, chosen.chosen_on)",
    ),
    best("the wrong side is above", "eval/rounds.py", "(other, -1.0) if one == start", "(other, 1.0) if one == start"),
    study(
        "samples are never drawn anew", "scripts/studies/suboptimal.py", "if every and step % every == 0:", "if False:"
    ),
    study(
        "ties are not shared",
        "scripts/studies/suboptimal.py",
        "return law * (extreme / np.maximum(mass, 1e-300))[group]",
        "return extreme[group] / extreme[group].sum()",
    ),
    label_study("weak labels are not flipped", BUDGET, "flip=flip, seed=seed", "flip=0.0, seed=seed"),
    label_study(
        "clean labels are learnt from as weak ones",
        BUDGET,
        "noisy.sum() + dpo_loss(of_clean)",
        "noisy.sum() + robust_dpo_loss(of_clean, label_smoothing=flip)",
    ),
    label_study("the second stage forgets the first", BUDGET, "((weights - centre) ** 2)", "(weights**2)"),
    label_study("a mix is reported on the seeds that chose it", BUDGET, "values[1::2]", "values[::2]"),
    label_study(
        "a clean label costs what a weak one does", BUDGET, "budget - PRICE * clean, clean", "budget - clean, clean"
    ),
    label_study(
        "one answer of a pair moves the policy",
        BILEVEL,
        "weighed.sum(1) @ score + weighed",
        "0 * weighed.sum(1) @ score + weighed",
    ),
    label_study(
        "the part through the policy is left out", BILEVEL, "(direct + through if whole else direct)", "direct"
    ),
    label_study("the reward model is never fitted anew", BILEVEL, "if number % every == 0:", "if False:"),
    label_study(
        "earlier labels are thrown away",
        BILEVEL,
        "tuple(torch.cat(both) for both in zip(known, labelled(policy, PAIRS), strict=True))",
        "labelled(policy, PAIRS)",
    ),
    retrained(
        "retrained study: labels of the beginning alone",
        RETRAINED,
        "preferred(task, policy, task",
        'preferred(task, policies["beginning"], task',
    ),
    retrained(
        "retrained study: earlier labels are forgotten",
        RETRAINED,
        "        pairs += preferred",
        "        pairs.clear()\n        pairs += preferred",
    ),
    retrained("retrained study: the same beginnings are labelled", RETRAINED, "(done, done + every))", "(0, every))"),
    retrained("retrained study: never has fewer labels", RETRAINED, "(done, done + every))", "(done, done + 1))"),
    retrained(
        "retrained study: the worse is chosen",
        "scripts/studies/rounds_against_one.py",
        '"chosen": ordered[i + 2], "rejected": ordered[i]',
        '"chosen": ordered[i], "rejected": ordered[i + 2]',
    ),
    retrained("retrained study: every block begins anew", RETRAINED, '        before = run / "adapter"\n', ""),
    retrained(
        "retrained study: the same answers each round", RETRAINED, '{"seed": 100 * seed + done}', '{"seed": 100 * seed}'
    ),
    retrained("retrained study: the same prompts each round", RETRAINED, "seed + 10 * done", "seed"),
    retrained(
        "retrained study: trained again",
        RETRAINED,
        'if not (run / "adapter").is_dir():\n            words',
        "if True:\n            words",
    ),
    rounds(
        "lists are read from the end",
        "align/recipe/rounds.py",
        "value[min(number, len(value)) - 1]",
        "value[-min(number, len(value))]",
    ),
]

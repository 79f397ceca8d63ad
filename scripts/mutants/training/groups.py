"""Groups of annotators, the max-min policy, and trajectory balance."""

from mutants.mutant import noticed_by

GROUPS, BALANCE = "align/weighting/groups.py", "align/losses/balance.py"
group = noticed_by("tests/weighting/test_groups.py")
EM, texts = "align/annotators/em.py", noticed_by("tests/weighting/test_groups_of_texts.py")
balance = noticed_by("tests/losses/test_balance.py")
experts, EXPERTS = noticed_by("tests/judges/test_experts.py"), "align/judges/experts.py"
MUTANTS = [
    texts("annotators: halves are not compared", GROUPS, "        if alike < ALIKE:", "        if False:"),
    texts("annotators: both sides are one", EM, "[chosen - rejected for chosen, rejected in both]", "[chosen for chosen, rejected in both]"),
    texts("annotators: features are of any size", EM, "x @ directions[:, order] / np.sqrt(values[order])", "x @ directions[:, order]"),
    texts("annotators: everybody trains every model", EM, "        if of[who]\n", "        if of[who] or True\n"),
    texts("annotators: nobody is grouped anew", EM, "(posterior if soft else likeliest)(total, shares)", "(value, shares)"),
    texts("annotators: margins are of the other side", EM, 'found.append([one[text_of(row["chosen"])] - one[text_of(row["rejected"])]', 'found.append([one[text_of(row["rejected"])] - one[text_of(row["chosen"])]'),
    texts("annotators: a prompt keeps the answers of its first pair", EM, "        of |= dict.fromkeys(", "        of = of or dict.fromkeys("),
    texts("annotators: as many directions as there are", EM, "[: min(COMPONENTS, max(2, len(rows) // PAIRS_EACH))]", "[:COMPONENTS]"),
    texts("annotators: finished trainings are done again", EM, 'resume="auto" if place.trained.is_dir() else None', "resume=None"),
    texts("annotators: any method will do", EM, 'if getattr(recipe.train, "dimension", None) != 1:', "if False:"),
    group("groups: EM over pairs", GROUPS, "weights=-np.logaddexp(0, -margin), minlength", "weights=-np.logaddexp(0, -margin) * (np.arange(len(margin)) % 20 == 0), minlength"),
    group("groups: everybody is of the worst group", GROUPS, "np.eye(total.shape[1])[total.argmax(axis=1)]", "np.eye(total.shape[1])[total.argmin(axis=1)]"),
    group("groups: soft is hard", GROUPS, "float(whole.sum()), np.exp(joint - whole)", "float(whole.sum()), np.eye(total.shape[1])[joint.argmax(axis=1)]"),
    group("groups: winners lose", GROUPS, "weights * (1 - p)) - ridge", "weights * -(1 - p)) - ridge"),
    group("groups: few pairs are enough", GROUPS, "FEW_PAIRS, SURE, ALIKE = 10,", "FEW_PAIRS, SURE, ALIKE = 1,"),
    group("groups: nobody is unsure", GROUPS, "    if sure < SURE:", "    if False:"),
    group("groups: chance agreement counts", GROUPS, "(both - expected) / (most - expected)", "both / most"),
    group("max-min: weight goes to the best off", GROUPS, "(middle, high) if slope < 0", "(middle, high) if slope > 0"),
    group("max-min: the dual forgets the reference", GROUPS, "np.logaddexp.reduce(np.log(ref) + weights", "np.logaddexp.reduce(weights"),
    group("max-min: three groups are two", GROUPS, "range(1 if count == 2 else 50)", "range(1)"),
    balance("balance: Z is not taken out", BALANCE, "((m - m.mean(dim=-1, keepdim=True)) ** 2)", "(m**2)"),
    balance("balance: prompts share their Z", BALANCE, "m.mean(dim=-1, keepdim=True)", "m.mean()"),
    balance("balance: the law is forgotten", BALANCE, "return (weights * (m - mean) ** 2).sum(dim=-1)", "return (m**2).mean(dim=-1)"),
    balance("balance: rewards are maximised", BALANCE, "    m = rewards - scores\n", "    m = rewards + scores\n"),
    balance("balance: one sample is enough", BALANCE, 'if rewards.shape[1] < 2:\n        raise ValueError(f"at least two samples', 'if False:\n        raise ValueError(f"at least two samples'),
    experts("experts: the last token is padding", EXPERTS, "if token != pad)", "if True) - 1"),
    experts("experts: one category learns all", EXPERTS, "seen.setdefault(row[CATEGORY], [])", "seen.setdefault(rows[0][CATEGORY], [])"),
    experts("experts: the worse answer is preferred", EXPERTS, "dpo_loss(Pair(*rewards.unbind(1)))", "dpo_loss(Pair(*rewards.flip(1).unbind(1)))"),
    experts("experts: one of them is read", EXPERTS, "return torch.cat(found, dim=1)", "return torch.cat([found[0]] * len(found), dim=1)"),
    experts("experts: any category will do", EXPERTS, "if category not in self.combined:", "if False:"),
    experts("experts: all categories keep the first weights", EXPERTS, 'if k.startswith(f"{number}.")', 'if k.startswith("0.")'),
    experts("experts: the router is not asked", EXPERTS, "if category is None and self.router is not None:", "if False:"),
    experts("experts: the row's category does not count", EXPERTS, "if category is None and self.router is not None:", "if self.router is not None:"),
    experts("experts: the router is of scaled states", EXPERTS, "        router.bias.sub_(router.weight @ mean)\n", "        pass\n"),
    experts("experts: the router is not kept", EXPERTS, 'if f"{ROUTER}weight" in weights:', "if False:"),
    experts("experts: their models are not looked for", EXPERTS, '    for member in told["experts"]:\n        check_preference_model(member, rewards=True)\n', ""),
    experts("experts: their weights are not looked for", EXPERTS, "or not path.with_name(WEIGHTS).is_file()", "or False"),
    experts("experts: a recipe's are looked at when they are loaded", "align/judges/from_recipe.py", "        _told(where, lambda: check_experts(path))\n", ""),
    experts("experts: the command replaces what is there", "align/judges/experts_command.py", "if (options.out / SETTINGS).exists():", "if False:"),
    experts("experts: the command loads before it looks", "align/judges/experts_command.py", "    for folder in options.member:\n", "    for folder in ():\n"),
    texts("annotators: rows are left out in silence", EM, "    say_as_read(told, TRAIN)\n", ""),
    texts("annotators: held-out prompts are trained on", EM, "data = hold_out(data, recipe.data.holdout)[0]", "pass"),
    texts("annotators: a small group is found late", EM, "            if len(of) < LEAST_PAIRS:\n", "            if False:\n"),
    texts("annotators: nobody says that some moved", "align/annotators/command.py", "if moved := found[\"rounds\"][-1].get(\"moved\"):", "if moved := 0:"),
    experts("experts: a member reads a reference", "align/judges/experts_command.py", "[\"reference_column\"]) is not None:", "[\"reference_column\"]) is False:"),
]  # fmt: skip

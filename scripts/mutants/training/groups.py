"""Groups of annotators, the max-min policy, and trajectory balance."""

from mutants.mutant import noticed_by

GROUPS, BALANCE = "align/weighting/groups.py", "align/losses/balance.py"
group = noticed_by("tests/weighting/test_groups.py")
balance = noticed_by("tests/losses/test_balance.py")
MUTANTS = [
    group("groups: EM over pairs", GROUPS, "total = np.stack([np.bincount(annotator, weights=e, minlength=people) for e in each], axis=1)", "total = np.stack([np.bincount(annotator, weights=e * (np.arange(len(e)) % 20 == 0), minlength=people) for e in each], axis=1)"),
    group("groups: everybody is of the worst group", GROUPS, "np.eye(groups)[total.argmax(axis=1)]", "np.eye(groups)[total.argmin(axis=1)]"),
    group("groups: soft is hard", GROUPS, "new = np.exp(joint - np.logaddexp.reduce(joint, axis=1, keepdims=True))", "new = np.eye(groups)[joint.argmax(axis=1)]"),
    group("groups: winners lose", GROUPS, "weights * (1 - p)) - RIDGE", "weights * -(1 - p)) - RIDGE"),
    group("groups: few pairs are enough", GROUPS, "FEW_PAIRS, SURE = 10, 0.95", "FEW_PAIRS, SURE = 1, 0.95"),
    group("groups: nobody is unsure", GROUPS, "    if sure < SURE:", "    if False:"),
    group("groups: chance agreement counts", GROUPS, "(both - expected) / (most - expected)", "both / most"),
    group("max-min: weight goes to the best off", GROUPS, "(middle, high) if slope < 0", "(middle, high) if slope > 0"),
    group("max-min: the dual forgets the reference", GROUPS, "np.logaddexp.reduce(np.log(ref) + weights", "np.logaddexp.reduce(weights"),
    group("max-min: three groups are two", GROUPS, "range(1 if count == 2 else 50)", "range(1)"),
    balance("balance: Z is not taken out", BALANCE, "((m - m.mean(dim=-1, keepdim=True)) ** 2)", "(m**2)"),
    balance("balance: prompts share their Z", BALANCE, "m.mean(dim=-1, keepdim=True)", "m.mean()"),
    balance("balance: the law is forgotten", BALANCE, "return (weights * (m - mean) ** 2).sum(dim=-1)", "return (m**2).mean(dim=-1)"),
    balance("balance: rewards are maximised", BALANCE, "    m = rewards - scores\n", "    m = rewards + scores\n"),
    balance("balance: one sample is enough", BALANCE, "if rewards.shape[1] < 2:", "if False:"),
]  # fmt: skip

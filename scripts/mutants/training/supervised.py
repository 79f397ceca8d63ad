"""Objectives on single completions, their trainer and configuration, and PoFT's scoring pass."""

from mutants.core import COMMON, SETTINGS
from mutants.mutant import noticed_by

LOSSES, CONFIG = "align/losses/tokens.py", "align/configs/supervised.py"
TABLE = "align/losses/token_objectives.py"
TRAINER, BATCH = "align/trainers/completions/supervised.py", "align/trainers/completions/scoring.py"
REFERENCE, HEADS = "align/trainers/shared/reference.py", "align/trainers/shared/scored.py"
ALIGNED, SCORED = "align/scoring/poft_column.py", "align/scoring/completions.py"
loss = noticed_by("tests/losses/test_tokens_losses.py", "tests/losses/test_tokens_ref_kl.py")
kl = noticed_by("tests/losses/test_tokens_ref_kl.py")
config = noticed_by("tests/recipe/test_supervised_config.py")
train = noticed_by("tests/trainers/completions/test_supervised.py")
run = noticed_by("tests/trainers/completions/test_supervised_runs.py")
aligned = noticed_by("tests/scoring/test_supervised_aligned.py")
MUTANTS = [
    loss("supervised: nll is a mean", LOSSES, "    return -sequence_logps(token_logps, completion_mask)\n", "    return -mean_logps(token_logps, completion_mask)\n"),
    loss("supervised: dft's probability is differentiated", LOSSES, "inside.detach().exp() * inside", "inside.exp() * inside"),
    loss("supervised: dft weighs by the log-probability", LOSSES, "inside.detach().exp() * inside", "-inside.detach() * inside"),
    loss("supervised: dft spreads NaN from outside", LOSSES, "    inside = token_logps.masked_fill(~completion_mask, 0.0)\n", "    inside = token_logps\n"),
    loss("supervised: alpha weighs the wanted", LOSSES, "torch.where(unwanted, avoided, nll", "torch.where(~unwanted, avoided, nll"),
    loss("supervised: unlikelihood forgets alpha", LOSSES, "avoided = -alpha * ", "avoided = -"),
    loss("supervised: unlikelihood has a hard clamp", LOSSES, "return value - (logps - exact) / math.expm1(CERTAIN)", "return value"),
    loss("supervised: the tangent's slope is rounded", LOSSES, "/ math.expm1(CERTAIN)", "/ CERTAIN * 2"),
    loss("supervised: unlikelihood in half precision", LOSSES, "if logps.dtype in (torch.bfloat16, torch.float16):\n        logps = logps.float()\n    exact", "exact"),
    loss("supervised: log(1 - p) is plain", LOSSES, "value = log1m_exp(exact)", "value = torch.log(1 - torch.exp(exact))"),
    loss("supervised: rwr's weight has no cap", LOSSES, ".clamp(max=math.log(max_weight)).exp()", ".exp()"),
    loss("supervised: rwr's cap is its logarithm", LOSSES, "clamp(max=math.log(max_weight))", "clamp(max=max_weight)"),
    loss("supervised: rwr forgets its weight", LOSSES, "return rwr_weight(reward, beta=beta, max_weight=max_weight) * nll(token_logps, completion_mask)", "return nll(token_logps, completion_mask)"),
    loss("supervised: rwr multiplies by beta", LOSSES, "(reward / beta).clamp", "(reward * beta).clamp"),
    loss("supervised: poft's sides are swapped", LOSSES, "F.logsigmoid(mean_logps(token_logps, completion_mask) - aligned_logp)", "F.logsigmoid(aligned_logp - mean_logps(token_logps, completion_mask))"),
    loss("supervised: poft takes the sum", LOSSES, "F.logsigmoid(mean_logps(", "F.logsigmoid(sequence_logps("),
    loss("supervised: fsft forgets the value in the reward", LOSSES, "reward = beta * (logps - ref_logps) + value", "reward = beta * (logps - ref_logps)"),
    loss("supervised: fsft forgets the value outside", LOSSES, "    return value - gain\n", "    return -gain\n"),
    loss("supervised: chi squared has another curvature", LOSSES, "reward - reward**2 / 4", "reward - reward**2 / 2"),
    loss("supervised: fsft adds the reference", LOSSES, "beta * (logps - ref_logps)", "beta * (logps + ref_logps)"),
    loss("supervised: a reference that learns is let through", LOSSES, "    if ref_logps.requires_grad:\n", "    if False:\n"),
    kl("supervised: the KL is reversed", LOSSES, "(ref * ref_logp.sub_(logp)).sum(dim=-1)", "(logp.exp() * (logp - ref_logp)).sum(dim=-1)"),
    kl("supervised: the KL's gradient is negated", LOSSES, "logp.exp_().sub_(ref)", "ref.sub_(logp.exp_())"),
    kl("supervised: the KL's gradient is that of the cross-entropy's policy alone", LOSSES, "logp.exp_().sub_(ref)", "logp.exp_()"),
    kl("supervised: the KL ignores the incoming gradient", LOSSES, "slope * gradients[0][:, None]", "slope"),
    kl("supervised: the KL is not chunked", LOSSES, "for start in range(0, len(hidden), chunk):\n                part = slice(start, start + chunk)", "for start in (0,):\n                part = slice(None)"),
    kl("supervised: the KL leaves positions out", LOSSES, "part = slice(start, start + chunk)", "part = slice(start, start + chunk - 1)"),
    kl("supervised: the KL keeps a head that learns", LOSSES, "if weight.requires_grad or ref_hidden.requires_grad:", "if ref_hidden.requires_grad:"),
    kl("supervised: the KL's values are rounded to half", LOSSES, "values = hidden.new_empty(len(hidden), dtype=exact)", "values = hidden.new_empty(len(hidden), dtype=torch.bfloat16)"),
    config("supervised: refusals are not looked at", SETTINGS, "if name in refused and value not in", "if False and value not in"),
    config("supervised: weights may be negative", CONFIG, "not 0 <= weight < math.inf:\n                found.append(f\"objective.", "not weight < math.inf:\n                found.append(f\"objective."),
    config("supervised: fields without their objective are taken", CONFIG, "if objective not in active and getattr", "if False and getattr"),
    config("supervised: columns are not asked for with packing", CONFIG, 'OBJECTIVES[name].per == "sequence" or OBJECTIVES[name].columns', 'OBJECTIVES[name].per == "sequence"'),
    config("supervised: sequences may be packed", CONFIG, 'OBJECTIVES[name].per == "sequence" or OBJECTIVES[name].columns', "OBJECTIVES[name].columns"),
    config("supervised: an objective of weight 0 is computed", CONFIG, "if weight != 0}", "}"),
    config("supervised: numbers in columns are not looked at", BATCH, "in wrong_values(data, columns):", "in ():"),
    config("supervised: missing columns are found by the collator", BATCH, "    if missing:\n", "    if False:\n"),
    config("supervised: full weights are their own reference", BATCH, "        if peft_config is None:\n", "        if False:\n"),
    config("supervised: a head that learns is taken", HEADS, "not isinstance(head, nn.Linear) or head.weight.requires_grad", "not isinstance(head, nn.Module)"),
    config("supervised: capped logits are taken", HEADS, "    if found or head.bias is not None:\n", "    if head.bias is not None:\n"),
    config("supervised: prediction is let through", TRAINER, "        if return_outputs:\n", "        if False:\n"),
    train("supervised: a sequence is divided by the micro-batch", TRAINER, "whole = dict(zip(units, self._in_step, strict=True))", 'whole["token"] = self._in_step[0]'),
    train("supervised: tokens are divided by the micro-batch", TRAINER, "whole = dict(zip(units, self._in_step, strict=True))", 'whole["sequence"] = self._in_step[1]'),
    train("supervised: the Trainer divides by the steps again", TRAINER, "    loss_is_scaled_for_ga = True\n", "    loss_is_scaled_for_ga = False\n"),
    train("supervised: prompts are counted", TRAINER, "sum(int((each[:, 1:] != -100).sum()) for each in labels)", "sum(each[:, 1:].numel() for each in labels)"),
    train("supervised: the unit of an objective is ignored", TRAINER, "whole[OBJECTIVES[name].per].clamp(min=1)", 'whole["token"].clamp(min=1)'),
    train("supervised: weights are ignored", TRAINER, "            self.objective[name] * value.sum() / whole", "            value.sum() / whole"),
    train("supervised: addends are logged unweighted", TRAINER, '(self.objective[n] * v, units', "(v, units"),
    train("supervised: the loss is the Trainer's", TRAINER, "        if addends:\n", "        if False:\n"),
    train("supervised: rewards below the threshold are wanted", TABLE, 'b.columns["reward"] < threshold', 'b.columns["reward"] > threshold'),
    train("supervised: fsft's log-ratio is negated", TABLE, "fsft_divergence: b.logps - b.ref_logps)", "fsft_divergence: b.ref_logps - b.logps)"),
    train("supervised: fsft ignores its divergence", TABLE, "divergence=fsft_divergence", 'divergence="total_variation"'),
    train("supervised: the policy is its own reference", REFERENCE, "        with model.disable_adapter():\n            yield\n        return\n", "        yield\n        return\n"),
    train("supervised: hidden states are one late", BATCH, "seen[0][:, :-1][:, last][mask]", "seen[0][:, 1:][:, last][mask]"),
    train("supervised: rows of the KL are mixed", TABLE, "mask.nonzero()[:, 0], values)", "mask.nonzero()[:, 0] * 0, values)"),
    train("supervised: completions are not masked", BATCH, 'mask = inputs["labels"][:, 1:] != -100', 'mask = inputs["labels"][:, 1:] != -1'),
    train("supervised: the accuracy counts prompts", BATCH, "scored.is_top1 & scored.mask", "scored.is_top1 | ~scored.mask"),
    train("supervised: rows left out are not spoken of", TRAINER, "            if lost:\n", "            if False:\n"),
    run("supervised: the guard sees no loss", TRAINER, "        self.guard.watch(inputs, loss)\n", ""),
    run("supervised: a skipped step is logged", COMMON, "        self.sums.forget_step()\n", "        pass\n"),
    run("supervised: the copy is not of the adapter", REFERENCE, "            copy.data.copy_(parameter.data)\n", ""),
    run("supervised: the reference has dropout", TRAINER, "torch.no_grad(), dropout_off(self.model), as_reference", "torch.no_grad(), as_reference"),
    run("supervised: the base is the reference of a trained adapter", REFERENCE, '    if "ref" not in model.peft_config:\n        with', "    if True:\n        with"),
    run("supervised: the reference stays active", REFERENCE, "        model.set_adapter(active)\n", "        pass\n"),
    run("supervised: grouped lengths start anew", TRAINER, "return SeededLengthSampler(size, lengths, self.args.data_seed or self.args.seed)", "return super()._get_train_sampler(train_dataset)"),
    run("supervised: named evaluations share their keys", COMMON, 'prefix = prefixes[0] if prefixes else "eval"', 'prefix = "eval"'),
    aligned("supervised: aligned models are summed", ALIGNED, "return np.mean(scores, axis=0)", "return np.sum(scores, axis=0)"),
    aligned("supervised: aligned sums over tokens", ALIGNED, ".double().mean().item()", ".double().sum().item()"),
    aligned("supervised: aligned tokens are one late", SCORED, "picked = logps.gather(-1, ids[:, first:]", "picked = logps.roll(-1, 1).gather(-1, ids[:, first:]"),
    aligned("supervised: no end of sequence is scored", SCORED, "prompt + completion + end * (not completion.endswith(end))", "prompt + completion"),
    aligned("supervised: dropout while scoring", ALIGNED, "    model.eval()\n", ""),
    aligned("supervised: rows are scored in order of length and stay so", SCORED, "for i, row in zip(batch, together", "for i, row in zip(range(start, start + len(batch)), together"),
    aligned("supervised: the first token is predicted by nothing", SCORED, "max(common_prefix_length(prompt_ids(tokenizer, prompt), whole), 1)", "common_prefix_length(prompt_ids(tokenizer, prompt), whole)"),
    aligned("supervised: rows are not cut", SCORED, "list(whole[begin:]), max_length)", "list(whole[begin:]), None)"),
]  # fmt: skip

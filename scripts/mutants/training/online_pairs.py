"""Losses and trainer of online pairs: preferences, second answers, half steps, means, checkpoints, refusals."""

from mutants.mutant import Mutant, noticed_by

LOSS, TRAINER = "align/losses/online.py", "align/trainers/online/preference.py"
HALF, SECOND = "align/trainers/online/extragradient.py", "align/trainers/online/second_answers.py"
VERDICTS, CONFIG = "align/trainers/online/verdicts.py", "align/configs/online_preference.py"
RECIPE = "align/recipe/reward_section.py"
HALVES = "tests/trainers/online/test_half_steps.py"
PAIRS, TABLES = "tests/trainers/online/test_online_pairs.py", "tests/losses/test_online_losses.py"
by_hand = noticed_by(f"{TABLES}::test_a_pair_by_hand")
certain = noticed_by(f"{TABLES}::test_a_label_that_is_certain_is_the_loss_of_that_label")
drawn = noticed_by(f"{TABLES}::test_labels_are_preferences_draws_or_the_likelier_side")
nash = noticed_by(f"{TABLES}::test_nash_md_rests_against_the_mixture")
table = noticed_by(f"{TABLES}::test_egpo_goes_another_way_than_mirror_descent_which_cycles")
bits = noticed_by(f"{TABLES}::test_weights_moments_counts_and_rates_are_put_back_to_the_bit")
moments = noticed_by(f"{TABLES}::test_the_optimizers_state_is_put_back")
verdicts = noticed_by("tests/trainers/online/test_verdicts.py")
second = noticed_by("tests/trainers/online/test_second_answers.py")
config = noticed_by("tests/recipe/test_online_preference_config.py")


def run(name, file=PAIRS):
    return noticed_by(f"{file}::test_{name}")


accumulated = run("accumulation_changes_nothing")
half_point = run("only_the_answers_of_a_step_come_from_the_half_point", HALVES)
same_step = run("a_half_step_is_the_step_that_would_be_taken", HALVES)
finite = run("a_half_step_that_is_not_finite_is_left_out", HALVES)
resumed = run("a_resumed_run_repeats_everything_to_the_bit")
equal = run("equal_answers_are_not_judged_and_tie")
failing = run("a_scorer_that_fails_is_counted_and_at_last_refused")
together = run("both_answers_of_a_pair_stay_together_and_the_judge_is_heard")
evaluated = run("an_evaluation_samples_pairs_too_and_takes_no_half_step", HALVES)
refused = run("what_cannot_be_meant_is_refused")
unscored = run("an_unscored_pair_is_as_if_it_were_not_there")

balance, BALANCE = noticed_by("tests/losses/test_balance.py"), "align/losses/balance.py"
WEIGHTS, CONTROL = "align/trainers/online/prompt_weights.py", "align/data/prompts/control.py"
weighed = noticed_by("tests/trainers/online/test_prompt_weights.py")
MUTANTS: list[Mutant] = [
    weighed("prompt weights: all steps draw the same", WEIGHTS, "[self.seed, step, prompt]", "[self.seed, prompt]"),
    weighed("prompt weights: the law is uniform always", WEIGHTS, "[self.concentration] * len", "[1.0] * len"),
    weighed("prompt weights: rewards read them", TRAINER, "(args[0], self._told.asked, *args[2:])", "args"),
    weighed("prompt weights: answers are compared evenly", WEIGHTS, "return every[::2]", "return torch.full_like(every[::2], 0.5)"),
    weighed("prompt weights: tenths are cut", CONTROL, "    for k in order[: 10 - sum(floors)]:", "    for k in order[:0]:"),
    weighed("prompt weights: nothing asks for them", "align/sampling/preferred.py", "    if weighed:\n", "    if False:\n"),
    weighed("prompt weights: verdicts mix pairs", VERDICTS, "weights.to(table).unsqueeze(-2)", "weights.to(table).flip(0).unsqueeze(-2)"),
    balance("balance: pairs are turned", "align/losses/objectives.py", "torch.stack(r, dim=1), torch.stack(b.scores, dim=1)", "torch.stack(r, dim=1), torch.stack(b.scores[::-1], dim=1)"),
    balance("order: one answer is enough", BALANCE, 'if rewards.shape[1] < 2:\n        raise ValueError(f"at least two answers', 'if False:\n        raise ValueError(f"at least two answers'),
    balance("order: the softmax is missing", BALANCE, "target * rewards.log_softmax(dim=-1)", "target * rewards"),
    balance("order: a front of the absent", "align/weighting/ranks.py", "(fronts(points, present) == 0) & present", "fronts(points, present) == 0"),
    balance("order: two on a front weigh twice", "align/weighting/ranks.py", "first / first.sum(dim=1, keepdim=True).clamp(min=1)", "first"),
    verdicts("order: the second answer's share", VERDICTS, "dtype=torch.bool))[:, 0].where", "dtype=torch.bool))[:, 1].where"),
    verdicts("order: silent rewards are numbers", VERDICTS, "points = table.masked_fill(~both[:, None], 0.0)", "points = table"),
    verdicts("order: a sum decides", VERDICTS, 'if by == "dominance":', "if False:"),
    config("order: weights that nobody reads", CONFIG, 'if self.preferred_by == "dominance":', "if False:"),
    by_hand("online pairs: one order alone", LOSS, "+ (1 - preference) * back.components[name]", ""),
    by_hand("online pairs: the margin column not turned", LOSS, '{"margin": -told["margin"]', '{"margin": told["margin"]'),
    by_hand("online pairs: scores not turned", LOSS, '{"chosen_reward": second, "rejected_reward": first}', '{"chosen_reward": first, "rejected_reward": second}'),
    by_hand("online pairs: optimism on the first answer", LOSS, "optimism_loss(batch.policy.rejected", "optimism_loss(batch.policy.chosen"),
    by_hand("online pairs: optimism raises", LOSS, "return alpha * second", "return -alpha * second"),
    certain("online pairs: answers not turned", LOSS, "(Pair(pair.rejected, pair.chosen) for", "(Pair(pair.chosen, pair.rejected) for"),
    drawn("online pairs: a draw is the preference", LOSS, 'if label == "sampled":', 'if label == "drawn":'),
    drawn("online pairs: a tie is a win", LOSS, "torch.sign(preference - 0.5)", "torch.sign(preference - 0.499)"),
    by_hand("nash-md: preference from 0", LOSS, "(preference - 0.5 - beta", "(preference - beta"),
    nash("nash-md: the bracket has a gradient", LOSS, "policy.detach() - ref", "policy - ref"),
    nash("nash-md: no pull", LOSS, "- beta * (policy.detach() - ref)", ""),
    table("egpo: weights stay at the half point", HALF, "parameter.copy_(before)", "before.copy_(parameter)"),
    moments("egpo: moments stay", HALF, "optimizer.state.clear()", "state = dict(optimizer.state)"),
    bits("egpo: moments are a view", HALF, "return value.clone() if isinstance(value, Tensor)", "return value if isinstance(value, Tensor)"),
    bits("egpo: state of a first step stays", HALF, "        optimizer.state.clear()\n", ""),
    bits("egpo: the rate stays", HALF, "            group.update(before)\n", ""),
    bits("egpo: new settings of a group stay", HALF, "                del group[name]\n", "                pass\n"),
    bits("egpo: gradients stay", HALF, "                parameter.grad = None\n", ""),
    half_point("egpo: no half step", HALF, "            optimizer.step()\n        else:", "            pass\n        else:"),
    same_step("egpo: half step not clipped", HALF, "if trainer.args.max_grad_norm:", "if False:"),
    finite("egpo: a half step into nothing", HALF, "if wrong is None:", "if True:"),
    half_point("egpo: second answers from the old point", TRAINER, "until_sampled.enter_context(half_step(self, batches))", "None"),
    evaluated("egpo: a half step in evaluation", TRAINER, "if training and self.args.extragradient:", "if self.args.extragradient:"),
    accumulated("online pairs: divided by the micro-batch", TRAINER, '/ inputs["verdicts"].clamp(min=1)', '/ inputs["given"].sum().clamp(min=1)'),
    unscored("online pairs: unscored pairs are ties", TRAINER, 'result.losses.masked_fill(~inputs["given"], 0.0).sum()', "result.losses.sum()"),
    resumed("online pairs: rewards forget", "align/trainers/online/rewards.py", "            function.load_state_dict(state[name])\n", "            pass\n"),
    together("online pairs: the other side", TRAINER, "Pair(*logps.unbind(1)), Pair(*inputs[\"ref_logps\"].unbind(1))", "Pair(*logps.flip(1).unbind(1)), Pair(*inputs[\"ref_logps\"].flip(1).unbind(1))")._replace(tests=(f"{PAIRS}::test_the_loss_is_trls_online_dpo_on_the_same_answers",)),
    failing("online pairs: silence goes on", TRAINER, "if self._silent == SILENT:", "if False:"),
    failing("online pairs: not counted", TRAINER, "float((~verdicts.given).sum())", "0.0"),
    refused("online pairs: nothing compares", TRAINER, "if empty and scorer is None:", "if False:"),
    refused("online pairs: two compare", TRAINER, "elif not empty and scorer is not None:", "elif False:"),
    refused("online pairs: aux unread", TRAINER, "aux = [self.columns.names[place] for place in self.columns.aux]", "aux = []"),
    equal("online pairs: equal answers are judged", VERDICTS, "if one != other]", "]"),
    verdicts("online pairs: one reward alone compares", VERDICTS, " & (there[:, 0] == there[:, 1]).all(dim=1)", ""),
    verdicts("online pairs: rewards without weights", VERDICTS, "(table * weights.to(table).unsqueeze(-2))", "(table * 1)"),
    verdicts("online pairs: columns of another row", VERDICTS, "values[2 * index] for name", "values[index] for name"),
    verdicts("online pairs: reasons lost", VERDICTS, "self.reasons.update(", "list("),
    second("mixture: shares exchanged", SECOND, "self.share * said.logits[:, -1].to(scores) + (1 - self.share) * scores", "(1 - self.share) * said.logits[:, -1].to(scores) + self.share * scores"),
    second("mixture: padding is read", SECOND, "attention_mask=self.mask,", "attention_mask=torch.ones_like(self.mask),"),
    second("mixture: positions stand still", SECOND, ".clamp(min=0)[:, -new.size(1) :]", ".clamp(min=0)[:, : new.size(1)]"),
    second("mixture: the adapter stays on", SECOND, "inside = as_reference(self.reference) if isinstance(self.reference, PeftModel) else contextlib.nullcontext()", "inside = contextlib.nullcontext()"),
    second("mixture: generate stays patched", "align/sampling/prompt_cache.py", "            del model.generate  #", "            pass  #"),
    second("xpo: the policy answers twice", SECOND, "with as_reference(trainer.accelerator.unwrap_model(trainer.model)):", "if True:"),
    second("xpo: the policy's whole model answers twice", SECOND, "policy, trainer.model_wrapped = trainer.model_wrapped, trainer.ref_model", "policy = trainer.model_wrapped"),
    second("second answers first", TRAINER, "for pair in zip(own, others, strict=True)", "for pair in zip(others, own, strict=True)"),
    second("optimism everywhere", TRAINER, 'args.optimism if args.second == "reference" else 0.0', "args.optimism"),
    config("online pairs: odd batches", CONFIG, "if getattr(self, name) % 2:", "if False:"),
    config("online pairs: several steps on one batch", CONFIG, "if self.steps_per_generation != self.gradient_accumulation_steps:", "if False:"),
    config("online pairs: half steps on shards", CONFIG, "if self._sharded():", "if self.deepspeed or self.fsdp:"),
    config("online pairs: settings that nobody reads", CONFIG, "if self.second != who and", "if False and"),
    config("online pairs: GRPO's settings", CONFIG, "not_honoured(self, _REFUSED, also=", "not_honoured(self, {}, also="),
    config("judge: beside rewards", RECIPE, 'elif tree.values.get("rewards") is not None:', "elif False:"),
    config("judge: the policy itself", RECIPE, "made.path == POLICY", "made.path == None"),
    config("judge: for every method", RECIPE, "if method is not None and not method.takes_a_judge:", "if False:"),
]  # fmt: skip

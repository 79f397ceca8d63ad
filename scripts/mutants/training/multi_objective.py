"""Advantage estimators and trainers with several objectives."""

from collections.abc import Callable

from mutants.core import SETTINGS
from mutants.mutant import Mutant, noticed_by

ADV, TRAINER = "align/weighting/advantages.py", "align/trainers/online/objectives.py"
SHARED, STREAM = "align/weighting/estimator.py", "align/weighting/single_stream.py"
KINDS = "align/trainers/online/multi_objective.py"
GRAD, COLUMNS = "align/trainers/online/gradients.py", "align/trainers/online/rewards.py"
CONFIG, GENERATION = "align/configs/online.py", "align/configs/generation.py"
estimator = noticed_by("tests/weighting/test_advantages.py")
config = noticed_by("tests/recipe/test_online_configs.py")


def gradient(test: str) -> Callable[[str, str, str, str], Mutant]:
    return noticed_by(f"tests/trainers/online/test_objective_gradients.py::test_{test}")


def run(test: str) -> Callable[[str, str, str, str], Mutant]:
    return noticed_by(f"tests/trainers/online/test_multi_objective.py::test_{test}")


backward = gradient("backward_leaves_the_weighted_sum_of_the_objectives_gradients")
last_layer = gradient("gradients_of_the_last_layer_only")
halves = gradient("halves_are_inner_products_across_the_halves_of_the_prompts")
unlogged = gradient("passes_for_the_weights_are_not_logged")
own_weights = gradient("weights_of_a_batch_are_those_of_its_own_gradients")
lagged = gradient("lagged_weights_are_those_of_the_batch_before")
every_second = gradient("a_rule_may_be_asked_at_every_second_generation")
of_advantages = gradient("the_gram_of_advantages_needs_no_backward_pass")
tokens = gradient("a_token_mask_keeps_the_first_tokens_and_a_share_of_the_rest")
masked = gradient("masked_tokens_are_not_learnt_from")
rloo = run("fixed_weights_with_leave_one_out_are_trls_rloo_with_its_kl_penalty")
scale = run("scale_multiplies_advantages_that_were_standardised")
combine = run("a_rule_may_combine_in_its_own_way")
factor = run("a_factor_on_rewards_is_lost_under_std_and_said_so")
told = run("rules_are_told_means_without_missing_rewards_and_the_step")
evaluations = run("rules_are_told_of_evaluations_and_rewards_that_it_is_one")
resumed = run("a_resumed_run_repeats_weights_and_losses_to_the_bit")
another_rule = run("a_checkpoint_of_another_rule_or_of_one_objective_is_refused")
auxiliary = run("an_auxiliary_column_is_no_objective")
prompts = run("prompts_are_remembered_from_epoch_to_epoch_by_what_they_say")
published = gradient("gradients_as_published_are_clipped_over_the_model_after_their_sum_and_then_cut_to_layers")
MUTANTS = [
    config("generation: any settings", CONFIG, "generated_otherwise(trl, self) + ", ""),
    config("generation: any settings of vLLM", CONFIG, " + unread_by_vllm(self)", ""),
    config("generation: vLLM's settings without it", GENERATION, "    if not config.use_vllm:\n", "    if False:\n"),
    config("generation: modes of vLLM are swapped", GENERATION, 'if config.vllm_mode == "server"', 'if config.vllm_mode != "server"'),
    config("generation: fields have other names", GENERATION, "refused = {name: f", "refused = {field: f"),
    config("generation: several answers", GENERATION, " | BROKEN", ""),
    config("generation: words of vLLM", GENERATION, "refused |= OF_TRANSFORMERS | {", "refused |= {"),
    noticed_by("tests/trainers/windows/test_truncated.py")(
        "generation: windows may have a least length", GENERATION, '    refused |= getattr(config, "not_generated", {})\n', ""
    ),
    run("rewards_standardised_as_trl_does_are_trls_grpo_too")("online: gdpo does not scale the sum", TRAINER, "if self.estimator.scales_sum else learnt", "if False else learnt"),
    run("rewards_standardised_as_trl_does_are_trls_grpo_too")("online: gdpo scales what has no reward too", COLUMNS, "learnt.where(scored, torch.nan)[:, None]", "learnt[:, None] + 1.0 * ~scored[:, None]"),
    published("published: layers are taken before clipping", GRAD, '"all") if as_published else kept', '"all") if False else kept'),
    published("published: means over micro-batches are clipped", GRAD, "(squares.sqrt() * scale + CLIP_EPS)", "(squares.sqrt() * scale / len(batches) + CLIP_EPS)"),
    published("published: means over micro-batches", GRAD, "torch.outer(clipped, clipped) * len(batches) ** 2", "torch.outer(clipped, clipped)"),
    published("published: short gradients are lengthened", GRAD, ".clamp(max=1.0)\n        gram", "\n        gram"),
    published("published: the penalty is left out", GRAD, "losses = losses + (loss - losses.sum())", "losses = losses + 0 * loss"),
    gradient("influence_as_published_takes_its_gradients_as_they_come")("published: layers are clipped again", "align/weighting/gradient_rules.py", "inner if self.as_published else normalised", "inner if False else normalised"),
    gradient("layers_may_be_named_from_the_first_to_the_last")("online: layers are those before the last named", GRAD, "first <= number <= last", "first <= number < last"),
    gradient("layers_may_be_named_from_the_first_to_the_last")("online: layers may be named backwards", "align/configs/common.py", "int(first) <= int(last)", "True"),
    noticed_by("tests/trainers/online/test_multi_objective.py")("online: standardised before weighting whatever is asked", TRAINER, "if not self.estimator.after_weighting:", "if True:"),
    noticed_by("tests/trainers/online/test_multi_objective.py")("online: a reward that does not apply makes the sum none", "align/trainers/online/rewards.py", "(rewards * weights).nansum(dim=1)", "(rewards * weights).sum(dim=1)"),
    estimator("online: missing rewards count as 0", SHARED, "count = empty.index_add(0, segments, present.to(rewards.dtype))", "count = empty.index_add(0, segments, torch.ones_like(rewards))"),
    estimator("online: the variance is biased", SHARED, "/ (count - 1.0).clamp(min=1.0)\n    return", "/ count.clamp(min=1.0)\n    return"),
    estimator("online: a missing reward has an advantage", SHARED, "centred = (rewards - mean[segments]).where(present, 0.0)", "centred = rewards.where(present, 0.0) - mean[segments]"),
    estimator("online: group scale is the batch's", ADV, 'group.std if self.scale == "group" else', 'group.std if self.scale == "batch" else'),
    estimator("online: scale is not added to", SHARED, "centred / (std + EPS)", "centred / std"),
    estimator("online: leave-one-out leaves none out", ADV, "group.centred * group.number / (group.number - 1.0).clamp(min=1.0)", "group.centred"),
    estimator("online: the running baseline is the batch's", ADV, "centred = (rewards - known).nan_to_num(nan=0.0)", "centred = batch_of(rewards).centred"),
    estimator("online: the running baseline forgets at once", ADV, "self.decay * known + (1.0 - self.decay) * mean", "(1.0 - self.decay) * known + self.decay * mean * 0"),
    estimator("online: a missing mean is averaged in", ADV, "torch.where(mean.isnan(), known, self.decay * known", "torch.where(mean.isinf(), known, self.decay * known"),
    estimator("online: the running baseline is not saved", ADV, '{"running": self.running}', '{"running": None}'),
    estimator("online: strata reach over prompts", ADV, "torch.stack([group.to(rewards), aux", "torch.stack([0 * group.to(rewards), aux"),
    estimator("online: the blend is reversed", ADV, "self.alpha * terms[0] + (1.0 - self.alpha) * terms[1]", "self.alpha * terms[1] + (1.0 - self.alpha) * terms[0]"),
    estimator("online: the value is taken after the update", STREAM, "gained = rewards - values", "gained = rewards - torch.stack([self.table[p][0] / self.table[p].sum(dim=0) for p in prompts])"),
    estimator("online: the table does not fade", STREAM, "after = rho * counts", "after = counts"),
    estimator("online: failures are not counted", STREAM, "torch.stack([reward, 1.0 - reward])", "torch.stack([reward, 0.0 * reward])"),
    estimator("online: a missing reward makes the table NaN", STREAM, "after.where(~reward.isnan(), counts)", "after"),
    estimator("online: any reward is a share", STREAM, "if len(wrong):", "if False:"),
    estimator("online: the table is not saved", STREAM, '"prompts": list(self.table)', '"prompts": []'),
    estimator("online: ranks reward the dominated", ADV, "ranked = moments((-ranks)", "ranked = moments((ranks)"),
    estimator("online: to dominate is to be better everywhere", "align/weighting/ranks.py", "(above >= below).all(dim=-1)", "(above > below).all(dim=-1)"),
    estimator("online: ranks stop at the second front", "align/weighting/ranks.py", "while bool(left.any()):", "for _ in range(2):"),
    estimator("online: unscored completions are ranked", ADV, "(-ranks).where(scored, torch.nan)", "-ranks"),
    estimator("online: a scale-free estimator does not say so", ADV, 'self.scale_free = scale != "none"\n        one_of', 'self.scale_free = False\n        one_of'),
    backward("online: rows are not followed through the shuffle", TRAINER, 'learnt[batch["row"].cpu()]', 'learnt[batch["row"].sort().values.cpu()]'),
    backward("online: gradients are of other rows", GRAD, 'columns[batch["row"].cpu()]', 'columns[batch["row"].sort().values.cpu()]'),
    backward("online: one micro-batch is enough", GRAD, "for batch in batches:", "for batch in batches[:1]:"),
    backward("online: losses are not divided by the steps", GRAD, "(scale / len(batches)) ** 2", "1.0"),
    backward("online: RLOO's losses are taken as divided", GRAD, "if trainer.loss_is_scaled_for_ga else 1", "if True else 1"),
    last_layer("online: gradients of all layers", GRAD, "if number in there]", "]"),
    last_layer("online: gradients of the first layers", GRAD, "there[-layers:]", "there[:layers]"),
    halves("online: halves are not scaled to the batch", GRAD, "/ (share * (1.0 - share))", "* 4"),
    halves("online: halves share their prompts", GRAD, "second = (prompts % 2).to(advantages)", "second = (torch.arange(len(advantages)) % 2).to(advantages)"),
    halves("online: halves are not averaged", GRAD, "(cross + cross.T) / 2", "cross"),
    halves("online: the whole Gram is one half's", GRAD, "blocks.sum(dim=(0, 2))", "blocks[0, :, 0]"),
    unlogged("online: passes for weights are logged", GRAD, "with metrics_aside(trainer), trainer", "with trainer"),
    own_weights("online: weights of a batch are those before", TRAINER, 'now if self.args.weighting_timing == "lagged" else updated', "now"),
    lagged("online: lagged weights are not", TRAINER, 'now if self.args.weighting_timing == "lagged" else updated', "updated"),
    every_second("online: every generation is due", TRAINER, "return generations(self) % self.args.gradient_every == 0", "return True"),
    of_advantages("online: the gram of advantages is a sum", GRAD, "advantages.T @ advantages / len(advantages)", "advantages.T @ advantages"),
    tokens("online: first tokens are drawn too", GRAD, "drawn[:, :always] = True", "pass"),
    masked("online: the token mask is not used", GRAD, "advantages if mask is None else advantages[:, None] * mask", "advantages"),
    rloo("online: RLOO's KL penalty is dropped", TRAINER, "learnt = learnt + self._penalty", "pass"),
    rloo("online: the KL penalty has another baseline", KINDS, "ours = LeaveOneOut()(total[:, None], group_size=self.num_generations, aux={})[:, 0]", "ours = total - total.mean()"),
    scale("online: scale is ignored", TRAINER, "learnt = now.scale * self._comb", "learnt = self._comb"),
    combine("online: combine is ours", TRAINER, "self.rule.combine(advantages, weights)", "(advantages @ weights.double())"),
    factor("online: the factor on rewards is ignored", TRAINER, "self.estimator(rewards * factor,", "self.estimator(rewards,"),
    factor("online: a lost factor is not told", TRAINER, "factor != 1.0 and self.estimator.scale_free", "False and self.estimator.scale_free"),
    told("online: means take missing rewards as NaN", TRAINER, "means = rewards.nanmean(dim=0)", "means = rewards.mean(dim=0)"),
    evaluations("online: evaluations are not heard of", TRAINER, "self.trainer.evaluation = torch.tensor(means, dtype=torch.float64)", "pass"),
    evaluations("online: rewards do not know of evaluations", "align/trainers/online/shared_prompts.py", "self.columns.switch(training=self.model.training)", "pass"),
    resumed("online: the rule is not restored", TRAINER, 'self.rule.load_state_dict(state["rule"])', "pass"),
    resumed("online: the weights are not restored", TRAINER, 'self.weighting = Weighting(**state["weighting"])', "pass"),
    resumed("online: the estimator is not restored", TRAINER, 'self.estimator.load_state_dict(state["estimator"])', "pass"),
    resumed("online: reward functions are not restored", "align/trainers/online/shared_prompts.py", "self.columns.load(folder, self.args.process_index)", "pass"),
    another_rule("online: any checkpoint will do", TRAINER, 'if state["made_of"] != self._made_of():', "if False:"),
    auxiliary("online: auxiliary columns are objectives", COLUMNS, "if i not in self.aux]", "]"),
    auxiliary("online: auxiliary columns are logged", TRAINER, 'for statistic in ("mean", "std"):', "for statistic in ():"),
    prompts("online: prompts collide", STREAM, "json.dumps(prompt, sort_keys=True)", "str(len(prompt))"),
    config("online: refused fields are ignored", SETTINGS, "if name in refused and value not in", "if False and value not in"),
    config("online: fields of gradients are ignored", CONFIG, "for name, default in _OF_GRADIENTS.items():", "for name, default in ():"),
    config("online: FSDP is let through", CONFIG, 'or _set("ACCELERATE_USE_FSDP")', ""),
    config("online: ZeRO-3 is let through", CONFIG, '"zero_stage", 0) == 3', '"zero_stage", 0) == 4'),
    config("online: adaptive entropy is let through", CONFIG, 'if getattr(self, "use_adaptive_entropy", False):', "if False:"),
    config("online: the trainer does not ask", TRAINER, "problems = args.problems_with(self.rule)", "problems = []"),
    config("online: one prompt makes two halves", CONFIG, "is True and prompts == 1", "is True and prompts == 0"),
    config("online: stale weights are not told", TRAINER, "later = args.num_iterations > 1 or", "later = False and"),
    config("online: infinite rewards are let through", COLUMNS, "if infinite:", "if False:"),
    config("online: two names alike", COLUMNS, "if doubled:", "if False:"),
    config("online: a stream of several answers", STREAM, "only_one = True", "only_one = False"),
    config("online: one answer where the method has none", SHARED, "if answers == 1 and not one_allowed:", "if False:"),
    config("online: one answer is left to TRL", SHARED, "(answers != 1 or not one_allowed)", "answers != 1"),
    config("online: one completion becomes two", CONFIG, "        if single:\n            trl.num_generations = 1\n", ""),
    noticed_by("tests/trainers/distributed/test_multi_objective_ddp.py")("online: gradients of each process alone", GRAD, 'trainer.accelerator.reduce(total, "mean")', "total"),
    noticed_by("tests/trainers/online/test_online.py")("online: infinite rewards are learnt from", COLUMNS, "        if infinite:\n", "        if False:\n"),
    noticed_by("tests/trainers/online/test_online.py")("online: rewards of one name are one", "align/trainers/online/shared_prompts.py", "        raise_problems(self.columns.problems())\n", ""),
    noticed_by("tests/trainers/online/test_online.py")("online: any checkpoint holds what rewards remember", COLUMNS, "        state = read_part(folder / f\"rewards_{process}.pt\", told)\n", "        state = {}\n"),
    run("a_reward_model_stays_one_where_the_estimator_brings_columns")("online: one tokenizer of one model is not the list of them", TRAINER, "own = classes if isinstance(classes, list) else [classes]", "own = classes if isinstance(classes, list) else []"),
]  # fmt: skip

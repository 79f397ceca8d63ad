"""f-DPG: pseudo-rewards and weights, Z, baseline, means, and what a checkpoint holds."""

from mutants.mutant import Mutant, noticed_by

LOSS, TRAINER = "align/losses/matching.py", "align/trainers/online/matching.py"
CONFIG = "align/configs/own_losses.py"
TABLES, TESTS = "tests/losses/test_matching.py", "tests/trainers/online/test_matching.py"
exact = noticed_by(f"{TABLES}::test_the_gradient_is_that_of_the_divergence_whatever_samples_and_whatever_constant")
hand = noticed_by(f"{TABLES}::test_pseudo_rewards_by_hand")
z = noticed_by(f"{TABLES}::test_z_is_the_mean_over_all_samples_of_a_prompt")
ends = noticed_by(f"{TABLES}::test_extremes_are_finite")
gradient = noticed_by(f"{TESTS}::test_the_gradient_is_that_of_the_pseudo_rewards")
gathered = noticed_by(f"{TESTS}::test_z_gathers_over_steps_and_the_baseline_is_of_batches_before")
resumed = noticed_by(f"{TESTS}::test_a_resumed_run_repeats_everything_to_the_bit")
weighed = noticed_by(f"{TESTS}::test_samples_of_an_earlier_policy_are_weighed_again")
refused = noticed_by(f"{TESTS}::test_what_cannot_be_meant_is_refused")
MUTANTS: list[Mutant] = [
    exact("matching: the law that sampled is passed over", LOSS, "weight = (held - sampled)", "weight = 0 * (held - sampled)"),
    exact("matching: away from the target", LOSS, "return -weight *", "return weight *"),
    exact("matching: the reward has a gradient", LOSS, "pseudo_reward(held - target", "pseudo_reward(policy - target"),
    hand("matching: total variation is whole", LOSS, "return -0.5 * torch.sign", "return -torch.sign"),
    hand("matching: a reward is a penalty", LOSS, "return -divergence(name)(log_ratio)", "return divergence(name)(log_ratio)"),
    ends("matching: weights grow without bound", LOSS, ".clamp(max=EXACT_RANGE)", ""),
    z("matching: Z is a sum", LOSS, "[total - math.log(count) for", "[total for"),
    z("matching: Z forgets", LOSS, "total, count = self.sums.get(prompt, (-math.inf, 0))", "total, count = -math.inf, 0"),
    z("matching: Z of large scores overflows", LOSS, "high = max(total, estimate)", "high = 0.0"),
    gradient("matching: Z without the sampling law", TRAINER, "(score - sampled)[counted]", "score[counted]"),
    gradient("matching: the reference is left out", TRAINER, "score = ref + self._total", "score = self._total"),
    gradient("matching: beta multiplies", TRAINER, "self._total.nan_to_num() / self.args.beta", "self._total.nan_to_num() * self.args.beta"),
    gradient("matching: prompts without rewards count", TRAINER, "(counts > 0).sum().clamp(min=1)", "len(counts)"),
    gradient("matching: what has no reward is learnt", TRAINER, "given = ~self._total.isnan()", "given = torch.ones_like(self._total).bool()"),
    gathered("matching: no baseline", TRAINER, "float(self.seen.window.mean()) if len(self.seen.window) else 0.0", "0.0"),
    gathered("matching: the window has no end", TRAINER, "[-self.args.baseline_window :]", ""),
    gathered("matching: an evaluation is remembered", TRAINER, "self.seen.normalisers if self.model.training else copy.deepcopy(self.seen.normalisers)", "self.seen.normalisers"),
    gathered("matching: an evaluation moves the baseline", TRAINER, "if self.model.training and self.args.baseline_window:", "if self.args.baseline_window:"),
    resumed("matching: Z is not restored", TRAINER, "self.seen.normalisers.sums = {bytes.fromhex(prompt): (total, count) for prompt, total, count in state[\"sums\"]}", "pass"),
    resumed("matching: the baseline is not restored", TRAINER, 'self.seen.window = state["window"]', "pass"),
    weighed("matching: padding is scored", TRAINER, 'sequence_logps(logps.float(), inputs["completion_mask"].bool())', "logps.float().nan_to_num().sum(dim=1) - 0.0 * logps.float().nan_to_num()[:, 0] * 2 - 1.0"),
    refused("matching: no pull", CONFIG, "if self.beta == 0:", "if False:"),
    refused("matching: any divergence", CONFIG, "if self.divergence not in MATCHED:", "if False:"),
    refused("matching: samples of another law", CONFIG, "found = not_honoured(self, _LAW) + super", "found = super"),
]  # fmt: skip

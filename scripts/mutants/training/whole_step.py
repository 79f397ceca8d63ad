"""Losses that depend on a whole step: optimal transport, and DPO with a dynamic beta."""

from mutants.mutant import noticed_by

LOSSES, TRAINER, CONFIG = (
    "align/losses/whole_step.py",
    "align/trainers/pairs/whole_step.py",
    "align/configs/whole_step.py",
)
formula = noticed_by("tests/losses/test_whole_step_losses.py")
trained = noticed_by("tests/trainers/pairs/test_whole_step.py")

MUTANTS = [
    formula("aot: the order is taken for the ranks", LOSSES, "values.argsort(stable=True).argsort()", "values.argsort(stable=True)"),
    formula("aot: ranks among the unsorted", LOSSES, "torch.searchsorted(among.sort().values, values", "torch.searchsorted(among, values"),
    formula("aot: the largest of a set has no partner", LOSSES, ".clamp(max=len(others) - 1)", ".clamp(max=len(others))"),
    formula("aot: the reference above the policy", LOSSES, "dpo_loss(Pair(gap, partner)", "dpo_loss(Pair(partner, gap)"),
    formula("aot: no smoothing of the matched", LOSSES, "return dpo_loss(Pair(gap, partner), label_smoothing=label_smoothing)", "return dpo_loss(Pair(gap, partner))"),
    formula("aot: unpaired gradients halved", LOSSES, "return both - both.detach() / 2", "return both / 2"),
    formula("aot: unpaired losses doubled", LOSSES, "return both - both.detach() / 2", "return both"),
    formula("aot: only the chosen side is matched", LOSSES, "    both = won + lost", "    both = won + won"),
    formula("beta-dpo: beta falls where pairs are told apart", LOSSES, "(gap - moving_mean))", "(moving_mean - gap))"),
    formula("beta-dpo: no floor", LOSSES, "return LEAST_BETA if found < LEAST_BETA else found", "return found"),
    formula("beta-dpo: what is not a number is the floor", LOSSES, "return LEAST_BETA if found < LEAST_BETA else found", "return found if found > LEAST_BETA else LEAST_BETA"),
    formula("beta-dpo: beta of the chosen alone", LOSSES, "beta * log_ratio.rejected))", "log_ratio.rejected))"),
    formula("beta-dpo: a beta with a gradient", LOSSES, "    if beta.requires_grad:", "    if False:"),
    trained("whole step: what was found goes to other pairs", TRAINER, "here = slice(at, at + len(values))", "here = slice(0, len(values))"),
    trained("whole step: parts in another order", TRAINER, "found[part.to(found.device)] = values", "found[part.flip(0).to(found.device)] = values"),
    noticed_by("tests/trainers/test_reference.py")("whole step: the first step looks at values that are kept", TRAINER, "kept = inputs if stored else", "kept = inputs if True else"),
    noticed_by("tests/trainers/pairs/test_pairwise_invariance.py::test_two_processes_equal_one")("whole step: every process takes the first's pairs", TRAINER, "at = self.accelerator.process_index * len(own)", "at = 0"),
    trained("aot: an evaluation matches within its batches", TRAINER, "if not self.model.training and self._of_set is not None:", "if False:"),
    trained("aot: unpaired takes its own side", TRAINER, '"rejected": (chosen, rejected)}', '"rejected": (rejected, chosen)}'),
    trained("aot: smoothing is refused", CONFIG, 'if name != "label_smoothing"}', 'if name != ""}'),
    trained("aot: a step of one pair", CONFIG, "* made.world_size < 2:", "* made.world_size < 1:"),
    formula("beta-dpo filter: pairs far from usual are kept", LOSSES, "(gumbel - away * away / 2)", "(gumbel + away * away / 2)"),
    formula("beta-dpo filter: no chance", LOSSES, "(gumbel - away * away / 2)", "(-away * away / 2)"),
    formula("beta-dpo filter: the deviation is not squared", LOSSES, "away * away / 2", "away.abs() / 2"),
    formula("beta-dpo filter: chance by place", LOSSES, ".to(gaps.device)[ranks]", ".to(gaps.device)"),
    formula("beta-dpo filter: weights are not scaled", LOSSES, "len(gaps) / kept)", "1.0)"),
    formula("beta-dpo filter: a step may lose all pairs", LOSSES, "max(1, math.floor(len(gaps) * (1 - ratio) + 1e-9))", "math.floor(len(gaps) * (1 - ratio) + 1e-9)"),
    formula("beta-dpo filter: no floor of the deviation", LOSSES, "max(moving_deviation, 1e-6)", "moving_deviation"),
    trained("beta-dpo filter: beta of all pairs", TRAINER, "gap = float((weights * gaps).mean())", "gap = float(gaps.mean())"),
    trained("beta-dpo filter: nothing is left out", TRAINER, "losses = weights * beta_dpo_loss(ratio, beta)", "losses = beta_dpo_loss(ratio, beta)"),
    trained("beta-dpo filter: every step draws the same", TRAINER, "1_000_003 * self.args.seed + self.state.global_step", "self.args.seed"),
    trained("beta-dpo filter: the deviation is the step's", TRAINER, "self.decay * self.deviation + (1 - self.decay) * deviation", "deviation"),
    trained("beta-dpo: the moving mean forgets at once", TRAINER, "self.decay * self.mean + (1 - self.decay) * gap", "gap"),
    trained("beta-dpo: a resumed run forgets the mean", "align/trainers/shared/metrics.py", "        if saved:", "        if False:"),
    trained("beta-dpo: a skipped step counts", TRAINER, "        self.moving.forget_step()", "        pass"),
    noticed_by("tests/check/test_dry_run.py")("whole step: the prediction leaves the look out", "align/commands/dry_run.py", "if look is None else look([dict(batch)])", "if True else look([dict(batch)])"),
]  # fmt: skip

"""T-PPO: advantages of windows, which tokens teach what, the head beside the policy, and answers that go on."""

from mutants.mutant import Mutant, noticed_by

GAE, LOSS, CONFIG = "align/weighting/truncated.py", "align/losses/online.py", "align/configs/own_losses.py"
TRAINER, SLOTS = "align/trainers/windows/truncated.py", "align/trainers/windows/slots.py"
VALUES, GUARD, ALARMS = (
    "align/trainers/completions/values.py",
    "align/trainers/shared/guard.py",
    "align/trainers/shared/alarms.py",
)
CHAINS, TESTS, GOING = (
    "tests/weighting/test_truncated.py",
    "tests/trainers/windows/test_truncated.py",
    "tests/trainers/windows/test_going_on.py",
)
hand = noticed_by(f"{CHAINS}::test_chains_by_hand")
rows = noticed_by(f"{CHAINS}::test_windows_lie_anywhere_and_rows_do_not_feel_each_other")
clipped = noticed_by(f"{TESTS}::test_the_clipped_loss_by_hand")
finite = noticed_by(f"{TESTS}::test_tokens_far_from_likely_and_padding_give_finite_gradients")
schedule = noticed_by(f"{TESTS}::test_a_step_learns_from_its_window_and_from_whole_answers_that_end_in_it")
measured = noticed_by(f"{TESTS}::test_advantages_and_returns_are_those_of_each_answer_by_itself")
gradients = noticed_by(f"{TESTS}::test_gradients_are_those_of_plain_logits_and_states")
refused = noticed_by(f"{TESTS}::test_the_paths_that_have_no_windows_are_refused")
parts = noticed_by(f"{GOING}::test_accumulation_changes_nothing")
resumed = noticed_by(f"{GOING}::test_a_resumed_run_goes_on_with_the_answers_under_way_to_the_bit")
going = noticed_by(f"{GOING}::test_answers_go_on_from_what_was_written_and_an_evaluation_answers_whole")
alone = noticed_by(f"{GOING}::test_the_head_is_trained_alone_first")
unscored = noticed_by(f"{GOING}::test_an_answer_without_a_reward_teaches_nothing_and_one_that_goes_on_is_not_scored")
given_up = noticed_by(f"{GOING}::test_answers_that_cannot_go_on_are_given_up")
guarded = noticed_by(f"{GOING}::test_a_value_loss_that_is_not_finite_skips_the_step")
both = noticed_by("tests/trainers/distributed/test_answers_ddp.py")
MUTANTS: list[Mutant] = [
    hand("windows: a cut ends", GAE, "value.masked_fill(finished, 0.0)", "torch.zeros_like(value)"),
    hand("windows: an end goes on", GAE, "value.masked_fill(finished, 0.0)", "value"),
    hand("windows: lambda is 1", GAE, "gamma * lam * after", "gamma * after"),
    hand("windows: the next value is not discounted", GAE, "+ gamma * following - value", "+ following - value"),
    hand("windows: errors are not discounted", GAE, "gamma * lam * after", "lam * after"),
    rows("windows: advantages leave the window", GAE, ".masked_fill(~inside, 0.0)", ""),
    rows("windows: the value after a window counts", GAE, "following.where(later, value", "following.where(torch.ones_like(later), value"),
    clipped("windows: no clipping", LOSS, "ratio.clamp(1 - epsilon, 1 + epsilon_high) * advantages", "ratio * advantages"),
    clipped("windows: one epsilon", LOSS, "1 + epsilon_high)", "1 + epsilon)"),
    clipped("windows: the larger of both", LOSS, "-torch.minimum(ratio", "-torch.maximum(ratio"),
    finite("windows: ratios without bounds", LOSS, ".clamp(-LOG_RATIO, LOG_RATIO).exp()", ".exp()"),
    finite("windows: what is outside is scored", TRAINER, "losses.masked_fill(~window, 0.0).sum()", "losses.sum()"),
    schedule("windows: the head learns from windows", TRAINER, "taught = said & (finished", "taught = window & (finished"),
    schedule("windows: the head learns from what goes on", TRAINER, "said & (finished & ~self._total.isnan())[:, None]", "said & (~self._total.isnan() | True)[:, None]"),
    schedule("windows: all that was written is learnt from", TRAINER, "window = said & (torch", "window = said | (torch"),
    measured("windows: values are read after their tokens", TRAINER, "states[:, -mask.size(1) - 1 : -1][mask]", "states[:, -mask.size(1) :][mask]"),
    measured("windows: dropout is measured", TRAINER, "torch.no_grad(), dropout_off(self.model)", "torch.no_grad()"),
    measured("windows: every token is rewarded", TRAINER, "rewards = last * self", "rewards = 1.0 * self"),
    measured("windows: the reference attracts", TRAINER, "- self.args.beta * drift", "+ self.args.beta * drift"),
    measured("windows: returns fade by lambda", TRAINER, "finished, gamma=gamma, lam=1.0", "finished, gamma=gamma, lam=lam"),
    parts("windows: micro-batches read the first rows", TRAINER, "output[name][start : start + size] for", "output[name][:size] for"),
    gradients("windows: a mean over answers", TRAINER, '/ inputs["window_tokens"]\n        return share', "/ len(window)\n        return share"),
    gradients("windows: the head learns window by window", TRAINER, 'inputs["value_tokens"] / share', 'inputs["window_tokens"] / share'),
    gradients("windows: a step without an end moves the head", TRAINER, 'if not int(inputs["value_tokens"]):', "if False:"),
    parts("windows: each micro-batch is the batch", TRAINER, 'inputs["value_tokens"] / share', 'taught.sum().clamp(min=1) / share'),
    resumed("windows: answers under way are lost", TRAINER, "self.slots.load_state_dict(held, str(folder), longest=longest)", "held"),
    given_up("windows: answers as long as may be go on", SLOTS, "len(held[1]) >= longest or ", ""),
    given_up("windows: answers to rows that are gone go on", SLOTS, "row < len(self.data) and ", ""),
    given_up("windows: answers to other prompts go on", SLOTS, ' and self.data[row]["prompt"] == prompt', ""),
    given_up("windows: what is given up is not told", SLOTS, "        if given_up:\n", "        if False:\n"),
    resumed("windows: the head is lost", TRAINER, "self.values.load_state_dict(read_part(", "str(read_part("),
    resumed("windows: prompts begin again", SLOTS, 'given_up = state["taken"], list', "given_up = 0, list"),
    resumed("windows: other places", SLOTS, 'if len(state["held"]) != len(self.held):', "if False:"),
    going("windows: the answer so far is not read", TRAINER, "asked = [[*prompt, *tokens] for", "asked = [list(prompt) for"),
    going("windows: whole answers", TRAINER, "config.max_new_tokens, self.args.window_length", "config.max_new_tokens, config.max_new_tokens"),
    going("windows: an evaluation has windows", TRAINER, "            config.max_new_tokens = longest\n", "            pass\n"),
    going("windows: too long by a window", SLOTS, "more[: longest - len(tokens)]", "more"),
    going("windows: an end goes on for ever", SLOTS, "len(tokens) >= longest or tokens[-1] in ends", "len(tokens) >= longest"),
    going("windows: places are kept", TRAINER, "self.slots.free(self._finished)", "self.slots.free([False] * len(self._finished))"),
    going("windows: every place has the same prompt", SLOTS, "                self.taken += 1\n", ""),
    going("windows: never shuffled", SLOTS, "if not self.shuffle:", "if True:"),
    alone("windows: the policy begins at once", TRAINER, "if self.state.global_step < self.args.critic_warmup:", "if False:"),
    alone("windows: a step without gradients ends the run", GUARD, " if gradients else []", ""),
    unscored("windows: what goes on is scored", TRAINER, "chosen = order[:most]", "chosen = order"),
    unscored("windows: no reward is 0", TRAINER, "advantages.masked_fill((finished & self._total.isnan())[:, None], 0.0)", "advantages.masked_fill(~window, 0.0)"),
    guarded("windows: a lost value loss passes", TRAINER, "return loss + 0.0 * errors", "return loss"),
    guarded("windows: a skipped step teaches the head", TRAINER, "        self.values.forget()\n", "        pass\n"),
    refused("windows: two batches in a step", CONFIG, "if steps is None or steps % parts:", "if False:"),
    refused("windows: several answers", CONFIG, "if self.num_generations != 1:", "if False:"),
    refused("windows: longer than answers", CONFIG, "not 1 <= self.window_length <= longest", "not 1 <= self.window_length"),
    refused("windows: settings without use pass", CONFIG, "found = not_honoured(self, _WINDOWS) + super", "found = super"),
    refused("windows: streamed data", TRAINER, "if isinstance(train_dataset, IterableDataset):", "if False:"),
    refused("windows: pictures", TRAINER, "if images := image_columns(train_dataset):", "if images := []:"),
    both("windows: processes take the same prompts", SLOTS, "first = process * len(self.held)", "first = 0"),
    both("windows: rewards of the first process", TRAINER, "self._total = total[first : first + number]", "self._total = total[:number]"),
    both("windows: a mean of each process", TRAINER, "counts: Any = self.accelerator.reduce(torch.stack([each.float() for each in sums]).to(device))", "counts = torch.stack([each.float() for each in sums]).to(device)"),
]  # fmt: skip

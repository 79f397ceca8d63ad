"""HPT: the gate, what is taken out of GRPO's loss, and the demonstrations' mean."""

from mutants.mutant import Mutant, noticed_by

TRAINER, CONFIG, COLUMNS = "align/trainers/online/hpt.py", "align/configs/hpt.py", "align/trainers/shared/columns.py"
TESTS = "tests/trainers/online/test_hpt.py"


def run(name):
    return noticed_by(f"{TESTS}::test_{name}")


gate = run("prompts_are_unsolved_up_to_the_gate_and_unknown_ones_are_left")
gradient = run("the_gradient_is_grpos_and_that_of_the_demonstrations_likelihood")
left_out = run("completions_of_unsolved_prompts_are_in_no_term")
accumulated = run("accumulation_changes_nothing")
steps = run("steps_on_one_batch_of_completions_have_gradients_of_its_size")
solved = run("where_all_is_solved_it_is_grpo")
refused = run("settings_that_cannot_be_meant_are_refused")
texts = run("data_without_demonstrations_are_refused")
finite = run("a_demonstration_that_is_far_from_likely_gives_a_finite_loss")
MUTANTS: list[Mutant] = [
    gate("hpt: a right completion is above 1", TRAINER, "(grouped >= 1.0)", "(grouped > 1.0)"),
    gate("hpt: almost right is right", TRAINER, "(grouped >= 1.0)", "(grouped >= 0.5)"),
    gate("hpt: the gate is closed at its number", TRAINER, "<= gate)", "< gate)"),
    gate("hpt: what is not scored is unsolved", TRAINER, " & ~grouped.isnan().all(dim=1)", ""),
    gradient("hpt: demonstrations replace nobody", TRAINER, "shown = given_up & (own % self.num_generations == 0)", "shown = given_up"),
    gradient("hpt: every prompt shows one", TRAINER, "shown = given_up & (own %", "shown = (own %"),
    gradient("hpt: no weight", TRAINER, "self.args.demonstration_weight * self._likelihood", "self._likelihood"),
    gradient("hpt: the prompt is learnt too", TRAINER, "answers.append(nothing if ids is None else torch.tensor(ids[begin:]))", "answers.append(nothing if ids is None else torch.tensor(ids[1:]))"),
    gradient("hpt: a mean over demonstrations", TRAINER, 'tokens: Any = self.accelerator.reduce((made["shown_answer_mask"] * shown[:, None]).sum())', "tokens: Any = self.accelerator.reduce(shown.sum())"),
    gradient("hpt: tokens of nothing count", TRAINER, '(made["shown_answer_mask"] * shown[:, None])', '(made["shown_answer_mask"])'),
    left_out("hpt: unsolved completions stay", TRAINER, '* ~given_up[:, None]', ""),
    accumulated("hpt: nothing stands for a demonstration", TRAINER, "-(logps * shown[rows]).sum()", "-logps.sum()"),
    steps("hpt: each micro-batch weighs its own", TRAINER, "return share * share_of_step(self)", "return share"),
    accumulated("hpt: the log has one micro-batch", TRAINER, "float(every) * self.args.steps_per_generation", "float(every)"),
    solved("hpt: solved prompts are left out", TRAINER, "given_up = unsolved[", "given_up = ~unsolved["),
    finite("hpt: pulled away", TRAINER, "share = -(logps", "share = (logps"),
    refused("hpt: the gate may leave nothing", CONFIG, "0 <= self.gate < (", "0 <= self.gate <= ("),
    refused("hpt: demonstrations for nothing", CONFIG, "0 < self.demonstration_weight", "0 <= self.demonstration_weight"),
    texts("hpt: a missing column is found later", COLUMNS, "if column not in train.column_names:", "if False:"),
    texts("hpt: an empty demonstration", COLUMNS, "if not isinstance(value, str) or not value:", "if not isinstance(value, str):"),
]  # fmt: skip

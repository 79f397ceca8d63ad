"""T-SPMO: the tree, the mean over pairs and prompts, and what the trainer makes of it."""

from mutants.mutant import Mutant, noticed_by

TREE, TRAINER = "align/weighting/prefixes.py", "align/trainers/online/prefixes.py"
CONFIG, SHARED = "align/configs/own_losses.py", "align/trainers/online/single_answers.py"
TREES, TESTS = "tests/weighting/test_prefixes.py", "tests/trainers/online/test_prefixes.py"
hand = noticed_by(f"{TREES}::test_a_tree_by_hand")
nothing = noticed_by(f"{TREES}::test_what_is_cut_equal_or_not_scored_is_in_no_pair")
gradient = noticed_by(f"{TESTS}::test_the_gradient_is_that_of_the_objective")
steps = noticed_by(f"{TESTS}::test_steps_on_one_batch_have_gradients_of_its_size_and_resume_to_the_bit")
finite = noticed_by(f"{TESTS}::test_tokens_far_from_likely_and_padding_give_finite_gradients")
evaluated = noticed_by(f"{TESTS}::test_an_evaluation_has_its_own_groups")
refused = noticed_by(f"{TESTS}::test_what_cannot_be_meant_is_refused")
MUTANTS: list[Mutant] = [
    hand("prefixes: against everyone", TREE, "others = (total - own) / (len(everyone) - len(members))", "others = total / len(everyone)"),
    hand("prefixes: the root alone", TREE, "prefixes.append((depth + 1, members))", "pass"),
    hand("prefixes: members count each", TREE, "advantage / len(members) / len(found)", "advantage / len(found)"),
    hand("prefixes: a sum over pairs", TREE, "/ len(members) / len(found)", "/ len(members)"),
    nothing("prefixes: no reward is a reward", TREE, "if not math.isnan(reward)]", "]"),
    nothing("prefixes: an end goes on otherwise", TREE, "if len(members) < len(everyone):", "if len(members) < len(rows) and len(everyone) > len(members) - 1:"),
    gradient("prefixes: prompts add up", TRAINER, "[value / len(pairs) for value in row]", "[value for value in row]"),
    gradient("prefixes: the log-probability", TRAINER, ".float().exp()", ".float()"),
    gradient("prefixes: learnt away", TRAINER, "share = -(probable", "share = (probable"),
    steps("prefixes: a step has a part of the mean", TRAINER, "share * (share_of_step(self) if self.model.training else 1.0)", "share"),
    finite("prefixes: padding is scored", TRAINER, 'logps.masked_fill(inputs["completion_mask"] == 0, 0.0)', "logps"),
    evaluated("prefixes: groups of training", SHARED, "self.num_generations if self.model.training else self.num_generations_eval", "self.num_generations"),
    refused("prefixes: a reference without use", CONFIG, "if self.beta != 0:", "if False:"),
    refused("prefixes: what is cut is masked", CONFIG, "if self.mask_truncated_completions:", "if False:"),
    refused("own losses: GRPO's settings pass", CONFIG, "return not_honoured(self, refused, also", "return [] and not_honoured(self, refused, also"),
]  # fmt: skip

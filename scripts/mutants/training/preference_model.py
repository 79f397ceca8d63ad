"""Preference and reward models: the score, the trainer, what is saved, the template, and scorers."""

from mutants.mutant import Mutant, noticed_by

from mutants.core import COMMON, SETTINGS

LOSS, CONFIG, TEMPLATE = (
    "align/losses/general_preference.py",
    "align/configs/preference_model.py",
    "align/data/prompts/polar.py",
)
TRAINER, MODEL, SCORERS = (
    "align/trainers/preference_model.py",
    "align/models/preference_model.py",
    "align/judges/scorers.py",
)
pure, scorer = noticed_by("tests/models/test_preference_model.py"), noticed_by("tests/judges/test_scorers.py")


def trainer(test: str, name: str, file: str, old: str, new: str) -> Mutant:
    return noticed_by(f"tests/trainers/test_preference_model_trainer.py::test_{test}")(name, file, old, new)


def saved(test: str, name: str, file: str, old: str, new: str) -> Mutant:
    return noticed_by(f"tests/models/test_preference_model_saved.py::test_{test}")(name, file, old, new)


MUTANTS = [
    pure("gpm: the score is symmetric", LOSS, "second[..., 1::2] - first[..., 1::2]", "second[..., 1::2] + first[..., 1::2]"),
    pure("gpm: the score is turned round", LOSS, "first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]", "first[..., 1::2] * second[..., 0::2] - first[..., 0::2] * second[..., 1::2]"),
    pure("gpm: halves are taken for blocks", LOSS, "first[..., 0::2] * second[..., 1::2] - first[..., 1::2] * second[..., 0::2]", "first[..., : d // 2] * second[..., d // 2 :] - first[..., d // 2 :] * second[..., : d // 2]"),
    pure("gpm: one block only", LOSS, "return blocks.sum(dim=-1)", "return blocks[..., 0]"),
    pure("gpm: scales are ignored", LOSS, "return (scales * blocks).sum(dim=-1)", "return blocks.sum(dim=-1)"),
    pure("gpm: scales of any number", LOSS, "if scales.size(-1) != d // 2:", "if False:"),
    pure("gpm: scales of rewards are ignored", LOSS, "if scales is not None:", "if False:"),
    pure("gpm: rewards are added", LOSS, "(first - second).squeeze(-1)", "(first + second).squeeze(-1)"),
    pure("gpm: odd dimensions", LOSS, "d < 2 or d % 2", "d < 2"),
    pure("gpm: no dimension", LOSS, "d < 2 or d % 2", "d % 2"),
    pure("gpm: the loss of the other answer", LOSS, "return -F.logsigmoid((scores - margin) / tau)", "return -F.logsigmoid((margin - scores) / tau)"),
    pure("gpm: the margin helps", LOSS, "(scores - margin) / tau", "(scores + margin) / tau"),
    pure("gpm: the margin is outside of tau", LOSS, "(scores - margin) / tau", "scores / tau - margin"),
    pure("gpm: tau multiplies the loss", LOSS, "(scores - margin) / tau", "(scores - margin) * tau"),
    pure("gpm: tau multiplies the probability", LOSS, "F.sigmoid(scores / tau)", "F.sigmoid(scores * tau)"),
    pure("gpm: a loss that overflows", LOSS, "-F.logsigmoid((scores - margin) / tau)", "-F.sigmoid((scores - margin) / tau).log()"),
    pure("gpm: tau may be nothing", LOSS, "if not tau > 0:", "if tau < 0:"),
    pure("gpm: tau may be infinite", CONFIG, "0 < self.tau < math.inf", "0 < self.tau"),
    pure("gpm: refused fields pass", SETTINGS, "if name in refused and value not in", "if False and value not in"),
    pure("gpm: embeddings may be centred", CONFIG, "if center is not None and self.dimension != 1:", "if False:"),
    pure("gpm: one column for two things", CONFIG, "self.margin_column == self.reference_column", "False"),
    pure("gpm: no lengths to sort by", CONFIG, '("group_by_length", "batch_rebalance")', "()"),
    pure("gpm: tokens may be missing later", CONFIG, 'template.endswith((".jinja", ".j2"))', "template"),
    pure("gpm: the margin's column is not asked for", CONFIG, "return () if self.margin_column is None else (self.margin_column,)", "return ()"),
    pure("gpm: the reference comes second", TEMPLATE, """{asked}\\n{_plain(reference, 'reference')}{SPLIT}{asked}\\n""", """{asked}\\n{SPLIT}{asked}\\n{_plain(reference, 'reference')}"""),
    pure("gpm: the prompt is not repeated", TEMPLATE, "{SPLIT}{asked}\\n", "{SPLIT}"),
    pure("gpm: sides of the template swapped", TEMPLATE, '"chosen": polar_answer(chosen, "chosen")', '"chosen": polar_answer(rejected, "chosen")'),
    pure("gpm: markers in texts", TEMPLATE, "if marker.strip() in text:", "if False:"),
    pure("gpm: empty parts of the template", TEMPLATE, "if not text.strip():", "if False:"),
    trainer("five_steps_of_a_reward_model_are_trls", "gpm: chosen and rejected swapped", TRAINER, "chosen, rejected = outputs.logits", "rejected, chosen = outputs.logits"),
    trainer("a_margin_asks_for_more_and_a_temperature_divides", "gpm: the trainer forgets tau", TRAINER, "general_preference_loss(scores, tau=self.args.tau,", "general_preference_loss(scores,"),
    trainer("a_margin_asks_for_more_and_a_temperature_divides", "gpm: the trainer forgets the margin", TRAINER, ', margin=inputs.get("margin", 0.0))', ")"),
    trainer("accumulated_batches_take_the_same_steps", "gpm: the trainer does not average", TRAINER, "loss = losses.mean()", "loss = losses.sum()"),
    trainer("five_steps_of_a_reward_model_are_trls", "gpm: centred on the difference", TRAINER, "(rewards.chosen + rewards.rejected) ** 2", "(rewards.chosen - rewards.rejected) ** 2"),
    trainer("five_steps_of_a_reward_model_are_trls", "gpm: the centre is only logged", TRAINER, "losses = preference + center", "losses = preference"),
    trainer("a_probability_is_that_of_the_model", "gpm: probability without tau", TRAINER, 'preference_probability(scores, tau=self.args.tau)}', "preference_probability(scores)}"),
    trainer("a_tie_counts_one_half_and_costs_log_two", "gpm: a tie counts nothing", TRAINER, "accuracy(Pair(scores, torch.zeros_like(scores)))", "(scores > 0).float()"),
    trainer("padding_on_either_side_does_not_matter", "gpm: padding is read as text", TRAINER, 'attention_mask=mask, use_cache=False', "use_cache=False"),
    trainer("five_steps_of_a_reward_model_are_trls", "gpm: tokens are counted once", TRAINER, "tokens.chosen + tokens.rejected", "tokens.chosen"),
    trainer("metrics_do_not_depend_on_the_size_of_eval_batches", "gpm: metrics of the last batch of an evaluation", TRAINER, '"train" if self.model.training else "eval", self', '"train", self'),
    trainer("metrics_do_not_depend_on_the_size_of_eval_batches", "gpm: evaluations share their keys", COMMON, 'prefix = prefixes[0] if prefixes else "eval"', 'prefix = "eval"'),
    trainer("a_step_that_is_not_finite_is_skipped_and_not_logged", "gpm: the guard sleeps", TRAINER, "self.guard.watch(inputs, loss)", "pass"),
    trainer("a_step_that_is_not_finite_is_skipped_and_not_logged", "gpm: a skipped step is logged", COMMON, "self.sums.forget_step()", "pass"),
    trainer("a_step_that_is_not_finite_is_skipped_and_not_logged", "gpm: skipped steps are not told", COMMON, 'logs["skipped_steps"] = self.guard.skipped', "pass"),
    trainer("pairs_that_are_too_long_are_told_and_none_left_is_an_error", "gpm: no pair is left", TRAINER, "if len(prepared) == 0:", "if False:"),
    trainer("pairs_that_are_too_long_are_told_and_none_left_is_an_error", "gpm: pairs are left out without a word", TRAINER, 'logger.warning("%s: %s and are left out", dataset_name, longer)', "pass"),
    trainer("the_template_of_a_reference_is_what_the_model_reads", "gpm: the reference is not read", TRAINER, "return dataset.map(polar_row, input_columns=parts, remove_columns=parts)", "return dataset"),
    saved("the_head_is_trained_and_saved_with_the_adapter", "gpm: the adapter keeps no head", TRAINER, 'peft_config.task_type = "SEQ_CLS"', "pass"),
    saved("what_would_be_ignored_or_cannot_be_trained_is_refused", "gpm: the head is not asked about", TRAINER, 'if not any(p.requires_grad', 'if not any(True'),
    saved("what_would_be_ignored_or_cannot_be_trained_is_refused", "gpm: a head of low rank passes", TRAINER, ' and "lora_" not in name', ""),
    saved("what_would_be_ignored_or_cannot_be_trained_is_refused", "gpm: the head has other outputs", TRAINER, "if model.config.num_labels != args.dimension:", "if False:"),
    saved("the_head_is_trained_and_saved_with_the_adapter", "gpm: one label for good", TRAINER, "config.id2label, config.label2id = before", "pass"),
    saved("what_would_be_ignored_or_cannot_be_trained_is_refused", "gpm: a margin that is not asked for", TRAINER, 'if "margin" in names and margin != "margin"', 'if "margin" in names and False'),
    saved("what_would_be_ignored_or_cannot_be_trained_is_refused", "gpm: a margin that is not there", TRAINER, 'elif margin is not None and "margin" not in names:', "elif False:"),
    saved("other_configurations_and_metrics_that_would_not_run_are_refused", "gpm: metrics are computed by nobody", TRAINER, "if compute_metrics is not None:", "if False:"),
    saved("what_would_be_ignored_or_cannot_be_trained_is_refused", "gpm: dropout is switched off", TRAINER, "refuse_silent_dropout(config, args.disable_dropout, where)", "pass"),
    saved("what_was_saved_scores_the_same_to_the_bit", "gpm: tau is not saved", TRAINER, "tau=self.args.tau,\n                reference", "tau=1.0,\n                reference"),
    saved("the_scorer_reads_what_the_trainer_read", "gpm: the reference is not saved", TRAINER, "reference_column=self.args.reference_column", "reference_column=None"),
    saved("a_base_in_bfloat16_is_loaded_in_bfloat16", "gpm: precision is not saved", MODEL, 'str(model.get_input_embeddings().weight.dtype).removeprefix("torch.")', '"float32"'),
    saved("a_whole_model_takes_no_base_and_needs_its_head", "gpm: the head may be missing", MODEL, "new=HEADS if new_head else ()", "new=HEADS"),
    saved("a_new_adapter_goes_on_a_name", "gpm: the head's seed is forgotten", MODEL, "torch.default_generator.manual_seed(seed)", "torch.default_generator.manual_seed(0)"),
    saved("a_whole_model_takes_no_base_and_needs_its_head", "gpm: a base that is ignored", MODEL, "elif base is not None:", "elif False:"),
    saved("damaged_settings_are_refused", "gpm: damaged settings", MODEL, "not isinstance(found[name], kind)", "False"),
    saved("what_was_saved_scores_the_same_to_the_bit", "gpm: dropout while judging", MODEL, "PreferenceModel(model.eval(),", "PreferenceModel(model.train(),"),
    saved("the_scorer_reads_what_the_trainer_read", "gpm: no end of the sequence", MODEL, "answer + tokenizer.eos_token)", "answer)"),
    saved("padding_is_that_of_the_saved_tokenizer", "gpm: padding is not known", MODEL, "model.config.get_text_config().pad_token_id = tokenizer.pad_token_id", "pass"),
    scorer("gpm: the judge forgets tau", MODEL, "preference_probability(scores, tau=self.tau)", "preference_probability(scores)"),
    scorer("gpm: the judge is turned round", MODEL, "general_preference_scores(v[:, None], v[None, :])", "general_preference_scores(v[None, :], v[:, None])"),
    scorer("gpm: rewards of embeddings", MODEL, "if self.dimension != 1:", "if False:"),
    scorer("gpm: no reference is asked for", MODEL, "if columns.get(self.reference_column) is None:", "if False:"),
    scorer("gpm: rewards are turned round", SCORERS, "margin = rewards[:, None] - rewards[None, :]", "margin = rewards[None, :] - rewards[:, None]"),
    scorer("gpm: temperature multiplies", SCORERS, "-margin / self.temperature", "-margin * self.temperature"),
    scorer("gpm: certainty has no ties", SCORERS, "return (1 + np.sign(margin)) / 2", "return (margin > 0).astype(float)"),
    scorer("gpm: overflow is an error", SCORERS, 'np.errstate(over="ignore")', "np.errstate()"),
    scorer("gpm: rewards may be missing", SCORERS, "not np.isfinite(rewards).all()", "False"),
    scorer("gpm: too many rewards", SCORERS, "rewards.shape != (k,) or ", ""),
    scorer("gpm: columns do not travel", SCORERS, "completions=completions, **each)", "completions=completions)"),
    scorer("gpm: messages are handed over as text", SCORERS, "answer if plain else", "answer if True else"),
    scorer("gpm: negative temperatures", SCORERS, "if not 0 <= temperature < np.inf:", "if False:"),
    scorer("gpm: noise flips one side", SCORERS, "*sorted((one, other))))", "one, other))"),
    scorer("gpm: noise is the same for all seeds", SCORERS, "repr((self.seed, ", "repr((0, "),
    scorer("gpm: noise is the same for all prompts", SCORERS, "_as_values(prompt), ", ""),
    scorer("gpm: noise goes by the order of keys", SCORERS, "[sorted(message.items()) for message in prompt]", "[dict(message) for message in prompt]"),
    scorer("gpm: noise flips the others", SCORERS, "self._draw(prompt, one, other) < self.flip", "self._draw(prompt, one, other) >= self.flip"),
    scorer("gpm: any table will do", SCORERS, "check_matrix(self.table, len(names))", "pass"),
    scorer("gpm: sums are not looked at", SCORERS, "if apart > 1e-9:", "if False:"),
    scorer("gpm: negative probabilities", SCORERS, "if not (matrix >= 0).all():", "if False:"),
    scorer("gpm: the table is looked up transposed", SCORERS, "return self.table[np.ix_(rows, rows)]", "return self.table.T[np.ix_(rows, rows)]"),
    scorer("gpm: names occur twice", SCORERS, "if len(self.index) != len(names):", "if False:"),
]  # fmt: skip

"""KTO: its loss, and a baseline and a mean that are those of the whole optimizer step."""

from mutants.mutant import noticed_by

LOSSES, TRAINER, CONFIG = "align/losses/unpaired.py", "align/trainers/completions/kto.py", "align/configs/kto.py"
formula = noticed_by("tests/losses/test_unpaired_losses.py")
trained = noticed_by("tests/trainers/completions/test_kto.py")

MUTANTS = [
    formula("kto: desirable answers pushed away", LOSSES, "torch.sigmoid(baseline - rewards)", "torch.sigmoid(rewards - baseline)"),
    formula("kto: no baseline for the undesirable", LOSSES, "undesirable_weight * torch.sigmoid(rewards - baseline)", "undesirable_weight * torch.sigmoid(rewards)"),
    formula("kto: weight of the desirable for all", LOSSES, "undesirable_weight * torch", "desirable_weight * torch"),
    formula("kto: a negative baseline", LOSSES, "(total / rows.clamp(min=1)).clamp(min=0)", "total / rows.clamp(min=1)"),
    formula("kto: the baseline a sum", LOSSES, "(total / rows.clamp(min=1)).clamp(min=0)", "total.clamp(min=0)"),
    formula("kto: classes weighed by their size", LOSSES, "larger / desirable, larger / undesirable", "larger / undesirable, larger / desirable"),
    trained("kto: mean over the micro-batch", TRAINER, "return shares * losses.sum() / rows", "return shares * losses.mean()"),
    trained("kto: baseline without beta", TRAINER, "return self.beta * (self._scores(self.model, inputs, \"KL_\")", "return (self._scores(self.model, inputs, \"KL_\")"),
    trained("kto: mismatched within a micro-batch", TRAINER, "steps.per_device_train_batch_size = args.rows_per_step()", "steps.per_device_train_batch_size = args.per_device_train_batch_size"),
    trained("kto: a lone row is its own mismatch", TRAINER, "len(made) % args.rows_per_step() == 1", "len(made) % args.rows_per_step() == -1"),
    trained("kto: pairs in runs of one label", TRAINER, 'if dataset_name == "train" and args.shuffle_rows', 'if dataset_name == "train" and not args.shuffle_rows'),
    trained("kto: weights of the data ignored", TRAINER, 'if args.class_weights == "data":', "if False:"),
    trained("kto: any order is taken", CONFIG, 'self.train_sampling_strategy != "sequential":', "False:"),
]  # fmt: skip

"""KTO and BCO: their losses, and a baseline and a mean that are those of the whole optimizer step."""

from mutants.mutant import noticed_by

LOSSES, TRAINER, CONFIG = "align/losses/unpaired.py", "align/trainers/completions/kto.py", "align/configs/kto.py"
formula = noticed_by("tests/losses/test_unpaired_losses.py")
AUDIT, ESTIMATES = "align/data/audit/labels.py", "eval/pairs/labels.py"
labels = noticed_by("tests/data/rows/test_labels.py")
measured = noticed_by("tests/evaluation/measures/test_labels.py")
recipes = noticed_by("tests/trainers/completions/test_kto_recipes.py")
stored = noticed_by("tests/trainers/completions/test_kto_store.py")
trained = noticed_by("tests/trainers/completions/test_kto.py")
METRICS = "align/trainers/shared/metrics.py"
RATIO, odds = "align/scoring/density_ratio.py", noticed_by("tests/scoring/test_density_ratio.py")
BCO, classifier = "align/trainers/completions/bco.py", noticed_by("tests/trainers/completions/test_bco.py")

MUTANTS = [
    formula("kto: desirable answers pushed away", LOSSES, "torch.sigmoid(baseline - rewards)", "torch.sigmoid(rewards - baseline)"),
    formula("kto: no baseline for the undesirable", LOSSES, "undesirable_weight * torch.sigmoid(rewards - baseline)", "undesirable_weight * torch.sigmoid(rewards)"),
    formula("kto: weight of the desirable for all", LOSSES, "undesirable_weight * torch", "desirable_weight * torch"),
    formula("kto: a negative baseline", LOSSES, "(total / rows.clamp(min=1)).clamp(min=0)", "total / rows.clamp(min=1)"),
    formula("kto: the baseline a sum", LOSSES, "(total / rows.clamp(min=1)).clamp(min=0)", "total.clamp(min=0)"),
    formula("kto: classes weighed by their size", LOSSES, "larger / desirable, larger / undesirable", "larger / undesirable, larger / desirable"),
    trained("kto: mean over the micro-batch", TRAINER, "return shares * losses.sum() / rows", "return shares * losses.mean()"),
    trained("kto: baseline without beta", TRAINER, "return self.beta * (self._scores(self.model, inputs, self.looks_at)", "return (self._scores(self.model, inputs, self.looks_at)"),
    trained("kto: mismatched within a micro-batch", TRAINER, "args.rows_per_step()) if self.calculate_KL", "args.per_device_train_batch_size) if self.calculate_KL"),
    trained("kto: pairs in runs of one label", TRAINER, 'if dataset_name == "train" and args.shuffle_rows', 'if dataset_name == "train" and not args.shuffle_rows'),
    trained("kto: weights of the data ignored", TRAINER, 'if args.class_weights == "data":', "if False:"),
    labels("kto: the label is lost", "align/data/rows/completions.py", "return said in DESIRABLE", "return True"),
    labels("kto: any label is taken", "align/data/rows/completions.py", "if said not in DESIRABLE + UNDESIRABLE:", "if False:"),
    labels("kto: a rejected answer is a good one", "align/data/rows/kinds.py", '"rejected": False', '"rejected": True'),
    labels("kto: pairs are not known by what is said of them", "align/data/rows/labels.py", "LAYOUTS[reading.layout].rows == \"pairs\"", "False"),
    labels("kto: pairs are never left whole", "align/data/loading.py", "if whole_pairs and speaks_of_pairs", "if False and speaks_of_pairs"),
    labels("kto: weights are held against the wrong class", AUDIT, "weights[0] * good / (weights[1] * bad)", "weights[0] * bad / (weights[1] * good)"),
    labels("kto: weights of the data are not told", AUDIT, "they weigh {suggested[0]:.4g}", "they weigh {suggested[1]:.4g}"),
    labels("kto: the other weight is proposed", AUDIT, "if suggested[0] > 1 else", "if suggested[0] <= 1 else"),
    labels("kto: one label is enough", AUDIT, "if not good or not bad:", "if False:"),
    labels("kto: any answer twice has both labels", AUDIT, "np.intersect1d(keys[desirable], keys[~desirable])", "keys"),
    measured("kto: ties are wins", ESTIMATES, '+ np.searchsorted(ranked[side], values[rows], "right")', '+ np.searchsorted(ranked[side], values[rows], "left")'),
    measured("kto: the better label is the lower", ESTIMATES, "share = float(below.mean())", "share = 1 - float(below.mean())"),
    measured("kto: rows of a prompt are independent", ESTIMATES, "_, cluster = np.unique(prompts, return_inverse=True)", "cluster = np.arange(len(prompts))"),
    measured("kto: a sum for each model", ESTIMATES, '"policy": scores.policy / scores.tokens', '"policy": scores.policy'),
    recipes("kto: evaluation ranks no pairs", "eval/evaluate.py", "whole_pairs=True", "whole_pairs=False"),
    formula("bco: labels the wrong way round", LOSSES, "torch.where(desirable, rewards - shift, shift - rewards)", "torch.where(desirable, shift - rewards, rewards - shift)"),
    formula("bco: no shift for the undesirable", LOSSES, "rewards - shift, shift - rewards)", "rewards - shift, -rewards)"),
    formula("bco: a shift with a gradient", LOSSES, "if shift.requires_grad:", "if False:"),
    classifier("bco: the shift is the step's alone", BCO, "self.total + total, self.rows + rows", "total, rows"),
    classifier("bco: the shift is that before the step", BCO, "self.shift.add(float(total), float(rows))\n        return torch.full_like(total, self.shift.mean)", "before = self.shift.mean\n        self.shift.add(float(total), float(rows))\n        return torch.full_like(total, before)"),
    classifier("bco: a resumed run forgets the shift", METRICS, "        if saved:", "        if False:"),
    classifier("bco: a skipped step counts", BCO, "        self.shift.forget_step()", "        pass"),
    classifier("bco: an evaluation has no shift", BCO, "return torch.tensor(self.shift.mean, device", "return torch.tensor(0.0, device"),
    classifier("bco: weights are taken and ignored", "align/configs/bco.py", "[*not_honoured(self, NOT_BCO), *super().problems()]", "super().problems()"),
    labels("bco: weights are asked of a loss that has none", AUDIT, "    if not weighs:", "    if False:"),
    odds("density ratio: the more frequent label weighs more", RATIO, "each = torch.where(desirable, len(label) / (2 * good), len(label) / (2 * (len(label) - good))).double()", "each = torch.ones_like(label)"),
    odds("density ratio: the bias is drawn to zero", RATIO, "ridge[-1] = 0.0", "pass"),
    odds("density ratio: no penalty", RATIO, "ridge = torch.ones(x.size(1)", "ridge = 1e-6 * torch.ones(x.size(1)"),
    odds("density ratio: the odds the wrong way round", RATIO, "embeddings.double() @ self.weight + self.bias", "-(embeddings.double() @ self.weight + self.bias)"),
    odds("density ratio: no limits", RATIO, ".exp().clamp(least, most)", ".exp()"),
    odds("density ratio: one label is enough", RATIO, "if good in (0, len(desirable)):", "if False:"),
    odds("density ratio: padding is read", RATIO, "(states * mask[..., None]).sum(1)", "states.sum(1)"),
    classifier("density ratio: desirable rows weigh too", BCO, "1.0 if label else ratio", "ratio"),
    classifier("density ratio: the adapter reads prompts", BCO, "own = as_reference(model) if self.ref_model is None else contextlib.nullcontext()", "own = contextlib.nullcontext()"),
    classifier("density ratio: rows are not weighed", TRAINER, "losses = losses if weights is None else weights * losses", "pass"),
    classifier("density ratio: a later evaluation is not weighed", BCO, "return made if self.density_ratio is None else self._weighed(made)", "return made"),
    trained("kto: any order is taken", CONFIG, 'self.train_sampling_strategy != "sequential":', "False:"),
    stored("kto store: the policy is copied again", "align/trainers/shared/reference.py", "    trainer.copies_reference = False\n", ""),
    stored("kto store: its own answers twice", TRAINER, "tuple(batch[prefix + name] for name", "tuple(batch[name] for name"),
    stored("kto store: BCO has mismatched ones", TRAINER, "MATCHED if self.calculate_KL else OWN", "MATCHED"),
    stored("kto store: TRL's head", TRAINER, "with dropout_off(self.model, self.ref_model), fast_head():\n            return super()", "with dropout_off(self.model, self.ref_model):\n            return super()"),
    stored("kto store: values of the data are scored again", "align/trainers/shared/precompute.py", "if has_reference(dataset, answers):", "if has_reference(dataset) and False:"),
]  # fmt: skip

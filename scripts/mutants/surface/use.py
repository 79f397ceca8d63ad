"""Dropout of adapters, predictions, and how a named preference model is loaded."""

from mutants.mutant import noticed_by

DROPOUT, TRAINER, SAFE = (
    "align/trainers/shared/dropout.py",
    "align/trainers/preference_model.py",
    "align/trainers/shared/safe_runs.py",
)
MODEL = "align/models/preference_model.py"
scripts, surface = noticed_by("tests/trainers/test_trl_scripts.py"), noticed_by("tests/trainers/test_surface.py")

MUTANTS = [
    scripts("the adapter's dropout is switched off too", DROPOUT, "and module not in kept", ""),
    scripts("the model's dropout stays on", DROPOUT, "                module.p = 0\n", "                pass\n"),
    scripts("default dropout is left to TRL", SAFE, "if self.args.keeps_adapter_dropout():", "if False:"),
    surface(
        "rows of the last batch are lost",
        TRAINER,
        "outputs = torch.stack(outputs.chunk(2), dim=1)",
        "outputs = outputs[..., None]",
    ),
    surface("predictions without metrics", TRAINER, "(made.metrics or {}) | measured", "(made.metrics or {})"),
    surface("arguments of loading are ignored", TRAINER, "**dict(init or {}), **quantised)", "**quantised)"),
    surface("quantisation is ignored", TRAINER, "**dict(init or {}), **quantised)", "**dict(init or {}))"),
    surface("metrics are computed by nobody", TRAINER, "compute_metrics=compute_metrics,", ""),
    surface(
        "code of a model is run",
        MODEL,
        'if kwargs.pop("trust_remote_code", False):',
        'if kwargs.pop("trust_remote_code", False) == 2:',
    ),
]

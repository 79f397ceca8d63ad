"""What users of TRL meet: parsers of configurations, settings changed later, cards and scripts."""

from mutants.mutant import noticed_by

COMMON, BASE = "align/configs/common.py", "align/trainers/shared/base.py"
parsed = noticed_by("tests/configs/test_parsers.py")
later = noticed_by("tests/configs/test_changed_later.py")

held = noticed_by("tests/trainers/test_surface.py")
SAFE = "align/trainers/shared/safe_runs.py"

MUTANTS = [
    held(
        "settings changed before training pass",
        SAFE,
        "        refuse_changed(self)\n        if resume",
        "        if resume",
    ),
    held(
        "settings changed before evaluation pass",
        SAFE,
        "        refuse_changed(self)\n        return",
        "        return",
    ),
    held(
        "settings changed before predictions pass",
        "align/trainers/preference_model.py",
        "        refuse_changed(self)\n",
        "",
    ),
    held(
        "what was changed inside a field passes",
        COMMON,
        "copy.deepcopy(v) if isinstance(v, dict | list) else v for",
        "v for",
    ),
    held(
        "what may be set later is not checked",
        BASE,
        "raise_all(no_numbers(trainer.args) or trainer.args.problems())",
        "pass",
    ),
    held("no setting may change", BASE, "if name not in READ_AT_USE", "if True"),
    parsed("JSON of a command line is left as text", COMMON, "return json.loads(text)", "return text"),
    parsed(
        "--no_gradient_checkpointing switches on",
        COMMON,
        "not said if str(option_string)",
        "said if str(option_string)",
    ),
    parsed("fractions of whole numbers pass", COMMON, "value != int(value)", "False"),
    parsed(
        "a completed online configuration is refused",
        "align/configs/online.py",
        "trl.steps_per_generation = None",
        "pass",
    ),
    later("what was set later is not looked at", BASE, "    settle_again(args)\n", ""),
    later(
        "what is derived goes stale",
        COMMON,
        "vars(config).update(vars(made(**config._given | changed)))",
        "made(**config._given | changed)",
    ),
    later(
        "derived fields are taken for given ones",
        COMMON,
        "given = fields_of(self)\n        for",
        "given = {}\n        for",
    ),
]

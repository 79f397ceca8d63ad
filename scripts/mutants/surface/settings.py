"""What users of TRL meet: parsers of configurations, settings changed later, cards and scripts."""

from mutants.mutant import noticed_by

COMMON, BASE = "align/configs/common.py", "align/trainers/shared/base.py"
parsed = noticed_by("tests/configs/test_parsers.py")
later = noticed_by("tests/configs/test_changed_later.py")

MUTANTS = [
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
        "given = _fields(self)\n        for",
        "given = {}\n        for",
    ),
]

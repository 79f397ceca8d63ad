"""Answers that are revised, and answers of rounds that vLLM samples."""

from mutants.mutant import noticed_by

ASK, ASKING = "align/sampling/ask.py", "eval/answers/asking.py"
revised = noticed_by("tests/sampling/test_revisions.py")
vllm = noticed_by("tests/rounds/test_rounds_end.py")
rounds = noticed_by("tests/rounds/test_rounds.py")
study = noticed_by("tests/sampling/test_revisions_study.py")
STUDY = "scripts/studies/revisions.py"
MUTANTS = [
    study(
        "revisions study: gains of the first revision",
        STUDY,
        "rewards[:, -1] - rewards[:, 0]",
        "rewards[:, 1] - rewards[:, 0]",
    ),
    study(
        "revisions study: equal answers are lost",
        STUDY,
        "(1 + np.sign(rewards[-1] - rewards[0])) / 2",
        "(rewards[-1] > rewards[0]) * 1.0",
    ),
    study(
        "revisions study: gains are not held against others",
        STUDY,
        'over_less(gains["srpo"], gains[other], (-4, 4))',
        'over(gains["srpo"], (-4, 4))',
    ),
    study("revisions study: drafts are cut away", STUDY, '"max_length": LONGEST, ', ""),
    study(
        "revisions study: all is done again", STUDY, "            if not path.is_file():\n", "            if True:\n"
    ),
    revised(
        "revisions: the first draft is shown again",
        ASK,
        "_revised(stages[-1], asking, sampled)",
        "_revised(stages[0], asking, sampled)",
    ),
    revised(
        "revisions: drafts that are alike share noise",
        ASK,
        "zip(places[key], answers, strict=True)",
        "dict.fromkeys(places[key], answers[0])",
    ),
    revised(
        "revisions: another instruction than was learnt",
        ASK,
        "revision_prompt(prompt, shown, asking.instruction)",
        "revision_prompt(prompt, shown)",
    ),
    revised("revisions: the reference revises", ASKING, "asking._replace(revisions=0), REF", "asking, REF"),
    revised(
        "revisions: a KL of the last step",
        "eval/measures/tokens.py",
        "settings.temperature > 0 and not settings.revisions",
        "settings.temperature > 0",
    ),
    rounds("revisions: rounds learn from drafts", "align/rounds/stages.py", "vllm, sampling.revisions,", "vllm, 0,"),
    vllm(
        "vllm in rounds: the model samples",
        "align/rounds/run.py",
        "sample_stage(recipe, place, path.stem, vllm)",
        "sample_stage(recipe, place, path.stem)",
    ),
    vllm(
        "vllm in rounds: ignored without rounds",
        "align/train.py",
        "if vllm is not None and recipe.rounds is None:",
        "if False:",
    ),
    rounds(
        "rounds: one temperature for all",
        "align/rounds/stages.py",
        "temperatures[min(place.number, len(temperatures)) - 1]",
        "temperatures[0]",
    ),
    rounds(
        "rounds: the nucleus is forgotten",
        "align/rounds/stages.py",
        "place.number - 1, sampling.top_p)",
        "place.number - 1)",
    ),
]

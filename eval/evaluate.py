"""Evaluates a run: rankings on held-out pairs, answers of policy and reference, gold reward, KL, length."""

import logging
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset

from align.data import load_data
from align.data.loading import content_of
from align.errors import RunError
from align.recipe.loading import Generate, Recipe
from align.sampling.ask import Asking, decoding_of
from align.sampling.generate import Decoding
from align.sampling.vllm_engine import VLLM, check_vllm
from eval.answers.asking import ask_all, asked_rows, sampled_texts
from eval.answers.calling import calling_of_all, prompts_of
from eval.answers.files import Responses, matched
from eval.measures.prompt_sets import asked, of_prompt_set
from eval.measures.texts import length_estimates
from eval.measures.tokens import token_estimates
from eval.pairs.ranking import rankings
from eval.report.assemble import Prepared, add_prompt_set, add_revisions, measure_answers, prepare, settle
from eval.report.results import Report
from eval.report.write import write_items
from eval.statistics.comparisons import compared, prompt_labels
from eval.statistics.names import REF

from .held_out import SHARES, check_enough, rank_pairs, score_completions, score_labels
from .identity import check_unchanged, measured, weights_of_judges
from .subjects import Subject, check_measurable, hold_against_base, template_digest

logger = logging.getLogger(__name__)

JUDGES_FOLDER, ANSWERS_FOLDER = "judges", "answers"
KINDS = {"pairs": "chosen", "labels": "label"}
"""Kinds of evaluation sets, and a column by which one is known."""


def evaluate(
    subject: Subject,
    others: Sequence[Subject] = (),
    *,
    out: Path | None = None,
    allow: Sequence[str] = (),
    compare: bool = False,
    ledgers: Path | None = None,
    vllm: VLLM | None = None,
) -> Report:
    """Measure a policy against its reference on the evaluation sets of its recipe.

    Pairs are ranked, labels told apart, completions have a likelihood; a policy that learnt from prompts is measured by its answers alone.

    Args:
        subject: The policy in question, with its reference.
        others: Further policies with the same reference; only their held-out pairs are scored, unless `compare`.
        out: Folder for `responses.jsonl` and `scores.jsonl`, and for the answers themselves (`answers/`), which the next
            evaluation reads; nothing is written without it.
        allow: Rewards of the form MODULE:FUNCTION that may run, and endpoints that may be asked; see
            `align.rewards.load_reward` and `prepare_judges`.
        compare: Sample the answers of the others too, and compare every pair of policies.
        ledgers: Folder of what endpoints said; by default `judges/` in `out`.
        vllm: Samples the answers in the models' place.

    Raises:
        RunError: If the recipe names no evaluation data or too little for an interval, its method cannot be measured, or
            another policy has another reference or the same name, the gold reward or a judge may not run, or kept
            answers are damaged.
    """
    config = subject.recipe.eval
    check_measurable(subject.name, subject.recipe)
    for each in (subject, *(others if compare else ())) if vllm is not None else ():
        check_vllm(each.recipe)
    prepared = prepare(subject.recipe, allow=allow, ledgers=ledgers or (None if out is None else out / JUDGES_FOLDER))
    _check_sets(subject.name, subject.recipe)
    sets = load_held_out(subject.recipe)
    for name, dataset in sets.items() if config.generate is not None else ():
        prepared.check_columns(dataset.column_names, f"data.eval.{name}")
    _check_together(subject, others, compare=compare)
    for other in others:
        _say_other_sets(subject, other)
    held_against = hold_against_base([subject, *others])
    report = Report(subject.name)
    report.settings = {
        "method": subject.recipe.method,
        "recipe": subject.recipe.raw,
        "reference_sha256": subject.ref_digest,
        "compared_with": [other.name for other in others],
        "trained_against": {each.name: each.trained_against for each in (subject, *others)},
        **({"held_against": held_against} if held_against else {}),
        "about": {
            "policies": {each.name: dict(each.identity) for each in (subject, *others)},
            **measured(subject.recipe, sets, prepared.prompt_sets),
        },
    }
    for name, dataset in sets.items() if subject.recipe.rows != "prompts" else ():
        chosen = dataset.select(range(min(len(dataset), config.pairs or len(dataset))))
        rows = next((kind for kind, column in KINDS.items() if column in dataset.column_names), "completions")
        check_enough(name, chosen, rows)
        if rows == "labels":
            score_labels(report, name, chosen, [subject, *others])
            continue
        if rows == "completions":
            score_completions(report, name, chosen, [subject, *others], compare=compare)
            continue
        chosen = rank_pairs(report, name, chosen, [subject, *others])
        if compare:
            correct = {who: rankings(scores)["implicit_reward"] for who, scores in report.pairs[name].items()}
            key = f"{name}/ranking_accuracy/implicit_reward"
            report.compared[key] = compared(correct, prompt_labels(chosen["prompt"]), shares=True, span=1.0)
    if config.generate is not None:
        _answer(report, [subject, *(others if compare else ())], sets, prepared, out, vllm, compare=compare)
    settle(report)
    if out is not None:
        for each in (subject, *others):
            check_unchanged(each.path, each.identity)
        write_items(report, out)
    return report


def check_held_out(name: str, recipe: Recipe) -> None:
    """Whether a recipe's evaluation has something to measure, and can.

    Raises:
        RunError: If it names no data to evaluate on, or its method cannot be measured.
    """
    check_measurable(name, recipe)
    _check_sets(name, recipe)


def _check_sets(name: str, recipe: Recipe) -> None:
    if not recipe.data.eval and not recipe.data.holdout:
        raise RunError(
            f"{name}: no evaluation data; name some in data.eval, set data.holdout, or give a recipe that has some with --recipe"
        )


def load_held_out(recipe: Recipe) -> dict[str, Dataset]:
    """The evaluation sets of a recipe as evaluations read them: pairs are ranked, also by a run that learnt from labels."""
    return load_data(
        recipe.data, rows=recipe.rows, columns=pair_columns(recipe), held_texts=text_columns(recipe), whole_pairs=True
    ).eval


def text_columns(recipe: Recipe) -> tuple[str, ...]:
    """Columns of texts that an evaluation reads besides answers."""
    return () if recipe.eval.group is None else (recipe.eval.group,)


def pair_columns(recipe: Recipe) -> tuple[str, ...]:
    """Columns of numbers that an evaluation reads besides texts."""
    return tuple(name for name in recipe.columns if name == SHARES)


def _check_together(subject: Subject, others: Sequence[Subject], *, compare: bool) -> None:
    names = [subject.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise RunError(
            f"{', '.join(names)}: a policy is named twice; each appears under its name, so names must differ"
        )
    if REF in names:
        raise RunError(f"{REF}: the name of the reference in every report; rename the run's folder")
    if compare and not others:
        raise RunError(f"{subject.name}: one run cannot be compared; name another")
    if others and subject.recipe.rows == "prompts" and not compare:
        raise RunError(
            f"{subject.name}: method {subject.recipe.method!r} has no rows on which other runs could be scored; name a "
            "run of preferences or completions first, or compare answers with `alignkit compare`"
        )


def _say_other_sets(subject: Subject, other: Subject) -> None:
    """Warn where a set that a run's own recipe calls by the same name holds other rows; those of the first are taken for all."""
    for name, source in subject.recipe.data.eval.items():
        theirs = other.recipe.data.eval.get(name)
        if theirs is not None and theirs.path != source.path and content_of(theirs) != content_of(source):
            logger.warning(
                "data.eval.%s of %s is %s, and of %s %s, with other rows; all are measured on the first",
                name, subject.name, source.path, other.name, theirs.path,
            )  # fmt: skip


def _answer(
    report: Report,
    subjects: list[Subject],
    sets: dict[str, Dataset],
    prepared: Prepared,
    out: Path | None,
    vllm: VLLM | None,
    *,
    compare: bool,
) -> None:
    first, settings = subjects[0], subjects[0].recipe.eval.generate or Generate()
    rows = asked_rows(sets, settings.prompts, whole=bool(first.recipe.environments))
    calling = calling_of_all(subjects, list(rows[0]))
    folder = None if out is None else out / ANSWERS_FOLDER
    decoding = decoding_of(settings)
    extras = {name: said for name in ("revisions", "prefer") if (said := getattr(settings, name))}
    report.settings["decoding"] = {
        **vars(decoding), "samples": settings.samples, "prompts": len(rows), "template_sha256": template_digest(first),
        **({} if vllm is None else {"vllm": vllm.version}), **({} if calling is None else {"tools_sha256": calling.digest}),
        **extras,
    }  # fmt: skip
    asking = Asking(
        prompts_of(calling, rows), decoding, settings.samples, settings.batch_size, folder, vllm, settings.revisions,
        calling=calling,
    )  # fmt: skip
    *drafts, answers = ask_all(subjects, asking, settings.prefer)
    found, report.measured = token_estimates(subjects, answers, settings)
    measure_answers(
        report, sampled_texts(rows, answers), found, prepared, compare=compare,
        completion_ids={who: [[answer.own_ids for answer in row] for row in a] for who, a in answers.items()},
        recipes={subject.name: subject.recipe.raw for subject in subjects},
    )  # fmt: skip
    add_revisions(report, [sampled_texts(rows, stage) for stage in (*drafts, answers)], prepared)
    greedy = Decoding(settings.max_new_tokens, temperature=0.0, seed=settings.seed)
    for name, wanted in prepared.prompt_sets.items():
        chat = first.tokenizer.chat_template is not None
        questions = asked(wanted, chat=chat)
        if calling is not None:
            questions = prompts_of(calling, [{"prompt": one} for one in questions])
        asking = Asking(questions, greedy, 1, settings.batch_size, folder, vllm, calling=calling)
        add_prompt_set(report, name, sampled_texts(wanted, ask_all(subjects, asking)[-1]))


def evaluate_responses(
    policies: Sequence[Responses], ref: Responses, prepared: Prepared, *, out: Path | None = None
) -> Report:
    """Measure stored responses against those of a reference; no model is loaded, but for judges that are models.

    The prompts are those of the files: `data`, `eval.generate` and `eval.pairs` of the recipe say nothing here. Tokens
    are not known, so lengths are in characters and words, there is no divergence, and objectives that count tokens are
    left out.

    Args:
        policies: The first is the one in question; several are compared with each other and with the reference.
        ref: Of the reference, or of whatever is the baseline.
        prepared: Of the recipe whose `eval` and `rewards` sections say what is measured.
        out: Folder for `responses.jsonl`; nothing is written without it.

    Raises:
        RunError: If files do not answer the same prompts, or hold too little for what is measured.
    """
    sampled, names = matched(policies, ref)
    files = {names[str(file.path)]: file for file in (*policies, ref)}
    prepared.check_columns(set.intersection(*(set(row) for row in sampled.rows)), str(policies[0].path))
    sets = {name: of_prompt_set(name, rows, sampled) for name, rows in prepared.prompt_sets.items()}
    reference = names[str(ref.path)]
    report = Report(sampled.policies[0])
    report.settings = {
        "recipe": prepared.recipe.raw,
        "responses": {name: {"path": str(file.path), "sha256": file.sha256} for name, file in files.items()},
        "prompts": len(sampled.rows),
        "samples": sampled.samples,
        "reference": reference,
        "compared_with": sampled.policies[1:],
    } | ({"about": judges} if (judges := weights_of_judges(prepared.recipe)) else {})
    several = len(sampled.policies) > 1
    measure_answers(report, sampled, length_estimates(sampled), prepared, compare=several, reference=reference)
    for name, part in sets.items():
        add_prompt_set(report, name, part)
    settle(report, reference)
    if out is not None:
        write_items(report, out)
    return report

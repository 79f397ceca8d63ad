"""The evaluation of a run: rankings on held-out pairs, answers of policy and reference, gold reward, KL, length."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from align.data import load_data
from align.recipe import Generate
from align.rewards import Reward, load_reward
from align.rundir import RunError, write_text

from .comparisons import Comparison
from .generate import Answer, Decoding, Prompt, generate
from .measures import (
    check_measurable,
    comparisons,
    divergence_estimates,
    diversity_estimates,
    implicit_margin,
    pair_estimates,
    rng_of_report,
)
from .ranking import PairScores, ranking_estimates, rankings
from .scoring import Sequences, completion_logps, pair_ids, reference_store, stored
from .stats import Estimate, mean_estimate, win_scores
from .subjects import Subject, Use

SHARES = "preference"  # the data's column of rater shares, read where the method reads it


@dataclass
class Report:
    """Everything the report shows: estimates by name, per-item values for the pictures, and how it was made."""

    name: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    pairs: dict[str, dict[str, PairScores]] = field(default_factory=dict)
    """Evaluation set, then subject name, to scores."""
    margins: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    """Likewise to implicit-reward margins in nats, of shape (pairs,); only of methods that have an implicit reward."""
    comparisons: dict[str, list[Comparison]] = field(default_factory=dict)
    """By measure, every pair of the runs that were compared."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Per prompt: the prompt, both answers, and their gold rewards where there is one."""
    settings: dict[str, Any] = field(default_factory=dict)


def evaluate(
    subject: Subject,
    others: Sequence[Subject] = (),
    *,
    out: Path | None = None,
    allow: Sequence[str] = (),
    compare: bool = False,
) -> Report:
    """Measure a policy against its reference on the evaluation sets of its recipe.

    A policy whose method has no pairs is measured by its answers alone.

    Args:
        subject: The policy in question, with its reference.
        others: Further policies with the same reference; only their held-out pairs are scored, unless `compare`.
        out: Folder for `responses.jsonl` and `scores.jsonl`; nothing is written without it.
        allow: Gold rewards of the form MODULE:FUNCTION that may run; see `align.rewards.load_reward`.
        compare: Sample the answers of the others too, and compare every pair of policies.

    Raises:
        RunError: If the recipe names no evaluation data or too little for an interval, its method cannot be measured, or
            another policy has another reference or the same name, or the gold reward may not run.
    """
    config = subject.recipe.eval
    check_measurable(subject.name, subject.recipe)
    gold = None if config.gold_reward is None else load_reward(config.gold_reward, allow)
    if gold is not None:
        gold(["five plain words to try"])  # a missing package shows before anything is computed
    shares = tuple(name for name in subject.recipe.columns if name == SHARES)
    sets = load_data(subject.recipe.data, rows=subject.recipe.rows, columns=shares).eval
    if not sets:
        raise RunError(f"{subject.name}: no evaluation data; name some in data.eval, or set data.holdout")
    _check_together(subject, others, compare=compare)
    report = Report(subject.name)
    report.settings = {
        "method": subject.recipe.method,
        "recipe": subject.recipe.raw,
        "reference_sha256": subject.ref_digest,
        "compared_with": [other.name for other in others],
    }
    for name, dataset in sets.items() if subject.recipe.rows == "pairs" else ():
        chosen = dataset.select(range(min(len(dataset), config.pairs or len(dataset))))
        if len(chosen) < 2:
            raise RunError(
                f"{name}: an interval needs at least 2 pairs, got {len(chosen)}; see data.eval and eval.pairs"
            )
        _rank(report, name, chosen, [subject, *others])
        if compare:
            correct = {who: rankings(scores)["implicit_reward"] for who, scores in report.pairs[name].items()}
            key = f"{name}/ranking_accuracy/implicit_reward"
            report.comparisons[key] = comparisons(key, correct, chosen["prompt"])
    if config.generate is not None:
        _answer(report, [subject, *(others if compare else ())], sets, config.generate, gold)
    if out is not None:
        _write(report, out)
    return report


def _check_together(subject: Subject, others: Sequence[Subject], *, compare: bool) -> None:
    names = [subject.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise RunError(
            f"{', '.join(names)}: a policy is named twice; each appears under its name, so names must differ"
        )
    if compare and not others:
        raise RunError(f"{subject.name}: one run cannot be compared; name another")
    if others and subject.recipe.rows != "pairs" and not compare:
        raise RunError(
            f"{subject.name}: method {subject.recipe.method!r} has no pairs on which other runs could be scored; name a "
            "run of preferences first, or compare answers with `alignkit compare`"
        )
    for other in others:
        if other.ref_digest != subject.ref_digest:
            raise RunError(
                f"{other.name}: another reference than {subject.name}'s; they cannot be compared pair by pair"
            )


def _rank(report: Report, name: str, pairs: Dataset, subjects: list[Subject]) -> None:
    first = subjects[0]
    both = [pair_ids(first.tokenizer, row["prompt"], row["chosen"], row["rejected"]) for row in pairs.to_list()]
    tokens = [pair[side] for side in (0, 1) for pair in both]
    limit = first.recipe.train.max_length or 10**9
    tokens = [(prompt, completion[: max(limit - len(prompt), 1)]) for prompt, completion in tokens]
    lengths = np.array([len(completion) for _, completion in tokens], dtype=float)

    def summed(use: Any, who: str, sequences: Sequences = tokens) -> np.ndarray:
        with use() as model:
            rows = completion_logps(
                model, sequences, pad_token_id=first.pad_token_id, batch_size=first.recipe.eval.batch_size,
                desc=f"{name}: pairs under {who}",
            )  # fmt: skip
        return np.array([float(row.double().sum()) for row in rows])

    ref = stored(reference_store(first), tokens, lambda missing: summed(first.reference, "the reference", missing))
    half = len(pairs)
    shares = np.array(pairs[SHARES], dtype=float) if SHARES in pairs.column_names else None
    report.pairs[name], report.margins[name] = {}, {}
    for subject in subjects:
        policy = summed(subject.policy, subject.name)
        scores = PairScores(policy[:half], policy[half:], ref[:half], ref[half:], lengths[:half], lengths[half:])
        margin = implicit_margin(subject.recipe, scores)
        report.pairs[name][subject.name] = scores
        if margin is not None:
            report.margins[name][subject.name] = margin
        found = ranking_estimates(scores, rng=rng_of_report())
        found |= pair_estimates(subject.recipe, scores, margin, shares)
        prefix = name if subject is first else f"{subject.name}/{name}"
        report.estimates |= {f"{prefix}/{key}": value for key, value in found.items()}
    for other in subjects[1:]:
        kept = report.pairs[name][first.name].chosen - report.pairs[name][other.name].chosen
        report.estimates[f"{name}/logps_chosen_minus_{other.name}"] = mean_estimate(kept, rng=rng_of_report())


def _answer(
    report: Report, subjects: list[Subject], sets: dict[str, Dataset], settings: Generate, gold: Reward | None
) -> None:
    first = subjects[0]
    unique = {json.dumps(row["prompt"]): row["prompt"] for dataset in sets.values() for row in dataset.to_list()}
    prompts: list[Prompt] = list(unique.values())[: settings.prompts]
    if len(prompts) < 2:
        raise RunError(f"an interval needs at least 2 different prompts, got {len(prompts)}; see eval.generate.prompts")
    decoding = Decoding(settings.max_new_tokens, settings.temperature, settings.seed)
    report.settings["decoding"] = vars(decoding) | {"prompts": len(prompts), "template_sha256": _template(first)}
    if gold is not None:
        report.settings["gold_reward"] = first.recipe.eval.gold_reward

    def sampled(use: Use, who: str) -> list[Answer]:
        with use() as model:
            rows = generate(
                model, first.tokenizer, prompts, decoding, batch_size=settings.batch_size, desc=f"answers of {who}"
            )
        return [row[0] for row in rows]

    def scored(use: Use, who: str, answers: list[Answer]) -> Any:
        with use() as model:
            return completion_logps(
                model, [(answer.prompt_ids, answer.completion_ids) for answer in answers],
                pad_token_id=first.pad_token_id, batch_size=first.recipe.eval.batch_size,
                temperature=settings.temperature, desc=f"answers under {who}",
            )  # fmt: skip

    ref = sampled(first.reference, "the reference")
    ref_rewards = None if gold is None else np.array(gold([answer.text for answer in ref]))
    ref_under_ref = scored(first.reference, "the reference", ref) if settings.temperature > 0 else None
    report.answers = [
        {"prompt": prompt, "policy": "", "ref": answer.text} for prompt, answer in zip(prompts, ref, strict=True)
    ]
    diversity = {"ref": diversity_estimates([answer.text for answer in ref])}
    rewards: dict[str, np.ndarray] = {}
    for subject in subjects:
        who = "the policy" if subject is first else subject.name
        answers = sampled(subject.policy, who)
        found = _paired("length_tokens", _lengths(answers), _lengths(ref))
        if ref_under_ref is not None:
            found |= divergence_estimates(
                (scored(subject.policy, who, answers), scored(first.reference, "the reference", answers)),
                (scored(subject.policy, who, ref), ref_under_ref),
            )
        diversity["policy"] = diversity_estimates([answer.text for answer in answers])
        found |= {f"{key}/{side}": e for side in ("policy", "ref") for key, e in diversity[side].items()}
        if gold is not None and ref_rewards is not None:
            rewards[subject.name] = np.array(gold([answer.text for answer in answers]))
            found |= _paired("gold_reward", rewards[subject.name], ref_rewards)
            wins = win_scores(rewards[subject.name], ref_rewards)
            found["gold_reward/win_rate"] = mean_estimate(wins, rng=rng_of_report())
        if subject is first:
            report.estimates |= found
        else:  # what is the reference's own is there already
            report.estimates |= {f"{subject.name}/{key}": e for key, e in found.items() if not key.endswith("/ref")}
        for index, row in enumerate(report.answers):
            text = answers[index].text
            scores = {} if ref_rewards is None else {"reward": float(rewards[subject.name][index])}
            if subject is first:
                row |= {"policy": text, **{f"policy_{key}": value for key, value in scores.items()}}
            else:
                row.setdefault("others", {})[subject.name] = {"text": text, **scores}
    if ref_rewards is not None:
        for row, reward in zip(report.answers, ref_rewards.tolist(), strict=True):
            row["ref_reward"] = float(reward)
    if len(rewards) > 1:
        report.comparisons["gold_reward"] = comparisons("gold_reward", rewards, prompts)


def _lengths(answers: list[Answer]) -> np.ndarray:
    return np.array([float(len(answer.completion_ids)) for answer in answers])


def _paired(name: str, policy: np.ndarray, ref: np.ndarray) -> dict[str, Estimate]:
    values = {"policy": policy, "ref": ref, "difference": policy - ref}
    return {f"{name}/{key}": mean_estimate(row, rng=rng_of_report()) for key, row in values.items()}


def _template(subject: Subject) -> str | None:
    template = subject.tokenizer.chat_template
    return hashlib.sha256(str(template).encode()).hexdigest() if template else None


def _write(report: Report, out: Path) -> None:
    responses = [
        json.dumps({**row, "decoding": report.settings["decoding"]}, ensure_ascii=False) for row in report.answers
    ]
    scores = [
        json.dumps(
            {"set": name, "subject": who, "pair": i, **{k: float(v) for k, v in zip(s._fields, row, strict=True)}}
        )
        for name, subjects in report.pairs.items()
        for who, s in subjects.items()
        for i, row in enumerate(zip(*s, strict=True))
    ]
    for file, lines in (("responses.jsonl", responses), ("scores.jsonl", scores)):
        write_text(out / file, "".join(line + "\n" for line in lines))

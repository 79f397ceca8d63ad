"""The evaluation of a run: rankings on held-out pairs, answers of policy and reference, gold reward, KL, length."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from align.data import load_preferences
from align.recipe import Generate
from align.rewards import Reward, load_reward
from align.rundir import RunError, write_text

from .divergence import sampled_kl
from .generate import Answer, Decoding, Prompt, generate
from .ranking import PairScores, ranking_estimates
from .scoring import Sequences, completion_logps, pair_ids, reference_store, stored
from .stats import Estimate, mean_estimate, win_scores
from .subjects import Subject

BOOTSTRAP_SEED = 0


@dataclass
class Report:
    """Everything the report shows: estimates by name, per-item values for the pictures, and how it was made."""

    name: str
    estimates: dict[str, Estimate] = field(default_factory=dict)
    pairs: dict[str, dict[str, PairScores]] = field(default_factory=dict)
    """Evaluation set, then subject name, to scores."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    """Per prompt: the prompt, both answers, and their gold rewards where there is one."""
    settings: dict[str, Any] = field(default_factory=dict)


def evaluate(
    subject: Subject, others: Sequence[Subject] = (), *, out: Path | None = None, allow: Sequence[str] = ()
) -> Report:
    """Measure a policy against its reference on the evaluation sets of its recipe.

    Args:
        subject: The policy in question, with its reference.
        others: Further policies with the same reference; only their held-out pairs are scored, for comparison.
        out: Folder for `responses.jsonl` and `scores.jsonl`; nothing is written without it.
        allow: Gold rewards of the form MODULE:FUNCTION that may run; see `align.rewards.load_reward`.

    Raises:
        RunError: If the recipe names no evaluation data or too little for an interval, or another policy has another
            reference or the same name, or the gold reward may not run.
    """
    config = subject.recipe.eval
    gold = None if config.gold_reward is None else load_reward(config.gold_reward, allow)
    if gold is not None:
        gold(["five plain words to try"])  # a missing package shows before anything is computed
    sets = load_preferences(subject.recipe.data).eval
    if not sets:
        raise RunError(f"{subject.name}: no evaluation data; name some in data.eval, or set data.holdout")
    names = [subject.name, *(other.name for other in others)]
    if len(set(names)) < len(names):
        raise RunError(
            f"{', '.join(names)}: a policy is named twice; each appears under its name, so names must differ"
        )
    for other in others:
        if other.ref_digest != subject.ref_digest:
            raise RunError(
                f"{other.name}: another reference than {subject.name}'s; they cannot be compared pair by pair"
            )
    report = Report(subject.name)
    report.settings = {
        "method": subject.recipe.method,
        "recipe": subject.recipe.raw,
        "reference_sha256": subject.ref_digest,
        "compared_with": [other.name for other in others],
    }
    for name, dataset in sets.items():
        chosen = dataset.select(range(min(len(dataset), config.pairs or len(dataset))))
        if len(chosen) < 2:
            raise RunError(
                f"{name}: an interval needs at least 2 pairs, got {len(chosen)}; see data.eval and eval.pairs"
            )
        _rank(report, name, chosen, [subject, *others])
    if config.generate is not None:
        _answer(report, subject, sets, config.generate, gold)
    if out is not None:
        _write(report, out)
    return report


def _rng() -> np.random.Generator:
    return np.random.default_rng(BOOTSTRAP_SEED)


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
    report.pairs[name] = {}
    for subject in subjects:
        policy = summed(subject.policy, subject.name)
        scores = PairScores(policy[:half], policy[half:], ref[:half], ref[half:], lengths[:half], lengths[half:])
        report.pairs[name][subject.name] = scores
        prefix = name if subject is first else f"{subject.name}/{name}"
        report.estimates |= {f"{prefix}/{key}": value for key, value in ranking_estimates(scores, rng=_rng()).items()}
    for other in subjects[1:]:
        kept = report.pairs[name][first.name].chosen - report.pairs[name][other.name].chosen
        report.estimates[f"{name}/logps_chosen_minus_{other.name}"] = mean_estimate(kept, rng=_rng())


def _answer(
    report: Report, subject: Subject, sets: dict[str, Dataset], settings: Generate, gold: Reward | None
) -> None:
    unique = {json.dumps(row["prompt"]): row["prompt"] for dataset in sets.values() for row in dataset.to_list()}
    prompts: list[Prompt] = list(unique.values())[: settings.prompts]
    if len(prompts) < 2:
        raise RunError(f"an interval needs at least 2 different prompts, got {len(prompts)}; see eval.generate.prompts")
    decoding = Decoding(settings.max_new_tokens, settings.temperature, settings.seed)
    sides: dict[str, list[Answer]] = {}
    for who, use in (("policy", subject.policy), ("ref", subject.reference)):
        with use() as model:
            rows = generate(
                model,
                subject.tokenizer,
                prompts,
                decoding,
                batch_size=settings.batch_size,
                desc=f"answers of the {who}",
            )
        sides[who] = [row[0] for row in rows]
    lengths = {who: np.array([float(len(a.completion_ids)) for a in answers]) for who, answers in sides.items()}
    report.estimates |= _paired("length_tokens", lengths["policy"], lengths["ref"])
    if settings.temperature > 0:
        report.estimates["kl"] = _kl(subject, sides["policy"], settings)
    report.settings["decoding"] = vars(decoding) | {"prompts": len(prompts), "template_sha256": _template(subject)}
    for index, prompt in enumerate(prompts):
        report.answers.append(
            {"prompt": prompt, "policy": sides["policy"][index].text, "ref": sides["ref"][index].text}
        )
    if gold is not None:
        rewards = {who: np.array(gold([a.text for a in answers])) for who, answers in sides.items()}
        report.settings["gold_reward"] = subject.recipe.eval.gold_reward
        report.estimates |= _paired("gold_reward", rewards["policy"], rewards["ref"])
        wins = win_scores(rewards["policy"], rewards["ref"])
        report.estimates["gold_reward/win_rate"] = mean_estimate(wins, rng=_rng())
        for index, row in enumerate(report.answers):
            row |= {"policy_reward": float(rewards["policy"][index]), "ref_reward": float(rewards["ref"][index])}


def _kl(subject: Subject, answers: list[Answer], settings: Generate) -> Estimate:
    sequences = [(answer.prompt_ids, answer.completion_ids) for answer in answers]
    logps = []
    for who, use in (("policy", subject.policy), ("reference", subject.reference)):
        with use() as model:
            logps.append(
                completion_logps(
                    model, sequences, pad_token_id=subject.pad_token_id,
                    batch_size=subject.recipe.eval.batch_size, temperature=settings.temperature,
                    desc=f"KL: answers under the {who}",
                )
            )  # fmt: skip
    return sampled_kl(*logps, rng=_rng())


def _paired(name: str, policy: np.ndarray, ref: np.ndarray) -> dict[str, Estimate]:
    values = {"policy": policy, "ref": ref, "difference": policy - ref}
    return {f"{name}/{key}": mean_estimate(row, rng=_rng()) for key, row in values.items()}


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

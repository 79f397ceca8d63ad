"""Checks the judges that a recipe names before any weight is loaded, and makes them when there are answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from transformers import PreTrainedTokenizerBase
from trl import ModelConfig

from align.errors import RunError
from align.models.loading import another_model, load_model, load_tokenizer
from align.models.preference_model import check_preference_model, load_preference_model
from align.models.use import Model, share_weights
from align.recipe.loading import EvalConfig
from align.recipe.sections import JudgeConfig
from align.rewards import Reward, make_reward
from align.rewards.load import REWARDS, told

from .endpoint import Endpoint
from .endpoint_judge import EndpointJudge
from .experts import check_experts, load_experts
from .kept import keeping
from .protocol import TEMPLATE, Judge, LanguageModelJudge
from .replies import Reading
from .scorers import JUDGES, EnsembleScorer, RewardScorer, Scorer

MakeScorer = Callable[[], Scorer]
REASONS = 1024
"""Tokens of a reply with reasons, where the recipe says nothing."""


def prepare_judges(
    config: EvalConfig, model: ModelConfig, *, allow: Sequence[str] = (), ledgers: Path | None = None
) -> dict[str, MakeScorer]:
    """What makes each judge of a recipe; the making loads weights, this does not.

    Args:
        config: The recipe's `eval` section.
        model: Its `model` section, whose precision and attention a language model that judges gets.
        allow: What was given with `--allow`: MODULE:FUNCTION of a reward; HOST of an endpoint, or VARIABLE@HOST if the
            key in that environment variable is sent along.
        ledgers: Folder of the verdicts of endpoints and of language models, NAME.jsonl.

    Raises:
        RunError: If a judge cannot be made, or may not be asked.
    """
    made = {}
    for name, judge in config.judges.items():
        ledger = None if ledgers is None else ledgers / f"{name}.jsonl"
        made[name] = prepare_judge(f"eval.judges.{name}", judge, model, allow, ledger)
        if judge.kind == "language_model" and ledger is not None:
            made[name] = keeping(made[name], ledger)
    return made


def prepare_judge(
    where: str, judge: JudgeConfig, model: ModelConfig, allow: Sequence[str], ledger: Path | None
) -> MakeScorer:
    """What makes a judge; the arguments are those of `prepare_judges`, and what names the judge in messages.

    Raises:
        RunError: If it cannot be made, or may not be asked.
    """
    if judge.kind == "reward":
        return _reward(where, judge, allow)
    if judge.kind == "own":
        return _own(where, judge)
    if judge.kind == "endpoint":
        return _endpoint(where, judge, allow, ledger)
    if judge.kind == "ensemble":
        for each in judge.paths or ():
            _check_model(where, each, rewards=True)
        return lambda: _ensemble(judge)
    path = str(judge.path)
    if judge.kind == "experts":
        _told(where, lambda: check_experts(path))
        return lambda: load_experts(path)
    if judge.kind == "language_model":
        config = another_model(model, path)
        return lambda: language_model_judge(judge, load_model(config).eval(), load_tokenizer(config))
    _check_model(where, path, rewards=judge.kind == "reward_model")
    return lambda: load_preference_model(path)


def _check_model(where: str, path: str, *, rewards: bool) -> None:
    """Refuse a folder without a preference model, or without one that gives rewards."""
    _told(where, lambda: check_preference_model(path, rewards=rewards))


def _told(where: str, check: Callable[[], object]) -> None:
    """What a check refuses, with what names the judge."""
    try:
        check()
    except RunError as error:
        raise RunError(f"{where}: {error}") from None


def _ensemble(judge: JudgeConfig) -> EnsembleScorer:
    """Its members; a base that they have in common is held once."""
    members = [load_preference_model(path) for path in judge.paths or ()]
    for member in members[1:]:
        share_weights(member.model, members[0].model)
    deviations = 1.0 if judge.deviations is None else float(judge.deviations)
    return EnsembleScorer(members, combine=judge.combine or "mean", deviations=deviations)


def language_model_judge(judge: JudgeConfig, model: Model, tokenizer: PreTrainedTokenizerBase) -> Judge:
    """A loaded language model as a judge, asked as its configuration says."""
    own = {"template": judge.template or TEMPLATE, "batch_size": judge.batch_size or 8}
    return Judge(LanguageModelJudge(model, tokenizer, **own))


def reward_of_texts(
    where: str, name: str, options: Mapping[str, Any], allow: Sequence[str], *, unseen: str = "judges do not see"
) -> Reward:
    """A reward for answers that are texts alone.

    Args:
        where: What names it, in messages.
        name: Of `align.rewards.REWARDS`, or MODULE:FUNCTION.
        options: Its own.
        allow: What was given with `--allow`.
        unseen: Who does not have the tokens, in messages.

    Raises:
        RunError: If it cannot be made, or counts tokens.
    """
    try:
        reward = make_reward(name, allow, **options)
    except (RunError, TypeError) as error:
        raise RunError(f"{where}: {error}") from None
    if "completion_ids" in (REWARDS[name].reads if name in REWARDS else ()):
        raise RunError(f"{where}: reward {name!r} counts tokens, which {unseen}; use another reward")
    return reward


def _reward(where: str, judge: JudgeConfig, allow: Sequence[str]) -> MakeScorer:
    reward = reward_of_texts(where, str(judge.reward), judge.options or {}, allow)
    scorer = RewardScorer(reward, temperature=judge.temperature or 0.0)
    return lambda: scorer


def _own(where: str, judge: JudgeConfig) -> MakeScorer:
    name = str(judge.name)
    if name not in JUDGES:
        known = f"; there are {', '.join(JUDGES)}" if JUDGES else ""
        raise RunError(f"{where}: no judge {name!r}: add --allow-file FILE.py, the file that adds it{known}")

    def make() -> Scorer:
        try:
            made = JUDGES[name](**(judge.options or {}))
        except Exception as error:
            raise RunError(f"{where}: {name!r} cannot be made: {type(error).__name__}: {error}") from error
        if not isinstance(made, Scorer):
            raise RunError(f"{where}: {name!r} has no method `prefer`")
        return made if isinstance(made, Judge) else _Own(name, made)

    return make


class _Own:
    """A judge of a file: whatever it raises is a failure of one prompt, as ValueError is of any scorer."""

    def __init__(self, name: str, judge: Scorer) -> None:
        self._name, self._judge = name, judge

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # as of a copy that has no judge yet
            raise AttributeError(name)
        return getattr(self._judge, name)

    def prefer(self, prompt: Any, answers: Sequence[str], **columns: Any) -> Any:
        """The judge's.

        Raises:
            ValueError: Whatever it raised, and what is said of a matrix that is not of numbers.
        """
        try:
            found = self._judge.prefer(prompt, answers, **columns)
            return None if found is None else np.asarray(found, dtype=np.float64)
        except (Exception, SystemExit) as error:
            raise ValueError(f"judge {self._name!r} failed: {told(error)}") from error


def _endpoint(where: str, judge: JudgeConfig, allow: Sequence[str], ledger: Path | None) -> MakeScorer:
    given = {one.name: value for one in fields(Endpoint) if (value := getattr(judge, one.name, None)) is not None}
    reading = Reading(bool(judge.reasoning), bool(judge.logprobs))
    if reading.reasoning:
        given.setdefault("max_tokens", REASONS)
    try:
        host = permission(given)
        if host not in allow:
            key = f", and the key in {judge.key_variable}" if judge.key_variable else ""
            raise RunError(
                f"{where}: prompts and answers{key} would be sent to {urlsplit(str(judge.url)).netloc!r}, which the "
                f"recipe names; if you agree, add --allow {host}"
            )
        endpoint = Endpoint(**given)
    except ValueError as error:
        if isinstance(error, RunError):
            raise
        raise RunError("\n".join(f"{where}.{line}" for line in str(error).splitlines())) from None
    if ledger is None:
        raise RunError(
            f"{where}: what an endpoint said is kept, so that nothing is asked twice; name a folder with --out"
        )
    return lambda: Judge(EndpointJudge(endpoint, ledger, template=judge.template, reading=reading))


def permission(endpoint: Mapping[str, object]) -> str:
    """What has to be given with `--allow`: HOST (with its port, if the URL has one), or VARIABLE@HOST with a key."""
    host = urlsplit(str(endpoint["url"])).netloc.rpartition("@")[2]
    variable = endpoint.get("key_variable")
    return f"{variable}@{host}" if variable else host

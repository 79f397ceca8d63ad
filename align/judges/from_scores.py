"""Makes the scorers that a recipe or a command names: checked before any weight is loaded, made when they are asked."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from trl import ModelConfig

from align.errors import DataError, RunError
from align.models.loading import load_tokenizer
from align.models.use import Use
from align.recipe.scores import POLICY, ScoreConfig
from align.recipe.sections import GIVE_REWARDS, EvalConfig, Generate, JudgeConfig
from align.rewards.load import columns_of

from .from_recipe import language_model_judge, prepare_judges, reward_of_texts
from .protocol import Judge
from .scoring import By


def scorers_of(
    config: ScoreConfig,
    model: ModelConfig,
    *,
    where: str,
    allow: Sequence[str] = (),
    ledgers: Path | None = None,
    policy: Callable[[], Use] | None = None,
) -> list[By]:
    """The scorers of a configuration.

    Args:
        config: Who scores.
        model: Whose precision and attention a language model that judges gets.
        where: What the configuration is called in messages.
        allow: As for `prepare_judges`.
        ledgers: Folder of what endpoints said.
        policy: Loads the policy, for a judge that is it.

    Raises:
        RunError: If one of them cannot be made, or may not be asked.
    """
    found = [By(name, "reward", _reward(where, name, options or {}, allow)) for name, options in config.rewards.items()]
    others = {name: judge for name, judge in config.judges.items() if judge.path != POLICY and judge.kind != "reward"}
    try:
        makers = prepare_judges(EvalConfig(judges=others, generate=Generate()), model, allow=allow, ledgers=ledgers)
    except RunError as error:
        raise RunError(str(error).replace("eval.judges", f"{where}.judges")) from None
    for name, judge in config.judges.items():
        log_odds = config.of == "log_odds"
        if judge.kind == "reward":
            found.append(By(name, "reward", _reward(where, str(judge.reward), judge.options or {}, allow)))
        elif judge.path == POLICY:
            found.append(By(name, "judge", _itself(f"{where}.judges.{name}", judge, policy), log_odds))
        elif judge.kind in GIVE_REWARDS:
            found.append(By(name, "reward", _of_model(makers[name])))
        else:
            found.append(By(name, "judge", makers[name], log_odds))
    if config.column:
        column = config.column
        found.append(By(column, "column", lambda: column))
    return found


def refuse_missing(config: ScoreConfig, names: Collection[str], where: str) -> None:
    """Refuse rows that lack a column which a reward reads.

    Raises:
        DataError: Naming the column.
    """
    named = [(name, options or {}) for name, options in config.rewards.items()]
    named += [(str(j.reward), j.options or {}) for j in config.judges.values() if j.kind == "reward"]
    for name, options in named:
        for column in columns_of(name, **options):
            if column not in names:
                raise DataError(
                    f"{where}: no column {column!r}, which the reward {name!r} reads; there are {', '.join(names)}"
                )


def _reward(where: str, name: str, options: dict[str, Any], allow: Sequence[str]) -> Callable[[], Any]:
    reward = reward_of_texts(where, name, options, allow, unseen="a file of answers does not hold")
    return lambda: reward


def _of_model(make: Callable[[], Any]) -> Callable[[], Any]:
    def made() -> Any:
        model = make()

        def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Sequence[Any]) -> list[float]:
            texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
            return model.score(prompts[0], texts, **{name: values[0] for name, values in columns.items()}).tolist()

        return reward

    return made


def _itself(where: str, judge: JudgeConfig, policy: Callable[[], Use] | None) -> Callable[[], Judge]:
    if judge.kind != "language_model":
        raise RunError(f"{where}: path: policy is for kind language_model, got {judge.kind}")
    if policy is None:
        raise RunError(f"{where}: which policy is to judge? name it with --policy")

    def made() -> Judge:
        use = policy()
        return language_model_judge(judge, use.model, load_tokenizer(use.settings))

    return made

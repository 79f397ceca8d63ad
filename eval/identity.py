"""Says what a report is about: which weights of which run, which data, which settings; so that no other is taken for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from align.data.kept import data_digest
from align.errors import RunError
from align.files import digest_of, sha256
from align.going_on import finished_run
from align.recipe.loading import Recipe
from align.results import WEIGHTS
from align.runs.contents import RECIPE_FILE, result_of
from align.runs.identity import settings_of

ANYWHERE = ("train.use_cpu", "train.bf16")  # another machine reads a report of this one


def identity_of_policy(name: str) -> dict[str, Any]:
    """Run, step and digest of the weights of a run directory; of a folder with a model or adapter, its weights alone.

    Raises:
        RunError: If it is a run that has not finished.
    """
    folder = Path(name)
    if not (folder / RECIPE_FILE).is_file():
        return {"weights": _files(folder)}
    of_directory, found = finished_run(folder)
    result = result_of(folder)
    return {"run": of_directory.run, "step": found["step"], "weights": result and _files(result)}


def _files(folder: Path) -> str | None:
    files = {p.name: sha256(p) for p in folder.glob("*") if p.is_file() and p.name.endswith(WEIGHTS)}
    return digest_of(files) if files else None


def check_unchanged(name: str, identity: Mapping[str, Any]) -> None:
    """Make sure that a policy is still what was evaluated, before a report is written beside it.

    Raises:
        RunError: If it is not.
    """
    if not identity:
        return
    try:
        same = identity_of_policy(name) == identity
    except RunError:
        same = False
    if not same:
        raise RunError(f"{name}: was trained anew while it was evaluated; no report is written: evaluate it again")


def measured(recipe: Recipe, sets: Mapping[str, Dataset], prompt_sets: Mapping[str, Any]) -> dict[str, Any]:
    """Digests of the data and the settings of an evaluation."""
    trained = {key: value for key, value in settings_of(recipe).items() if key not in ANYWHERE}
    settings = {"trained": trained, "eval": _plain(recipe.eval), "rewards": recipe.rewards}
    data = {name: data_digest(dataset)["sha256"] for name, dataset in sets.items()}
    found = {"data": data, "prompt_sets": digest_of(_plain(dict(prompt_sets))), "settings": digest_of(settings)}
    return found | weights_of_judges(recipe)


def weights_of_judges(recipe: Recipe) -> dict[str, Any]:
    """Digests of judges that are models of this disk, as `judges`; empty without such: one may be trained anew in its place."""
    folders = {name: Path(judge.path) for name, judge in recipe.eval.judges.items() if judge.path is not None}
    for name, judge in recipe.eval.judges.items():
        folders |= {f"{name}/{k}": Path(path) for k, path in enumerate(judge.paths or ())}
    weights = {name: _files(folder) for name, folder in folders.items() if folder.is_dir()}
    return {"judges": weights} if weights else {}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return _plain(vars(value)) if hasattr(value, "__dict__") else value


def other_than(report: Mapping[str, Any], identity: Mapping[str, Any], what: Mapping[str, Any]) -> list[str]:
    """In which parts a report.json is not about a policy and an evaluation; `weights`, `data`, `settings` and so on."""
    settings = report.get("settings")
    about = settings.get("about") if isinstance(settings, Mapping) else None
    if not isinstance(about, Mapping) or not isinstance(about.get("policies"), Mapping):
        return ["weights, data and settings that it does not name"]
    policy = about["policies"].get(report.get("name"))
    known = policy if isinstance(policy, Mapping) else {}
    differ = [key for key, value in identity.items() if known.get(key) != value]
    return differ + [key.replace("_", " ") for key, value in what.items() if about.get(key) != value]

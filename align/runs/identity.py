"""Says which run something is of, and what determines its numbers, so that nothing is taken for another run's.

A run gets an id at its first start. Id, settings, and digests of training data, weights, tokenizer and reference stand in
`env.json`, in every checkpoint's manifest, beside the adapter or model, and in reports.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from align.files import digest_of, plain_json, sha256
from align.findings import printable
from align.own_code import digests

HARMLESS_BEGINNINGS = ("save_", "logging_", "log_", "hub_", "push_to_hub", "dataloader_num", "dataloader_p", "ddp_")
HARMLESS = (
    "output_dir", "report_to", "run_name", "project", "trackio_space_id", "trackio_bucket_id", "disable_tqdm",
    "skip_memory_metrics", "resume_from_checkpoint", "restore_callback_states_from_checkpoint", "max_skipped_steps",
    "local_rank", "dataset_num_proc", "num_completions_to_print", "enable_jit_checkpoint", "trackio_static_space_id",
)  # fmt: skip
"""Fields of `train` that change no number of a run: where and what it writes. All others are taken to change some."""
LENGTH = ("train.max_steps", "train.num_train_epochs")
"""May be raised: the run then goes on to the new end, on the new schedule from there."""
NAMED_ELSEWHERE = ("model_name_or_path", "model_revision")  # the digest of the weights says what they led to
PLACES = ("path", "adapter", *NAMED_ELSEWHERE)
NOT_SAID = "(not said)"
SHOWN = 60


class Difference(NamedTuple):
    """One thing that a run and what would go on with it do not have in common."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


@dataclass(frozen=True)
class Identity:
    """What a run is. A part that is not known, in what an earlier version wrote, is None or empty, and not compared."""

    run: str | None = None
    """The id, which begins with the time of the first start, so that later ones sort after earlier ones."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Dotted key to value of all that determines the numbers, defaults included."""
    data: dict[str, Any] | None = None
    """Rows and sha256 of the training set."""
    weights: str | None = None
    """Digest of the weights that training starts from, without a fresh adapter's."""
    tokenizer: str | None = None
    reference: dict[str, Any] | None = None
    judge: str | None = None
    """Digest of the weights of the model that judges, where one does."""

    @property
    def recipe(self) -> str | None:
        """Digest of the settings."""
        return digest_of(self.settings) if self.settings else None

    def as_json(self) -> dict[str, Any]:
        """As it is written."""
        return {**asdict(self), "recipe": self.recipe}


def identity_from(found: Any) -> Identity:
    """What `as_json` gave; unknown where there is none.

    Raises:
        ValueError: If it is something else.
    """
    if found is None:
        return Identity()
    parts = {key: found.get(key) for key in ("run", "data", "weights", "tokenizer", "reference", "judge")}
    kinds = {"run": str, "data": dict, "weights": str, "tokenizer": str, "reference": dict, "judge": str}
    settings = found.get("settings") or {}
    if not isinstance(settings, dict) or any(v is not None and not isinstance(v, kinds[k]) for k, v in parts.items()):
        raise ValueError("no identity of a run")
    return Identity(settings=settings, **parts)


def new_run_id() -> str:
    """Of a run that starts now."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"


def settings_of(recipe: Any) -> dict[str, Any]:
    """Dotted key to value of what in a recipe determines the numbers of its run, defaults included, paths left out.

    Where data and weights lie says nothing; what they are has digests of its own.
    """
    model = {key: value for key, value in vars(recipe.model).items() if key not in NAMED_ELSEWHERE}
    sections: dict[str, Any] = {"model": model, "lora": recipe.lora and recipe.lora.to_dict()}
    flat: dict[str, Any] = {"method": recipe.method, "ref.kind": recipe.ref.kind, "lora": recipe.lora is not None}
    if recipe.rewards:
        flat["rewards"] = recipe.rewards
    for kind, named in (("tools", recipe.tools), ("environments", recipe.environments)):
        if named:
            flat[kind] = {name: _told_of(options) for name, options in named.items()}
    if recipe.judge is not None:
        flat["judge"] = {key: value for key, value in vars(recipe.judge).items() if value is not None and key != "path"}
    if digests():
        flat["own_code"] = digests()
    for name, values in sections.items():
        flat |= {f"{name}.{key}": value for key, value in (values or {}).items()}
    return settings_of_args(recipe.train) | json.loads(json.dumps(flat, default=plain_json, sort_keys=True))


def settings_of_args(args: Any) -> dict[str, Any]:
    """The same of a trainer's arguments alone."""
    train = {f"train.{key}": value for key, value in args.to_dict().items() if not _harmless(key)}
    return json.loads(json.dumps(train, default=plain_json, sort_keys=True))


def _told_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a tool, and what is in the file that it reads in the place of where that lies."""
    told = {key: value for key, value in options.items() if key != "path"}
    path = Path(str(options.get("path", "")))
    return told | ({"sha256": sha256(path)} if path.is_file() else {})


def written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted key to value of what a recipe says of a training itself.

    What it evaluates and expects is left out, and what changes no number.
    """
    said = {name: value for name, value in values.items() if name not in ("eval", "expect")}
    flat = {key: value for key, value in _flat("", said) if not _says_no_number(key)}
    return json.loads(json.dumps(flat, default=plain_json, sort_keys=True))


def rewritten(old: Mapping[str, Any], new: Mapping[str, Any], *, places: bool = True) -> list[Difference]:
    """What one recipe says otherwise than another, also by saying nothing; both from `written`.

    Args:
        old: The one.
        new: The other.
        places: Whether the places of data and models count.
    """
    return [
        Difference(key, old.get(key, NOT_SAID), new.get(key, NOT_SAID))
        for key in sorted({*old, *new})
        if old.get(key, NOT_SAID) != new.get(key, NOT_SAID) and (places or key.rpartition(".")[2] not in PLACES)
    ]


def differences(old: Identity, new: Identity) -> list[Difference]:
    """What a run was, and what would go on with it, as far as both are known; its length, raised, is none."""
    found = [Difference("run", old.run, new.run)] if old.run and new.run and old.run != new.run else []
    found += [
        Difference(key, old.settings[key], new.settings[key])
        for key in sorted(old.settings.keys() & new.settings.keys())
        if old.settings[key] != new.settings[key]
        and not _raised(key, old.settings, new.settings)
        and not _says_nothing(key, old.settings, new.settings)
    ]
    if old.data and new.data and old.data.get("sha256") != new.data.get("sha256"):
        found.append(
            Difference(
                "data.train", *(f"{d.get('rows')} rows, {str(d.get('sha256'))[:12]}" for d in (old.data, new.data))
            )
        )
    for key in ("weights", "tokenizer", "judge"):
        one, other = getattr(old, key), getattr(new, key)
        if one and other and one != other:
            found.append(Difference(key, one[:12], other[:12]))
    return found


def lengthened(old: Identity, new: Identity) -> list[Difference]:
    """How the run is made longer."""
    one, other = old.settings, new.settings
    return [
        Difference(key, one[key], other[key])
        for key in LENGTH
        if key in one and key in other and _raised(key, one, other) and not _says_nothing(key, one, other)
    ]


def told(found: Sequence[Difference]) -> str:
    """Differences as lines of a message."""
    return "\n".join(f"  {difference}" for difference in found)


def _flat(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            yield from _flat(f"{key}.{name}" if key else str(name), each)
    else:
        yield key, value


def _says_no_number(key: str) -> bool:
    section, _, name = key.partition(".")
    return key.startswith("data.eval.") or (section == "train" and _harmless(name))


def _harmless(key: str) -> bool:
    return key in HARMLESS or key.startswith(HARMLESS_BEGINNINGS)


def _raised(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    try:
        return key in LENGTH and 0 < old[key] < new[key]
    except TypeError:
        return False


def _says_nothing(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Epochs, where steps decide how long a run is."""
    return key == "train.num_train_epochs" and min(s.get("train.max_steps") or 0 for s in (old, new)) > 0


def _shown(value: Any) -> str:
    return printable(value if isinstance(value, str) else json.dumps(value, default=str), SHOWN)

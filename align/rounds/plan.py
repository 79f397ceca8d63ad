"""Says of every round what its stages read and write, and with which settings; nothing here loads weights."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import yaml

from align.data.split import prompt_position
from align.errors import DataError
from align.files import write_text
from align.methods import METHODS
from align.recipe.loading import Recipe, load_recipe
from align.recipe.rounds import by_round

RECIPE = "recipe.yaml"
TRAINED = "train"
FIRST = "first"
NOT_OF_A_ROUND = ("rounds", "data", "eval", "expect", "lora", "peft", "start", "ref")


class Place(NamedTuple):
    """Where the files of a round are."""

    run: Path
    number: int
    """From 1."""

    @property
    def folder(self) -> Path:
        """Of the round."""
        return self.run / f"round-{self.number}"

    @property
    def prompts(self) -> Path:
        """The round's prompts."""
        return self.folder / "prompts.jsonl"

    def answers(self, who: str) -> Path:
        """What one of them answered."""
        return self.folder / "answers" / f"{who}.jsonl"

    @property
    def scores(self) -> Path:
        """All answers with their scores."""
        return self.folder / "scores.jsonl"

    @property
    def pairs(self) -> Path:
        """The pairs that are made of them."""
        return self.folder / "pairs.jsonl"

    @property
    def mixed(self) -> Path:
        """The pairs that are trained on, where earlier rounds give some."""
        return self.folder / "mixed.jsonl"

    @property
    def recipe(self) -> Path:
        """Of the round's training."""
        return self.folder / RECIPE

    @property
    def trained(self) -> Path:
        """The round's run directory."""
        return self.folder / TRAINED

    @property
    def weights(self) -> Path:
        """What the round trained."""
        return self.trained / ("adapter" if (self.trained / "adapter").is_dir() else "model")

    def before(self) -> "Place":
        """The round before."""
        return Place(self.run, self.number - 1)


def prompt_key(row: Mapping[str, Any]) -> str:
    """What tells the prompt of a row from others."""
    return json.dumps(row["prompt"], sort_keys=True)


def round_prompts(recipe: Recipe, rows: Sequence[Mapping[str, Any]], number: int) -> list[dict[str, Any]]:
    """The prompts of a round: all, or a slice that no other round has. A prompt that is there twice counts once.

    Raises:
        DataError: If there are too few for all rounds.
    """
    rounds: Any = recipe.rounds
    every = list({prompt_key(row): dict(row) for row in reversed(rows)}.values())[::-1]
    if rounds.prompts == "all":
        return every
    each, count = rounds.prompts.each, rounds.count
    if each * count > len(every):
        raise DataError(
            f"rounds.prompts.each: {count} rounds of {each} need {each * count} different prompts, and data.train has "
            f"{len(every)}; ask for at most {len(every) // count}, or for all"
        )
    ordered = sorted(every, key=lambda row: prompt_position([recipe.train.seed, row["prompt"]]))
    return ordered[each * (number - 1) : each * number]


def round_recipe(recipe: Recipe, place: Place) -> dict[str, Any]:
    """The recipe of a round's training: an ordinary one, on the round's pairs."""
    rounds: Any = recipe.rounds
    method = METHODS[recipe.method]
    raw = {name: copy.deepcopy(value) for name, value in recipe.raw.items() if name not in NOT_OF_A_ROUND}
    raw["model"] = dict(raw["model"])
    raw |= _model_and_reference(recipe, place, raw["model"])
    source = place.mixed if mixes(recipe, place) else place.pairs
    raw["data"] = {"train": {"path": str(source)}}
    values: Any = recipe.raw["train"]
    raw["train"] = dict(by_round(values, method.config, rounds.count, place.number)) | {"output_dir": TRAINED}
    return raw


def mixes(recipe: Recipe, place: Place) -> bool:
    """Whether a round is trained on more than its own."""
    rounds: Any = recipe.rounds
    return place.number > 1 and bool(rounds.keep.shares() or rounds.in_context)


def _model_and_reference(recipe: Recipe, place: Place, model: dict[str, Any]) -> dict[str, Any]:
    """`lora`, `peft` or `start`, and `ref`, of a round; without adapters `model` is changed."""
    rounds: Any = recipe.rounds
    begins = {name: recipe.raw[name] for name in ("lora", "peft", "start") if recipe.raw.get(name) is not None}
    ref = dict(recipe.raw.get("ref") or {"kind": "base"})
    own_ref = recipe.raw.get("ref") is not None
    first_round = place.number == 1
    if not recipe.trains_adapter:
        whole = str(place.before().trained / "model")
        if not first_round and rounds.reference == "previous":
            ref = {"kind": "model", "path": whole}
        elif not own_ref and not first_round:
            ref = {"kind": "model", "path": model["model_name_or_path"]}
        if not first_round and rounds.start == "previous":
            model["model_name_or_path"] = whole
        if ref.get("path") == model["model_name_or_path"]:
            ref = {"kind": "base"}
        return {"ref": ref} if METHODS[recipe.method].compares_with_any_reference else {}
    started = (
        recipe.start.adapter if recipe.start is not None else recipe.ref.path if recipe.ref.kind == "adapter" else None
    )
    if rounds.reference == "previous":
        if not first_round:
            ref = {"kind": "adapter", "path": str(place.before().trained / "adapter")}
        elif recipe.start is not None and not own_ref:
            ref = {"kind": "adapter", "path": started}
    if rounds.start == "previous" and not first_round:
        begins = {"start": {"adapter": str(place.before().trained)}}
    elif started is not None:
        begins = {"start": {"adapter": started}}
    elif rounds.start == "first" and rounds.reference == "previous":
        begins = {"start": {"adapter": str(place.run / FIRST)}}
    return begins | {"ref": ref}


def needs_first_adapter(recipe: Recipe) -> bool:
    """Whether a new adapter is written to disk, so that each round begins with the same."""
    rounds: Any = recipe.rounds
    new = recipe.lora is not None and recipe.start is None
    return new and rounds.count > 1 and rounds.start == "first" and rounds.reference == "previous"


class Training(Protocol):
    """One training of a run of several."""

    @property
    def run(self) -> Path:
        """The run directory of all."""
        ...

    @property
    def recipe(self) -> Path:
        """The file of its recipe."""
        ...

    @property
    def trained(self) -> Path:
        """Its run directory."""
        ...


HEAD, AND = ": alignkit train ", " train.output_dir="
"""Of the first line of a training's recipe, which says the command."""


def write_recipe(place: Training, title: str, values: Mapping[str, Any]) -> None:
    """The file of a training's recipe."""
    head = f"# {title}{HEAD}{place.recipe}{AND}{place.trained}\n"
    write_text(place.recipe, head + yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True))


def load_training(place: Training) -> Recipe:
    """The recipe of a training, which is read from its file."""
    return load_recipe(place.recipe, words_here(place))


def words_here(place: Training) -> list[str]:
    """What is said to a training's recipe: where it writes, and where files of the run are that it names.

    It names them as they were called when it was written. The run may have been moved since, or be called from elsewhere.
    """
    text = place.recipe.read_text(encoding="utf-8")
    named = text.partition("\n")[0].partition(HEAD)[2].rpartition(AND)[0]
    own = str(place.recipe.relative_to(place.run))
    words = [f"train.output_dir={place.trained}"]
    before = named.removesuffix(f"/{own}")
    if before in (named, str(place.run)):
        return words
    return words + [
        f"{key}={json.dumps(str(place.run) + value.removeprefix(before))}"
        for key, value in _strings("", yaml.safe_load(text))
        if value.startswith(f"{before}/") and key != "train.output_dir"
    ]


def _strings(key: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from _strings(f"{key}.{name}" if key else str(name), each)
    elif isinstance(value, str):
        yield key, value

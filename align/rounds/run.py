"""Runs the rounds of a recipe, stage by stage, and goes on wherever it was stopped."""

import inspect
import logging
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import PartialState
from peft import get_peft_model
from transformers import set_seed

from align.data import load_data
from align.data.commands.pairs import SELECTORS
from align.data.loading import Loaded
from align.errors import RunError
from align.files import digest_of
from align.judges.from_scores import refuse_missing, scorers_of
from align.models.folders import write_in_order
from align.models.loading import load_model
from align.recipe.loading import Recipe
from align.recipe.rounds import SelectConfig
from align.runs.contents import CONTEXT_FILE, RECIPE_FILE, REPORT_FILE, ROUNDS_FILE, WRITING, exchange
from align.runs.identity import Difference
from align.sampling.vllm_engine import VLLM, check_model

from .begin import BY_ROUND, Stage, begin, directory_of
from .drift import drift_stage
from .in_context import original_rows
from .ledger import Ledger
from .plan import FIRST, Place, load_training, mixes, needs_first_adapter, round_prompts, round_recipe, write_recipe
from .report import reward_bounds, round_report, write_page
from .stages import answer_files, answerer, mix_stage, mixed_from, pairs_stage, prompts_stage, sample_stage, score_stage
from .validation import best_round, compared_by, validation_rows

logger = logging.getLogger(__name__)
Train = Callable[..., Any]
Rows = list[dict[str, Any]]
MAY_CHANGE = ("rounds.count", "rounds.take")
UNTIL = {"scores": ("rounds.score.", "own_code."), "pairs": ("rounds.select.",)}
"""Beginnings of keys that may change until a first stage of that name is done."""


def other_rounds(found: list[Difference], done: Collection[Stage]) -> list[Difference]:
    """Of what a recipe says otherwise, what would have made other rounds of those that are there.

    How many there are may change, and with it numbers by round, where they are the same for the rounds that both have. Before
    the first scores are there, how they are made may change, and likewise how pairs are.

    Args:
        found: What it says otherwise.
        done: Stages that are done.
    """
    counts = next(([int(d.old), int(d.new)] for d in found if d.key == "rounds.count"), None)
    stages = {stage for _, stage in done}
    free = tuple(begins for stage, of in UNTIL.items() if stage not in stages for begins in of)
    found = [d for d in found if d.key not in MAY_CHANGE and not d.key.startswith(free)]
    return [d for d in found if not _alike(d, min(counts) if counts else None)]


def _alike(said: Difference, both: int | None) -> bool:
    """Whether numbers by round are the same for so many rounds; None for as many as they are by."""
    ends = [one if isinstance(one, list) else [one] for one in (said.old, said.new)]
    if not BY_ROUND.fullmatch(said.key) or not all(isinstance(x, int | float) for each in ends for x in each):
        return False
    both = max(map(len, ends)) if both is None else both
    one, other = ((each * both if len(each) == 1 else each)[:both] for each in ends)
    return one == other


def check_rounds(
    recipe: Recipe, allow: Collection[str] = (), *, sets: Loaded | None = None, scorers: bool = True
) -> tuple[Rows, Rows]:
    """The prompts of a recipe with rounds, once all that can be known of its rounds is in order, and those that rounds are compared by.

    Args:
        recipe: With `rounds`.
        allow: As for `align.train.run`.
        sets: The prompts, where they are read already.
        scorers: Whether to look at the scorers, too.

    Raises:
        DataError: If prompts cannot be used, lack a column that a reward reads, or are too few.
        RunError: If a scorer cannot be made, or may not be asked.
    """
    rounds: Any = recipe.rounds
    _refuse_beyond(rounds.select, reward_bounds(rounds.score)[1])
    sets = sets or load_data(recipe.data, rows="prompts")
    rows = sets.train.to_list()
    round_prompts(recipe, rows, rounds.count)
    if scorers:
        where: dict[str, Any] = {"where": "rounds.score", "allow": list(allow), "ledgers": Path(".")}
        scorers_of(rounds.score, recipe.model, **where, policy=answerer_later)
    refuse_missing(rounds.score, rows[0], "data.train")
    compared = validation_rows(recipe, rounds.score, sets.eval) if rounds.take == "best" else []
    if rounds.in_context is not None:
        original_rows(recipe)
    gold = rounds.sample.gold
    without = [
        n for n, row in enumerate(rows, start=1) if gold and not (isinstance(row.get(gold), str) and row[gold].strip())
    ]
    if without:
        raise RunError(
            f"rounds.sample.gold: no text in the column {gold!r} of {len(without)} rows (first: {without[0]})"
        )
    return rows, compared


def _refuse_beyond(select: SelectConfig, most: float) -> None:
    """Refuse a rule that wants more of the chosen than any score is."""
    wanted = inspect.signature(SELECTORS[select.rule]).parameters.get("min_reward")
    if wanted is None:
        return
    least = wanted.default if select.min_reward is None else select.min_reward
    if least > most:
        unsaid = " unless said otherwise" if select.min_reward is None else ""
        raise RunError(
            f"rounds.select.min_reward: the rule {select.rule!r} wants a chosen answer of at least {least:g}{unsaid}, and no score "
            f"is above {most:g}; ask for less"
        )


def answerer_later() -> Any:
    """Stands for the policy where scorers are looked at and not made."""
    raise RuntimeError("the policy is not there yet")


def run_rounds(
    recipe: Recipe,
    train: Train,
    *,
    resume: bool,
    overwrite: bool = False,
    sets: Loaded | None = None,
    allow: Collection[str] = (),
    vllm: VLLM | None = None,
) -> Any:
    """All rounds. The run directory is claimed already.

    Args:
        recipe: With `rounds`.
        train: `align.train.run`, for the training of each round.
        resume: Whether to go on in a run that is there.
        overwrite: Delete the run that is there, once recipe and data are known to work.
        sets: The prompts, where they are read already.
        allow: As for `align.train.run`.
        vllm: Samples the answers in the models' place.

    Returns:
        What the last training returned.

    Raises:
        RunError: If a stage yields nothing, or the run that is there is another's.
    """
    rounds: Any = recipe.rounds
    run = directory_of(recipe)
    if vllm is not None:
        check_model(recipe)
    rows, compared = check_rounds(recipe, allow, sets=sets)
    by = {"data.train": digest_of(rows)[:12], **(compared_by(recipe, compared) if compared else {})}
    ledger = begin(recipe, "rounds", ROUNDS_FILE, resume=resume, overwrite=overwrite, refused=other_rounds, compared=by)
    state = PartialState()
    if state.is_main_process and needs_first_adapter(recipe) and not (run / FIRST).is_dir():
        _write_first_adapter(recipe, run / FIRST)
    state.wait_for_everyone()
    finished = None
    for number in range(1, rounds.count + 1):
        finished = _round(recipe, Place(run, number), ledger, rows, train, allow, vllm)
    taken = Place(run, rounds.count) if rounds.take == "last" else best_round(recipe, run, ledger, allow, vllm)
    if state.is_main_process:
        if taken.number:
            _take(taken.weights, run)
        else:
            logger.warning("no round is better than what the first began with, whose adapter is taken")
            _take(_beginning(recipe, run), run)
        write_page(recipe, run)
        if rounds.in_context is not None:
            shutil.copyfile(Place(run, rounds.count).folder / CONTEXT_FILE, run / CONTEXT_FILE)
    state.wait_for_everyone()
    return finished


def _round(
    recipe: Recipe,
    place: Place,
    ledger: Ledger,
    rows: list[dict[str, Any]],
    train: Train,
    allow: Collection[str],
    vllm: VLLM | None,
) -> Any:
    rounds: Any = recipe.rounds
    n = place.number
    logger.warning("round %d of %d", n, rounds.count)
    place.folder.mkdir(parents=True, exist_ok=True)
    if PartialState().is_main_process and not _recipe_is_there(recipe, place):
        write_recipe(place, f"Round {place.number}", round_recipe(recipe, place))
    PartialState().wait_for_everyone()
    ledger.stage(n, "prompts", [], [place.prompts], lambda: prompts_stage(recipe, rows, place))
    files = answer_files(recipe, place)
    for path in files if rounds.in_context is None or n > 1 else ():  # the first learns from given answers
        ledger.stage(
            n,
            f"answers-{path.stem}",
            [place.prompts],
            [path],
            lambda path=path: sample_stage(recipe, place, path.stem, vllm),
        )
    if rounds.max_kl is not None:
        ledger.stage(n, "drift", [place.answers("policy")], [], lambda: drift_stage(recipe, place, vllm))
    ledger.stage(n, "scores", files, [place.scores], lambda: score_stage(recipe, place, allow))
    ledger.stage(n, "pairs", [place.scores], [place.pairs], lambda: pairs_stage(recipe, place))
    source = place.pairs
    if mixes(recipe, place):
        source = place.mixed
        ledger.stage(n, "mixed", mixed_from(recipe, place), [source], lambda: mix_stage(recipe, place))
    trained: list[Any] = []

    def learn() -> dict[str, Any]:
        begun = (place.trained / RECIPE_FILE).is_file()
        trained.append(train(load_training(place), resume="auto" if begun else None, allow=allow))
        return {"steps": trained[-1].trainer.state.global_step}

    outputs = [place.trained / "adapter" if recipe.trains_adapter else place.trained / "model"]
    ledger.stage(n, "train", [source, place.recipe], outputs, learn)
    ledger.stage(n, "report", [place.scores], [place.folder / REPORT_FILE], lambda: round_report(recipe, place))
    return trained[0] if trained else None


def _recipe_is_there(recipe: Recipe, place: Place) -> bool:
    """Whether the recipe of a round is written, with the code that is there now if nothing was trained by it."""
    if not place.recipe.is_file():
        return False
    said = yaml.safe_load(place.recipe.read_text(encoding="utf-8"))
    return (place.trained / RECIPE_FILE).is_file() or said.get("own_code") == recipe.raw.get("own_code")


def _write_first_adapter(recipe: Recipe, folder: Path) -> None:
    """A new adapter, with which each round begins."""
    set_seed(recipe.train.seed)
    model: Any = get_peft_model(load_model(recipe.model), recipe.lora)  # type: ignore[arg-type]
    scratch = folder.with_name(f".{folder.name}")
    with torch.no_grad():
        model.save_pretrained(str(scratch))
    write_in_order(scratch)
    scratch.rename(folder)


def _beginning(recipe: Recipe, run: Path) -> Path:
    """The adapter that the first round began with."""
    started = answerer(Place(run, 1)).adapter
    if started is None and not (run / FIRST).is_dir():
        _write_first_adapter(recipe, run / FIRST)
    return Path(started) if started is not None else run / FIRST


def _take(weights: Path, run: Path) -> None:
    """The weights of a round as the run's."""
    name = "model" if weights.name == "model" else "adapter"
    scratch = run / f"{WRITING}{name}"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(weights, scratch)
    exchange(scratch, run / name)

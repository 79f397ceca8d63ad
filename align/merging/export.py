"""Folds what a run trained into its base, for `alignkit export`: a model that transformers and vLLM load as it is."""

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from align.data.prompts import Prompt
from align.errors import RunError
from align.files import check_writable, is_local, new_folder, write_text
from align.findings import printable
from align.models.loading import another_model, load_tokenizer, model_path
from align.models.start import made_by
from align.models.stopping import stop_ids
from align.models.use import Model
from align.own_code import allow_file_argument
from align.runs.contents import CARD
from align.sampling.generate import Decoding, generate
from align.sampling.policy import Policy, policy_of
from align.scoring.completions import prompt_ids

from .gguf import CONVERTER, GGUF_FILE, MODELFILE, find_converter, read_gguf, write_gguf

logger = logging.getLogger(__name__)

EXPORT_FILE = "export.json"
DTYPES = ("float32", "bfloat16", "float16")
QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "List three colours.",
    "How do I boil an egg?",
    "Name a planet, and say why it is known.",
    "What is two plus two?",
    "Why is the sky blue?",
    "Say hello in two languages.",
)
NEW_TOKENS = 32
APART = 0.01  # nats; float32 alone puts folded and unfolded weights less than a tenth of this apart


def export(
    name: str, out: str | Path, *, dtype: str | None = None, converter: list[str] | None = None
) -> dict[str, Any]:
    """Write a run's policy as one model: adapter folded into the base, tokenizer, template, generation settings, card.

    The fold is done in float32, W + ΔW, and rounded once, to `dtype`. It is compared with adapter and base on a few prompts,
    and what was written is loaded again and asked for greedy answers.

    Args:
        name: As `align.sampling.policy.policy_of` has it: the directory of a run, or an adapter's folder.
        out: A folder that is not there yet.
        dtype: Of the weights that are written; by default that of the model in the recipe.
        converter: Makes a GGUF file of them besides, as `align.merging.gguf.find_converter` gives it.

    Returns:
        What `OUT/export.json` holds.

    Raises:
        RunError: If `out` is there, the base's files are quantised, the adapter is not what its run wrote, or the folded
            model is not the policy; or if there is no GGUF file to be had, where the model itself is written.
    """
    out = Path(out)
    if out.exists():
        raise RunError(f"{out}: is there already, and nothing is written over; name another folder")
    check_writable(out, folder=True)
    policy = policy_of(name)
    made = made_by(Path(policy.adapter)) if policy.adapter is not None else {}
    settings, quantised = _plain(policy)
    stored = AutoConfig.from_pretrained(model_path(settings), revision=settings.model_revision, trust_remote_code=False)
    if getattr(stored, "quantization_config", None) is not None:
        raise RunError(
            f"{settings.model_name_or_path}: its files hold quantised weights, into which nothing can be folded; serve the "
            "adapter beside it, or name the model they were made of: --dtype and model.model_name_or_path"
        )
    if quantised:
        logger.warning(
            "the adapter was trained on %s weights; it is folded into the full ones, on which its answers may differ",
            quantised,
        )
    chosen = dtype or _named(settings.dtype) or _named(stored.dtype) or "float32"
    tokenizer = _tokenizer(policy)
    model: Any = policy._replace(settings=settings).load().model
    model.float()
    asked = _prompts(tokenizer)
    before, answers = _log_probabilities(model, tokenizer, asked), _greedy(model, tokenizer, asked)
    if policy.adapter is not None:
        model = model.merge_and_unload(safe_merge=True)
    apart = max(
        float((a - b).abs().max()) for a, b in zip(before, _log_probabilities(model, tokenizer, asked), strict=True)
    )
    if not apart < APART:
        raise RunError(
            f"{name}: folded into the base it is another model: log-probabilities differ by up to {apart:.3g} nats; it adapts "
            "what the base uses twice, such as tied embeddings: serve the adapter as it is"
        )
    _say_where_answers_end(model, tokenizer)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as folder:
        model.to(getattr(torch, chosen)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        del model
        again = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False).eval()
        read = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        same = [a == b for a, b in zip(answers, _greedy(again, read, asked), strict=True)]
        base = str(policy.settings.model_name_or_path)
        record = {
            **made,
            "base": Path(base).name if is_local(base) else base,
            "revision": policy.settings.model_revision,
            "dtype": chosen,
            "trained_on": quantised or "full weights",
            "largest_difference_nats": apart,
            "greedy": {"prompts": len(asked), "tokens": sum(map(len, answers)), "same": sum(same)},
        }
        write_text(folder / EXPORT_FILE, json.dumps(record, indent=1) + "\n")
        write_text(folder / CARD, _card(Path(name), record))
    if converter is not None:
        file = write_gguf(out, converter, chosen)
        again = read_gguf(file)
        same = None if again is None else sum(a == b for a, b in zip(answers, _greedy(again, read, asked), strict=True))
        record["gguf"] = {"file": file.name, "same": same}
        write_text(out / EXPORT_FILE, json.dumps(record, indent=1) + "\n")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Fold a run's adapter into its base: a model with tokenizer and card that transformers loads."""
    parser = argparse.ArgumentParser(prog="alignkit export", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("run", metavar="RUN", help="a run, or an adapter's folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--dtype", choices=DTYPES, help="of the weights; default: as model.dtype of the recipe")
    parser.add_argument("--gguf", action="store_true", help=f"also {GGUF_FILE}, by llama.cpp's {CONVERTER}")
    parser.add_argument("--converter", type=Path, metavar="FILE", help=f"with --gguf: {CONVERTER}; default: of PATH")
    allow_file_argument(parser)
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if options.converter is not None and not options.gguf:
        raise RunError("--converter: does nothing without --gguf")
    converter = find_converter(options.converter) if options.gguf else None
    done = export(options.run, options.out, dtype=options.dtype, converter=converter)
    print(f"{options.out}: {done['base']} in {done['dtype']}; {_compared(done)}")  # noqa: T201 - the command line's own
    print(f'load it: AutoModelForCausalLM.from_pretrained("{options.out}"); serve it: vllm serve {options.out}')  # noqa: T201
    if "gguf" in done:
        same = done["gguf"]["same"]
        told = (
            "which was not read back"
            if same is None
            else f"with {same} of {done['greedy']['prompts']} of these answers"
        )
        print(f"{options.out / GGUF_FILE}, {told}; serve it: ollama create NAME -f {options.out / MODELFILE}")  # noqa: T201
    return 0


def _plain(policy: Policy) -> tuple[Any, str | None]:
    """The model section without quantisation, and which there was."""
    settings = policy.settings
    bits = "4-bit" if settings.load_in_4bit else "8-bit" if settings.load_in_8bit else None
    return replace(settings, load_in_4bit=False, load_in_8bit=False), bits


def _named(dtype: Any) -> str | None:
    name = str(dtype or "auto").removeprefix("torch.")
    return name if name in DTYPES else None


def _tokenizer(policy: Policy) -> PreTrainedTokenizerBase:
    """The one that the run saved, with its template; else the base's."""
    saved = policy.adapter is not None and (Path(policy.adapter) / "tokenizer_config.json").is_file()
    return load_tokenizer(another_model(policy.settings, policy.adapter) if saved else policy.settings)


def _prompts(tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    chat = tokenizer.chat_template is not None
    return [[{"role": "user", "content": text}] if chat else text for text in QUESTIONS]


@torch.inference_mode()
def _log_probabilities(model: Model, tokenizer: PreTrainedTokenizerBase, asked: list[Prompt]) -> list[torch.Tensor]:
    """Of every next token, for each prompt: shape (time, vocabulary)."""
    ids = [torch.tensor([prompt_ids(tokenizer, prompt)], device=model.device) for prompt in asked]
    return [model(input_ids=each).logits[0].float().log_softmax(-1) for each in ids]


def _greedy(model: Model, tokenizer: PreTrainedTokenizerBase, asked: list[Prompt]) -> list[list[int]]:
    decoding = Decoding(max_new_tokens=NEW_TOKENS, temperature=0.0)
    answers = generate(model, tokenizer, asked, decoding, batch_size=1, desc="greedy answers")
    return [one.completion_ids for (one,) in answers]


def _say_where_answers_end(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokens that end an answer here into the generation settings: other programs read nothing else."""
    stops = stop_ids(tokenizer, model)
    if stops:
        model.generation_config.eos_token_id = stops[0] if len(stops) == 1 else stops
    model.generation_config.pad_token_id = tokenizer.pad_token_id


def _compared(record: dict[str, Any]) -> str:
    greedy = record["greedy"]
    return (
        f"{greedy['same']} of {greedy['prompts']} greedy answers ({greedy['tokens']} tokens) are those of adapter and base in "
        "float32"
    )


def _card(run: Path, record: dict[str, Any]) -> str:
    own = run / CARD
    said = own.read_text(encoding="utf-8") if own.is_file() else f"# {printable(run.name, 100)}\n"
    trained = "" if record["trained_on"] == "full weights" else f" It was trained on {record['trained_on']} weights."
    return said + (
        f"\n## This model\n\nThe adapter of a run is folded into its base, {printable(record['base'], 200)}, in float32, and "
        f"written in {record['dtype']}.{trained} {_compared(record)}. The base's licence applies to it.\n"
    )

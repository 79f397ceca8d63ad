"""Samples, for `alignkit sample`, answers of a policy to the prompts of a file, written with their prompts."""

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from align.data import DataSource
from align.errors import RunError
from align.files import check_writable, refuse_out, write_rows
from align.findings import printable
from align.own_code import allow_file_argument
from align.sampling.answer_file import KEPT, HowToSample, read_prompts, sample_to_file
from align.sampling.ask import decoding_of, settings_of_flags
from align.sampling.endpoint_answers import endpoint_answers, endpoint_of
from align.sampling.policy import policy_of, refuse_idle
from align.sampling.preferred import context_for, preferences
from align.sampling.vllm_engine import VLLM

logger = logging.getLogger(__name__)


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="alignkit sample", allow_abbrev=False, description=main.__doc__)
    parser.add_argument(
        "policy", help="a run, a recipe (what it begins with), an adapter, a model, or with --model a URL"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of a run or a recipe")
    parser.add_argument(
        "--prompts", required=True, metavar="FILE", help="rows with a prompt; a file, a folder or a hub id"
    )
    parser.add_argument("--split", default="train")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jsonl", help="must not exist")
    parser.add_argument("--ref", action="store_true", help="the reference of the run or recipe answers, in its place")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="answers to each prompt; default: 1")
    parser.add_argument("--temperature", type=float, default=1.0, help="default: 1")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="default: 64")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--batch-size", type=int, default=32, help="answers at a time; default: 32")
    parser.add_argument(
        "--revisions",
        type=int,
        default=0,
        metavar="N",
        help="have each answer revised N times, as SRPO does; default: 0",
    )
    parser.add_argument(
        "--prefer", metavar="NAME=W,...", help="what each reward is worth, for a policy with rewards in context"
    )
    parser.add_argument("--vllm", metavar="PYTHON", help="let the vLLM of this interpreter sample")
    parser.add_argument("--model", help="the endpoint's name of the model; the policy is then the endpoint's URL")
    parser.add_argument("--key-variable", metavar="NAME", help="environment variable that holds the endpoint's key")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="HOST", help="HOST, or with a key NAME@HOST, may be asked"
    )
    allow_file_argument(parser)
    return parser


def main(argv: Sequence[str]) -> int:
    """Sample answers of a policy to the prompts of a file; what was killed goes on where it stopped."""
    options = arguments().parse_intermixed_args(argv)
    if int(os.environ.get("WORLD_SIZE") or 1) > 1 and not torch.accelerator.is_available():
        PartialState(cpu=True)  # which else would take each process of a CPU for the only one
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    check_writable(options.out)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    refuse_out(options.out)
    if options.model is not None:
        return _of_endpoint(options)
    if options.key_variable is not None:
        raise RunError("--key-variable: is an endpoint's, which --model makes the policy; leave it out")
    refuse_idle(options.overrides)
    settings = settings_of_flags(
        samples=options.samples, max_new_tokens=options.max_new_tokens, temperature=options.temperature,
        seed=options.seed, batch_size=options.batch_size, revisions=options.revisions,
    )  # fmt: skip
    vllm = None if options.vllm is None else VLLM.at(options.vllm)
    rows = read_prompts(DataSource(options.prompts, split=options.split))
    policy = policy_of(options.policy, options.overrides, reference=options.ref)
    how = HowToSample(
        decoding_of(settings), settings.samples, settings.batch_size, vllm, settings.revisions, policy.instruction,
        context_for(Path(options.policy), options.prefer and preferences(options.prefer)),
    )  # fmt: skip
    made = sample_to_file(policy, rows, how, options.out, who=options.out.stem)
    _say(f"{options.out}: {made} answers to {len(rows)} prompts")
    return 0


def _of_endpoint(options: argparse.Namespace) -> int:
    idle = [
        f"--{name}" for name in ("ref", "vllm", "revisions", "prefer") if getattr(options, name)
    ] + options.overrides
    if idle:
        raise RunError(f"{idle[0]}: does nothing for an endpoint; leave it out")
    endpoint = endpoint_of(
        options.policy, options.model, options.key_variable, options.allow, what="the prompts",
        temperature=options.temperature, max_tokens=options.max_new_tokens,
    )  # fmt: skip
    rows = read_prompts(DataSource(options.prompts, split=options.split))
    kept = options.out.parent / KEPT / f"{options.out.stem}-endpoint.jsonl"
    kept.parent.mkdir(exist_ok=True)
    answers, failures = endpoint_answers(endpoint, rows, options.samples, kept)
    made = sum(map(len, answers))
    if not made:
        raise RunError(f"{options.policy}: no answer at all; the first failure: {printable(failures[0].error, 300)}")
    write_rows((row | {"completions": given} for row, given in zip(rows, answers, strict=True) if given), options.out)
    said = f"{options.out}: {made} answers to {sum(map(bool, answers))} prompts"
    if failures:
        first = failures[0]
        said += (
            f"; {len(failures)} answers are missing (the first: prompt {first.prompt + 1}, sample {first.sample + 1}: "
            f"{printable(first.error, 300)}); remove the file and ask again: only these are asked"
        )
    _say(said)
    return 0


def _say(text: str) -> None:
    if PartialState().is_main_process:
        print(text)

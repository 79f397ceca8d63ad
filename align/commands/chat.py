"""Talks, for `alignkit chat`, with a policy in a terminal, or with two that answer one after the other."""

import argparse
import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase, TextStreamer

from align.data.prompts import Prompt
from align.errors import RunError
from align.findings import printable
from align.models.loading import load_tokenizer
from align.models.use import Use
from align.own_code import allow_file_argument
from align.sampling.ask import decoding_of, settings_of_flags
from align.sampling.generate import Decoding, streamed
from align.sampling.policy import Policy, policy_of, refuse_idle
from align.scoring.completions import prompt_ids

QUIT, RESET = "/quit", "/reset"
REFERENCE = "ref"


def main(argv: Sequence[str]) -> int:
    """Talk to a run, an adapter or a model; each line is a turn. /reset begins anew, /quit ends it."""
    parser = argparse.ArgumentParser(
        prog="alignkit chat", allow_abbrev=False, description=main.__doc__,
        epilog="Ctrl-C ends an answer, and the chat where none is being written. Without a terminal, lines of stdin are the turns.",
    )  # fmt: skip
    parser.add_argument(
        "policy", metavar="RUN|MODEL", help="a run, a recipe (what it begins with), an adapter or a model"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="of a run or a recipe")
    parser.add_argument(
        "--beside", metavar=f"{REFERENCE}|RUN|MODEL", help=f"who answers too; {REFERENCE}: what the run is held against"
    )
    parser.add_argument("--system", metavar="TEXT", help="the system's message, the first of the conversation")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="of an answer; default: 256")
    parser.add_argument("--temperature", type=float, default=1.0, help="0 takes the most likely token; default: 1")
    parser.add_argument("--seed", type=int, default=0, help="the same words get the same answers; default: 0")
    allow_file_argument(parser)
    options = parser.parse_intermixed_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if any("\ud800" <= letter <= "\udfff" for letter in options.system or ""):
        raise RunError("--system: is not UTF-8 text")
    names = ("max_new_tokens", "temperature", "seed")
    decoding = decoding_of(settings_of_flags(**{name: getattr(options, name) for name in names}))
    refuse_idle(options.overrides)
    policies = {options.policy: policy_of(options.policy, options.overrides)}
    if options.beside == REFERENCE:
        policies[REFERENCE] = policy_of(options.policy, options.overrides, reference=True)
    elif options.beside is not None:
        policies[options.beside] = policy_of(options.beside)
    for name, policy in policies.items():
        if policy.caller is not None:
            raise RunError(
                f"{name}: calls tools, which nobody answers in a chat; let it answer a file with `alignkit sample`"
            )
    if options.beside is not None and (len(policies) < 2 or len({repr(each) for each in policies.values()}) < 2):
        raise RunError(f"--beside: {options.beside} is who answers already; name another, or {REFERENCE}")
    talk([Speaker(name, use, options.system) for name, use in _loaded(policies).items()], decoding)
    return 0


def _loaded(policies: dict[str, Policy]) -> dict[str, Use]:
    """The models; one alone where the second is the first without its adapter."""
    found: dict[str, Use] = {}
    for name, policy in policies.items():
        first = next(iter(found.values()), None)
        if first is not None and first.adapter and not policy.adapter and first.settings == policy.settings:
            found[name] = dataclasses.replace(first, adapter=None, adapters_off=True)
        else:
            found[name] = policy.load()
    return found


class Speaker:
    """A model with its side of the conversation.

    Args:
        name: What it is called.
        use: The model.
        system: The system's message.

    Raises:
        RunError: If there is one, and the tokenizer has no chat template.
    """

    def __init__(self, name: str, use: Use, system: str | None = None) -> None:
        self.name, self.use, self.tokenizer = name, use, load_tokenizer(use.settings)
        self.chats = self.tokenizer.chat_template is not None
        if system is not None and not self.chats:
            raise RunError(f"--system: the tokenizer of {name} has no chat template, so nothing says it; leave it out")
        self.opening = [] if system is None else [{"role": "system", "content": system}]
        self.messages = list(self.opening)

    def answer(self, text: str, decoding: Decoding) -> bool:
        """Write the answer to a turn as it comes, and remember both; False if Ctrl-C ended it.

        Without a chat template the turn is a text to go on with, and nothing is remembered.
        """
        asked = {"role": "user", "content": text}
        prompt: Prompt = [*self.messages, asked] if self.chats else text
        streamer, finished = _Streamer(self.tokenizer), False
        with self.use() as model:
            places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
            length = len(prompt_ids(self.tokenizer, prompt))
            if places is not None and length + decoding.max_new_tokens > places:
                alone = len(prompt_ids(self.tokenizer, [*self.opening, asked])) if self.chats else length
                helps = (
                    RESET if alone + decoding.max_new_tokens <= places else "say less, or a smaller --max-new-tokens"
                )
                _print(
                    f"({length} tokens and an answer of {decoding.max_new_tokens} are more than the model's {places}; {helps})"
                )
                return True
            try:
                finished = streamed(model, self.tokenizer, prompt, decoding, streamer).finished
            except KeyboardInterrupt:
                streamer.end()
                _print("(stopped)")
                return False
            finally:
                if streamer.said:
                    self.messages += [asked, {"role": "assistant", "content": streamer.said}]
        if not finished:
            _print(f"(cut off after --max-new-tokens {decoding.max_new_tokens})")
        return True


class _Streamer(TextStreamer):
    """Prints an answer word by word, without what would steer a terminal, and keeps it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.said = ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Print what will not change any more."""
        self.said += text
        _print("\n".join(printable(line, len(line)) for line in text.split("\n")), "\n" if stream_end else "")


def talk(speakers: Sequence[Speaker], decoding: Decoding) -> None:
    """Have each turn answered by every speaker, until /quit or the end of what is read."""
    for line in _turns():
        if line == QUIT:
            return
        if line == RESET:
            for one in speakers:
                one.messages = list(one.opening)
        elif line.startswith("/"):
            _print(f"(no command; there are {RESET} and {QUIT})")
        elif line.strip():
            for one in speakers:
                if len(speakers) > 1:
                    _print(f"[{printable(one.name)}]")
                if not one.answer(line, decoding):
                    break


def _turns() -> Iterator[str]:
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    import readline  # noqa: F401, PLC0415 - keys that edit the line

    while True:
        try:
            yield input("> ")
        except EOFError:
            _print("")
            return


def _print(text: str, end: Any = "\n") -> None:
    print(text, end=end, flush=True)
